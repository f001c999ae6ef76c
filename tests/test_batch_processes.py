"""Batches as real processes: killed at any moment, stopped politely, two at a time."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import noise
from test_batch import leftovers, run

from promptglass.analyzers import PaletteAnalyzer
from promptglass.batch import Batch

ROUNDS = 50


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(150):
        noise(number, (16, 16)).save(tmp_path / f"{number}.png")
    return tmp_path


def start(folder: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "promptglass", "batch", str(folder), "--modes", "palette", *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def sidecars(folder: Path) -> dict[str, bytes]:
    found = {path.name: path.read_bytes() for path in folder.glob("*.promptglass.json")}
    for content in found.values():
        assert json.loads(content)["analysis"]["palette"]
    return found


@pytest.mark.long
@pytest.mark.timeout(600)
def test_killed_at_any_moment_it_loses_nothing_and_leaves_nothing_broken(folder: Path) -> None:
    chance = random.Random(3)
    started = time.monotonic()
    start(folder, "--txt", "overwrite").communicate()
    whole_s = time.monotonic() - started
    kills_while_working = 0
    for _ in range(ROUNDS):
        before = sidecars(folder)
        for name in chance.sample(sorted(before), min(100, len(before))):
            (folder / name).unlink()
            (folder / name).with_name(name.replace(".png.promptglass.json", ".txt")).unlink(missing_ok=True)
            del before[name]
        process = start(folder, "--txt", "overwrite")
        time.sleep(chance.uniform(0.2, 1.1) * whole_s)
        process.kill()
        process.communicate()
        after = sidecars(folder)
        assert before.items() <= after.items()
        kills_while_working += len(before) < len(after) < 150
        assert all(path.read_text().endswith("\n") for path in folder.glob("*.txt"))
    assert kills_while_working > 3
    run(Batch([PaletteAnalyzer()], ["palette"]), folder)
    assert len(sidecars(folder)) == 150
    assert leftovers(folder) == []


def test_two_processes_do_no_picture_twice(folder: Path) -> None:
    for _ in range(10):
        processes = [start(folder, "--json"), start(folder, "--json")]
        outputs = [process.communicate(timeout=120)[0] for process in processes]
        told = [[json.loads(line) for line in output.splitlines()] for output in outputs]
        done = [[line["picture"] for line in lines if line["status"] == "done"] for lines in told]
        assert len(done[0] + done[1]) == len({*done[0], *done[1]}) == 150
        assert [process.returncode for process in processes] == [0, 0]
        assert len(sidecars(folder)) == 150 and leftovers(folder) == []
        if all(done):  # both had work
            return
        for name in sidecars(folder):
            (folder / name).unlink()
    raise AssertionError("one process was always alone")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no polite way")
@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_politely_it_says_so_and_goes_on_later(folder: Path, number: int, code: int) -> None:
    for more in range(150, 600):
        noise(more, (16, 16)).save(folder / f"{more}.png")
    process = start(folder, "--json")
    assert process.stdout is not None
    first = json.loads(process.stdout.readline())
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert "what was computed so far is kept" in errors and "Traceback" not in errors
    assert Path(first["picture"]).name + ".promptglass.json" in sidecars(folder)
    assert len(sidecars(folder)) < 600 and leftovers(folder) == []
    assert start(folder, "--quiet").communicate(timeout=60) == ("", "")
    assert len(sidecars(folder)) == 600
