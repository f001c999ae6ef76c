"""The CLIP service's routes, as its clients know them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("fastapi")
pytest.importorskip("httpx")
pytest.importorskip("uvicorn")

from fakes.public_internet import PUBLIC, PublicInternet, by_path, content, redirect
from fakes.seed_server import OPEN, LabelService, app_of, picture, served, shell
from fastapi.testclient import TestClient
from starlette import formparsers

from promptglass import errors
from promptglass.server import classify_routes
from promptglass.server.access import Access
from promptglass.server.classify_settings import ClassifySettings

SETTINGS = ClassifySettings(is_private=False)
needs_forms = pytest.mark.skipif(
    formparsers.parse_options_header is None, reason="python-multipart is not here"
)
needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not here")
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="node is not here")


@pytest.fixture(autouse=True)
def apart(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PORT", "PRIVATE", "CLIP_MODEL", "CLIP_CONFIDENCE_THRESHOLD", "CLIP_MAX_PREDICTIONS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("PROMPTGLASS_ORIGINS", raising=False)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    place = tmp_path / "pictures"
    place.mkdir()
    (place / "image.jpg").write_bytes(picture("JPEG"))
    return place


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    place = tmp_path / "labels"
    place.mkdir()
    (place / "people.txt").write_text("# who\nman\nuniform = 👔\nchild\n\nMan\n", "utf-8")
    (place / "shapes.txt").write_text("tetrahedron-ish thing\n", "utf-8")
    return place


@pytest.fixture
def service(root: Path) -> LabelService:
    return LabelService([root], (0.4012, 0.2108, 0.1316, 0.0101, 0.0099))


@pytest.fixture
def client(service: LabelService, labels: Path) -> TestClient:
    return client_of(service, labels=labels)


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[PublicInternet]:
    with PublicInternet(monkeypatch) as web:
        web.names["example.com"] = [[PUBLIC]]
        yield web


def client_of(
    service: LabelService,
    access: Access = OPEN,
    settings: ClassifySettings = SETTINGS,
    labels: Path | None = None,
) -> TestClient:
    app = app_of(classify_routes.router(service, access, settings, labels))
    return TestClient(app, base_url="http://localhost:7778", raise_server_exceptions=False)


def failure(answered: Any, status: int) -> str:
    assert answered.status_code == status, answered.text
    told = answered.json()
    assert list(told) == ["service", "status", "predictions", "error", "metadata"]
    assert (told["service"], told["status"], told["predictions"]) == ("clip", "error", [])
    assert list(told["error"]) == ["message"]
    assert list(told["metadata"]) == ["processing_time"]
    assert 0 <= told["metadata"]["processing_time"] < 60
    assert "Traceback" not in answered.text
    return told["error"]["message"]


# -- the seed's own lines ------------------------------------------------------------------------------------


@needs_forms
@needs_curl
def test_the_seeds_lines_run_as_they_are(
    service: LabelService, labels: Path, root: Path, web: PublicInternet, monkeypatch: pytest.MonkeyPatch
):
    """But for where the file is: only the upload's path is another."""
    from promptglass import public_web

    web.serve(content(picture("JPEG")))
    # Without a certificate for example.com; test_ssrf.py has one for pictures.example.
    monkeypatch.setattr(public_web, "PORTS", {"https": 80})
    monkeypatch.setattr(public_web, "_tls", Bare)
    with served(classify_routes.router(service, OPEN, SETTINGS, labels)) as port:

        def answer(line: str) -> Any:
            return json.loads(shell(line, root, 7778, port))

        by_url = answer('curl "http://localhost:7778/analyze?url=https://example.com/image.jpg"')
        by_file = answer('curl "http://localhost:7778/analyze?file=/path/to/image.jpg"')
        found = answer(f'curl "http://localhost:7778/analyze?file={root}/image.jpg"')
        sent = answer(f'curl -X POST -F "file=@{root}/image.jpg" http://localhost:7778/analyze')
        health = answer("curl http://localhost:7778/health")
    for told in (by_url, found, sent):
        assert 0 <= told["metadata"].pop("processing_time") < 60
        assert told == {
            "service": "clip",
            "status": "success",
            "predictions": [
                {"label": "man", "confidence": 0.401, "emoji": "👨"},
                {"label": "uniform", "confidence": 0.211, "emoji": "👔"},
                {"label": "child", "confidence": 0.132, "emoji": "🧒"},
                {"label": "tetrahedron-ish thing", "confidence": 0.01},
            ],
            "metadata": {"model_info": {"framework": "OpenAI"}},
        }
    by_file["metadata"]["processing_time"] = 0.001
    assert by_file == {
        "service": "clip",
        "status": "error",
        "predictions": [],
        "error": {"message": "File not found: /path/to/image.jpg"},
        "metadata": {"processing_time": 0.001},
    }
    assert list(health) == ["status", "model_status", "device", "num_labels"]
    assert (health["status"], health["model_status"], health["num_labels"]) == ("healthy", "loaded", 4)
    assert web.connected == [(PUBLIC, 80)]


class Bare:
    def wrap_socket(self, connection: Any, server_hostname: str) -> Any:
        assert server_hostname == "example.com"
        return connection.dup()


PYTHON = """\
import requests

# URL input
response = requests.get(
    "http://localhost:7778/analyze",
    params={"url": "https://example.com/image.jpg"}
)

# File input
response = requests.get(
    "http://localhost:7778/analyze",
    params={"file": "/path/to/image.jpg"}
)

# POST file upload
with open('/path/to/image.jpg', 'rb') as f:
    response = requests.post(
        "http://localhost:7778/analyze",
        files={'file': f}
    )

result = response.json()
if result["status"] == "success":
    predictions = result["predictions"]
    for pred in predictions:
        label = pred["label"]
        confidence = pred["confidence"]
        emoji = pred.get("emoji", "")
        print(f"{label} ({confidence:.3f}) {emoji}")
"""
# Where /path/to/image.jpg and port 7778 are.
PYTHON_BEFORE = """\
import builtins, sys, urllib3.util.connection as connection
path, port = sys.argv[1], int(sys.argv[2])
opened, create = open, connection.create_connection
there = {"/path/to/image.jpg": path}
builtins.open = lambda name, *more, **named: opened(there.get(name, name), *more, **named)
connection.create_connection = lambda address, *more, **named: create(
    ("127.0.0.1", port) if address == ("localhost", 7778) else ("127.0.0.1", 9), *more, **named
)
sys.stdout.reconfigure(encoding="utf-8")
"""
JAVASCRIPT = [
    """\
// URL input
const response = await fetch(
  'http://localhost:7778/analyze?url=https://example.com/image.jpg'
);
""",
    """\
// File input
const response = await fetch(
  'http://localhost:7778/analyze?file=/path/to/image.jpg'
);
""",
    """\
// POST file upload
const formData = new FormData();
formData.append('file', fileInput.files[0]);
const response = await fetch('http://localhost:7778/analyze', {
  method: 'POST',
  body: formData
});
""",
]
JAVASCRIPT_AFTER = """\
const result = await response.json();
if (result.status === 'success') {
  result.predictions.forEach(pred => {
    console.log(`${pred.label} (${pred.confidence.toFixed(3)}) ${pred.emoji || ''}`);
  });
}
"""
JAVASCRIPT_BEFORE = """\
const { readFileSync } = require('fs');
const [path, port] = process.argv.slice(2);
const fetched = fetch;
globalThis.fetch = (address, ...more) => fetched(address.replace(':7778', `:${port}`), ...more);
const fileInput = { files: [new File([readFileSync(path)], 'image.jpg')] };
"""
SHOWN = ["man (0.401) 👨", "uniform (0.211) 👔", "child (0.132) 🧒", "tetrahedron-ish thing (0.010)"]
NO_PROXY = {**os.environ, "no_proxy": "*", "NO_PROXY": "*"}


@needs_forms
def test_the_seeds_python_runs_as_it_is(service: LabelService, labels: Path, root: Path, tmp_path: Path):
    script = tmp_path / "snippet.py"
    script.write_text(PYTHON_BEFORE + PYTHON, "utf-8")
    with served(classify_routes.router(service, OPEN, SETTINGS, labels)) as port:
        asked = [sys.executable, str(script), str(root / "image.jpg"), str(port)]
        done = subprocess.run(asked, capture_output=True, encoding="utf-8", env=NO_PROXY, check=False)
    assert done.returncode == 0, done.stderr
    assert [line.strip() for line in done.stdout.splitlines()] == SHOWN


@needs_forms
@needs_node
@pytest.mark.parametrize(("asking", "shown"), [*zip(JAVASCRIPT, ([], [], SHOWN), strict=True)])
def test_the_seeds_javascript_runs_as_it_is(
    service: LabelService, labels: Path, root: Path, tmp_path: Path, asking: str, shown: list[str]
):
    """An address that is nowhere and a file that is not there are errors, and show nothing."""
    script = tmp_path / "snippet.js"
    body = textwrap.indent(asking + JAVASCRIPT_AFTER, "  ")
    script.write_text(f"{JAVASCRIPT_BEFORE}(async () => {{\n{body}}})();\n", "utf-8")
    with served(classify_routes.router(service, OPEN, SETTINGS, labels)) as port:
        asked = ["node", str(script), str(root / "image.jpg"), str(port)]
        done = subprocess.run(asked, capture_output=True, encoding="utf-8", env=NO_PROXY, check=False)
    assert done.returncode == 0, done.stderr
    assert [line.strip() for line in done.stdout.splitlines()] == shown


# -- what is asked -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "status", "line"),
    [
        ({}, 400, "Must provide either url or file parameter"),
        ({"url": "", "file": ""}, 400, "Must provide either url or file parameter"),
        ({"url": "http://a/", "file": "b"}, 400, "Cannot provide both url and file parameters"),
        ({"url": "nonsense"}, 400, "Invalid URL"),
        ({"url": "file:///etc/passwd"}, 400, "Invalid URL"),
        ({"url": "http://[::1"}, 400, "Invalid URL"),
        ({"file": "/nowhere/a.png"}, 404, "File not found: /nowhere/a.png"),
    ],
)
def test_a_question_is_one_address_or_one_file(client: TestClient, asked: Any, status: int, line: str):
    assert failure(client.get("/analyze", params=asked), status) == line


def test_only_files_below_the_roots_are_read(client: TestClient, root: Path, tmp_path: Path):
    outside = tmp_path / "outside.png"
    outside.write_bytes(picture())
    (root / "link.png").symlink_to(outside)
    (root / "folder").symlink_to(tmp_path)
    (root / "loop.png").symlink_to(root / "loop.png")
    for file in (
        outside,
        root / "link.png",
        root / "loop.png",
        root / "folder" / "outside.png",
        f"{root}/../outside.png",
        f"{root}/%2e%2e/outside.png",
        f"{root}\0/image.jpg",
        f"{root}-beside/a.png",
        "image.jpg",
        "~/a.png",
        "~nobody-is-called-this/a.png",
        "/etc/passwd",
        "/proc/self/environ",
        f"file://{root}/image.jpg",
        root / "missing.png",
        root / "image.jpg" / "deeper.png",
        root / ("x" * 300),
        root / "\ud800.png",
    ):
        name = str(file).encode("utf-8", "surrogatepass")
        line = failure(client.get("/analyze", params={"file": name}), 404)
        assert line.startswith("File not found: ")
    inside = root / "inside.png"
    inside.symlink_to(root / "image.jpg")
    assert client.get("/analyze", params={"file": str(inside)}).status_code == 200


@pytest.mark.parametrize("what", ["folder", "pipe", "text", "empty", "large"])
def test_what_lies_there_and_is_no_picture_is_refused(client: TestClient, root: Path, what: str):
    place = root / what
    if what == "folder":
        place.mkdir()
    elif what == "pipe":
        os.mkfifo(place)
    else:
        sizes = {
            "text": b"root:x:0:0",
            "empty": b"",
            "large": picture().ljust(classify_routes.MOST_BYTES + 1),
        }
        place.write_bytes(sizes[what])
    answered = client.get("/analyze", params={"file": str(place)})
    line = failure(answered, 413 if what == "large" else 400)
    assert "root:x" not in line
    assert (line == "File too large") == (what == "large")


def test_addresses_are_fetched_from_the_public_internet_only(client: TestClient, web: PublicInternet):
    inside = [
        "127.0.0.1",
        "2130706433",
        "0177.0.0.1",
        "[::ffff:127.0.0.1]",
        "169.254.169.254",
        "localhost:7778",
    ]
    web.serve(
        by_path(
            {
                "/a.png": content(picture()),
                "/page": content(b"<html>secret</html>"),
                "/bomb.png": content(picture().ljust(classify_routes.MOST_BYTES + 1)),
                "/torn.png": content(picture()[:50]),
                **{f"/{n}": redirect(f"http://{host}/") for n, host in enumerate(inside)},
            }
        )
    )
    web.names["inside.example"] = [["10.0.0.1"]]
    web.names["rebound.example"] = [[PUBLIC], ["127.0.0.1"]]

    def asked(url: str) -> Any:
        return client.get("/analyze", params={"url": url})

    assert asked("http://example.com/a.png").status_code == 200
    assert asked("http://rebound.example/a.png").status_code == 200
    for url in (
        *(f"http://{host}/" for host in [*inside, "inside.example", "nowhere.example", "rebound.example"]),
        *(f"http://example.com/{n}" for n in range(len(inside))),
        *(f"http://example.com/{page}" for page in ("page", "bomb.png", "torn.png", "gone.png")),
        "http://me:secret@example.com/a.png",
        "http://example.com:22/a.png",
    ):
        line = failure(asked(url), 400)
        assert line.startswith("Failed to process image URL: ")
        assert "secret" not in line
    assert {*web.connected} == {(PUBLIC, 80)}


@needs_forms
@pytest.mark.parametrize(
    ("asked", "status", "why"),
    [
        ({"files": {"file": bytes(classify_routes.MOST_BYTES + 1)}}, 413, "File too large"),
        ({"files": {"file": bytes(classify_routes.MOST_BYTES + 100_000)}}, 413, "File too large"),
        ({"files": {"image": picture()}}, 400, "file"),
        ({"files": {"file": (None, "text")}}, 400, "file"),
        ({"files": {"file": b""}}, 400, "empty"),
        ({"files": {"file": b"MZ\x90\0"}}, 400, "cannot read file"),
        ({"files": {"file": ("a.png", b"#!/bin/sh\nrm -rf /")}}, 400, "text"),
        ({"files": {"file": picture("TIFF")}}, 400, "cannot read file"),
        ({"json": {"url": "http://example.com/"}}, 415, "multipart/form-data"),
    ],
)
def test_what_cannot_be_used_is_the_askers_fault(client: TestClient, asked: Any, status: int, why: str):
    assert why in failure(client.post("/analyze", **asked), status)


@needs_forms
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "WEBP"])
def test_the_seeds_formats_are_read(client: TestClient, kind: str):
    assert client.post("/analyze", files={"file": picture(kind)}).status_code == 200
    large = picture().ljust(classify_routes.MOST_BYTES, b"\0")
    assert client.post("/analyze", files={"file": large}).status_code == 200


# -- labels and settings -------------------------------------------------------------------------------------


def test_the_confidence_threshold_and_the_most_predictions_count(
    service: LabelService, labels: Path, root: Path
):
    asked = {"file": str(root / "image.jpg")}
    few = client_of(service, settings=ClassifySettings(is_private=False, max_predictions=2), labels=labels)
    assert [one["label"] for one in few.get("/analyze", params=asked).json()["predictions"]] == [
        "man",
        "uniform",
    ]
    sure = ClassifySettings(is_private=False, confidence_threshold=0.2)
    found = client_of(service, settings=sure, labels=labels).get("/analyze", params=asked).json()
    assert [one["label"] for one in found["predictions"]] == ["man", "uniform"]
    none = ClassifySettings(is_private=False, confidence_threshold=0.9)
    found = client_of(service, settings=none, labels=labels).get("/analyze", params=asked).json()
    assert (found["status"], found["predictions"]) == ("success", [])


def test_a_model_goes_by_openais_names(service: LabelService, root: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CLIP_MODEL", "ViT-B/32")
    settings = ClassifySettings.from_environment(root)
    client = client_of(service, settings=ClassifySettings(is_private=False, model=settings.model))
    assert client.get("/analyze", params={"file": str(root / "image.jpg")}).status_code == 200
    assert service.asked[-1]["choice"].model == "ViT-B-32/openai"


def test_without_labels_the_service_says_so(service: LabelService, root: Path, tmp_path: Path):
    client = client_of(service, labels=tmp_path / "no-labels")
    assert client.get("/health").json()["num_labels"] == 0
    assert (
        failure(client.get("/analyze", params={"file": str(root / "image.jpg")}), 409) == "No labels loaded"
    )


def test_there_are_labels_without_any_folder(service: LabelService, root: Path):
    client = client_of(service)
    assert 1000 < client.get("/health").json()["num_labels"] < 2000
    found = client.get("/analyze", params={"file": str(root / "image.jpg")}).json()
    assert found["predictions"][0] == {"label": "woman", "confidence": 0.401, "emoji": "👩"}


def test_a_model_that_is_not_here_is_said_in_the_seeds_words(service: LabelService, root: Path):
    service.failure = errors.WeightsMissing("ViT-B-32/openai is not here")
    line = failure(client_of(service).get("/analyze", params={"file": str(root / "image.jpg")}), 409)
    assert line.startswith("Model not loaded: ")


def test_what_nobody_expected_is_not_told(service: LabelService, root: Path):
    service.failure = RuntimeError("secret")
    line = failure(client_of(service).get("/analyze", params={"file": str(root / "image.jpg")}), 500)
    assert "secret" not in line


ENV = """\
# Service Configuration
PORT=7778                       # Service port
PRIVATE=False                   # Access mode (False=public, True=localhost-only)

# CLIP Model Configuration
CLIP_MODEL=ViT-B/32            # Model size (ViT-B/32, ViT-L/14, ViT-L/14@336px)
CLIP_CONFIDENCE_THRESHOLD=0.01  # Minimum confidence for predictions
CLIP_MAX_PREDICTIONS=10         # Maximum number of predictions to return

# API Configuration (Required for emoji mapping)
API_HOST=localhost              # Host for emoji API
API_PORT=8080                   # Port for emoji API
API_TIMEOUT=2.0                 # Timeout for emoji API requests
"""


def test_the_seeds_env_file_is_read_as_it_is(tmp_path: Path):
    (tmp_path / ".env").write_text(ENV)
    assert ClassifySettings.from_environment(tmp_path) == ClassifySettings(
        7778, False, "ViT-B-32/openai", 0.01, 10
    )


def test_the_environment_stands_above_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / ".env").write_text(ENV.replace("7778", "1") + "CLIP_MODEL='ViT-L/14@336px' # ours\n")
    monkeypatch.setenv("PORT", "9000")
    monkeypatch.setenv("PRIVATE", "TRUE")
    found = ClassifySettings.from_environment(tmp_path)
    assert (found.port, found.is_private, found.model) == (9000, True, "ViT-L-14-336/openai")
    assert found.listens_on == "127.0.0.1"


def test_nothing_in_an_env_file_is_run(tmp_path: Path):
    evil = tmp_path / "evil"
    lines = [f"CLIP_MODEL=$(touch {evil})", f"X=`touch {evil}`", f"touch {evil}", f"export Y=1; touch {evil}"]
    (tmp_path / ".env").write_text("\n".join([*lines, "\0=\0", "='", '"', "PORT=80"]))
    found = ClassifySettings.from_environment(tmp_path)
    assert found.model == f"$(touch {evil})"
    assert found.port == 80
    assert "X" not in os.environ
    assert not evil.exists()


def test_without_settings_only_this_machine_is_answered(tmp_path: Path):
    assert ClassifySettings.from_environment(tmp_path) == ClassifySettings(7778, True, None, 0.01, 10)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("PORT", value) for value in ("0", "65536", "x", "-1", "1.5", "１", "9" * 30)),
        *(("PRIVATE", value) for value in ("yes", "1", "perhaps")),
        *(("CLIP_CONFIDENCE_THRESHOLD", value) for value in ("x", "nan", "-1", "1.1", "inf")),
        *(("CLIP_MAX_PREDICTIONS", value) for value in ("0", "x", "1e9", "1001")),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
):
    monkeypatch.setenv(name, value)
    with pytest.raises(errors.InputError, match=name):
        ClassifySettings.from_environment(tmp_path)


@given(text=st.text())
def test_any_env_file_can_be_read(text: str, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("env")
    (folder / ".env").write_text(text.replace("P", ""), "utf-8", errors="surrogatepass")
    assert ClassifySettings.from_environment(folder).port == 7778


# -- who is answered -----------------------------------------------------------------------------------------


def test_private_answers_this_machine_only(service: LabelService, labels: Path, root: Path):
    private = classify_routes.router(service, OPEN, ClassifySettings(is_private=True), labels)
    elsewhere = TestClient(app_of(private), base_url="http://localhost")  # it comes from "testclient"
    for answered in (
        elsewhere.get("/health"),
        elsewhere.get("/analyze", params={"file": str(root / "image.jpg")}),
    ):
        assert "PRIVATE" in failure(answered, 403)
    if shutil.which("curl"):
        with served(private) as port:
            assert json.loads(shell("curl http://localhost:7778/health", root, 7778, port))["num_labels"] == 4


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:5173"},
    ],
)
def test_no_other_site_has_a_picture_looked_at(
    client: TestClient, web: PublicInternet, headers: dict[str, str]
):
    asked = client.get("/analyze", params={"url": "http://example.com/a.png"}, headers=headers)
    failure(asked, 403)
    assert web.connected == []


@needs_forms
@pytest.mark.parametrize(
    "headers",
    [{"Origin": "http://evil.example"}, {"Origin": "null"}, {"Referer": "http://evil.example/"}],
)
def test_a_form_of_another_site_is_refused(client: TestClient, headers: dict[str, str]):
    failure(client.post("/analyze", files={"file": picture()}, headers=headers), 403)


# -- anything ------------------------------------------------------------------------------------------------

WORDS = st.one_of(
    st.text(max_size=30),
    st.sampled_from(
        ["http://127.0.0.1/", "http://[::1]/", "http://\ud800/", "/etc/passwd", "..", "~", "\0", "."]
    ),
    st.text(max_size=12).map(lambda text: f"http://{text}/"),
    st.text(max_size=12).map(lambda text: f"/tmp/{text}"),
)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asked=st.lists(st.tuples(st.sampled_from(["url", "file", "other"]), WORDS), max_size=3))
def test_no_question_is_an_error_of_ours(client: TestClient, web: PublicInternet, asked: Any):
    from urllib.parse import urlencode

    query = urlencode([(name, word.encode("utf-8", "surrogatepass")) for name, word in asked])
    answered = client.get(f"/analyze?{query}")
    assert answered.status_code in (400, 404)
    failure(answered, answered.status_code)
    assert web.connected == []


@needs_forms
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sent=st.binary(max_size=300), is_whole=st.booleans())
def test_no_upload_is_an_error_of_ours(client: TestClient, sent: bytes, is_whole: bool):
    if is_whole:
        answered = client.post("/analyze", files={"file": sent})
    else:
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        answered = client.post("/analyze", content=b"--x\r\n" + sent, headers=headers)
    assert answered.status_code == 400
    failure(answered, 400)


def test_the_engine_itself_answers(root: Path, labels: Path):
    """CLIP by words, through the whole service."""
    pytest.importorskip("torch")
    from fakes.word_encoder import WordEncoder, show
    from PIL import Image

    from promptglass.clip.loaded import LoadedClip
    from promptglass.service import Service

    service = LabelService([root])
    words = LoadedClip(WordEncoder(), keeps=False)
    whole = Service(service.host)
    service.host.loaded = lambda choice: words
    painted = Image.new("RGB", (6, 5), (1, 2, 3))
    painted.save(root / "painted.png")
    show(painted, "a uniform")
    found = client_of(whole, labels=labels).get("/analyze", params={"file": str(root / "painted.png")}).json()
    assert found["predictions"][0]["label"] == "uniform"
    assert found["predictions"][0]["emoji"] == "👔"
    assert found["predictions"][0]["confidence"] > 0.9
