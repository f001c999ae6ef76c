"""`promptglass serve` with a toy CLIP in place of a real one: a program of its own, to be stopped and loaded.

    python tests/fakes/toy_server.py [--slow SECONDS] [--one-by-one] OPTIONS OF promptglass serve

It writes its own real caches where XDG_CACHE_HOME says. --slow: a pass over pictures takes so long besides.
--one-by-one: nothing goes through CLIP together, for comparison.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

KIND = ("red", "green", "blue", "golden", "silver", "tiny", "huge", "dark", "bright", "old")
PLACE = ("wall", "sea", "sky", "city", "forest", "room", "street", "desert", "field", "river")
TABLES = {
    "artists": [f"by {kind} Rembrandt" for kind in KIND],
    "flavors": [f"{kind} {place}" for kind in KIND for place in PLACE],
    "mediums": [f"a {kind} photo" for kind in KIND],
    "movements": [f"{kind} cubism" for kind in KIND],
    "trendings": [f"{kind} Artstation" for kind in KIND],
    "negative": ["blurry", "text", "watermark"],
}


class ToyCaptioner:
    name = "blip-large"

    def caption(self, images: Sequence[Any]) -> list[str]:
        return ["a picture"] * len(images)


def main(arguments: list[str]) -> int:
    slow_s = float(arguments.pop(arguments.index("--slow") + 1)) if "--slow" in arguments else 0.0
    is_together = "--one-by-one" not in arguments
    rest = [one for one in arguments if one not in ("--slow", "--one-by-one")]

    import torch
    from conftest import tiny_encoder

    torch.set_num_threads(1)

    from promptglass import cli, grouped, host
    from promptglass.clip import analyzer, loading, tables

    def toy(name: str, *_: Any) -> Any:
        encoder = tiny_encoder(name=name)
        encode = encoder.encode_images

        def slowly(images: Sequence[Any]) -> Any:
            time.sleep(slow_s)
            return encode(images)

        encoder.encode_images = slowly
        return encoder

    loading.load_encoder = toy
    tables.default_tables = lambda: TABLES
    host.OwnModels._writer = lambda *_: ToyCaptioner()
    analyzer.not_here = lambda model: []
    if not is_together:
        grouped._MOST = grouped._MOST_OF_CHAINS = 1
    return cli.main(["serve", *rest])


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
