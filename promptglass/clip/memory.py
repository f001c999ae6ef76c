"""How much to do at once, and what to do when that was too much."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from ..errors import ModelError

log = logging.getLogger("promptglass")

Item = TypeVar("Item")
Result = TypeVar("Result")


class BatchLimit:
    """The largest batch that fitted so far. Shared by all calls of one tower, so it is learnt once."""

    def __init__(self, size: int, unit: str) -> None:
        self.size = size
        self.unit = unit
        self._said = False

    def halve(self, tried: int, cause: BaseException) -> None:
        """After `tried` units did not fit: go on with half, say so once.

        Raises ModelError when even a single unit did not fit.
        """
        if tried <= 1:
            raise ModelError(
                f"out of memory on a single one of the {self.unit}: close other programs, "
                "take a smaller model, or run on the CPU (--device cpu)"
            ) from cause
        self.size = max(1, tried // 2)
        if not self._said:
            log.warning("out of memory: going on with smaller batches (%d %s)", self.size, self.unit)
            self._said = True
        _release_cached_memory()


def in_batches(
    items: Sequence[Item], limit: BatchLimit, run: Callable[[Sequence[Item]], Result]
) -> list[Result]:
    """What `run` gives for each batch of the items, in order; what does not fit in memory goes in halves."""
    found: list[Result] = []
    start = 0
    while start < len(items):
        batch = items[start : start + limit.size]
        outcome = attempt(run, batch)
        if isinstance(outcome, RuntimeError):
            limit.halve(len(batch), outcome)
            continue
        found.append(outcome)
        start += len(batch)
    return found


def attempt(run: Callable[[Item], Result], item: Item) -> Result | RuntimeError:
    """What `run` gives, or the error that memory ran out.

    Without its traceback, which would keep alive what the failed pass had computed.
    """
    try:
        return run(item)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return error.with_traceback(None)


def is_out_of_memory(error: BaseException) -> bool:
    """True for the ways in which torch says it on CUDA, MPS and the CPU."""
    import torch

    if isinstance(error, torch.cuda.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and _OUT_OF_MEMORY.search(str(error)) is not None


_OUT_OF_MEMORY = re.compile(
    "out of memory|ALLOC_FAILED|can't allocate memory|not enough memory", re.IGNORECASE
)


def _release_cached_memory() -> None:
    import torch

    # Without this the failed allocation's cached blocks stay reserved and the half batch fails as well.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
