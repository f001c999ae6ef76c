"""Whose turn it is to fill a cache."""

from __future__ import annotations

import pytest

from promptglass.errors import Stopped
from promptglass.folders import waiting_lock


def test_who_waits_for_another_process_can_be_stopped(tmp_path):
    """A host's lock may be held meanwhile."""
    asked: list[str] = []

    def progress(what: str, done: int, total: int) -> None:
        asked.append(what)
        if len(asked) == 2:
            raise Stopped("stopped")

    with (
        waiting_lock(tmp_path / "lock", "embeds these labels"),
        pytest.raises(Stopped),
        waiting_lock(tmp_path / "lock", "embeds these labels", progress),
    ):
        raise AssertionError("two hold it")
    assert asked == ["waiting: another promptglass embeds these labels"] * 2
    with waiting_lock(tmp_path / "lock", "embeds these labels"):
        pass
