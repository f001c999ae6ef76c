"""/api/v1: the examples of the service that had these routes first, as they stand there, by curl; and what
becomes of prompts, comparisons, batches, errors, and of those who ask for more than they may have.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from conftest import png
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

pytest.importorskip("fastapi")
pytest.importorskip("httpx")

from fakes.word_host import KIND, WordHost
from fastapi import FastAPI
from fastapi.testclient import TestClient

from promptglass import remote
from promptglass.analyzers import Answer, Recipe
from promptglass.host import Standalone
from promptglass.intake import facts_of
from promptglass.library import Library
from promptglass.server import library_routes
from promptglass.server.access import Access
from promptglass.service import Service
from promptglass.sidecar import Privacy, path_of, read, update

API = "/api/v1"
NOBODY = "http://127.0.0.1:9"


class Asked:
    """The API over a folder, and its library."""

    def __init__(self, host: Standalone, file: Path) -> None:
        self.root = Path(host.roots[0])
        self.service = Service(host)
        self.library = Library(file)
        self.app = FastAPI()
        access = Access(lambda: {}, {"gpu-box"})
        self.app.include_router(library_routes.router(self.service, access, self.library))
        self.client = TestClient(self.app, base_url="http://localhost:9000", raise_server_exceptions=False)

    def get(self, path: str, /, **params: Any) -> Any:
        return self.client.get(API + path, params=params)

    def post(self, path: str, /, **asked: Any) -> Any:
        return self.client.post(API + path, json=asked)

    def scanned(self) -> list[str]:
        """The ids of what is there, in the order of the names."""
        assert self.post("/images/scan", path=str(self.root)).status_code == 200
        return [image["id"] for image in self.get("/images").json()["images"]]


@pytest.fixture(autouse=True)
def without_a_webui(apart: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "DEFAULT_ADDRESS", NOBODY)
    monkeypatch.setattr(remote, "_RETRIES", 0)
    for name in (*remote.ADDRESS_VARIABLES, remote.TIMEOUT_VARIABLE, remote.ENABLED_VARIABLE):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def plain(root: Path, tmp_path: Path) -> Iterator[Asked]:
    """Without any CLIP."""
    asked = Asked(Standalone(roots=[root]), tmp_path / "library.db")
    yield asked
    asked.library.close()


@pytest.fixture
def words(root: Path, tmp_path: Path) -> Iterator[Asked]:
    pytest.importorskip("torch")
    asked = Asked(WordHost(roots=[root]), tmp_path / "library.db")
    yield asked
    asked.library.close()


def saved(path: Path, prompt: str = "", colour: str = "red") -> Path:
    path.write_bytes(png(Image.new("RGB", (6, 5), colour), prompt))
    return path


def painted(path: Path, text: str, prompt: str = "") -> Path:
    """A picture that looks like the text to a WordEncoder."""
    from fakes import word_encoder

    path.write_bytes(png(word_encoder.painted(text), prompt))
    return path


@contextlib.contextmanager
def served(app: FastAPI) -> Iterator[int]:
    """The port of a server."""
    uvicorn = pytest.importorskip("uvicorn")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, "127.0.0.1", port, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        deadline = time.monotonic() + 30
        while not server.started and time.monotonic() < deadline:
            time.sleep(0.01)
        yield port
    finally:
        server.should_exit = True
        thread.join(30)


def line_of(response: Any) -> str:
    """The one line of a failure, and nothing besides."""
    content = response.json()
    assert list(content) == ["error"]
    assert content["error"] == " ".join(content["error"].split())
    return content["error"]


# -- the examples, character for character -------------------------------------------------------------------

SCAN = """curl -X POST http://localhost:9000/api/v1/images/scan \\
  -H "Content-Type: application/json" \\
  -d '{"path": "/path/to/images", "recursive": true}'"""
LIST = "curl http://localhost:9000/api/v1/images?limit=1"
INTERROGATE = "curl -X POST http://localhost:9000/api/v1/images/{image_id}/interrogate"
INTERROGATE_BY = """curl -X POST http://localhost:9000/api/v1/images/{image_id}/interrogate \\
  -H "Content-Type: application/json" \\
  -d '{"model": "clip"}'"""
PROMPTS = "curl http://localhost:9000/api/v1/prompts/image/{image_id}"
HEALTH = "curl http://localhost:9000/api/v1/clip/health"


@pytest.mark.skipif(not shutil.which("curl") or os.name == "nt", reason="needs curl and a shell")
def test_the_examples_work_as_they_are(words: Asked):
    painted(words.root / "a.png", "a golden cat", "a golden cat in red light")
    with served(words.app) as port:

        def curl(example: str, image_id: str = "") -> Any:
            example = example.replace("localhost:9000", f"localhost:{port}")
            example = example.replace("/path/to/images", str(words.root)).replace("{image_id}", image_id)
            done = subprocess.run(
                example.replace("curl ", "curl -s ", 1),
                shell=True,
                capture_output=True,
                check=True,
                timeout=60,
            )
            return json.loads(done.stdout)

        assert curl(HEALTH) == {"status": "ok", "service": "clip", "available": True}
        assert curl(SCAN)["total_files"] == 1
        (image,) = curl(LIST)["images"]
        assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", image["id"])
        for example in (INTERROGATE, INTERROGATE_BY):
            answer = curl(example, image["id"])
            assert answer["image_id"] == image["id"]
            assert answer["prompt"].startswith("a caption, ")
            assert (answer["source"], answer["model"]) == ("clip_interrogation", "clip")
        prompts = {prompt["prompt_type"]: prompt for prompt in curl(PROMPTS, image["id"])["prompts"]}
        assert list(prompts) == ["embedded", "clip_generated"]
        assert prompts["clip_generated"]["prompt_text"] == answer["prompt"]
        assert prompts["clip_generated"]["image_id"] == image["id"]


# -- pictures ------------------------------------------------------------------------------------------------


def test_a_scan_says_what_it_did(plain: Asked):
    saved(plain.root / "a.png", "a red wall")
    (plain.root / "broken.png").write_bytes(b"")
    asked = {"path": str(plain.root), "recursive": True}
    assert plain.get("/images/scan/status").json() == {"status": "idle"}
    said = plain.post("/images/scan", **asked).json()
    (failure,) = said.pop("failures")
    assert failure["path"].endswith("broken.png")
    assert said == {
        "total_files": 2,
        "processed": 1,
        "skipped": 0,
        "errors": 1,
        "current_file": None,
        "added": 1,
        "changed": 0,
        "updated": 0,
        "moved": 0,
        "missing": 0,
        "encrypted": 0,
        "prompts": 1,
    }
    assert plain.post("/images/scan", **asked).json()["skipped"] == 1
    assert plain.get("/images/scan/status").json()["status"] == "idle"


def test_images_come_in_pages(plain: Asked):
    for number in range(5):
        saved(plain.root / f"{number}.png", f"wall {number}")
    ids = plain.scanned()
    said = plain.get("/images", limit=2, page=3).json()
    assert [image["file_name"] for image in said["images"]] == ["4.png"]
    assert said["pagination"] == {"page": 3, "limit": 2, "total": 5, "pages": 3}
    assert [image["id"] for image in plain.get("/images", q="3").json()["images"]] == [ids[3]]
    one = plain.get(f"/images/{ids[0]}").json()
    assert one["file_path"] == str(plain.root / "0.png")
    assert (one["width"], one["height"], one["format"]) == (6, 5, "png")
    assert plain.get("/images", page=10**9, limit=10**9).json()["images"] == []


def test_prompts_are_found_by_words(plain: Asked):
    saved(plain.root / "a.png", "a red wall")
    saved(plain.root / "b.png", "a green door")
    (a, _) = plain.scanned()
    found = plain.get("/prompts/search", q="red walls").json()
    assert (found["count"], found["prompts"][0]["image_id"]) == (1, a)
    assert found["prompts"][0]["negative_prompt"] == "blurry"
    assert plain.get("/prompts/search", q='" OR *').json()["count"] == 0
    assert plain.get("/prompts/search").status_code == 400


def test_what_is_not_there_is_404(plain: Asked):
    for path in ("/images/nobody", "/prompts/image/nobody", "/images/interrogate/nobody"):
        answered = plain.get(path)
        assert answered.status_code == 404
        assert "nobody" in line_of(answered)
    assert plain.post("/images/nobody/interrogate").status_code == 404
    assert plain.post("/images/interrogate/nobody/stop").status_code == 404


# -- what may be read ----------------------------------------------------------------------------------------


def test_only_folders_below_the_roots_are_scanned(plain: Asked, tmp_path: Path):
    outside = tmp_path / "outside"
    outside.mkdir()
    saved(outside / "secret.png")
    (plain.root / "link").symlink_to(outside)
    for path in (
        "/",
        "/etc",
        str(outside),
        f"{plain.root}/../outside",
        f"{plain.root}/link",
        "",
        "\0",
        "~nobody/x",
    ):
        answered = plain.post("/images/scan", path=path)
        assert answered.status_code == 400, path
        line_of(answered)
    assert plain.post("/images/scan", path=f"{plain.root}/nothing").status_code == 400
    assert plain.scanned() == []  # a scan of the root does not follow the link, either


def test_a_picture_that_became_a_link_is_not_read(words: Asked, tmp_path: Path):
    picture = painted(words.root / "a.png", "a golden cat")
    (id_,) = words.scanned()
    secret = painted(tmp_path / "secret.png", "a silver cat")
    picture.unlink()
    picture.symlink_to(secret)
    answered = words.post(f"/images/{id_}/interrogate")
    assert answered.status_code == 400
    assert "not in a folder that may be used" in line_of(answered)
    assert not path_of(secret).exists()
    assert not path_of(picture).exists()


def test_what_another_server_took_in_is_not_shown(plain: Asked, tmp_path: Path):
    saved(plain.root / "a.png", "a red wall")
    (id_,) = plain.scanned()
    other = tmp_path / "other"
    other.mkdir()
    stranger = Asked(Standalone(roots=[other]), plain.library.path)
    assert stranger.get("/images").json()["pagination"]["total"] == 0
    assert stranger.get("/prompts/search", q="wall").json()["count"] == 0
    for path in (f"/images/{id_}", f"/prompts/image/{id_}"):
        assert stranger.get(path).status_code == 404
    assert stranger.post(f"/images/{id_}/interrogate").status_code == 404
    stranger.library.close()


def test_another_site_is_not_answered(words: Asked):
    painted(words.root / "a.png", "a golden cat")
    (id_,) = words.scanned()
    path = f"{API}/images/{id_}/interrogate"
    ask = words.client.post
    assert ask(path, headers={"Origin": "http://evil.example"}).status_code == 415
    assert ask(path, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert ask(path, headers={"Host": "evil.example"}).status_code == 403
    assert ask(path, data={"model": "clip"}).status_code == 415
    assert ask(path, content=b"{}").status_code == 415
    assert (
        ask(path, headers={"Origin": "http://localhost:9000", "Sec-Fetch-Site": "same-origin"}).status_code
        == 200
    )
    assert ask(path).status_code == 200


def test_a_page_that_is_listed_may_ask_without_a_body(root: Path, tmp_path: Path):
    app, library = FastAPI(), Library(tmp_path / "library.db")
    access = Access(lambda: {}, (), cors={"http://page.example"})
    app.include_router(library_routes.router(Service(Standalone(roots=[root])), access, library))
    client = TestClient(app, base_url="http://localhost:9000")
    for origin, status in (("http://page.example", 404), ("http://evil.example", 415)):
        answered = client.post(f"{API}/images/x/interrogate", headers={"Origin": origin})
        assert answered.status_code == status
    library.close()


def test_a_password_is_asked_for(root: Path, tmp_path: Path):
    app, library = FastAPI(), Library(tmp_path / "library.db")
    access = Access(lambda: {"me": "secret"}, ())
    app.include_router(library_routes.router(Service(Standalone(roots=[root])), access, library))
    client = TestClient(app, base_url="http://localhost:9000")
    for path in ("/images", "/clip/health", "/prompts/search?q=a"):
        assert client.get(API + path).status_code == 401
    assert client.post(f"{API}/images/x/interrogate").status_code == 401
    assert client.get(f"{API}/images", auth=("me", "secret")).status_code == 200


# -- interrogation -------------------------------------------------------------------------------------------


def test_an_answer_is_kept_in_the_sidecar_and_the_library(words: Asked):
    picture = painted(words.root / "a.png", "a golden cat")
    (id_,) = words.scanned()
    said = words.post(f"/images/{id_}/interrogate", model="clip").json()
    assert {name: said[name] for name in ("image_id", "source", "model", "mode")} == {
        "image_id": id_,
        "source": "clip_interrogation",
        "model": "clip",
        "mode": "best",
    }
    assert "golden" in said["prompt"]
    assert said["score"] > 0.4
    assert (said["answered_by"], said["cached"], said["comparison"]) == ("words", False, None)
    (entry,) = (read(path_of(picture)) or {})["analysis"]["best"]
    assert entry["prompt"] == said["prompt"]
    (prompt,) = words.get(f"/prompts/image/{id_}").json()["prompts"]
    assert (prompt["prompt_type"], prompt["prompt_text"]) == ("clip_generated", said["prompt"])
    assert words.get("/prompts/search", q="golden").json()["count"] == 1


def test_what_is_known_is_not_asked_again(words: Asked):
    painted(words.root / "a.png", "a golden cat", "a golden cat in red light")
    (id_,) = words.scanned()
    first = words.post(f"/images/{id_}/interrogate").json()
    read_by_clip = len(words.service.host.encoder.read)  # type: ignore[attr-defined]
    again = words.post(f"/images/{id_}/interrogate").json()
    assert again == {**first, "cached": True}
    assert len(words.service.host.encoder.read) == read_by_clip  # type: ignore[attr-defined]
    assert words.post(f"/images/{id_}/interrogate", force=True).json() == first
    assert words.post(f"/images/{id_}/interrogate", mode="fast").json()["cached"] is False
    assert len(words.get(f"/prompts/image/{id_}").json()["prompts"]) == 3


def test_the_answer_is_compared_with_the_prompt_in_the_file(words: Asked):
    painted(words.root / "a.png", "a golden cat", "a golden cat")
    (id_,) = words.scanned()
    said = words.post(f"/images/{id_}/interrogate").json()["comparison"]
    assert said["embedded"] == "a golden cat"
    assert said["embedded_score"] == pytest.approx(1, abs=1e-5)
    assert 0.1 < said["similarity"] < 0.99
    prompts = words.get(f"/prompts/image/{id_}").json()["prompts"]
    assert [prompt["comparison"] for prompt in prompts] == [None, said]


def test_models_have_the_names_that_clients_know(words: Asked):
    painted(words.root / "a.png", "a golden cat")
    (id_,) = words.scanned()
    host = words.service.host
    for name, model in (
        ("clip", None),
        ("clip_vit_l_14", "ViT-L-14/openai"),
        ("CLIP-ViT-B/32", "ViT-B-32/openai"),
        ("ViT-H-14/laion2b_s32b_b79k", "ViT-H-14/laion2b_s32b_b79k"),
    ):
        answered = words.post(f"/images/{id_}/interrogate", model=name, force=True)
        assert answered.json()["model"] == name
        assert host.chosen[-1] == model  # type: ignore[attr-defined]
    for model in ("../../etc/passwd", "clip_vit_x"):
        assert "there is no CLIP model" in line_of(words.post(f"/images/{id_}/interrogate", model=model))
    assert "there is no mode" in line_of(words.post(f"/images/{id_}/interrogate", mode="palette"))


def test_what_cannot_run_here_says_what_to_do(plain: Asked):
    saved(plain.root / "a.png")
    (id_,) = plain.scanned()
    for asked in ({}, {"model": "clip_vit_l_14"}, {"model": "deepdanbooru"}, {"mode": "fast"}):
        answered = plain.post(f"/images/{id_}/interrogate", **asked)
        assert answered.status_code == 409
        assert "name its address in STABLE_DIFFUSION_BASE_URL" in line_of(answered)
    for body in (b"", b"{}"):
        headers = {"Content-Type": "application/json"} if body else {}
        answered = plain.client.post(f"{API}/images/{id_}/interrogate", content=body, headers=headers)
        assert answered.status_code == 409, body
    assert "deepdanbooru knows no modes" in line_of(
        plain.post(f"/images/{id_}/interrogate", model="deepdanbooru", mode="fast")
    )
    health = plain.get("/clip/health")
    assert health.status_code == 503
    said = health.json()
    assert (said["status"], said["service"], said["available"]) == ("unavailable", "clip", False)
    assert "ViT-L-14/openai is not here" in said["reason"]


def test_it_can_be_switched_off(words: Asked, monkeypatch: pytest.MonkeyPatch):
    painted(words.root / "a.png", "a golden cat")
    (id_,) = words.scanned()
    monkeypatch.setenv("CLIP_ENABLED", "false")
    assert words.post(f"/images/{id_}/interrogate").status_code == 409
    assert words.get("/clip/health").json()["available"] is False
    monkeypatch.setenv("CLIP_ENABLED", "true")
    assert words.get("/clip/health").json()["available"] is True


def test_where_nothing_can_be_written_the_library_keeps_it(words: Asked, monkeypatch: pytest.MonkeyPatch):
    painted(words.root / "a.png", "a golden cat")
    (id_,) = words.scanned()

    def read_only(*_: Any) -> None:
        raise OSError(30, "read-only file system")

    monkeypatch.setattr("promptglass.librarian.update", read_only)
    said = words.post(f"/images/{id_}/interrogate").json()
    assert said["note"].startswith("only in the library, not beside the picture: the disk can only be read")
    assert len(words.get(f"/prompts/image/{id_}").json()["prompts"]) == 1
    words.scanned()
    assert len(words.get(f"/prompts/image/{id_}").json()["prompts"]) == 1


def test_encrypted_answers_are_in_no_plain_file(words: Asked, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("cryptography")
    monkeypatch.setenv("PROMPTGLASS_KEY", "a long passphrase of ours")
    picture = painted(words.root / "a.png", "a golden cat")
    facts = facts_of(str(picture))
    update(picture, facts, {"best": Recipe("x")}, [Answer("best", "a secret", "x")], Privacy(encrypt=True))
    (id_,) = words.scanned()
    assert "golden" in words.post(f"/images/{id_}/interrogate").json()["prompt"]
    assert b"golden" not in path_of(picture).read_bytes()
    again = words.post(f"/images/{id_}/interrogate").json()
    assert again["cached"] is True
    monkeypatch.delenv("PROMPTGLASS_KEY")
    said = words.post(f"/images/{id_}/interrogate").json()
    assert said["prompt"] == again["prompt"]
    assert said["note"].startswith("kept nowhere: ")
    assert words.get(f"/prompts/image/{id_}").json()["prompts"] == []


def test_sidecars_are_as_their_schema_says(words: Asked):
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((Path(__file__).parent.parent / "docs" / "sidecar.schema.json").read_text())
    picture = painted(words.root / "a.png", "a golden cat", "a golden cat")
    (id_,) = words.scanned()
    for mode in ("best", "tables", "negative"):
        assert words.post(f"/images/{id_}/interrogate", mode=mode).status_code == 200
    jsonschema.validate(read(path_of(picture)), schema)


def test_a_picture_that_is_gone_or_broken_is_an_error(words: Asked):
    a, b = painted(words.root / "a.png", "a golden cat"), painted(words.root / "b.png", "a red cat")
    first, second = words.scanned()
    a.unlink()
    b.write_bytes(b"no picture any more")
    gone = words.post(f"/images/{first}/interrogate")
    assert gone.status_code == 404
    assert "Scan its folder again" in line_of(gone)
    assert words.post(f"/images/{second}/interrogate").status_code == 400


# -- many ----------------------------------------------------------------------------------------------------


def followed(asked: Asked, job: dict[str, Any]) -> dict[str, Any]:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        said = asked.get(f"/images/interrogate/{job['id']}").json()
        if said["state"] not in ("running", "stopping"):
            return said
        time.sleep(0.02)
    raise AssertionError("it does not end")


def test_many_images_are_a_job(words: Asked):
    for number, kind in enumerate(KIND):
        painted(words.root / f"{number}.png", f"a {kind} cat")
    ids = words.scanned()
    (words.root / "0.png").unlink()
    answered = words.post("/images/interrogate", all=True, mode="tables")
    assert answered.status_code == 202
    said = followed(words, answered.json())
    assert said["state"] == "done"
    assert said["result"] == {"total": 7, "successful": 6, "failed": 1}
    assert said["progress"] == {"what": "interrogating", "done": 7, "total": 7}
    assert [result["image_id"] for result in said["results"]] == ids
    assert [result["success"] for result in said["results"]] == [False] + [True] * 6
    assert "red light" in said["results"][0]["prompt"] if said["results"][0]["success"] else True
    assert len(words.get("/prompts/search", q="green").json()["prompts"]) == 1
    some = followed(words, words.post("/images/interrogate", ids=[*ids[1:3], "nobody", ids[1]]).json())
    assert some["result"] == {"total": 3, "successful": 2, "failed": 1}


def test_many_images_can_be_stopped(words: Asked, monkeypatch: pytest.MonkeyPatch):
    for number in range(30):
        painted(words.root / f"{number:02}.png", f"a cat {number}")
    words.scanned()
    job = words.post("/images/interrogate", all=True).json()
    words.post(f"/images/interrogate/{job['id']}/stop")
    said = followed(words, job)
    assert said["state"] in ("stopped", "done")
    again = followed(words, words.post("/images/interrogate", all=True).json())
    assert again["result"]["successful"] == 30


def test_many_images_of_nothing_are_no_question(words: Asked, plain: Asked):
    for asked in ({}, {"ids": []}, {"ids": ["a"], "all": True}):
        assert words.post("/images/interrogate", **asked).status_code == 400
    saved(plain.root / "a.png")
    plain.scanned()
    said = followed(plain, plain.post("/images/interrogate", all=True).json())
    assert said["state"] == "failed"
    assert "STABLE_DIFFUSION_BASE_URL" in said["error"]


# -- by a WebUI ----------------------------------------------------------------------------------------------


def test_where_no_clip_is_here_a_webui_is_asked(plain: Asked, monkeypatch: pytest.MonkeyPatch):
    from fastapi import Body

    webui = FastAPI()
    asked: list[str] = []

    @webui.get("/sdapi/v1/samplers")
    def samplers() -> list[str]:
        return []

    @webui.post("/sdapi/v1/interrogate")
    def interrogate(image: str = Body(...), model: str = Body("clip")) -> dict[str, str]:
        asked.append(model)
        return {"caption": f"a wall, as {model} sees it"}

    with served(webui) as port:
        monkeypatch.setenv("STABLE_DIFFUSION_API_URL", f"http://127.0.0.1:{port}")
        picture = saved(plain.root / "a.png", "a red wall")
        (id_,) = plain.scanned()
        assert plain.get("/clip/health").json()["available"] is True
        for model in ("clip", "clip_vit_l_14", "deepdanbooru"):
            said = plain.post(f"/images/{id_}/interrogate", model=model).json()
            name = "deepdanbooru" if model == "deepdanbooru" else "clip"
            assert said["prompt"] == f"a wall, as {name} sees it"
            assert (said["source"], said["model"]) == ("clip_interrogation", model)
            assert said["comparison"] == {
                "embedded": "a red wall",
                "embedded_score": None,
                "similarity": None,
            }
        assert asked == ["clip", "deepdanbooru"]  # the second question was the first one's
        assert {*(read(path_of(picture)) or {})["analysis"]} == {"webui/clip", "webui/deepdanbooru"}
        types = [prompt["prompt_type"] for prompt in plain.get(f"/prompts/image/{id_}").json()["prompts"]]
        assert sorted(types) == ["clip_generated", "clip_generated", "embedded"]
    monkeypatch.setenv("STABLE_DIFFUSION_BASE_URL", NOBODY)
    answered = plain.post(f"/images/{id_}/interrogate", force=True)
    assert answered.status_code == 502
    assert "STABLE_DIFFUSION_BASE_URL" in line_of(answered)


# -- anything at all -----------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(["path", "recursive", "model", "mode", "force", "ids", "all"])
ROUTES = ["/images/scan", "/images/{id}/interrogate", "/images/interrogate"]


@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(ROUTES),
    st.one_of(JSON, st.dictionaries(FIELDS, JSON | st.sampled_from(["clip", "best", "\ud800", "/etc", "~"]))),
)
def test_no_question_breaks_it(plain: Asked, route: str, asked: Any):
    plain.service.host.roots = [plain.root]
    if not plain.library.count():
        saved(plain.root / "a.png")
        plain.scanned()
    (id_,) = plain.library.ids()
    content = json.dumps(asked).encode()
    headers = {"Content-Type": "application/json"}
    answered = plain.client.post(API + route.replace("{id}", id_), content=content, headers=headers)
    assert answered.status_code != 500, answered.text
    answered.json()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=30), st.text(max_size=30), st.binary(max_size=40))
def test_no_address_breaks_it(plain: Asked, name: str, value: str, body: bytes):
    asked = value.encode("utf-8", "replace")
    for path in ("/images", "/prompts/search"):
        answered = plain.get(path, q=asked, limit="3")
        assert answered.status_code in (200, 400), answered.text
        assert plain.client.get(API + path, params={"page": asked}).status_code < 500
    for path in ("/images/", "/prompts/image/"):
        quoted = quote(name, safe="", errors="replace")
        assert plain.client.get(API + path + quoted).status_code < 500
    headers = {"Content-Type": "application/json"}
    assert plain.client.post(f"{API}/images/scan", content=body, headers=headers).status_code < 500
