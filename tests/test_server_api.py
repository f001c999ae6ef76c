"""The routes: who is answered, what is answered, and what becomes of errors, batches and those who leave.

What needs no torch runs without it, as beside the FastAPI of A1111 and Forge.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import noise, png
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

pytest.importorskip("fastapi")
pytest.importorskip("httpx")

from fakes.word_host import WordHost
from fastapi import FastAPI, HTTPException
from fastapi.exceptions import RequestValidationError
from fastapi.responses import PlainTextResponse
from fastapi.testclient import TestClient

from promptglass import errors
from promptglass.analyzers import PaletteAnalyzer
from promptglass.host import Standalone
from promptglass.jobs import Jobs
from promptglass.server import uploads
from promptglass.server.mount import mount
from promptglass.service import Service
from promptglass.sidecar import path_of

V1 = "/promptglass/v1"
JSON = {"Content-Type": "application/json"}

pytestmark = pytest.mark.usefixtures("apart")


@pytest.fixture
def service(root: Path) -> Service:
    return Service(Standalone(roots=[root], wildcards=root.parent / "wildcards", endpoints=["eyes"]))


@pytest.fixture
def client(service: Service) -> TestClient:
    return client_of(service)


@pytest.fixture
def words(root: Path) -> WordHost:
    pytest.importorskip("torch")
    return WordHost(roots=[root])


def client_of(
    service: Service, credentials: Mapping[str, str] | None = None, app: FastAPI | None = None
) -> TestClient:
    app = app or FastAPI()
    mount(app, service, lambda: credentials or {}, {"gpu-box"}, with_interrogator_ext=True)
    return TestClient(app, base_url="http://localhost:7860", raise_server_exceptions=False)


def sent(content: bytes) -> str:
    return base64.b64encode(content).decode()


RED = sent(png(Image.new("RGB", (20, 10), "red"), "a red wall"))


def painted(text: str) -> str:
    """A picture that looks like the text to a WordEncoder."""
    from fakes import word_encoder

    return sent(png(word_encoder.painted(text)))


def line_of(response: Any, key: str = "error") -> str:
    """The one line of a failure, and nothing besides."""
    content = response.json()
    assert list(content) == [key]
    assert content[key] == " ".join(content[key].split())
    return content[key]


# -- what is answered ----------------------------------------------------------------------------------------


def test_a_picture_is_answered_by_modes(client: TestClient):
    asked = {"image": RED, "modes": ["embedded", "palette"]}
    answered = client.post(f"{V1}/interrogate", json=asked)
    assert answered.status_code == 200
    found = answered.json()
    assert {key: found[key] for key in ("format", "width", "height")} == {
        "format": "PNG",
        "width": 20,
        "height": 10,
    }
    assert [(answer["mode"], answer["text"]) for answer in found["answers"]] == [
        ("embedded", "a red wall"),
        ("palette", "red"),
    ]
    assert found["failures"] == found["left_out"] == []


def test_what_cannot_run_is_left_out_and_said(client: TestClient):
    found = client.post(f"{V1}/interrogate", json={"image": RED, "modes": "palette,best"}).json()
    assert [answer["mode"] for answer in found["answers"]] == ["palette"]
    assert [left["mode"] for left in found["left_out"]] == ["best"]
    assert "ViT-L-14/openai" in found["left_out"][0]["error"]


def test_where_nothing_can_run_the_cause_is_an_error(client: TestClient):
    answered = client.post(f"{V1}/interrogate", json={"image": RED, "modes": ["fast"]})
    assert answered.status_code == 409
    assert "ViT-L-14/openai is not here" in line_of(answered)


def test_the_modes_of_clip_are_answered_by_the_engine(words: WordHost):
    client = client_of(Service(words))
    asked = {"image": painted("a golden cat"), "modes": ["best", "fast", "negative"], "caption": "a cat"}
    answered = client.post(f"{V1}/interrogate", json=asked)
    found = {answer["mode"]: answer for answer in answered.json()["answers"]}
    assert list(found) == ["best", "fast", "negative"]
    assert found["best"]["text"].startswith("a cat, ")
    assert "golden" in found["best"]["text"]
    assert found["best"]["score"] > 0.5
    assert found["negative"]["model"] == "words"


def test_a_picture_is_sorted_into_categories_and_labels(words: WordHost):
    client = client_of(Service(words))
    asked = {"image": painted("a golden cat"), "categories": ["style"], "labels": "dog\ncat\n", "top": 2}
    found = client.post(f"{V1}/analyze", json=asked).json()
    assert list(found["categories"]) == ["style", "labels"]
    assert [one["label"] for one in found["categories"]["labels"]] == ["cat", "dog"]
    assert len(found["categories"]["style"]) == 2
    every = client.post(f"{V1}/analyze", json={"image": painted("a golden cat"), "top": 1}).json()
    assert {"style", "mood"} < {*every["categories"]}
    nothing = client.post(f"{V1}/analyze", json={"image": painted("a cat"), "categories": []})
    assert nothing.status_code == 400


def test_a_prompt_is_refined_with_and_without_a_picture(words: WordHost, tmp_path: Path):
    from fakes.llm_server import FakeServer, whole

    words.endpoints = ["eyes"]
    client = client_of(Service(words))
    with FakeServer(whole("openai", "a golden cat, golden light")) as fake:
        eyes = {"protocol": "openai", "base_url": fake.url, "model": "m", "retries": 0}
        (tmp_path / "config.yaml").write_text(json.dumps({"endpoints": {"eyes": eyes}}))
        asked = {"text": "a cat", "profile": "eyes", "candidates": 1}
        alone = client.post(f"{V1}/refine", json=asked)
        seen = client.post(f"{V1}/refine", json={**asked, "image": painted("a golden cat")})
    assert alone.json()["answers"][0]["text"] == "a golden cat, golden light"
    assert "picture" not in alone.json()
    assert seen.json()["answers"][0]["mode"] == "llm/refine"
    assert seen.json()["width"] == 6
    assert seen.json()["warnings"] == []


def test_only_endpoints_of_the_host_are_asked(client: TestClient):
    for asked in (
        client.post(f"{V1}/refine", json={"text": "a cat", "profile": "ollama"}),
        client.post(f"{V1}/interrogate", json={"image": RED, "modes": "llm/describe", "llm": "ollama"}),
        client.post(f"{V1}/interrogate", json={"image": RED, "modes": "llm/describe@openai/m"}),
    ):
        assert asked.status_code == 400
        assert "may not be asked here" in line_of(asked)


def test_an_endpoint_that_does_not_answer_is_502(client: TestClient, tmp_path: Path):
    eyes = {"protocol": "openai", "base_url": "http://127.0.0.1:9", "model": "m", "retries": 0}
    (tmp_path / "config.yaml").write_text(json.dumps({"endpoints": {"eyes": eyes}}))
    assert client.post(f"{V1}/refine", json={"text": "a cat", "profile": "eyes"}).status_code == 502


def test_a_mode_that_is_left_out_has_nothing_fetched(
    client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from fakes.llm_server import FakeServer, whole

    fetched: list[Any] = []
    monkeypatch.setattr("promptglass.weights.get", lambda *given: fetched.append(given))
    monkeypatch.setattr("promptglass.clip.loading.ready", lambda *given: fetched.append(given), raising=False)
    with FakeServer(whole("openai", "a red wall, warm light")) as fake:
        eyes = {"protocol": "openai", "base_url": fake.url, "model": "m", "retries": 0}
        (tmp_path / "config.yaml").write_text(json.dumps({"endpoints": {"eyes": eyes}}))
        asked = {"image": RED, "modes": "best,llm/refine", "llm": "eyes", "candidates": 1}
        found = client.post(f"{V1}/interrogate", json=asked).json()
    assert [answer["mode"] for answer in found["answers"]] == ["llm/refine"]
    assert [left["mode"] for left in found["left_out"]] == ["best"]
    assert not fetched


def test_a_model_is_named_and_never_a_path(client: TestClient, tmp_path: Path):
    weights = tmp_path / "model.pt"
    weights.write_bytes(b"anything")
    for model in (str(weights), f"ViT-L-14/{weights}", "blip-large", "../model.pt"):
        asked = client.post(f"{V1}/interrogate", json={"image": RED, "modes": "palette", "model": model})
        assert asked.status_code == 400
        assert "there is no CLIP model" in line_of(asked)
    known = {"image": RED, "modes": "palette", "model": "ViT-B-32"}
    assert client.post(f"{V1}/interrogate", json=known).status_code == 200


def test_what_is_here_is_told(client: TestClient):
    health = client.get(f"{V1}/health")
    assert health.status_code == 200
    assert health.json()["host"] == "standalone"
    assert health.json()["modes"]["palette"] is None
    assert client.get(f"{V1}/endpoints").json() == {"endpoints": []}


def test_wildcards_are_written_where_the_host_reads_them(client: TestClient, root: Path):
    nothing = client.post(f"{V1}/wildcards", json={"folder": str(root)}).json()
    assert nothing["files"] == []
    assert "no sidecars" in nothing["notes"][0]
    (root / "a.png").write_bytes(base64.b64decode(RED))
    start_and_wait(client, root, modes="embedded")
    written = client.post(f"{V1}/wildcards", json={"folder": str(root)}).json()
    assert [file["name"] for file in written["files"]] == ["promptglass/embedded"]
    assert Path(written["files"][0]["path"]).read_text() == "a red wall\n"
    wrong = client.post(f"{V1}/wildcards", json={"folder": str(root), "format": "csv"})
    assert wrong.status_code == 400


# -- pictures ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "image",
    [RED, f"data:image/png;base64,{RED}", f"DATA:;base64,{RED}", "\r\n".join([RED[:40], RED[40:]])],
)
def test_a_picture_is_base64(client: TestClient, image: str):
    assert client.post(f"{V1}/interrogate", json={"image": image, "modes": "palette"}).status_code == 200


@pytest.mark.parametrize(
    ("image", "why"),
    [
        ("", "empty"),
        (RED[:-1], "base64"),
        (RED[:40] + "*" + RED[40:], "base64"),
        (RED.replace("A", "-"), "base64"),
        ("é" * 8, "base64"),
        ("/etc/passwd", "base64"),
        ("http://127.0.0.1/a.png", "base64"),
        ("data:image/svg+xml,<svg/>", "base64"),
        (sent(b"<svg></svg>"), "SVG"),
        (sent(base64.b64decode(RED)[:60]), "cannot read image"),
    ],
)
def test_what_is_no_picture_is_refused(client: TestClient, image: str, why: str):
    for route, key in ((f"{V1}/interrogate", "error"), ("/interrogator/prompt", "detail")):
        refused = client.post(route, json={"image": image})
        assert refused.status_code == 400
        assert why in line_of(refused, key)


def test_a_picture_has_a_most(client: TestClient, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(uploads, "MOST_BYTES", 3000)
    for size, status in ((3000, 400), (3001, 413), (6000, 413)):
        asked = client.post(f"{V1}/interrogate", json={"image": sent(b"x" * size)})
        assert asked.status_code == status
        line_of(asked)


def test_a_question_has_a_most_however_it_comes(client: TestClient, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("promptglass.server.door.MOST_BYTES_OF_QUESTION", 50_000)
    pieces = (b" " * 10_000 for _ in range(6))
    for content in (b" " * 50_001, pieces):
        asked = client.post(f"{V1}/interrogate", content=content, headers=JSON)
        assert asked.status_code == 413
        line_of(asked)


# -- errors --------------------------------------------------------------------------------------------------

TABLE: list[tuple[Exception, int]] = [
    (errors.InputError("no such mode"), 400),
    (errors.ImageError("x.png", "torn"), 400),
    (errors.SidecarError("x.json", "torn"), 400),
    (errors.EncryptionKeyError("no key"), 400),
    (errors.ModelError("no model"), 409),
    (errors.WeightsMissing("no weights"), 409),
    (errors.CaptionerMissing("no captioner"), 409),
    (errors.Stopped("stopped"), 409),
    (errors.Busy("16 jobs"), 429),
    (errors.DependencyMissing("this", "that"), 501),
    (ModuleNotFoundError("No module named 'that'", name="that"), 501),
    (errors.EndpointUnreachable("nobody there"), 502),
    (errors.EndpointRefused("no credit", 402), 502),
    (errors.ModelSeesNot("blind"), 502),
    (errors.ReplyError("nonsense"), 502),
    (errors.PromptglassError("two\nlines"), 500),
    (RuntimeError("secret"), 500),
    (MemoryError("secret"), 500),
]


@pytest.mark.parametrize(("error", "status"), TABLE, ids=lambda value: type(value).__name__)
@pytest.mark.parametrize("route", [f"{V1}/interrogate", "/interrogator/prompt"])
@pytest.mark.parametrize("is_in_the_job", [True, False])
def test_every_error_has_its_status_and_one_line(
    service: Service,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    status: int,
    route: str,
    is_in_the_job: bool,
):
    def fail(*_: Any) -> Any:
        raise error

    def interrogate(*_: Any) -> Any:
        return service.jobs.start("interrogate", fail) if is_in_the_job else fail()

    monkeypatch.setattr(service, "interrogate", interrogate)
    answered = client_of(service).post(route, json={"image": RED})
    assert answered.status_code == status
    line = line_of(answered, "detail" if "interrogator" in route else "error")
    assert "secret" not in answered.text
    assert ("console" in line) == (status == 500 and not isinstance(error, errors.PromptglassError))
    assert ("retry-after" in answered.headers) == (status == 429)
    assert answered.headers["cache-control"] == "no-store"


def test_more_jobs_than_are_good_are_429(service: Service, client: TestClient, root: Path):
    over = threading.Event()
    service.jobs = Jobs(most=1)
    service.jobs.start("batch", lambda job: over.wait(30))
    busy = client.post(f"{V1}/interrogate", json={"image": RED, "modes": "palette"})
    over.set()
    assert busy.status_code == 429
    assert int(busy.headers["retry-after"]) > 0


def test_the_hosts_own_handlers_never_hear_of_our_errors(service: Service):
    """A1111 and Forge answer with the text of what they hear of."""
    app = FastAPI()
    for kind in (Exception, HTTPException, RequestValidationError, 500, 422, 401):
        app.add_exception_handler(kind, lambda *_: PlainTextResponse("leaked", 500))
    client = client_of(service, app=app)
    service.host.facts = lambda: 1 / 0
    assert client.get(f"{V1}/health").status_code == 500
    assert "console" in line_of(client.get(f"{V1}/health"))
    line_of(client.post(f"{V1}/interrogate", json={"image": []}))
    line_of(client.post(f"{V1}/interrogate", content=b"\xff{", headers=JSON))
    assert client_of(service, {"a": "b"}, FastAPI()).get(f"{V1}/health").status_code == 401


@pytest.mark.parametrize(
    ("route", "content"),
    [
        (f"{V1}/interrogate", b""),
        (f"{V1}/interrogate", b"{"),
        (f"{V1}/interrogate", b"\xff"),
        (f"{V1}/interrogate", b"[" * 100_000),
        (f"{V1}/interrogate", b"[]"),
        (f"{V1}/interrogate", b'{"image": {}}'),
        (f"{V1}/interrogate", b'{"modes": "palette"}'),
        (f"{V1}/interrogate", b'{"image": "", "candidates": 0}'),
        (f"{V1}/interrogate", b'{"image": "", "candidates": 1e999}'),
        (f"{V1}/interrogate", b'{"image": "", "deep": "perhaps"}'),
        (f"{V1}/analyze", b'{"image": "", "top": NaN}'),
        (f"{V1}/refine", b'{"text": "a cat", "seed": -1}'),
        (f"{V1}/batches", b'{"folder": null}'),
        ("/interrogator/prompt", b'{"image": null}'),
    ],
)
def test_a_wrong_type_is_the_askers_fault(client: TestClient, route: str, content: bytes):
    answered = client.post(route, content=content, headers=JSON)
    assert answered.status_code in (400, 422)
    line_of(answered, "detail" if "interrogator" in route else "error")


CHOICE = ("modes", "caption", "model", "llm", "wishes", "keep", "candidates", "deep")
FIELDS = (
    *("image", *CHOICE, "categories", "labels", "top", "text", "prompt_id", "profile", "seed"),
    *("folder", "recursive", "force", "verify", "txt", "prefix", "suffix", "exclude", "replace"),
    *("per_folder", "format", "weights", "clip_model_name", "mode"),
)
ROUTES = [f"{V1}/{name}" for name in ("interrogate", "analyze", "refine", "batches", "wildcards")]
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**400, -1, 0])
    | st.floats()
    | st.text(st.characters(), max_size=8)
    | st.sampled_from(
        ["\ud800", "\0", "all", "palette", "best,llm/describe", "llm/x@y/z", "..", "~", "eyes", "style"]
    )
)
ANYTHING = st.recursive(
    SCALARS,
    lambda some: st.lists(some, max_size=3) | st.dictionaries(st.text(max_size=3), some, max_size=3),
    max_leaves=5,
)
QUESTIONS = st.dictionaries(st.sampled_from(FIELDS), ANYTHING, max_size=8).flatmap(
    lambda asked: st.sampled_from([asked, {"image": RED, **asked}, {**asked, "image": RED}])
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(route=st.sampled_from([*ROUTES, "/interrogator/prompt", "/interrogator/analyze"]), asked=QUESTIONS)
def test_no_question_is_an_error_of_ours(client: TestClient, route: str, asked: Any):
    answered = client.post(route, content=json.dumps(asked).encode(), headers=JSON)
    assert answered.status_code in (200, 202, 400, 409, 422, 429, 501, 502)
    answered.json()


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(route=st.sampled_from(ROUTES), content=st.binary() | ANYTHING.map(lambda it: json.dumps(it).encode()))
def test_no_bytes_are_an_error_of_ours(client: TestClient, route: str, content: bytes):
    assert client.post(route, content=content, headers=JSON).status_code in (400, 422)


def test_half_a_character_is_told_as_it_is():
    """JSON can say it, UTF-8 cannot, and a file's name or a prompt may hold it."""
    from promptglass.server.door import as_response

    assert as_response({"text": "\ud83d é"}).body == rb'{"text": "\ud83d \u00e9"}'


# -- who is answered -----------------------------------------------------------------------------------------

KNOWN = {"ann": "secret", "zoë": "pass:wörd"}
PAGES = [
    ("GET", f"{V1}/health"),
    ("GET", f"{V1}/batches"),
    ("GET", "/interrogator/models"),
    ("POST", f"{V1}/interrogate"),
    ("POST", "/interrogator/prompt"),
]


def basic(text: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(text.encode()).decode()}


@pytest.mark.parametrize(("method", "path"), PAGES)
@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        (basic("ann:wrong"), 401),
        (basic("ann:"), 401),
        (basic("ann"), 401),
        (basic("nobody:secret"), 401),
        (basic("ann:pass:wörd"), 401),  # the password of another
        ({"Authorization": "Basic ***"}, 401),
        ({"Authorization": "Basic"}, 401),
        ({"Authorization": "Bearer secret"}, 401),
        (basic("ann:secret"), None),
        (basic("zoë:pass:wörd"), None),
        ({"Authorization": basic("ann:secret")["Authorization"].replace("Basic", "basic")}, None),
        ({**basic("ann:secret"), "Host": "glass.example"}, None),  # behind a proxy; a password proves enough
        ({**basic("ann:secret"), "Sec-Fetch-Site": "cross-site"}, 403),
        ({**basic("ann:secret"), "Sec-Fetch-Site": "same-site"}, 403),
        ({**basic("ann:secret"), "Sec-Fetch-Site": "same-origin"}, None),
    ],
)
def test_passwords_are_asked_for(
    service: Service, method: str, path: str, headers: dict[str, str], status: int | None
):
    client = client_of(service, KNOWN)
    answered = client.request(method, path, content=b"{}", headers={**JSON, **headers})
    if status is None:
        assert answered.status_code in (200, 400, 422)
        return
    assert answered.status_code == status
    line_of(answered, "detail" if "interrogator" in path else "error")
    assert answered.headers.get("www-authenticate", "").startswith("Basic ") == (status == 401)


@pytest.mark.parametrize(("method", "path"), PAGES)
@pytest.mark.parametrize(
    ("headers", "is_answered"),
    [
        ({}, True),
        ({"Host": "127.0.0.1:7860"}, True),
        ({"Host": "gpu-box"}, True),
        ({"Host": "evil.example"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-origin"}, True),
    ],
)
def test_without_passwords_other_sites_are_refused(
    client: TestClient, method: str, path: str, headers: dict[str, str], is_answered: bool
):
    answered = client.request(method, path, content=b"{}", headers={**JSON, **headers})
    assert (answered.status_code != 403) == is_answered


@pytest.mark.parametrize("credentials", [{}, KNOWN])
def test_a_form_of_another_site_is_no_question(service: Service, credentials: Mapping[str, str]):
    client = client_of(service, credentials)
    for kind in ("text/plain", "application/x-www-form-urlencoded"):
        headers = {"Content-Type": kind, **basic("ann:secret")}
        for path in (f"{V1}/interrogate", f"{V1}/batches/1/stop", "/interrogator/prompt"):
            assert client.post(path, content=b"{}", headers=headers).status_code == 415


def test_a_stranger_is_refused_before_the_body_is_read(service: Service):
    app = client_of(service, KNOWN).app
    read = []

    async def receive() -> dict[str, Any]:
        read.append(True)
        return {"type": "http.request", "body": b"{}", "more_body": False}

    status, _ = asked_directly(app, "POST", f"{V1}/interrogate", receive=receive)
    assert status == 401
    assert not read


def test_credentials_that_cannot_be_read_let_nobody_in(service: Service):
    def broken() -> Mapping[str, str]:
        raise OSError("secret")

    app = FastAPI()
    mount(app, service, broken, ())
    answered = TestClient(app, base_url="http://localhost", raise_server_exceptions=False).get(f"{V1}/health")
    assert answered.status_code == 500
    assert "secret" not in answered.text


# -- folders -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("route", ["batches", "wildcards"])
def test_only_folders_below_the_roots_are_used(client: TestClient, root: Path, route: str):
    outside = root.parent / "outside"
    outside.mkdir()
    (root / "link").symlink_to(outside)
    (root / "loop").symlink_to(root / "loop")
    for folder in (
        outside,
        root / ".." / "outside",
        root / "link",
        root / "link" / "deeper",
        root / "loop",
        "~",
        "~nobody-is-called-this",
        "",
        ".",
        "/",
        f"{root}\0",
        f"{root}-beside",
    ):
        refused = client.post(f"{V1}/{route}", json={"folder": str(folder), "modes": "palette"})
        assert refused.status_code == 400, folder
        assert "is not in a folder that may be used" in line_of(refused)
    assert list(outside.iterdir()) == []


def start_and_wait(client: TestClient, folder: Path, **more: Any) -> dict[str, Any]:
    started = client.post(f"{V1}/batches", json={"folder": str(folder), **more})
    assert started.status_code == 202, started.text
    return ended(client, started.json()["id"])


def ended(client: TestClient, id: str) -> dict[str, Any]:
    for _ in range(600):
        job = client.get(f"{V1}/batches/{id}").json()
        if job["state"] not in ("running", "stopping"):
            return job
        time.sleep(0.05)
    raise AssertionError(f"still {job['state']}")


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A palette takes its time, and each picture is told of by itself."""
    monkeypatch.setattr("promptglass.pipeline._GROUP", 1)
    analyze = PaletteAnalyzer.analyze

    def slowly(self: PaletteAnalyzer, pictures: Any, modes: Any) -> Iterator[Any]:
        for outcome in analyze(self, pictures, modes):
            time.sleep(0.06)
            yield outcome

    monkeypatch.setattr(PaletteAnalyzer, "analyze", slowly)


@pytest.fixture
def forty(root: Path) -> Path:
    for number in range(40):
        noise(number).save(root / f"{number:02}.png")
    return root


def test_a_batch_is_watched_left_stopped_and_started_again(client: TestClient, slow: None, forty: Path):
    asked = {"folder": str(forty), "modes": "palette"}
    job = client.post(f"{V1}/batches", json=asked).json()
    assert (job["state"], job["kind"], job["folder"]) == ("running", "batch", str(forty))

    heard: list[dict[str, Any]] = []
    enough = threading.Event()

    def hear(text: str) -> None:
        heard.extend(events_of(text))
        if len(heard) > 3:
            enough.set()

    watched = f"{V1}/batches/{job['id']}/events"
    asked_directly(client.app, "GET", watched, hear=hear, leaves=enough)
    assert [event["kind"] for event in heard[:2]] == ["planned", "outcome"]
    assert heard[0]["todo"] == 40
    assert client.get(f"{V1}/batches/{job['id']}").json()["state"] == "running"  # though nobody watches now

    stopping = client.post(f"{V1}/batches/{job['id']}/stop", json={})
    assert stopping.json()["state"] in ("stopping", "stopped")
    stopped = ended(client, job["id"])
    assert stopped["state"] == "stopped"
    assert 0 < stopped["done"] == stopped["counts"]["done"] < 40
    assert stopped["total"] == 40

    last = heard[-1]["id"]
    rest = events_of(client.get(f"{watched}?after=0", headers={"Last-Event-ID": str(last)}).text)
    assert [event["id"] for event in rest] == list(range(last + 1, last + len(rest) + 1))
    assert (rest[-1]["kind"], rest[-1]["state"]) == ("end", "stopped")
    assert events_of(client.get(f"{watched}?after={last}").text) == rest
    over = client.get(watched, headers={"Last-Event-ID": str(rest[-1]["id"])})
    assert (over.status_code, over.text) == (204, "")
    assert client.get(f"{V1}/batches/{job['id']}?after={last}").json()["events"] == rest[:-1]

    again = start_and_wait(client, forty, modes="palette")
    assert again["state"] == "done"
    assert again["counts"]["unchanged"] == stopped["done"]
    assert again["counts"]["done"] == 40 - stopped["done"]
    assert all(path_of(picture).exists() for picture in forty.glob("*.png"))
    listed = client.get(f"{V1}/batches").json()["batches"]
    assert [one["id"] for one in listed] == [again["id"], job["id"]]


def test_events_come_while_the_batch_runs(client: TestClient, slow: None, forty: Path):
    job = client.post(f"{V1}/batches", json={"folder": str(forty), "modes": "palette"}).json()
    times: list[float] = []
    status, headers = asked_directly(
        client.app, "GET", f"{V1}/batches/{job['id']}/events", hear=lambda _: times.append(time.monotonic())
    )
    assert status == 200
    assert headers["content-type"].startswith("text/event-stream")
    assert times[-1] - times[0] > 1  # 40 pictures take longer than two seconds


def test_a_batch_writes_captions_to_train_on(client: TestClient, root: Path):
    (root / "a.png").write_bytes(base64.b64decode(RED))
    captions = {"txt": "overwrite", "prefix": "sks", "exclude": ["red, *light"], "replace": ["wall=fence"]}
    done = start_and_wait(client, root, modes=["embedded", "palette"], **captions)
    assert done["result"]["is_whole"]
    assert (root / "a.txt").read_text() == "sks, a red fence\n"
    for wrong in ({"prefix": "sks"}, {"txt": "sometimes"}, {"txt": "skip", "replace": ["x"]}):
        assert client.post(f"{V1}/batches", json={"folder": str(root), **wrong}).status_code == 400


def test_a_batch_that_fails_says_why_and_no_more(
    service: Service, client: TestClient, root: Path, monkeypatch: pytest.MonkeyPatch
):
    gone = start_and_wait(client, root / "gone", modes="palette")
    assert gone["state"] == "failed"
    assert "gone" in gone["error"]
    monkeypatch.setattr("promptglass.service.Batch", lambda *_, **__: 1 / 0)
    broken = start_and_wait(client, root, modes="palette")
    assert "console" in broken["error"]
    assert "ZeroDivision" not in client.get(f"{V1}/batches").text


@pytest.mark.parametrize("path", ["batches/1", "batches/1/events", "batches/%0A/events"])
def test_what_is_no_batch_is_404(service: Service, client: TestClient, path: str):
    missing = client.get(f"{V1}/{path}")
    assert missing.status_code == 404
    line_of(missing)
    client.post(f"{V1}/interrogate", json={"image": RED, "modes": "palette"})
    (other,) = service.jobs.of("interrogate")
    assert client.get(f"{V1}/batches/{other.id}").status_code == 404
    assert client.post(f"{V1}/batches/{other.id}/stop", json={}).status_code == 404


# -- several at once, and those who leave --------------------------------------------------------------------


def test_two_at_once_wait_for_each_other_and_both_are_right(words: WordHost, monkeypatch: pytest.MonkeyPatch):
    client = client_of(Service(words))
    working: list[None] = []
    together: list[int] = []
    look = words.encoder.encode_images

    def slowly(images: Sequence[Image.Image]) -> Any:
        working.append(None)
        together.append(len(working))
        time.sleep(0.1)
        working.pop()
        return look(images)

    monkeypatch.setattr(words.encoder, "encode_images", slowly)

    def ask(kind: str) -> str:
        asked = {"image": painted(f"a {kind} cat"), "modes": "fast", "caption": "a cat"}
        return client.post(f"{V1}/interrogate", json=asked).json()["answers"][0]["text"]

    kinds = ["red", "green", "blue", "golden"]
    with ThreadPoolExecutor(4) as pool:
        prompts = [*pool.map(ask, kinds)]
    assert max(together) == 1
    for kind, prompt in zip(kinds, prompts, strict=True):
        assert kind in prompt.split(", ")[1]


def test_who_leaves_stops_the_work(service: Service, monkeypatch: pytest.MonkeyPatch):
    begun, stopped = threading.Event(), threading.Event()

    def work(job: Any) -> None:
        begun.set()
        try:
            for _ in range(250):
                time.sleep(0.02)
                job.check()
        except errors.Stopped:
            stopped.set()
            raise

    monkeypatch.setattr(service, "interrogate", lambda *_: service.jobs.start("interrogate", work))
    app = FastAPI()

    @app.middleware("http")  # as hosts have some: behind one, Request.is_disconnected is always false
    async def pass_on(request: Any, call_next: Callable[[Any], Any]) -> Any:
        return await call_next(request)

    client_of(service, app=app)
    body = json.dumps({"image": RED}).encode()
    with contextlib.suppress(RuntimeError):  # older ones: No response returned
        asked_directly(app, "POST", f"{V1}/interrogate", body, leaves=begun)
    assert stopped.wait(1)


# -- clip-interrogator-ext -----------------------------------------------------------------------------------


def test_its_clients_find_what_they_know(words: WordHost):
    client = client_of(Service(words))
    image = painted("a golden cat")
    assert client.get("/interrogator/models").json()[0] == "words"
    for mode in ("best", "fast", "classic", "negative", "caption"):
        asked = {"image": image, "clip_model_name": "words", "mode": mode}
        answered = client.post("/interrogator/prompt", json=asked)
        assert answered.status_code == 200
        assert list(answered.json()) == ["prompt"]
        assert answered.json()["prompt"]
    ranks = client.post("/interrogator/analyze", json={"image": image, "clip_model_name": "words"}).json()
    assert list(ranks) == ["medium", "artist", "movement", "trending", "flavor"]
    for name, best in zip(ranks, ("a golden photo", "by golden Rembrandt"), strict=False):
        assert len(ranks[name]) == 5
        assert next(iter(ranks[name])) == best
        assert [*ranks[name].values()] == sorted(ranks[name].values(), reverse=True)
    features = words.encoder.encode_texts(["a golden cat", "a golden photo"])
    assert ranks["medium"]["a golden photo"] == pytest.approx(float(features[0] @ features[1]), abs=1e-3)


def test_the_hosts_own_model_is_nobodys_choice(words: WordHost):
    client = client_of(Service(words))
    image = painted("a golden cat")
    for named, chosen in (("words", None), ("ViT-B-32/openai", "ViT-B-32/openai"), (None, "ViT-L-14/openai")):
        named_one = {} if named is None else {"clip_model_name": named}
        client.post("/interrogator/prompt", json={"image": image, **named_one})
        assert words.chosen[-1] == chosen


def test_a_failure_is_never_a_prompt(client: TestClient):
    for asked, status in (
        ({"image": RED}, 409),
        ({"image": RED, "mode": "worst"}, 400),
        ({"image": RED, "clip_model_name": "/etc/passwd"}, 400),
        ({}, 400),
    ):
        for path in ("prompt", "analyze"):
            if path == "analyze" and "mode" in asked:
                continue
            answered = client.post(f"/interrogator/{path}", json=asked)
            assert answered.status_code == status
            line_of(answered, "detail")


def test_models_are_told_without_open_clip(client: TestClient, monkeypatch: pytest.MonkeyPatch):
    import sys

    from promptglass.server.clip_models import open_clip_models

    monkeypatch.setitem(sys.modules, "open_clip", None)
    open_clip_models.cache_clear()
    try:
        assert client.get("/interrogator/models").json() == ["ViT-L-14/openai"]
    finally:
        open_clip_models.cache_clear()


# -- mounting ------------------------------------------------------------------------------------------------


def test_mounted_on_a_running_app_it_comes_before_what_answers_everything(service: Service):
    app = FastAPI()
    app.add_api_route("/{path:path}", lambda path: "caught", methods=["GET", "POST"])
    app.mount("/", FastAPI())
    client = TestClient(app, base_url="http://localhost")
    assert client.get(f"{V1}/health").json() == "caught"
    assert "/promptglass" not in client.get("/openapi.json").text
    client_of(service, app=app)
    assert client.get(f"{V1}/health").json()["host"] == "standalone"
    assert client.get("/elsewhere").json() == "caught"
    assert f"{V1}/health" in client.get("/openapi.json").json()["paths"]


def test_mounted_again_nothing_happens(service: Service):
    app = FastAPI()
    client_of(service, app=app)
    count = len(app.router.routes)
    client_of(Service(Standalone(name="another")), app=app)
    assert len(app.router.routes) == count
    client = TestClient(app, base_url="http://localhost")
    assert client.get(f"{V1}/health").json()["host"] == "standalone"


def test_the_extension_itself_keeps_its_routes(service: Service):
    app = FastAPI()
    app.add_api_route("/interrogator/models", lambda: ["theirs"])
    client_of(service, app=app)
    client = TestClient(app, base_url="http://localhost")
    assert client.get("/interrogator/models").json() == ["theirs"]
    assert client.post("/interrogator/prompt", json={}).status_code == 404


def test_the_routes_describe_themselves(client: TestClient):
    paths = client.get("/openapi.json").json()["paths"]
    for name in ("interrogate", "analyze", "refine", "batches", "wildcards", "health", "endpoints"):
        assert f"{V1}/{name}" in paths
    assert {"/interrogator/models", "/interrogator/prompt", "/interrogator/analyze"} <= {*paths}


# -- straight to the app, as a test client hears nothing before all is said ----------------------------------


def events_of(text: str) -> list[dict[str, Any]]:
    """The events in a stream, with their ids."""
    events = []
    for block in text.split("\n\n"):
        lines = dict(line.partition(": ")[::2] for line in block.splitlines() if not line.startswith(":"))
        if lines:
            event = json.loads(lines["data"])
            assert event["kind"] == "end" or event["id"] == int(lines["id"])
            events.append({**event, "id": int(lines["id"])})  # that of the end is no event's
    return events


def asked_directly(
    app: Any,
    method: str,
    path: str,
    body: bytes = b"",
    hear: Callable[[str], Any] = lambda text: None,
    leaves: threading.Event | None = None,
    receive: Any = None,
) -> tuple[int, dict[str, str]]:
    """Status and headers. hear: told each piece of the answer. leaves: set, the asker is gone."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "server": ("localhost", 7860),
        "client": ("127.0.0.1", 1),
        "headers": [(b"host", b"localhost:7860"), (b"content-type", b"application/json")],
    }
    answered: dict[str, Any] = {}

    async def talk() -> None:
        questions = [{"type": "http.request", "body": body, "more_body": False}]

        async def listen() -> dict[str, Any]:
            if questions:
                return questions.pop()
            while leaves is None or not leaves.is_set():
                await asyncio.sleep(0.02)
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                answered.update(message)
            elif message.get("body"):
                hear(message["body"].decode())

        await asyncio.wait_for(app(scope, receive or listen, send), 30)

    asyncio.run(talk())
    headers = {name.decode(): value.decode() for name, value in answered.get("headers", ())}
    return answered.get("status", 0), headers
