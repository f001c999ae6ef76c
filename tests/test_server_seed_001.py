"""The image analyzer's routes, as its clients know them."""

from __future__ import annotations

import json
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("fastapi")
pytest.importorskip("httpx")
pytest.importorskip("uvicorn")

from fakes.llm_server import FakeServer, broken, by_path, silence, streamed
from fakes.llm_server import as_json as replied
from fakes.seed_server import OPEN, LabelService, app_of, picture, served, shell
from fastapi.testclient import TestClient
from starlette import formparsers

from promptglass import errors
from promptglass.jobs import Jobs
from promptglass.server import analyze_routes, forms
from promptglass.server.access import Access

ANALYZE, STREAM, HEALTH = "/api/images/analyze", "/api/images/analyze-stream", "/api/images/health"
CATEGORIES = ["style", "mood", "composition", "color_palette", "subjects"]
needs_forms = pytest.mark.skipif(
    formparsers.parse_options_header is None, reason="python-multipart is not here"
)
needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not here")


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.yaml").write_text('{"endpoints": {"ollama": {"retries": 0}}}')
    monkeypatch.setenv("PROMPTGLASS_CONFIG", str(tmp_path / "config.yaml"))
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")
    monkeypatch.delenv("PROMPTGLASS_ORIGINS", raising=False)


@pytest.fixture
def service() -> LabelService:
    return LabelService()


@pytest.fixture
def client(service: LabelService) -> TestClient:
    return client_of(service)


def client_of(service: LabelService, access: Access = OPEN, **options: Any) -> TestClient:
    app = app_of(analyze_routes.router(service, access, **options))
    return TestClient(app, base_url="http://localhost:8000", raise_server_exceptions=False)


@pytest.fixture
def mistral(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    """An Ollama."""
    words = ["a woman, ", "photorealism, ", "golden hour"]
    with FakeServer(by_path(chat=streamed("ollama", words), tags=replied({"models": []}))) as server:
        monkeypatch.setenv("OLLAMA_HOST", server.url)
        yield server


def form(content: bytes | None = None, **fields: str) -> dict[str, Any]:
    return {"files": {"image": ("a.png", picture() if content is None else content)}, "data": fields}


def events_of(text: str) -> list[dict[str, Any]]:
    assert text.endswith("\n\n")
    lines = [line for line in text.split("\n\n") if line and not line.startswith(":")]
    assert all(line.startswith("data: ") for line in lines)
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def failure(answered: Any, status: int) -> str:
    assert answered.status_code == status, answered.text
    content = answered.json()
    assert list(content) == ["success", "error"]
    assert content["success"] is False
    assert "\n" not in content["error"]
    assert "Traceback" not in answered.text
    return content["error"]


# -- the seed's own lines ------------------------------------------------------------------------------------

SYNCHRONOUS = """\
curl -X POST http://localhost:8000/api/images/analyze \\
  -F "image=@Captura.png" \\
  -F "user_prompt=A beautiful landscape" \\
  -F "deep_thinking=false"
"""
STREAMING = """\
curl -X POST http://localhost:8000/api/images/analyze-stream \\
  -F "image=@image.jpg" \\
  -F "user_prompt=A beautiful landscape" \\
  -F "deep_thinking=false"
"""


@needs_forms
@needs_curl
def test_the_seeds_lines_run_as_they_are(service: LabelService, mistral: FakeServer, tmp_path: Path):
    (tmp_path / "Captura.png").write_bytes(picture())
    (tmp_path / "image.jpg").write_bytes(picture("JPEG"))
    with served(analyze_routes.router(service, OPEN)) as port:
        answer = json.loads(shell(SYNCHRONOUS, tmp_path, 8000, port))
        stream = shell(STREAMING, tmp_path, 8000, port)
        health = shell("curl http://localhost:8000/api/images/health", tmp_path, 8000, port)
    assert list(answer) == ["success", "generatedPrompt", "analysis", "userInput"]
    assert answer["success"] is True
    assert answer["generatedPrompt"] == "a woman, photorealism, golden hour"
    assert list(answer["analysis"]) == CATEGORIES
    assert answer["analysis"]["style"] == [
        {"value": "photorealism", "score": 0.4012},
        {"value": "cinematic film still", "score": 0.2108},
        {"value": "fashion photography", "score": 0.0042},
    ]
    assert answer["userInput"] == "A beautiful landscape"
    assert events_of(stream) == [
        {"status": "analyzing", "message": "Analyzing image..."},
        {"status": "analyzed", "analysis": answer["analysis"]},
        {"status": "generating", "message": "Generating prompt..."},
        {"status": "complete", "generatedPrompt": answer["generatedPrompt"]},
    ]
    assert json.loads(health) == {"status": "ok", "service": "image-analyzer", "analyzer_initialized": True}


# -- the language model --------------------------------------------------------------------------------------


@needs_forms
@pytest.mark.parametrize(("is_deep", "temperature", "length"), [("false", 0.5, 150), ("true", 0.7, 300)])
def test_mistral_is_asked_by_the_seeds_numbers(
    client: TestClient, mistral: FakeServer, is_deep: str, temperature: float, length: int
):
    answered = client.post(ANALYZE, **form(user_prompt="make it rain", deep_thinking=is_deep))
    assert answered.status_code == 200
    body = [asked.body for asked in mistral.asked if asked.body and asked.body.get("messages")][-1]
    assert body["model"] == "mistral:latest"
    assert body["options"]["temperature"] == temperature
    assert body["options"]["num_predict"] == length
    asked = body["messages"][-1]["content"]
    assert "make it rain" in asked
    assert "woman, man, photorealism, cinematic film still" in asked
    assert "images" not in body["messages"][-1]


@needs_forms
def test_another_endpoint_and_model_may_be_named(service: LabelService, tmp_path: Path):
    with FakeServer(streamed("openai", ["a woman, in the rain"])) as server:
        eyes = {"protocol": "openai", "base_url": server.url, "model": "m"}
        (tmp_path / "config.yaml").write_text(json.dumps({"endpoints": {"eyes": eyes}}))
        answered = client_of(service, llm="eyes/other").post(ANALYZE, **form())
    assert answered.json()["generatedPrompt"] == "a woman, in the rain"
    assert server.asked[-1].body["model"] == "other"


@needs_forms
@pytest.mark.parametrize("why", ["nobody", "refuses", "not allowed", "nonsense"])
def test_without_a_language_model_the_prompt_is_clips_own(
    service: LabelService, monkeypatch: pytest.MonkeyPatch, why: str
):
    with FakeServer(broken(500, "boom") if why == "refuses" else streamed("ollama", ["Sorry."])) as server:
        if why != "nobody":
            monkeypatch.setenv("OLLAMA_HOST", server.url)
        if why == "not allowed":
            service.host.endpoints = []
        client = client_of(service)
        answered = client.post(ANALYZE, **form(user_prompt="my words"))
        told = events_of(client.post(STREAM, **form(user_prompt="my words")).text)
    content = answered.json()
    assert answered.status_code == 200
    assert content["success"] is True
    words = "woman, man, photorealism, cinematic film still"
    assert words in content["generatedPrompt"]
    assert content["generatedPrompt"].startswith(words if why == "nonsense" else f"my words, {words}")
    for word in ("ollama", "error", "http", "Sorry", "boom"):
        assert word not in content["generatedPrompt"]
    assert content["note"]
    assert "http" not in content["note"]
    assert told[-1] == {
        "status": "complete",
        "generatedPrompt": content["generatedPrompt"],
        "note": content["note"],
    }


# -- failures ------------------------------------------------------------------------------------------------


@needs_forms
@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.WeightsMissing("ViT-L-14/openai is not here"), 409),
        (errors.InputError("no such thing"), 400),
        (RuntimeError("secret"), 500),
        (MemoryError("secret"), 500),
    ],
)
def test_a_failure_is_said_in_the_seeds_words(service: LabelService, error: Exception, status: int):
    service.failure = error
    client = client_of(service)
    line = failure(client.post(ANALYZE, **form()), status)
    assert "secret" not in line
    streamed = client.post(STREAM, **form())
    assert streamed.status_code == 200
    assert events_of(streamed.text) == [
        {"status": "analyzing", "message": "Analyzing image..."},
        {"status": "error", "message": line},
    ]


@needs_forms
def test_more_than_is_good_is_429(service: LabelService, client: TestClient):
    service.jobs = Jobs(most=0)
    failure(client.post(ANALYZE, **form()), 429)
    assert events_of(client.post(STREAM, **form()).text)[-1]["status"] == "error"


@needs_forms
@pytest.mark.parametrize("route", [ANALYZE, STREAM])
@pytest.mark.parametrize(
    ("asked", "status", "why"),
    [
        ({"data": {"user_prompt": "x"}, "files": {"other": b"x"}}, 400, "image"),
        ({"files": {"image": (None, "text")}}, 400, "image"),
        (form(b""), 400, "empty"),
        (form(b"<svg></svg>"), 400, "SVG"),
        (form(picture()[:50]), 400, "damaged"),
        (form(b"II*\0" + bytes(100)), 400, "image"),
        (form(deep_thinking="perhaps"), 400, "deep_thinking"),
        (form(user_prompt="x" * (forms.MOST_CHARS + 1)), 400, "user_prompt"),
        (form(bytes(analyze_routes.MOST_BYTES + 1)), 413, "Image file too large"),
        (form(bytes(analyze_routes.MOST_BYTES + 200_000)), 413, "Image file too large"),
        ({"json": {"image": "x"}}, 415, "multipart/form-data"),
        ({"data": {"image": "x"}}, 415, "multipart/form-data"),
        ({"content": b"x"}, 415, "multipart/form-data"),
        ({"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, 400, "form"),
        ({"content": b"x", "headers": {"Content-Type": "multipart/form-data; boundary=x"}}, 400, ""),
    ],
)
def test_what_cannot_be_used_is_the_askers_fault(
    client: TestClient, route: str, asked: Any, status: int, why: str
):
    assert why in failure(client.post(route, **asked), status)


@needs_forms
def test_twenty_megabytes_are_taken(client: TestClient):
    content = picture().ljust(analyze_routes.MOST_BYTES, b"\0")
    assert client.post(ANALYZE, **form(content)).status_code == 200


@needs_forms
def test_a_body_is_read_no_further_than_its_limit(client: TestClient, monkeypatch: pytest.MonkeyPatch):
    read = 0

    def endless() -> Iterator[bytes]:
        nonlocal read
        while read < 100 * 2**20:
            read += 2**16
            yield bytes(2**16)

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    failure(client.post(ANALYZE, content=endless(), headers=headers), 413)


def test_without_python_multipart_one_line_says_so(client: TestClient, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(formparsers, "parse_options_header", None)
    for route in (ANALYZE, STREAM):
        assert "python-multipart" in failure(client.post(route, **form()), 501)
    assert client.get(HEALTH).status_code == 200


def test_health_says_whether_clip_is_here(client: TestClient, service: LabelService):
    from promptglass.clip.analyzer import ClipAnalyzer

    service.host.clip = lambda choice, progress: ClipAnalyzer("ViT-L-14/nowhere", "blip-large")
    assert client.get(HEALTH).json()["analyzer_initialized"] is False


# -- leaving -------------------------------------------------------------------------------------------------


@needs_forms
@pytest.mark.parametrize("is_behind", [False, True])
@pytest.mark.parametrize("route", [ANALYZE, STREAM])
def test_whoever_hangs_up_stops_the_work(service: LabelService, route: str, is_behind: bool):
    service.released.clear()
    with served(analyze_routes.router(service, OPEN), is_behind=is_behind) as port:
        asking = posted(port, route)
        assert service.working.wait(10)
        asking.close()
        assert service.stopped.wait(10)


@needs_forms
def test_whoever_hangs_up_frees_the_language_model(service: LabelService, monkeypatch: pytest.MonkeyPatch):
    with FakeServer(by_path(chat=silence)) as server, served(analyze_routes.router(service, OPEN)) as port:
        monkeypatch.setenv("OLLAMA_HOST", server.url)
        asking = posted(port, STREAM)
        heard = b""
        while b"generating" not in heard:
            heard += asking.recv(4096)
        for _ in range(200):
            if server.asked:
                break
            time.sleep(0.05)
        asking.close()
        assert server.hung_up.wait(10)


def posted(port: int, route: str) -> socket.socket:
    body = (
        b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
        + picture()
        + b"\r\n--x--\r\n"
    )
    asking = socket.create_connection(("127.0.0.1", port), 10)
    asking.sendall(
        f"POST {route} HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary=x\r\n"
        f"Content-Length: {len(body)}\r\n\r\n".encode()
        + body
    )
    return asking


@needs_forms
def test_events_come_as_they_are_known(service: LabelService, mistral: FakeServer):
    service.released.clear()
    with served(analyze_routes.router(service, OPEN)) as port:
        asking = posted(port, STREAM)
        heard = b""
        while b"analyzing" not in heard:
            heard += asking.recv(4096)
        assert b"analyzed" not in heard
        service.released.set()
        while b"complete" not in heard:
            heard += asking.recv(4096)
    assert b"content-type: text/event-stream" in heard.lower()


# -- who is answered -----------------------------------------------------------------------------------------

PAGE = "http://localhost:5173"
OTHERS = [
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://localhost:8001"},
    {"Origin": "https://localhost.evil.example"},
    {"Referer": "http://evil.example/page"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site", "Origin": PAGE},
    {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost:8000"},
    {"Host": "evil.example"},
    {"Host": "evil.example", "Origin": "http://evil.example"},
]
OWN = [
    {},
    {"Origin": "http://localhost:8000"},
    {"Origin": "http://LOCALHOST:8000", "Sec-Fetch-Site": "same-origin"},
    {"Referer": "http://localhost:8000/page"},
    {"Host": "gpu-box", "Origin": "http://gpu-box"},
    {"Host": "gpu-box", "Origin": "https://gpu-box:443"},
]


@needs_forms
@pytest.mark.parametrize("headers", OTHERS)
@pytest.mark.parametrize("route", [ANALYZE, STREAM])
def test_a_form_of_another_site_is_refused(client: TestClient, route: str, headers: dict[str, str]):
    failure(client.post(route, headers=headers, **form()), 403)


@needs_forms
@pytest.mark.parametrize("headers", OWN)
def test_own_pages_and_programs_are_answered(client: TestClient, headers: dict[str, str]):
    answered = client.post(ANALYZE, headers=headers, **form())
    assert answered.status_code == 200
    assert "access-control-allow-origin" not in answered.headers


@needs_forms
@pytest.mark.parametrize("how", ["environment", "origins", "cors"])
def test_a_page_that_the_user_vouches_for_is_answered(
    service: LabelService, monkeypatch: pytest.MonkeyPatch, how: str
):
    """The seed's own page is served from another port."""
    if how == "environment":
        monkeypatch.setenv("PROMPTGLASS_ORIGINS", f"https://glass.example/, {PAGE}")
        client = client_of(service)
    elif how == "origins":
        client = client_of(service, origins=["https://glass.example/", PAGE])
    else:
        client = client_of(service, Access(dict, {"gpu-box"}, cors={"https://glass.example", PAGE}))
    headers = {"Origin": PAGE, "Sec-Fetch-Site": "same-site"}
    for answered in (
        client.post(ANALYZE, headers=headers, **form()),
        client.post(STREAM, headers=headers, **form()),
        client.get(HEALTH, headers=headers),
    ):
        assert answered.status_code == 200
        if how != "cors":  # of that, the app says so: see server/app.py
            assert answered.headers["access-control-allow-origin"] == PAGE
            assert answered.headers["vary"] == "Origin"
    for others in OTHERS:
        if others.get("Origin") != PAGE:
            refused = client.post(ANALYZE, headers=others, **form())
            failure(refused, 403)
            assert "access-control-allow-origin" not in refused.headers
    rebound = client.post(ANALYZE, headers={**headers, "Host": "evil.example"}, **form())
    failure(rebound, 403)


@needs_forms
def test_a_password_does_not_open_the_door_to_other_sites(service: LabelService):
    """Browsers send it along with what another site asks for."""
    client = client_of(service, Access(lambda: {"ann": "secret"}, set()))
    failure(client.post(ANALYZE, **form()), 401)
    assert client.post(ANALYZE, auth=("ann", "secret"), **form()).status_code == 200
    for headers in OTHERS[:7]:
        failure(client.post(ANALYZE, auth=("ann", "secret"), headers=headers, **form()), 403)


def test_a_stranger_is_refused_before_the_form_is_read(service: LabelService):
    import asyncio

    sent: list[Any] = []

    async def receive() -> Any:
        raise AssertionError("read")

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"host", b"evil.example"), (b"content-type", b"multipart/form-data; boundary=x")]
    scope = {
        "type": "http",
        "method": "POST",
        "path": ANALYZE,
        "raw_path": ANALYZE.encode(),
        "headers": headers,
    }
    scope.update(query_string=b"", root_path="", scheme="http", http_version="1.1", server=("x", 80))
    asyncio.run(client_of(service).app({**scope, "client": ("127.0.0.1", 1), "asgi": {}}, receive, send))
    assert sent[0]["status"] == 403


# -- anything ------------------------------------------------------------------------------------------------

BOUNDARY = b"x"
NAMES = st.sampled_from(
    ["image", "user_prompt", "deep_thinking", "other", "", "ä", "\ud800".encode("utf-8", "replace").decode()]
)
CONTENT = st.one_of(
    st.binary(max_size=200),
    st.sampled_from([picture(kind) for kind in ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "ICO", "PPM")]),
    st.tuples(
        st.sampled_from([picture("PNG"), picture("GIF")]), st.integers(0, 200), st.binary(max_size=9)
    ).map(lambda cut: cut[0][: cut[1]] + cut[2] + cut[0][cut[1] + len(cut[2]) :]),
)
PARTS = st.builds(
    lambda name, content, filename, extra: (
        b'Content-Disposition: form-data; name="'
        + name.encode()
        + (b'"; filename="a.png"' if filename else b'"')
        + extra
        + b"\r\n\r\n"
        + content
    ),
    NAMES,
    CONTENT,
    st.booleans(),
    st.sampled_from(
        [b"", b"\r\nContent-Type: image/png; charset=nonsense", b"\r\nX: " + b"y" * 300, b"\xff"]
    ),
)
BODIES = st.one_of(
    st.binary(max_size=300),
    st.lists(PARTS, max_size=4).map(
        lambda parts: b"".join(b"--x\r\n" + part + b"\r\n" for part in parts) + b"--x--\r\n"
    ),
    st.lists(PARTS, max_size=2).map(b"--x\r\n".join),
)
KINDS = st.sampled_from(
    [
        "multipart/form-data; boundary=x",
        'multipart/form-data; boundary="x"',
        "multipart/form-data; boundary=x; charset=nonsense",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=" + "y" * 300,
        "multipart/form-data",
        "multipart/mixed; boundary=x",
        "application/x-www-form-urlencoded",
        "",
    ]
)


@needs_forms
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=KINDS, body=BODIES, route=st.sampled_from([ANALYZE, STREAM]))
def test_no_form_is_an_error_of_ours(client: TestClient, kind: str, body: bytes, route: str):
    answered = client.post(route, content=body, headers={"Content-Type": kind})
    assert answered.status_code in (200, 400, 413, 415), answered.text
    assert "Traceback" not in answered.text
    if answered.status_code != 200:
        failure(answered, answered.status_code)


def bomb(kind: str) -> bytes:
    """A small file of many pixels."""
    import io
    import struct
    import warnings
    import zlib

    from PIL import Image

    if kind == "thin":
        return bomb_png(1_000_000, 1)
    if kind == "claimed":
        return bomb_png(100_000, 100_000, rows=1)
    if kind == "decoded":
        return bomb_png(12_000, 12_000, rows=12_000)
    if kind == "text":
        packed = zlib.compress(bytes(200 * 2**20), 9)
        chunk = b"zTXtparameters\0\0" + packed
        made = picture()
        at = made.index(b"IDAT") - 4
        whole = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        return made[:at] + whole + made[at:]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file = io.BytesIO()
        Image.new("P", (20_000, 15_000)).save(file, "GIF")
        return file.getvalue()


def bomb_png(width: int, height: int, rows: int | None = None) -> bytes:
    import struct
    import zlib

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    packer = zlib.compressobj(9)
    pixels = b"".join(packer.compress(bytes(1 + width * 3)) for _ in range(rows or height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@needs_forms
@pytest.mark.parametrize("kind", ["thin", "claimed", "decoded", "gif"])
def test_bombs_are_refused_before_they_are_decoded(client: TestClient, service: LabelService, kind: str):
    content = bomb(kind)
    assert len(content) < 2 * 2**20
    failure(client.post(ANALYZE, **form(content)), 400)
    assert service.asked == []


@needs_forms
def test_text_that_is_a_bomb_costs_nothing(client: TestClient):
    assert client.post(ANALYZE, **form(bomb("text"))).status_code in (200, 400)


@needs_forms
@pytest.mark.parametrize(
    "tail", [b"PK\x03\x04evil", b"<script>alert(1)</script>", b"<?php system($_GET[0]);", b"\x7fELF"]
)
def test_a_polyglot_is_the_picture_it_begins_with(client: TestClient, service: LabelService, tail: bytes):
    assert client.post(ANALYZE, **form(picture("GIF") + tail)).status_code == 200
    failure(client.post(ANALYZE, **form(tail + picture("GIF"))), 400)
    assert len(service.asked) == 1


@needs_forms
def test_a_large_picture_is_kept_small_while_it_waits(client: TestClient, service: LabelService):
    assert client.post(ANALYZE, **form(picture("JPEG", (6000, 3000)))).status_code == 200
    width, height = service.asked[0]["size"]
    assert 3_900_000 < width * height < 4_100_000
    assert abs(width / height - 2) < 0.01


@needs_forms
def test_decoding_waits_its_turn(client: TestClient, monkeypatch: pytest.MonkeyPatch):
    from promptglass.server import wire_pictures

    lock, together, most = threading.Lock(), 0, 0
    reading = wire_pictures.read_picture

    def slowly(*given: Any, **named: Any) -> Any:
        nonlocal together, most
        with lock:
            together += 1
            most = max(most, together)
        time.sleep(0.05)
        with lock:
            together -= 1
        return reading(*given, **named)

    monkeypatch.setattr(wire_pictures, "read_picture", slowly)
    threads = [
        threading.Thread(target=wire_pictures.picture_of_bytes, args=(picture(), "a")) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most <= 2
