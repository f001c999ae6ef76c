"""javascript/client: node's own tests, against the real service behind a real server; and its package."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import noise, png

import promptglass
from promptglass.analyzers import PaletteAnalyzer

CLIENT = Path(__file__).parent.parent / "javascript" / "client"
NODE = shutil.which("node")


def is_old(node: str) -> bool:
    said = subprocess.run([node, "--version"], capture_output=True, text=True, check=True).stdout
    return int(said.strip().lstrip("v").partition(".")[0]) < 20


pytestmark = pytest.mark.skipif(NODE is None or is_old(NODE), reason="needs node 20")


def node(*arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [str(NODE), *arguments],
        cwd=CLIENT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=240,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Some, and a golden cat, to a WordEncoder."""
    pytest.importorskip("torch")
    from fakes.word_encoder import painted

    place = tmp_path / "pictures"
    place.mkdir()
    for number in range(20):
        noise(number).save(place / f"{number:02}.png")
    (place / "cat.png").write_bytes(png(painted("a golden cat"), "a cat of gold"))
    return place


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("promptglass.pipeline._GROUP", 1)
    analyze = PaletteAnalyzer.analyze

    def slowly(self: PaletteAnalyzer, given: Any, modes: Any) -> Iterator[Any]:
        for outcome in analyze(self, given, modes):
            time.sleep(0.1)
            yield outcome

    monkeypatch.setattr(PaletteAnalyzer, "analyze", slowly)


def test_the_wire_and_the_hook():
    told = node("--test", "--test-timeout", "60000", "test/wire.test.mjs", "test/hook.test.mjs")
    assert "# fail 0" in told
    assert "# skipped 0" in told


def test_the_real_service(apart: None, pictures: Path, slow: None, tmp_path: Path):
    for package in ("fastapi", "httpx", "uvicorn", "python_multipart"):
        pytest.importorskip(package)
    from fakes.word_host import WordHost
    from served import app_of, running

    from promptglass.service import Service

    host = WordHost(roots=[pictures], wildcards=tmp_path / "wildcards", endpoints=["eyes"])
    service = {"PROMPTGLASS_PICTURES": str(pictures), "PROMPTGLASS_API_KEY": "sesame"}
    with running(app_of(Service(host), key="sesame")) as url:
        told = node(
            "--test", "--test-timeout", "60000", "test/service.test.mjs", PROMPTGLASS_URL=url, **service
        )
    assert "# fail 0" in told
    assert "# skipped 0" in told


def test_what_is_published_is_whole():
    package = json.loads((CLIENT / "package.json").read_text())
    assert package["version"] == promptglass.__version__
    assert "dependencies" not in package
    named = [
        file for entry in package["exports"].values() if isinstance(entry, dict) for file in entry.values()
    ]
    assert all((CLIENT / file).is_file() for file in named)
    assert (CLIENT / "LICENSE").read_text() == (CLIENT.parents[1] / "LICENSE").read_text()
    exported = node(
        "--input-type=module", "-e", "console.log(Object.keys(await import('promptglass-client')))"
    )
    assert "PromptglassClient" in exported
