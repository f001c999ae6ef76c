"""Folders against the least that could be done with them: same files, one run.

    python benchmarks/folders.py rescan      20,000 pictures with sidecars, nothing to do; os.walk and os.stat
    python benchmarks/folders.py wildcards   wildcard files from 20,000 sidecars; reading them and json.loads
    python benchmarks/folders.py batch       `fast` over 200 JPEGs of 2 megapixels, tiny encoder; Pillow alone

Each prints one JSON line: both times in seconds, and ours as a multiple of the reference's. Run it on a quiet
machine.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).parent.parent))


def report(
    work: str, reference: Callable[[], Any], ours: Callable[[], Any], goal: float, times: int = 5
) -> None:
    best = [float("inf"), float("inf")]
    for _ in range(times):  # in turns: both meet the same weather
        for place, run in enumerate((reference, ours)):
            started = time.perf_counter()
            run()
            best[place] = min(best[place], time.perf_counter() - started)
    line = {"work": work, "reference_s": round(best[0], 3), "ours_s": round(best[1], 3)}
    print(json.dumps({**line, "times_the_reference": round(best[1] / best[0], 2), "goal": goal}), flush=True)


def filled_folder(root: Path, count: int, modes: list[str]) -> None:
    """Pictures of one byte in folders of a thousand, with sidecars as `batch` writes them."""
    from promptglass.analyzers import Answer
    from promptglass.clip.analyzer import ClipAnalyzer
    from promptglass.sidecar import FileFacts, update

    analyzer = ClipAnalyzer()
    recipes = {mode: analyzer.recipe(mode) for mode in modes}
    for number in range(count):
        folder = root / f"{number // 1000:02}"
        folder.mkdir(exist_ok=True)
        picture = folder / f"{number:05}.png"
        picture.write_bytes(b"x")
        status = picture.stat()
        prompt = (
            f"a painting of {number} people on a hill, highly detailed, by Greg Rutkowski, fantasy art, café"
        )
        labels = {"mediums": {"oil painting": 0.3}, "artists": {f"by artist {number % 500}": 0.2}}
        answers = [
            Answer(mode, f"{prompt} {mode}", recipe.model, 0.3, 1.5, recipe.settings,
                   {"tables": labels} if mode == "tables" else {})
            for mode, recipe in recipes.items()
        ]  # fmt: skip
        facts = FileFacts("a" * 64, "b" * 64, 1, status.st_mtime_ns, None, 640, 480, "PNG")
        with mock.patch("os.fsync"):  # twenty thousand of them only to prepare
            update(picture, facts, recipes, answers)


def rescan(root: Path) -> None:
    from promptglass.batch import Batch
    from promptglass.clip.analyzer import ClipAnalyzer

    filled_folder(root, 20_000, ["fast", "negative"])

    def reference() -> None:
        for place, _, names in os.walk(root):
            for name in names:
                os.stat(os.path.join(place, name))  # noqa: PTH116, PTH118 - the least that could be done

    def ours() -> None:
        plan = Batch([ClipAnalyzer()], ["fast", "negative"]).plan(root, recursive=True)
        assert len(plan.unchanged) == 20_000 and not plan.todo and not plan.failed

    report("rescan of 20,000 pictures", reference, ours, 4)


def wildcards(root: Path) -> None:
    from promptglass.scan import read_sidecars
    from promptglass.wildcards import collect, write_wildcards

    filled_folder(root, 20_000, ["fast", "negative", "tables"])

    def reference() -> None:
        for place, _, names in os.walk(root):
            for name in names:
                if name.endswith(".json"):
                    with open(os.path.join(place, name), "rb") as file:  # noqa: PTH118, PTH123
                        json.loads(file.read())

    def ours() -> None:
        with tempfile.TemporaryDirectory() as out:
            lines = collect(read_sidecars(root, True, print))
            written = write_wildcards(lines, Path(out), str(root))
        assert {file.name for file in written} >= {"promptglass/fast", "promptglass/medium"}, written

    report("wildcards from 20,000 sidecars", reference, ours, 2)


def batch(root: Path) -> None:
    import torch
    from PIL import Image

    from promptglass.batch import Batch, Outcome
    from promptglass.clip.analyzer import ClipAnalyzer
    from promptglass.clip.interrogator import Interrogator
    from promptglass.clip.tables import default_tables
    from promptglass.clip.vocabulary import Vocabulary
    from tests.conftest import tiny_encoder

    photo = Image.open(Path(__file__).parent.parent / "samples" / "astronaut.jpg").convert("RGB")
    for number in range(200):
        photo.resize((1632 + number, 1224), Image.Resampling.BICUBIC).save(
            root / f"{number:03}.jpg", quality=90
        )
    torch.set_num_threads(1)  # a toy gains nothing by threads, and while they wait they take a core
    encoder = tiny_encoder()
    tables = {name: labels[:500] for name, labels in default_tables().items()}
    analyzer = ClipAnalyzer(caption="a photo", tables=tables)
    analyzer.__dict__["_interrogator"] = Interrogator(encoder, Vocabulary(tables, encoder))

    def reference() -> None:
        for path in sorted(root.glob("*.jpg")):
            Image.open(path).convert("RGB").resize((32, 32), Image.Resampling.BICUBIC)

    def ours() -> None:
        run = Batch([analyzer], ["fast"], force=True)
        outcomes: list[Outcome] = []
        run.run(run.plan(root), outcomes.append)
        assert len(outcomes) == 200 and all(outcome.status == "done" for outcome in outcomes)

    report("fast over 200 JPEGs of 2 megapixels", reference, ours, 0.75, times=3)


def main() -> None:
    wanted = sys.argv[1:] or ["rescan", "wildcards", "batch"]
    for work in (rescan, wildcards, batch):
        if work.__name__ in wanted:
            root = Path(tempfile.mkdtemp(prefix="promptglass-"))
            try:
                work(root)
            finally:
                shutil.rmtree(root)


if __name__ == "__main__":
    main()
