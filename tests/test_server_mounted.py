"""The whole service below a path of a host's server."""

from __future__ import annotations

import asyncio
import base64
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("httpx")

from fakes.word_encoder import painted
from fakes.word_host import WordHost
from fastapi import FastAPI
from fastapi.testclient import TestClient

from promptglass.server.access import Access
from promptglass.server.mount import mount
from promptglass.server.mounted import Mounted
from promptglass.service import Service

PASSWORDS = {"ada": "correct horse"}


@pytest.fixture
def png(tmp_path: Path) -> bytes:
    path = tmp_path / "a.png"
    painted("a red photo").save(path)
    return path.read_bytes()


def client_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, passwords: dict[str, str]) -> TestClient:
    monkeypatch.setenv("PROMPTGLASS_LIBRARY", str(tmp_path / "library.sqlite"))
    monkeypatch.setenv("PRIVATE", "False")  # the test client has no address
    app = FastAPI()
    app.mount("/", _of_the_host)
    mount(app, Service(WordHost([tmp_path])), lambda: passwords, set(), with_interrogator_ext=True)
    return TestClient(app, base_url="http://localhost:7860", raise_server_exceptions=False)


async def _of_the_host(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        return
    await send({"type": "http.response.start", "status": 418, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def test_what_serve_answers_is_below_the_path(tmp_path, monkeypatch, png):
    client = client_of(tmp_path, monkeypatch, {})
    analyzed = client.post("/promptglass/analyze", files={"file": ("a.png", png, "image/png")})
    assert analyzed.status_code == 200, analyzed.text
    assert analyzed.json()["predictions"]
    image = {"image": base64.b64encode(png).decode()}
    assert client.post("/promptglass/sdapi/v1/interrogate", json=image).json()["caption"]
    assert client.post("/promptglass/v1/interrogate", json={**image, "modes": "fast"}).status_code == 200
    assert client.get("/promptglass/api/v1/images").status_code == 200
    assert client.get("/promptglass/openapi.json").json()["servers"] == [{"url": "/promptglass"}]
    assert client.get("/promptglass/nothing").status_code == 404
    assert client.get("/anything").status_code == 418, "the rest is the host's"


@pytest.mark.parametrize("path", ["v1/health", "openapi.json", "docs", "health", "api/v1/images", ""])
def test_the_hosts_passwords_are_asked_for_all_of_it(tmp_path, monkeypatch, path):
    client = client_of(tmp_path, monkeypatch, PASSWORDS)
    assert client.get(f"/promptglass/{path}").status_code == 401
    assert client.get(f"/promptglass/{path}", auth=("ada", "correct horse")).status_code == 200


def test_without_fastapi_that_is_what_is_answered(tmp_path, monkeypatch):
    """As in a ComfyUI: nothing but the standard library says it."""
    monkeypatch.delitem(sys.modules, "promptglass.server.app", raising=False)
    monkeypatch.setitem(sys.modules, "fastapi", None)
    said: list[Any] = []

    async def send(message: Any) -> None:
        said.append(message)

    app = Mounted(Service(WordHost([tmp_path])), Access(dict, set()))
    asyncio.run(app({"type": "http", "path": "/v1/health"}, None, send))  # type: ignore[arg-type]
    assert said[0]["status"] == 501
    assert b"fastapi" in said[1]["body"]
