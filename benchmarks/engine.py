"""The engine against clip-interrogator 0.6.0: same weights, same inputs, one run, two threads.

    python benchmarks/engine.py chain_step     one step of `best`, 128 candidates, ViT-L/14, fp32
    python benchmarks/engine.py best           a whole picture, 128 candidates
    python benchmarks/engine.py embed          2,000 of the flavors
    python benchmarks/engine.py rank           111,867 labels for one picture
    python benchmarks/engine.py rank_batch     the same, per picture of 32
    python benchmarks/engine.py import         `import promptglass` against `pass`

Each prints one JSON line: both times in seconds, their ratio, the goal, and whether the answers agree.
Weights are random: the work is the same, and no hub is needed. Run it on a quiet machine.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))
warnings.filterwarnings("ignore")

PREFIX = "a painting of a man standing on top of a mountain, highly detailed, by Greg Rutkowski, fantasy art"


def report(work: str, reference_s: float, ours_s: float, goal: float, same: bool, **more: object) -> None:
    ratio = reference_s / ours_s
    line = {"work": work, "reference_s": round(reference_s, 4), "ours_s": round(ours_s, 4)}
    print(json.dumps({**line, "ratio": round(ratio, 1), "goal": goal, "same": same, **more}), flush=True)


def seconds(run: Callable[[], Any], times: int = 3) -> tuple[float, Any]:
    """The best of some runs, and what the last one gave."""
    best, answer = float("inf"), None
    for _ in range(times):
        started = time.perf_counter()
        answer = run()
        best = min(best, time.perf_counter() - started)
    return best, answer


def vit_l_14() -> tuple[Any, Any, Any]:
    """ViT-L/14 with random weights, its transform and tokenizer. Two threads."""
    import open_clip
    import torch

    torch.set_num_threads(2)
    torch.manual_seed(0)
    model, _, preprocess = open_clip.create_model_and_transforms("ViT-L-14", precision="fp32")
    # At their initial scale all texts nearly coincide, and rounding would pick the winner.
    torch.nn.init.normal_(model.token_embedding.weight, std=0.3)
    torch.nn.init.normal_(model.positional_embedding, std=0.3)
    return model.eval(), preprocess, open_clip.get_tokenizer("ViT-L-14")


def pair(lists: dict[str, list[str]], pool_size: int) -> tuple[Any, Any]:
    """clip-interrogator and ours over one model and the same lists."""
    import clip_interrogator

    from promptglass import Interrogator, OpenClipEncoder, Vocabulary

    model, preprocess, tokenizer = vit_l_14()
    config = clip_interrogator.Config()
    config.clip_model, config.clip_preprocess, config.caption_model_name = model, preprocess, None
    config.cache_path, config.download_cache, config.device, config.quiet = None, False, "cpu", True
    config.flavor_intermediate_count = pool_size
    with tempfile.TemporaryDirectory() as folder:
        for name, labels in lists.items():
            Path(folder, f"{name}.txt").write_text("\n".join(labels) + "\n", encoding="utf-8")
        config.data_path = folder
        theirs = clip_interrogator.Interrogator(config)
    encoder = OpenClipEncoder(model, preprocess, tokenizer, "ViT-L-14/openai")
    tables = {name: getattr(theirs, name).labels for name in (*lists, "trendings")}
    return theirs, Interrogator(encoder, Vocabulary(tables, encoder), pool="reference", pool_size=pool_size)


def sample(name: str, count: int) -> list[str]:
    from promptglass import default_tables

    return random.Random(0).sample(default_tables()[name], count)


def few_lists() -> dict[str, list[str]]:
    artists = [label.removeprefix("by ") for label in sample("artists", 500) if label.startswith("by ")]
    return {
        "artists": artists[:10],
        "flavors": sample("flavors", 256),
        "mediums": sample("mediums", 10),
        "movements": sample("movements", 10),
        "negative": sample("negative", 10),
    }


def photo() -> Any:
    from PIL import Image

    return Image.open(Path(__file__).parent.parent / "samples" / "cat.jpg").convert("RGB")


def chain_step() -> None:
    theirs, ours = pair({name: ["x"] for name in few_lists()}, 128)
    labels = sample("flavors", 128)
    features = theirs.image_to_features(photo())
    prompts = [f"{PREFIX}, {label}" for label in labels]
    reference_s, expected = seconds(lambda: theirs.rank_top(features, prompts), times=2)

    def step() -> str:
        scores = ours.encoder.encode_continuations(f"{PREFIX}, ", labels) @ features[0]
        return prompts[int(scores.argmax())]

    ours_s, found = seconds(step, times=5)
    report("one chain step, 128 candidates", reference_s, ours_s, 15, found == expected)


def best() -> None:
    theirs, ours = pair(few_lists(), 128)
    image, caption = photo(), "a cat sitting on a chair"
    ours._score_labels(ours.look([image]))  # the reference has embedded its labels by now, too
    ours_s, found = seconds(lambda: ours.best([image], [caption])[0].prompt)
    reference_s, expected = seconds(lambda: theirs.interrogate(image, caption=caption), times=1)
    report("best, whole picture, 128 candidates", reference_s, ours_s, 12, found == expected, prompt=found)


def embed() -> None:
    import clip_interrogator
    import numpy as np

    theirs, ours = pair({name: ["x"] for name in few_lists()}, 64)
    labels = sample("flavors", 2000)
    ours_s, found = seconds(lambda: ours.encoder.encode_texts(labels), times=2)
    table = clip_interrogator.clip_interrogator.LabelTable
    reference_s, expected = seconds(lambda: np.stack(table(labels, None, theirs).embeds), times=1)
    difference = float(np.abs(found.numpy() - expected).max())
    report("embedding 2,000 flavors", reference_s, ours_s, 14, difference < 1e-3, max_difference=difference)


def rank() -> None:
    _rank("ranking 111,867 labels for one picture", 1, 8)


def rank_batch() -> None:
    _rank("ranking 111,867 labels, per picture of 32", 32, 40)


def _rank(work: str, pictures: int, goal: float) -> None:
    import clip_interrogator
    import numpy as np
    import torch

    from promptglass import Interrogator, Subject, Vocabulary, default_tables

    torch.set_num_threads(2)
    rng = np.random.default_rng(0)
    tables = {name: labels for name, labels in default_tables().items() if name != "negative"}
    rows = rng.standard_normal((sum(map(len, tables.values())), 768), dtype=np.float32)
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)
    images = torch.nn.functional.normalize(
        torch.from_numpy(rng.standard_normal((pictures, 768), dtype=np.float32)), dim=-1
    )

    vocabulary = Vocabulary(tables, None)  # type: ignore[arg-type]
    vocabulary._matrix = torch.from_numpy(rows)
    ours = Interrogator(None, vocabulary)  # type: ignore[arg-type]

    def ranked(ours: Interrogator = ours) -> list[list[str]]:
        subjects = [Subject(None, image, ours) for image in images]  # type: ignore[arg-type]
        ours._score_labels(subjects)
        return [ours._ranked(subject, vocabulary.merged, 2048) for subject in subjects]

    theirs = clip_interrogator.clip_interrogator.LabelTable.__new__(
        clip_interrogator.clip_interrogator.LabelTable
    )
    theirs.chunk_size, theirs.device = 2048, "cpu"
    theirs.config = clip_interrogator.Config()
    theirs.config.quiet = True
    theirs.labels, theirs.embeds = vocabulary.labels, [row.astype(np.float32) for row in rows]
    ours_s, _ = seconds(ranked, times=5)
    reference_s, expected = seconds(lambda: theirs.rank(images[:1], 2048))
    # The exact pool is not the reference's; its own pool shows that the scores agree.
    found = ranked(Interrogator(None, vocabulary, pool="reference"))[0]  # type: ignore[arg-type]
    same = set(found) == set(expected) and found[:32] == expected[:32]  # in a batch the last bit differs
    report(work, reference_s, ours_s / pictures, goal, same)


def import_() -> None:
    def run(code: str) -> float:
        return seconds(lambda: subprocess.run([sys.executable, "-c", code], check=True), times=10)[0]

    nothing_s, ours_s = run("pass"), run("import promptglass")
    heavy = "import sys, promptglass; print({'torch', 'transformers', 'PIL', 'numpy'} & {*sys.modules} or '')"
    loaded = subprocess.run(
        [sys.executable, "-c", heavy], check=True, capture_output=True, text=True
    ).stdout.strip()
    line = {"work": "import promptglass", "pass_s": round(nothing_s, 4), "import_s": round(ours_s, 4)}
    print(json.dumps({**line, "more_s": round(ours_s - nothing_s, 4), "goal": 0.1, "heavy_modules": loaded}))


WORKS = {
    "chain_step": chain_step,
    "best": best,
    "embed": embed,
    "rank": rank,
    "rank_batch": rank_batch,
    "import": import_,
}

if __name__ == "__main__":
    names = sys.argv[1:] or [*WORKS]
    if unknown := [name for name in names if name not in WORKS]:
        raise SystemExit(
            f"there is no work {', '.join(unknown)}: choose from {', '.join(WORKS)}\n\n{__doc__}"
        )
    for name in names:
        WORKS[name]()
