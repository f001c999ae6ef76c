"""Tables of labels: clip-interrogator's, a user's own, and how well each label fits a picture."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ..errors import InputError
from ..progress import Progress, silent
from .embeddings import embeddings, labels_hash

if TYPE_CHECKING:
    from .encoder import JointEncoder

# clip-interrogator merges its tables in this order, and two-stage ranking depends on it. A user's own
# tables come next; `negative` stays apart.
MERGED_TABLES = ("artists", "flavors", "mediums", "movements", "trendings")
NEGATIVE_TABLE = "negative"

_ROWS_PER_PRODUCT = 2048  # float16 rows turned to float32 at a time: 6 MB at d = 768, which stays in cache


class Vocabulary:
    """Named tables of labels with one matrix of embeddings.

    tables: name to labels. A name that clip-interrogator knows plays its part in the modes; others are
    ranked along in `fast` and `best`. Embeddings are looked for, and computed, when first needed;
    cache_dir: where they are kept, None keeps nothing.
    `labels` holds all labels, table after table; `spans[name]` is a table's slice of them.
    Raises InputError for a vocabulary without labels.
    """

    def __init__(
        self,
        tables: Mapping[str, Sequence[str]],
        encoder: JointEncoder,
        cache_dir: str | os.PathLike[str] | None = None,
        progress: Progress = silent,
    ) -> None:
        self.labels: list[str] = []
        self.spans: dict[str, slice] = {}
        for name in _in_order(tables):
            start = len(self.labels)
            self.labels.extend(tables[name])
            self.spans[name] = slice(start, len(self.labels))
        if not self.labels:
            raise InputError("the vocabulary is empty: give at least one table with one label")
        self.id = labels_hash([f"{name}:{len(tables[name])}" for name in self.spans] + self.labels)[:16]
        self._embed = lambda: embeddings(self.labels, self.spans, encoder, cache_dir, progress)
        self._matrix: torch.Tensor | None = None  # [N, d] float16, from the first `scores` on

    @classmethod
    def default(
        cls,
        encoder: JointEncoder,
        cache_dir: str | os.PathLike[str] | None = None,
        progress: Progress = silent,
    ) -> Vocabulary:
        """clip-interrogator's lists."""
        return cls(default_tables(), encoder, cache_dir, progress)

    @property
    def merged(self) -> slice:
        """All tables but `negative`: they come first."""
        return slice(0, self.spans.get(NEGATIVE_TABLE, slice(len(self.labels), None)).start)

    def scores(self, image_features: torch.Tensor) -> torch.Tensor:
        """Cosines [n, N] float32 of every picture with every label; image_features [n, d]."""
        if self._matrix is None:
            self._matrix = torch.from_numpy(self._embed())
        self._matrix = matrix = self._matrix.to(image_features.device)
        features = image_features.T.contiguous()  # [d, n]
        found = torch.empty(len(matrix), features.shape[1], device=features.device)
        # One buffer for all blocks: fresh memory for each costs more than the product.
        buffer = torch.empty(_ROWS_PER_PRODUCT, len(features), device=features.device)
        for start in range(0, len(matrix), _ROWS_PER_PRODUCT):
            rows = matrix[start : start + _ROWS_PER_PRODUCT]
            block = buffer[: len(rows)].copy_(rows)
            if features.shape[1] == 1:  # matrix times matrix is half as fast for a single column
                torch.mv(block, features[:, 0], out=found[start : start + len(rows), 0])
            else:
                torch.mm(block, features, out=found[start : start + len(rows)])
        return found.T.contiguous()


def default_tables() -> dict[str, list[str]]:
    """The tables of clip-interrogator 0.6.0, built from the lists that its package carries.

    Raises InputError where the package is not installed.
    """
    spec = importlib.util.find_spec("clip_interrogator")
    if spec is None or spec.origin is None:
        raise InputError(
            "the word lists are missing: pip install clip-interrogator, or give your own --tables"
        )
    folder = Path(spec.origin).parent / "data"
    lists = {name: _lines(folder / f"{name}.txt") for name in (*MERGED_TABLES[:-1], NEGATIVE_TABLE)}
    sites = [*_SITES, *(f"trending on {s}" for s in _SITES), *(f"featured on {s}" for s in _SITES)]
    return {
        **lists,
        "artists": [f"by {artist}" for artist in lists["artists"]]
        + [f"inspired by {artist}" for artist in lists["artists"]],
        "trendings": [*sites, *(f"{s} contest winner" for s in _SITES)],
    }


# clip_interrogator.py 0.6.0, Interrogator.load_clip_model; spelling as there.
_SITES = (
    "Artstation",
    "behance",
    "cg society",
    "cgsociety",
    "deviantart",
    "dribble",
    "flickr",
    "instagram",
    "pexels",
    "pinterest",
    "pixabay",
    "pixiv",
    "polycount",
    "reddit",
    "shutterstock",
    "tumblr",
    "unsplash",
    "zbrush central",
)


def without_artists(tables: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """The tables with no artist in them: neither the table nor their names inside other tables.

    Only names of two words or more are looked for: "Beeple" alone could be anything.
    """
    names = {re.sub(r"^(inspired )?by ", "", label).lower() for label in tables.get("artists", ())}
    names = {name for name in names if " " in name}
    longest = max((name.count(" ") + 1 for name in names), default=0)

    def names_an_artist(label: str) -> bool:
        words = re.findall(r"[\w'.-]+", re.sub(r"['’]s\b", "", label.lower()))
        runs = (words[i : i + n] for n in range(2, longest + 1) for i in range(len(words) - n + 1))
        return any(" ".join(run) in names for run in runs)

    return {
        name: [label for label in labels if not names_an_artist(label)]
        for name, labels in tables.items()
        if name != "artists"
    }


def read_labels(path: str | os.PathLike[str]) -> list[str]:
    """A user's list: one label a line, stripped, blank lines left out (UTF-8, broken bytes replaced)."""
    return [label for label in _lines(Path(path)) if label]


def _lines(path: Path) -> list[str]:
    """As clip-interrogator's load_list reads its own lists, blank lines included: its caches count them."""
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            return [line.strip() for line in file]
    except OSError as error:
        raise InputError(f"cannot read the table {path}: {error.strerror or error}") from error


def _in_order(tables: Mapping[str, Sequence[str]]) -> list[str]:
    known = [name for name in MERGED_TABLES if name in tables]
    own = [name for name in tables if name not in (*MERGED_TABLES, NEGATIVE_TABLE)]
    return [*known, *own, *(name for name in (NEGATIVE_TABLE,) if name in tables)]
