"""A vocabulary: tables of labels with their embeddings, and how well each label fits a picture."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..errors import InputError
from ..progress import Progress, silent
from .embeddings import embeddings
from .tables import NEGATIVE_TABLE, default_tables, in_order, vocabulary_id

if TYPE_CHECKING:
    from .encoder import JointEncoder

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
        self._lay_out(tables)
        self._embed = lambda: embeddings(self.labels, self.spans, encoder, cache_dir, progress)

    def _lay_out(self, tables: Mapping[str, Sequence[str]]) -> None:
        self.labels: list[str] = []
        self.spans: dict[str, slice] = {}
        for name in in_order(tables):
            start = len(self.labels)
            self.labels.extend(tables[name])
            self.spans[name] = slice(start, len(self.labels))
        if not self.labels:
            raise InputError("the vocabulary is empty: give at least one table with one label")
        self.id = vocabulary_id(tables)
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

    def joined(self, own: Vocabulary) -> Vocabulary:
        """The tables of both. Each keeps its embeddings as it does alone: a list of the moment, which keeps
        none, does not have all others written again."""
        parts = {name: part for part in (self, own) for name in part.spans}
        whole = copy.copy(self)
        whole._lay_out({name: part.labels[part.spans[name]] for name, part in parts.items()})
        whole._embed = lambda: _stacked(whole.spans, parts)
        return whole

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


def _stacked(names: Iterable[str], parts: Mapping[str, Vocabulary]) -> np.ndarray:
    """Rows [N, d] of the tables in the order of the names."""
    rows = {id(part): part._embed() for part in {id(part): part for part in parts.values()}.values()}
    return np.concatenate([rows[id(parts[name])][parts[name].spans[name]] for name in names])
