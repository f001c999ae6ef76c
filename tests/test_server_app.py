"""The service on its own: who may ask, what other programs' routes answer, how much at once, and its end."""

from __future__ import annotations

import base64
import io
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from conftest import noise
from PIL import Image

pytest.importorskip("fastapi")
pytest.importorskip("httpx")

from fastapi.testclient import TestClient

from promptglass import cli
from promptglass.errors import Busy
from promptglass.host import Standalone
from promptglass.jobs import Jobs
from promptglass.server import room, uploads
from promptglass.server.access import Access
from promptglass.server.app import create_app
from promptglass.server.room import Room
from promptglass.service import Service

KEY = "a-long-and-random-key"
SERVER = Path(__file__).parent / "fakes" / "toy_server.py"


pytestmark = pytest.mark.usefixtures("apart")


@pytest.fixture
def service(root: Path) -> Service:
    return Service(Standalone(roots=[root], endpoints=["eyes"]))


def client_of(service: Service, has_page: bool = False, **access: Any) -> TestClient:
    known: dict[str, Any] = {"cors": frozenset(), **access}
    app = create_app(service, Access(dict, {"gpu-box"}, **known), has_page=has_page, stops_within_s=0)
    return TestClient(app, base_url="http://localhost:7880", raise_server_exceptions=False)


@pytest.fixture
def client(service: Service) -> TestClient:
    return client_of(service)


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


RED = base64.b64encode(png(Image.new("RGB", (20, 10), "red"))).decode()
PALETTE = {"image": RED, "modes": "palette"}


# -- routes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["/v1", "/promptglass/v1"])
def test_its_own_api_is_under_both_names(client: TestClient, prefix: str):
    found = client.post(f"{prefix}/interrogate", json=PALETTE).json()
    assert found["answers"][0]["text"] == "red"
    assert client.get(f"{prefix}/health").json()["host"] == "standalone"


def test_models_are_listed_with_what_gets_them(client: TestClient):
    found = client.get("/v1/models").json()
    assert found["own"] == "ViT-L-14/openai"
    (own,) = [one for one in found["models"] if one["name"] == "ViT-L-14/openai"]
    assert (own["kind"], own["here"]) == ("clip", False)
    assert own["command"].endswith("models get ViT-L-14/openai")


def test_sidecars_are_read_below_the_roots_only(client: TestClient, root: Path, tmp_path: Path):
    (root / "a.png").write_bytes(base64.b64decode(RED))
    path = str(root / "a.png")
    assert client.get("/v1/sidecars", params={"path": path}).status_code == 404
    started = client.post("/v1/batches", json={"folder": str(root), "modes": "palette"}).json()
    while client.get(f"/v1/batches/{started['id']}").json()["state"] == "running":
        time.sleep(0.02)
    kept = client.get("/v1/sidecars", params={"path": path}).json()["sidecar"]
    assert kept["analysis"]["palette"][0]["prompt"] == "red"
    several = client.post("/v1/sidecars", json={"paths": [path, str(root / "b.png")]}).json()["sidecars"]
    assert [one["sidecar"] for one in several] == [kept, None]

    secret = tmp_path / "secret.promptglass.json"
    secret.write_text('{"schema": 1, "secret": true}')
    (root / "link.png.promptglass.json").symlink_to(secret)
    (root / "out").symlink_to(tmp_path)
    for outside in ("/etc/passwd", f"{root}/../secret", str(root / "link.png"), str(root / "out" / "secret")):
        refused = client.get("/v1/sidecars", params={"path": outside})
        assert refused.status_code == 400
        assert "is not in a folder that may be used" in refused.json()["error"]
    assert client.post("/v1/sidecars", json={"paths": [path] * 1001}).status_code == 400


def test_tables_are_chosen_by_name_and_never_by_file(client: TestClient):
    for tables in (["flavors=/etc/passwd"], ["flavors,mediums+=/etc/passwd"], ["nonsense"]):
        refused = client.post("/v1/interrogate", json={**PALETTE, "tables": tables})
        assert refused.status_code == 400
        assert "root:" not in refused.text
    pytest.importorskip("clip_interrogator")
    assert client.post("/v1/interrogate", json={**PALETTE, "tables": ["flavors"]}).status_code == 200


def test_the_docs_are_drawn_up_from_the_description(client: TestClient):
    assert "swagger" in client.get("/docs").text
    assert "/v1/interrogate" in client.get("/openapi.json").json()["paths"]


def test_without_gradio_there_is_a_way_to_the_docs(client: TestClient):
    assert 'href="docs"' in client.get("/").text
    assert client.get("/nowhere").status_code == 404
    assert client.post("/", json={}).status_code == 405


def test_with_gradio_the_page_is_there_and_the_api_before_it(service: Service):
    gradio = pytest.importorskip("gradio")
    if int(gradio.__version__.split(".")[0]) < 5:
        pytest.skip("the page wants gradio 5")
    with client_of(service, has_page=True, key=KEY) as client:
        assert client.get("/").status_code == 401
        assert client.get("/config").status_code == 401
        known = {"Authorization": "Basic " + base64.b64encode(f"x:{KEY}".encode()).decode()}
        assert "gradio" in client.get("/", headers=known).text.lower()
        assert client.get("/v1/health", headers=known).json()["host"] == "standalone"
        foreign = {**known, "Origin": "https://evil.example", "Content-Type": "multipart/form-data"}
        assert client.post("/gradio_api/upload", content=b"", headers=foreign).status_code == 403


# -- as a WebUI ----------------------------------------------------------------------------------------------


def test_a_client_of_a1111_gets_its_shapes(client: TestClient):
    route = "/sdapi/v1/interrogate"
    assert client.get("/sdapi/v1/samplers").json() == []
    for asked, statuses in (
        ({"image": RED}, [409]),  # no CLIP is here
        ({"image": RED, "model": "nonsense"}, [404]),
        ({"image": "http://127.0.0.1/a.png"}, [400]),
        ({"image": None}, [400, 422]),  # FastAPI before 0.110 takes null for nothing said
        ({}, [400]),
    ):
        refused = client.post(route, json=asked)
        assert refused.status_code in statuses
        assert list(refused.json()) == ["detail"]


def test_deepdanbooru_is_a_tagger(client: TestClient):
    pytest.importorskip("efficientnet_lite_pytorch")
    cat = base64.b64encode((Path(__file__).parents[1] / "samples" / "cat.jpg").read_bytes()).decode()
    found = client.post("/sdapi/v1/interrogate", json={"image": cat, "model": "deepdanbooru"})
    assert "cat" in found.json()["caption"].split(", ")


# -- who may ask ---------------------------------------------------------------------------------------------

PATHS = ("/v1/health", "/promptglass/v1/health", "/interrogator/models", "/sdapi/v1/samplers")


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"anybody:{password}".encode()).decode()


@pytest.mark.parametrize(
    ("headers", "is_known"),
    [
        ({}, False),
        ({"Authorization": f"Bearer {KEY}"}, True),
        ({"Authorization": f"bearer  {KEY}"}, True),
        ({"X-API-Key": KEY}, True),
        ({"Authorization": basic(KEY)}, True),
        ({"Authorization": basic("wrong")}, False),
        ({"Authorization": KEY}, False),
        ({"Authorization": "Bearer "}, False),
        ({"Authorization": f"Bearer {KEY[:-1]}"}, False),
        ({"X-API-Key": ""}, False),
        ({"X-API-Key": KEY, "Host": "glass.example"}, True),
    ],
)
def test_a_key_is_asked_for_everywhere(service: Service, headers: Mapping[str, str], is_known: bool):
    client = client_of(service, key=KEY)
    for path in (*PATHS, "/", "/docs", "/openapi.json", "/nowhere"):
        answered = client.get(path, headers=headers)
        assert (answered.status_code != 401) == is_known, path
        assert ("www-authenticate" in answered.headers) == (not is_known)
        assert KEY not in answered.text
    assert client.get("/healthz").json() == {"status": "ok"}


def test_an_access_does_not_show_its_key():
    assert KEY not in repr(Access(dict, (), key=KEY))


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "gpu-box:7880"}, 200),
        ({"Origin": "http://localhost:7880"}, 200),
        ({"Origin": "http://localhost:9999"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Origin": "https://glass.example"}, 200),
        ({"Origin": "https://glass.example", "Sec-Fetch-Site": "cross-site"}, 200),
    ],
)
def test_other_sites_are_refused_unless_listed(service: Service, headers: dict[str, str], status: int):
    client = client_of(service, cors=frozenset({"https://glass.example"}))
    for path in PATHS:
        answered = client.get(path, headers=headers)
        assert answered.status_code == status
        allowed = answered.headers.get("access-control-allow-origin")
        assert allowed == ("https://glass.example" if "glass" in headers.get("Origin", "") else None)


def test_a_listed_page_may_ask_and_nobody_else_is_told_so(service: Service):
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    listed = client_of(service, cors=frozenset({"https://glass.example"}))
    may = listed.options("/v1/interrogate", headers={**asked, "Origin": "https://glass.example"})
    assert may.headers["access-control-allow-origin"] == "https://glass.example"
    assert listed.options("/v1/interrogate", headers={**asked, "Origin": "https://evil"}).status_code == 400
    off = client_of(service).options("/v1/interrogate", headers={**asked, "Origin": "https://glass.example"})
    assert "access-control-allow-origin" not in off.headers


def test_a_link_elsewhere_leads_to_the_page_and_not_to_the_api(client: TestClient):
    visit = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert client.get("/", headers=visit).status_code == 200
    assert client.get("/docs", headers=visit).status_code == 200
    assert client.get("/v1/health", headers=visit).status_code == 403
    assert client.get("/", headers={**visit, "Sec-Fetch-Dest": "iframe"}).status_code == 403


# -- how much at once ----------------------------------------------------------------------------------------


def test_more_than_there_is_room_for_is_429_before_it_is_read(service: Service, monkeypatch: Any):
    begun, over = threading.Event(), threading.Event()

    def work(job: Any) -> dict[str, Any]:
        begun.set()
        over.wait(20)
        return {"answers": []}

    monkeypatch.setattr(service, "interrogate", lambda *_: service.jobs.start("interrogate", work))
    with client_of(service, room=Room(1)) as client:
        first = threading.Thread(target=lambda: client.post("/v1/interrogate", json=PALETTE))
        first.start()
        assert begun.wait(5)
        for route, key in (("/v1/interrogate", "error"), ("/sdapi/v1/interrogate", "detail")):
            busy = client.post(route, json=PALETTE)
            assert busy.status_code == 429
            assert int(busy.headers["retry-after"]) > 0
            assert list(busy.json()) == [key]
        assert client.get("/v1/health").status_code == 200
        over.set()
        first.join(5)
        begun.clear()
        assert client.post("/v1/interrogate", json=PALETTE).status_code == 200


def test_a_room_counts_bytes(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(room, "MOST_BYTES_AT_ONCE", 100)
    place = Room(9)
    with place.place("POST", {"Content-Length": "90"}):
        with place.place("POST", {"Content-Length": "10"}), pytest.raises(Busy):
            place.place("POST", {"Content-Length": "1"}).__enter__()
        with pytest.raises(Busy):
            place.place("POST", {}).__enter__()
        with place.place("GET", {}):
            pass
    with place.place("POST", {"Content-Length": "999"}):  # alone there is room for any
        pass


def test_pixels_are_counted_for_as_long_as_a_picture_is_in_use(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(uploads, "MOST_BYTES_OF_PIXELS", 3000)
    monkeypatch.setattr(uploads, "_PIXELS", uploads._Pixels())  # other tests may still hold pictures
    image = base64.b64encode(png(noise(1, (15, 20)))).decode()  # 2,400 bytes of pixels
    kept = uploads.picture_of(image)
    with pytest.raises(Busy):
        uploads.picture_of(image)
    del kept
    for _ in range(3):
        uploads.picture_of(image)


# -- what is logged ------------------------------------------------------------------------------------------


def test_a_request_has_a_name_in_the_log_and_the_reply(client: TestClient, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO, "promptglass"):
        named = client.get("/v1/health?key=secret", headers={"X-Request-ID": "abc-1", "X-API-Key": "secret"})
        strange = client.get("/v1/health", headers={"X-Request-ID": "a b\t" * 50})
    assert named.headers["x-request-id"] == "abc-1"
    assert re.fullmatch("[0-9a-f]{16}", strange.headers["x-request-id"])
    lines = [record.getMessage() for record in caplog.records]
    assert re.fullmatch(r"GET /v1/health 200 \d+ ms", lines[0])
    assert "secret" not in caplog.text


def test_what_a_job_logs_bears_the_name_of_its_request(service: Service, monkeypatch: Any, caplog: Any):
    from promptglass.server.logs import OfRequest

    log, named = logging.getLogger("promptglass"), OfRequest()
    monkeypatch.setattr(service, "_answers", lambda *_: 1 / 0)
    log.addFilter(named)
    try:
        answered = client_of(service).post("/v1/interrogate", json=PALETTE, headers={"X-Request-ID": "q7"})
    finally:
        log.removeFilter(named)
    assert answered.status_code == 500
    assert "[q7] interrogate failed" in caplog.text
    assert "ZeroDivision" not in answered.text


# -- the command ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "key", "why"),
    [
        (["--host", "0.0.0.0"], "", "is open to others"),
        (["--host", "::"], "", "is open to others"),
        (["--host", "192.168.1.5"], "", "is open to others"),
        (["--host", "0.0.0.0"], "short", "can be guessed"),
        (["--host", "0.0.0.0"], "two words that are long", "holds no key"),
        (["--cors", "*"], "", "is no origin"),
        (["--cors", "glass.example"], "", "is no origin"),
        (["--root", "/nowhere"], "", "there is no folder"),
        (["--queue", "0"], "", "--queue is 1 or more"),
        (["--port", "70000"], "", "is no port"),
        (["--key-file", "/nowhere"], "", "cannot read"),
    ],
)
def test_what_would_not_do_is_refused_in_one_line(
    options: list[str], key: str, why: str, monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    monkeypatch.setenv("PROMPTGLASS_API_KEY", key)
    assert cli.main(["serve", "--no-page", *options]) == 2
    said = capsys.readouterr().err
    assert why in said
    assert len(said.strip().splitlines()) == 1
    assert not key or key not in said


def test_a_key_file_is_for_its_owner_only(tmp_path: Path, capsys: Any):
    file = tmp_path / "key"
    file.write_text(KEY)
    file.chmod(0o644)
    assert cli.main(["serve", "--key-file", str(file)]) == 2
    assert "chmod 600" in capsys.readouterr().err


def test_a_port_that_is_taken_is_said(capsys: Any):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert cli.main(["serve", "--no-page", "--port", str(port)]) == 2
    assert f"cannot listen on 127.0.0.1:{port}" in capsys.readouterr().err


class Server:
    """`promptglass serve` with a toy CLIP, as a process of its own."""

    def __init__(self, root: Path, log_file: Path, *options: str) -> None:
        command = [sys.executable, str(SERVER), "--port", "0", "--no-page", "--root", str(root)]
        command += ["--log", str(log_file), "--library", "off", *options]
        self.log_file = log_file
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        self.said = self.process.stderr.readline()
        found = re.search(r"http://\S+", self.said)
        assert found, self.said + self.process.stderr.read()
        self.address = found[0]

    def ask(self, path: str, content: Any = None, timeout_s: float = 60, **headers: str) -> tuple[int, Any]:
        body = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(
            self.address + path, body, {"Content-Type": "application/json", **headers}
        )
        try:
            with urllib.request.urlopen(request, timeout=timeout_s) as answered:
                return answered.status, json.load(answered)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    def stopped(self, how: signal.Signals = signal.SIGTERM, within_s: float = 60) -> str:
        """What it said on stderr from the signal on."""
        self.process.send_signal(how)
        _, said = self.process.communicate(timeout=within_s)
        return said


@pytest.fixture
def serve(root: Path, tmp_path: Path) -> Iterator[Any]:
    pytest.importorskip("torch")
    pytest.importorskip("uvicorn")
    running: list[Server] = []

    def start(*options: str) -> Server:
        running.append(Server(root, tmp_path / "log", *options))
        return running[-1]

    yield start
    for server in running:
        if server.process.poll() is None:
            server.process.kill()
            server.process.communicate()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_idle_it_ends_at_once_and_well(serve: Any, how: signal.Signals):
    server = serve()
    assert server.ask("/v1/interrogate", PALETTE)[0] == 200
    began = time.monotonic()
    assert "Traceback" not in server.stopped(how)
    assert server.process.returncode == 0
    assert time.monotonic() - began < 8


def test_terminated_under_load_it_answers_all_that_it_accepted(serve: Any, root: Path):
    for number in range(24):
        noise(number).save(root / f"{number:02}.png")
    server = serve("--slow", "0.15")
    asked = {"image": RED, "modes": "fast", "caption": "a cat"}
    assert server.ask("/v1/interrogate", asked)[0] == 200
    answered: dict[str, int] = {}
    is_over = threading.Event()

    def load(client: int) -> None:
        for number in range(10_000):
            name = f"{client}-{number}"
            try:
                answered[name] = server.ask("/v1/interrogate", asked, **{"X-Request-ID": name})[0]
            except OSError:  # nobody listens any more
                return
            if is_over.is_set():
                return

    clients = [threading.Thread(target=load, args=(client,), daemon=True) for client in range(24)]
    for client in clients:
        client.start()
    _, batch = server.ask("/v1/batches", {"folder": str(root), "modes": "fast", "caption": "a cat"})
    time.sleep(1)
    said = server.stopped()
    is_over.set()
    for client in clients:
        client.join(10)
    assert server.process.returncode == 0, said
    assert "Traceback" not in said
    logged = re.findall(r"\[(\d+-\d+)\] POST /v1/interrogate (\S+)", server.log_file.read_text())
    assert len(logged) > 24
    assert {name: str(status) for name, status in answered.items()} == dict(logged)
    assert {status for _, status in logged} == {"200"}
    assert batch["state"] == "running"
    assert len([*root.glob("*.promptglass.json")]) == 24


def test_what_does_not_end_is_stopped_and_goes_on_later(serve: Any, root: Path):
    for number in range(12):
        noise(number).save(root / f"{number:02}.png")
    server = serve("--slow", "4", "--stop-within", "1")
    server.ask("/v1/batches", {"folder": str(root), "modes": "fast", "caption": "a cat"})
    began = time.monotonic()
    server.stopped()
    assert server.process.returncode == 0
    assert time.monotonic() - began < 20
    for sidecar in root.glob("*.promptglass.json"):
        json.loads(sidecar.read_text())


@pytest.mark.long
def test_asked_again_and_again_it_takes_no_more_files_and_little_more_memory(serve: Any):
    proc = Path("/proc")
    if not (proc / "self" / "fd").exists():
        pytest.skip("no /proc")
    server = serve()
    asked = {"image": RED, "modes": "fast,palette"}

    def rounds(count: int) -> None:
        for _ in range(count):
            assert server.ask("/v1/interrogate", asked)[0] == 200

    def held() -> tuple[int, int]:
        place = proc / str(server.process.pid)
        resident = int((place / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return len([*(place / "fd").iterdir()]), resident

    rounds(100)
    files, resident = held()
    rounds(300)
    more_files, more_resident = held()
    assert more_files <= files + 2
    assert more_resident - resident < 30 * 2**20


def test_a_promptglass_asks_another_as_a_webui(serve: Any, tmp_path: Path, capsys: Any, monkeypatch: Any):
    (tmp_path / "a.png").write_bytes(base64.b64decode(RED))
    monkeypatch.setenv("PROMPTGLASS_API_KEY", KEY)
    server = serve()
    monkeypatch.setenv("PROMPTGLASS_VIA_AUTH", f"anybody:{KEY}")
    asked = ["interrogate", str(tmp_path / "a.png"), "--modes", "fast,webui/clip", "--json"]
    code = cli.main([*asked, "--via", server.address])
    found = json.loads(capsys.readouterr().out)
    assert code == 0, found
    assert found["answers"][0]["text"].startswith("a picture, ")


# -- what nobody thought of ----------------------------------------------------------------------------------


@pytest.mark.long
def test_no_question_is_an_error_of_ours_and_every_answer_as_described():
    for package in ("schemathesis", "torch"):
        pytest.importorskip(package)
    script = Path(__file__).parent / "schemathesis_server.py"
    # A process of its own: toys take the place of models there.
    done = subprocess.run([sys.executable, str(script), "10"], capture_output=True, text=True, check=False)
    assert done.stdout == "nothing found\n", done.stdout + done.stderr


def test_jobs_that_end_in_time_are_waited_for_and_others_stopped():
    jobs = Jobs()
    done = jobs.start("quick", lambda job: time.sleep(0.2))

    def endless(job: Any) -> None:
        for _ in range(500):
            time.sleep(0.02)
            job.check()

    stopped = jobs.start("endless", endless)
    began = time.monotonic()
    jobs.wind_up(0.5)
    assert (done.state, stopped.state) == ("done", "stopped")
    assert 0.4 < time.monotonic() - began < 3
