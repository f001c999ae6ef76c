"""Texts to rows of token ids: [start, …, end], no padding, cut to the tower's context.

A row is always what the model's own tokenizer makes of the whole text. `continuations` gets there
faster: CLIP's tokenizer never joins anything across a space, so "prefix " + "label" is the tokens of
the one and then of the other. That holds for plain ASCII only (cleaning may look across a whole text for
mojibake and HTML entities); everything else is tokenised whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

Row = tuple[int, ...]

# Printable ASCII without "&" and "<": what ftfy, html.unescape and the special tokens leave alone.
_PLAIN = re.compile(r"[ -%'-;=-~]*").fullmatch
_CACHED_ROWS = 1 << 17


class Tokens:
    """Rows of one tokenizer.

    tokenize: texts to ids [n, context_length], padded after the end token.
    end: the id of the end token, where CLIP reads the feature.
    splits_at_spaces: the tokenizer works word by word (CLIP's own byte-pair tokenizers do).
    """

    def __init__(
        self,
        tokenize: Callable[[list[str]], torch.Tensor],
        end: int,
        context_length: int,
        splits_at_spaces: bool,
    ) -> None:
        self.padded = tokenize
        self._end = end
        self.context_length = context_length
        self._splits_at_spaces = splits_at_spaces
        self._rows: dict[str, Row] = {}

    def rows(self, texts: Sequence[str]) -> list[Row]:
        """One row per text, each at most `context_length` long."""
        if not texts:
            return []
        return [self._up_to_end(ids) for ids in self.padded(list(texts)).tolist()]

    def continuations(self, prefix: str, suffixes: Sequence[str]) -> list[Row]:
        """The same as rows([prefix + s for s in suffixes])."""
        if not (self._splits_at_spaces and _PLAIN(prefix)):
            return self.rows([prefix + suffix for suffix in suffixes])
        split = [_PLAIN(s) is not None and (prefix[-1:] == " " or s[:1] == " ") for s in suffixes]
        whole = iter(
            self.rows([prefix + s for s, is_split in zip(suffixes, split, strict=True) if not is_split])
        )
        parts = iter(self._cached_rows([s for s, is_split in zip(suffixes, split, strict=True) if is_split]))
        head = self.rows([prefix])[0][:-1]
        return [self._join(head, next(parts)) if is_split else next(whole) for is_split in split]

    def count(self, text: str) -> int:
        """Tokens of a text with start and end, at most `context_length`."""
        if not (self._splits_at_spaces and _PLAIN(text)):
            return len(self.rows([text])[0])
        words = self._cached_rows(text.split())
        return min(2 + sum(len(word) - 2 for word in words), self.context_length)

    def _join(self, head: Row, suffix: Row) -> Row:
        return (*(head + suffix[1:-1])[: self.context_length - 1], self._end)

    def _cached_rows(self, texts: list[str]) -> list[Row]:
        # A chain asks for the same two thousand labels at every step.
        missing = [text for text in dict.fromkeys(texts) if text not in self._rows]
        if len(self._rows) + len(missing) > _CACHED_ROWS:
            self._rows.clear()
            missing = list(dict.fromkeys(texts))
        self._rows.update(zip(missing, self.rows(missing), strict=True))
        return [self._rows[text] for text in texts]

    def _up_to_end(self, ids: list[int]) -> Row:
        # The first end token is where CLIP pools, also when the text itself spells one out.
        return tuple(ids[: ids.index(self._end) + 1]) if self._end in ids else tuple(ids)
