"""How long work tells its caller where it is.

A Progress is called as progress(what, done, total), often and from the working thread. It may raise: that
is how a host interrupts.
"""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]


def silent(what: str, done: int, total: int) -> None:
    """The Progress of those who do not look."""
