"""promptglass.Client against the real service behind a real server, and against servers that misbehave."""

from __future__ import annotations

import contextlib
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from conftest import noise, png
from PIL import Image

pytest.importorskip("torch")
pytest.importorskip("fastapi")
pytest.importorskip("httpx")
pytest.importorskip("uvicorn")
pytest.importorskip("python_multipart")

from fakes.word_host import WordHost
from served import app_of, running

import promptglass
from promptglass import Client
from promptglass.analyzers import PaletteAnalyzer
from promptglass.errors import (
    EndpointError,
    EndpointRefused,
    EndpointUnreachable,
    ImageError,
    InputError,
    ReplyError,
    Stopped,
)
from promptglass.service import Service


@pytest.fixture(autouse=True)
def without_long_pauses(apart: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("promptglass.client._FIRST_PAUSE_S", 0.02)


@pytest.fixture
def words(root: Path) -> WordHost:
    return WordHost(roots=[root], wildcards=root.parent / "wildcards", endpoints=["eyes"])


@pytest.fixture
def glass(words: WordHost) -> Iterator[Client]:
    with running(app_of(Service(words))) as address, Client(address) as client:
        yield client


@pytest.fixture
def cat(tmp_path: Path) -> Path:
    """It looks like a golden cat to a WordEncoder."""
    from fakes.word_encoder import painted

    path = tmp_path / "cat.png"
    path.write_bytes(png(painted("a golden cat"), "a cat of gold"))
    return path


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
def twenty(root: Path) -> Path:
    for number in range(20):
        noise(number).save(root / f"{number:02}.png")
    return root


# -- pictures ------------------------------------------------------------------------------------------------


def test_a_picture_is_a_path_bytes_or_an_image(glass: Client, cat: Path):
    for image in (str(cat), cat, cat.read_bytes()):
        found = glass.interrogate(image, ["embedded", "palette"])
        assert [answer["mode"] for answer in found["answers"]] == ["embedded", "palette"]
        assert found["answers"][0]["text"] == "a cat of gold"
    with Image.open(cat) as image:
        found = glass.interrogate(image, "palette,fast", caption="a cat")
    assert (found["width"], found["height"]) == (6, 5)
    assert {answer["mode"]: answer["text"][:7] for answer in found["answers"]}["fast"] == "a cat, "


def test_labels_are_found(glass: Client, cat: Path):
    found = glass.analyze(cat, ["style"], labels=["dog", "cat"], top=2)
    assert [one["label"] for one in found["categories"]["labels"]] == ["cat", "dog"]
    assert {"style", "mood"} < {*glass.analyze(cat)["categories"]}


def test_a_prompt_is_refined(glass: Client, cat: Path, tmp_path: Path):
    from fakes.llm_server import FakeServer, whole

    with FakeServer(whole("openai", "a golden cat, golden light")) as fake:
        eyes = {"protocol": "openai", "base_url": fake.url, "model": "m", "retries": 0}
        (tmp_path / "config.yaml").write_text(json.dumps({"endpoints": {"eyes": eyes}}))
        alone = glass.refine("a cat", profile="eyes", candidates=1)
        seen = glass.refine("a cat", cat, profile="eyes", candidates=1)
    assert alone["answers"][0]["text"] == "a golden cat, golden light"
    assert seen["width"] == 6
    with pytest.raises(EndpointError, match="nothing to refine"):
        glass.refine()


def test_an_image_is_analysed_at_once_and_step_by_step(glass: Client, cat: Path):
    found = glass.analyze_image(cat, "by the sea")
    assert (found["success"], found["userInput"]) == (True, "by the sea")
    assert found["generatedPrompt"].startswith("by the sea, ")
    assert "style" in found["analysis"]
    steps = [*glass.analyze_image_stream(cat, "by the sea", deep_thinking=True)]
    assert [step["status"] for step in steps] == ["analyzing", "analyzed", "generating", "complete"]
    assert steps[1]["analysis"] == found["analysis"]
    for analyze in (glass.analyze_image, lambda image: [*glass.analyze_image_stream(image)]):
        with pytest.raises(EndpointError, match="not a picture") as told:
            analyze(b"\0no picture")
        assert told.value.status == 400


def test_what_is_no_picture_is_not_sent(tmp_path: Path):
    nobody = Client("http://127.0.0.1:9")
    large = tmp_path / "large.png"
    large.write_bytes(b"x" * (20 * 1024 * 1024 + 1))
    for image in (tmp_path / "gone.png", tmp_path, large, large.read_bytes()):
        with pytest.raises(ImageError):
            nobody.interrogate(image)
    with pytest.raises(InputError, match="int is no picture"):
        nobody.analyze_image(7)  # type: ignore[arg-type]


# -- folders -------------------------------------------------------------------------------------------------


def test_a_batch_is_started_followed_stopped_and_listed(glass: Client, slow: None, twenty: Path):
    job = glass.batches.start(twenty, ["palette"])
    heard = []
    for event in glass.batches.events(job["id"]):
        heard.append(event)
        if len(heard) == 4:
            assert glass.batches.stop(job["id"])["state"] in ("stopping", "stopped")
    assert [event["kind"] for event in heard[:2]] == ["planned", "outcome"]
    assert (heard[-1]["kind"], heard[-1]["state"]) == ("end", "stopped")
    assert glass.batches.get(job["id"])["state"] == "stopped"
    assert glass.batches.get(job["id"], after=2)["events"][0]["id"] == 3
    assert [one["id"] for one in glass.batches.list()] == [job["id"]]
    rest = [*glass.batches.events(job["id"], after=2)]
    assert rest == heard[2:]
    assert [*glass.batches.events(job["id"], after=1000)] == []
    with pytest.raises(EndpointError, match="there is no batch gone") as told:
        next(glass.batches.events("gone"))
    assert told.value.status == 404


def test_captions_and_wildcards_are_written(glass: Client, root: Path, cat: Path):
    (root / "cat.png").write_bytes(cat.read_bytes())
    job = glass.batches.start(root, "embedded", txt="overwrite", prefix="sks", replace=["gold=silver"])
    assert [*glass.batches.events(job["id"])][-1]["result"]["is_whole"]
    assert (root / "cat.txt").read_text() == "sks, a cat of silver\n"
    written = glass.wildcards(root)
    assert [file["name"] for file in written["files"]] == ["promptglass/embedded"]


def test_what_is_there_is_told(glass: Client):
    assert glass.health()["version"] == promptglass.__version__
    assert glass.endpoints() == []


# -- limits and keys -----------------------------------------------------------------------------------------


def test_stopping_and_closing_end_the_work_there(words: WordHost, cat: Path):
    service = Service(words)
    begun = threading.Event()

    def forever(job: Any) -> None:
        begun.set()
        while True:
            job.check()
            time.sleep(0.01)

    service.label = lambda *_, **__: service.jobs.start("label", forever)  # type: ignore[method-assign]
    with running(app_of(service)) as address:
        stop = threading.Event()
        client = Client(address)
        endings: list[tuple[Callable[[], None], dict[str, Any], type[Exception]]] = [
            (stop.set, {"stop": stop}, Stopped),
            (lambda: None, {"timeout_s": 0.3}, EndpointUnreachable),
            (client.close, {}, Stopped),
        ]
        for end, options, kind in endings:
            begun.clear()
            threading.Thread(target=lambda end=end: (begun.wait(), end())).start()
            with pytest.raises(kind):
                client.analyze(cat, **options)
            ended_within(service, 2.0)
    assert all(job.state == "stopped" for job in service.jobs.of("label"))


def ended_within(service: Service, seconds: float) -> None:
    assert all(job.has_ended(seconds) for job in service.jobs.of("label"))


def test_a_key_is_sent_and_never_shown(words: WordHost, monkeypatch: pytest.MonkeyPatch):
    with running(app_of(Service(words), key="sesame-9")) as address:
        with pytest.raises(EndpointRefused, match="PROMPTGLASS_API_KEY") as told:
            Client(address).health()
        assert told.value.status == 401
        with pytest.raises(EndpointRefused, match="Check the key"):
            Client(address, "wrong").health()
        assert Client(address, "sesame-9").health()["host"] == "standalone"
        monkeypatch.setenv("PROMPTGLASS_API_KEY", "sesame-9\n")
        assert Client(address).health()["host"] == "standalone"
        with pytest.raises(EndpointRefused):
            Client(address, "").health()


def test_name_and_password_of_a_webui_are_sent(words: WordHost):
    with running(app_of(Service(words), {"zoë": "pass:wörd"})) as address:
        assert Client(address, credentials="zoë:pass:wörd").health()["host"] == "standalone"
        with pytest.raises(EndpointRefused, match="Check the credentials"):
            Client(address, credentials="zoë:other").health()


@pytest.mark.parametrize("address", ["", "ftp://host", "http://", "http://a b", "http://h?x=1", "http://h:x"])
def test_an_address_is_checked(address: str):
    with pytest.raises(InputError, match="base_url must be"):
        Client(address)


@pytest.mark.parametrize("key", ["a key", "k\nX: y", "kéy"])
def test_a_key_is_checked(key: str):
    with pytest.raises(InputError, match="no key"):
        Client(key=key)
    with pytest.raises(InputError, match="must hold no password"):
        Client("http://ann:secret@host")


# -- servers that misbehave ----------------------------------------------------------------------------------

Script = Callable[[BaseHTTPRequestHandler], None]


@contextlib.contextmanager
def scripted(*scripts: Script) -> Iterator[tuple[str, list[BaseHTTPRequestHandler]]]:
    """A server that answers each request by the next script, the last one again and again."""
    asked: list[BaseHTTPRequestHandler] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked.append(self)
            self.close_connection = True
            scripts[min(len(asked), len(scripts)) - 1](self)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()


def says(status: int, body: bytes, kind: str = "application/json") -> Script:
    def script(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Type", kind)
        handler.send_header("Connection", "close")
        handler.end_headers()
        for start in range(0, len(body), 7):  # in pieces that end anywhere
            handler.wfile.write(body[start : start + 7])
            handler.wfile.flush()

    return script


def tells(*events: dict[str, Any], half: bytes = b"", first: int = 1, pause_s: float = 0) -> Script:
    sent = io.BytesIO()
    sent.write(b": hello\r\n\r\n")
    for number, event in enumerate(events, first):
        sent.write(f"id: {number}\r\ndata: {json.dumps(event, ensure_ascii=False)}\r\n\r\n".encode())
    sent.write(half)

    def script(handler: BaseHTTPRequestHandler) -> None:
        says(200, sent.getvalue(), "text/event-stream")(handler)
        time.sleep(pause_s)

    return script


def drops(handler: BaseHTTPRequestHandler) -> None:
    handler.connection.close()


END = {"id": "x", "kind": "end", "state": "done"}


def test_events_are_told_once_over_broken_connections():
    half = b'id: 3\r\ndata: {"kind": "outcome", "done": 2'
    scripts = (
        says(503, b"<html>starting</html>"),
        tells({"kind": "planned"}, {"kind": "outcome", "path": "é.png"}, half=half),
        drops,
        tells({"kind": "outcome", "done": 2}, END, first=3),
    )
    with scripted(*scripts) as (address, asked):
        heard = [*Client(address).batches.events("x")]
    assert [event["kind"] for event in heard] == ["planned", "outcome", "outcome", "end"]
    assert heard[1]["path"] == "é.png"
    last_ids = [request.headers["Last-Event-ID"] for request in asked]
    assert last_ids[0] is None
    assert last_ids[2:] == ["2"] * len(last_ids[2:])


def test_silence_is_a_broken_connection(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("promptglass.client_api.SILENT_S", 0.3)
    began = time.monotonic()
    with scripted(tells({"kind": "planned"}, pause_s=60), tells(END, first=2)) as (address, asked):
        heard = [*Client(address).batches.events("x")]
    assert time.monotonic() - began < 50
    assert [event["kind"] for event in heard] == ["planned", "end"]
    assert [request.headers["Last-Event-ID"] for request in asked] == [None, "1"]


def test_listening_ends_where_it_is_of_no_use(monkeypatch: pytest.MonkeyPatch):
    with scripted(tells({"kind": "planned"}), says(204, b"")) as (address, asked):
        assert len([*Client(address).batches.events("x")]) == 1
    with scripted(drops) as (address, _), pytest.raises(EndpointUnreachable):
        [*Client(address).batches.events("x", timeout_s=0.5)]
    monkeypatch.setattr("promptglass.client._ATTEMPTS", 2)
    with scripted(drops) as (address, asked):
        with pytest.raises(EndpointUnreachable, match="connection broke"):
            [*Client(address).batches.events("x")]
        assert len(asked) == 6  # each one is sent twice: a kept connection may have been closed
    with scripted(says(200, b"data: {\n\n", "text/event-stream")) as (address, asked):
        with pytest.raises(ReplyError):
            [*Client(address).batches.events("x")]
        assert len(asked) == 1


@pytest.mark.parametrize(
    ("script", "kind", "line"),
    [
        (says(400, b'{"error": "no\\nsuch mode"}'), EndpointError, "no such mode"),
        (says(429, b'{"error": "16 jobs"}'), EndpointError, "16 jobs"),
        (says(403, b'{"error": "not to you"}'), EndpointRefused, "not to you"),
        (says(404, b"<html>"), EndpointError, "it answered 404. Check"),
        (says(500, b'{"detail": [1]}'), EndpointError, "it answered 500. Check"),
        (says(302, b""), EndpointError, "it answered 302. Check"),
        (says(200, b"<html>"), ReplyError, "Check that this is promptglass"),
        (says(200, b"[]"), ReplyError, "Check that this is promptglass"),
        (says(200, b'{"error'), ReplyError, "Check that this is promptglass"),
        (drops, EndpointUnreachable, "connection broke"),
    ],
)
def test_a_failure_is_one_line(script: Script, kind: type[EndpointError], line: str):
    with scripted(script) as (address, _), pytest.raises(EndpointError) as told:
        Client(address).health()
    assert type(told.value) is kind
    assert str(told.value).startswith(f"{address}: ")
    assert line in str(told.value)


def test_nobody_there_is_said():
    with pytest.raises(EndpointUnreachable, match="nobody listens there"):
        Client("127.0.0.1:9").health()
