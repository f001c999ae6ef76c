"""Files replaced whole, by one process at a time."""

from __future__ import annotations

import multiprocessing
import os
import threading
from pathlib import Path

import pytest

from promptglass.atomic import _beside, claim, locked, replace_file, sweep


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_file_is_replaced_and_nothing_is_left(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(b"old")
    path.chmod(0o640)
    with locked(path):
        replace_file(path, b"new")
    assert path.read_bytes() == b"new" and names(tmp_path) == {"x.json"}
    assert os.name == "nt" or path.stat().st_mode & 0o777 == 0o640


def test_a_link_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link.json").symlink_to(tmp_path / "real" / "x.json")
    with locked(tmp_path / "link.json"):
        replace_file(tmp_path / "link.json", b"new")
    assert (tmp_path / "link.json").is_symlink()
    assert (tmp_path / "real" / "x.json").read_bytes() == b"new" and names(tmp_path / "real") == {"x.json"}


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(b"old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"), locked(path):
        replace_file(path, b"new")
    assert path.read_bytes() == b"old" and names(tmp_path) == {"x.json"}


def test_a_name_as_long_as_names_get(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 255)
    with locked(path):
        replace_file(path, b"new")
    assert path.read_bytes() == b"new"


def test_a_claim_is_exclusive_until_it_is_given_back(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    first = claim(path)
    assert first is not None and claim(path) is None
    other = claim(tmp_path / "y.png")
    assert other is not None
    thread = threading.Thread(target=first.release)
    thread.start()
    thread.join()
    again = claim(path)
    assert again is not None
    again.release()
    other.release()
    first.release()  # twice does no harm
    assert names(tmp_path) == set()


def _count(path: Path, times: int) -> None:
    for _ in range(times):
        with locked(path):
            replace_file(path, str(int(path.read_bytes()) + 1).encode())


def test_no_change_is_lost_between_processes_and_threads(tmp_path: Path) -> None:
    path = tmp_path / "count"
    path.write_bytes(b"0")
    spawn = multiprocessing.get_context("spawn")
    workers = [spawn.Process(target=_count, args=(path, 60)) for _ in range(3)]
    workers += [threading.Thread(target=_count, args=(path, 60)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert path.read_bytes() == b"360" and names(tmp_path) == {"count"}


def test_what_a_killed_process_left_is_swept_up(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    for suffix in (".promptglass.tmp", ".promptglass.lock", ".promptglass.claim"):
        _beside(path, suffix).write_bytes(b"x")
    (tmp_path / ".mine.tmp").write_bytes(b"x")
    for name in names(tmp_path):
        sweep(str(tmp_path), name)
    assert names(tmp_path) == {".mine.tmp"}


def test_what_is_in_use_is_not_swept_up(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    held = claim(path)
    with locked(path):
        _beside(path, ".promptglass.tmp").write_bytes(b"x")
        before = names(tmp_path)
        assert len(before) == 3
        for name in before:
            sweep(str(tmp_path), name)
        assert names(tmp_path) == before
    assert held is not None
    held.release()
