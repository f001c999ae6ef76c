"""Interrogation by a WebUI elsewhere: what is asked of whom, what is believed of an answer, and how it ends.

Against a fake of A1111 and Forge, our own routes behind a real server, and, with WEBUI, a real host.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import requests
from conftest import noise
from fakes.llm_server import answer, cut, drip, drop, huge, silence
from fakes.webui_server import FakeWebUI, seen
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from test_batch import SCHEMA, leftovers
from webui import WEBUI, running_webui

from promptglass import open_picture
from promptglass.analyzers import CLIP_MODES, Answer, Failure
from promptglass.cli import main
from promptglass.errors import (
    EndpointError,
    EndpointRefused,
    EndpointUnreachable,
    InputError,
    ModeUnavailable,
    ReplyError,
    Stopped,
)
from promptglass.remote import RemoteWebUI
from promptglass.remote_analyzer import RemoteAnalyzer
from promptglass.remote_api import (
    EXT_PROMPT,
    EXT_TABLES,
    GENERIC,
    OURS,
    SDAPI,
    Offer,
    RemoteTeller,
    Wish,
    outcomes_in,
)
from promptglass.sidecar import path_of

PICTURE = noise(1)
AUTH = "someone:pass:word-9"
VARIABLES = (
    *("STABLE_DIFFUSION_BASE_URL", "STABLE_DIFFUSION_API_URL", "CLIP_TIMEOUT_SECS", "CLIP_ENABLED"),
    *("PROMPTGLASS_VIA_AUTH", "HTTP_PROXY", "http_proxy"),
)


@pytest.fixture(autouse=True)
def apart_from_webuis(apart: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """And without long pauses."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("promptglass.llm.transport.BACKOFF_S", 0.02)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    PICTURE.save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "pictures"
    place.mkdir()
    for number in range(3):
        noise(number).save(place / f"{number}.png")
    return place


def remote(host: FakeWebUI, credentials: str = "", **options: Any) -> RemoteWebUI:
    return RemoteWebUI(host.url, credentials, **options)


def closed() -> str:
    """An address where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def answers(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> dict[str, Any]:
    """What `interrogate` tells of one picture, by mode."""
    assert main(["interrogate", *arguments, "--json"]) == code
    (line,) = capsys.readouterr().out.splitlines()
    return {told["mode"]: told for told in json.loads(line)["answers"]}


def complained(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line of a command that cannot be carried out."""
    assert main([*arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.splitlines()[-1]


def line_of(error: BaseException) -> str:
    """An error is one line that names the host."""
    line = str(error)
    assert line.startswith("WebUI (http://127.0.0.1:") and line == " ".join(line.split())
    return line


# -- what is there -------------------------------------------------------------------------------------------

EXT = dict.fromkeys(("best", "fast", "classic", "negative"), EXT_PROMPT) | {"tables": EXT_TABLES}
HOSTS_OWN = {"webui/clip": SDAPI, "webui/deepdanbooru": SDAPI}


@pytest.mark.parametrize(
    ("how", "routes"),
    [
        ({}, HOSTS_OWN),
        ({"kind": "forge"}, HOSTS_OWN),
        ({"has_ext": True}, EXT | HOSTS_OWN),
        ({"has_ext": True, "has_api": False}, EXT),
        ({"has_ext": True, "has_interrogation": False}, EXT),
        ({"has_api": False, "extra": GENERIC}, {"webui/clip": GENERIC[0]}),
        ({"has_api": False, "extra": GENERIC[1:]}, {"webui/clip": GENERIC[1]}),
        # Asked for its schema while it started, a WebUI never lists what came later.
        ({"has_ext": True, "lists_routes": False}, EXT | HOSTS_OWN),
        ({"openapi.json": (404, {}), "has_api": False, "extra": GENERIC}, {"webui/clip": GENERIC[0]}),
        ({"openapi.json": (200, b"<html>"), "has_ext": True}, EXT | HOSTS_OWN),
    ],
)
def test_a_host_offers_what_its_routes_can_give(how: dict[str, Any], routes: dict[str, str]) -> None:
    with FakeWebUI(**how) as host:
        webui = remote(host)
        assert webui.probe().routes == routes
        assert not host.interrogations()
        count = len(host.asked)
        assert webui.probe().routes == routes
        assert len(host.asked) == count, "asked twice"


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"has_api": False}, "Start it with --api"),
        ({"has_interrogation": False}, "no interrogation, as that of Forge Neo"),
        ({"has_api": False, "openapi.json": (200, b"<html>a shop</html>")}, "no interrogation is offered"),
    ],
)
def test_a_host_without_any_says_what_to_do(how: dict[str, Any], words: str) -> None:
    with FakeWebUI(**how) as host, pytest.raises(EndpointRefused, match=words) as refused:
        remote(host).probe()
    line_of(refused.value)


def test_what_is_best_there_is_a_hosts_first_choice() -> None:
    for routes, first in (
        ({"best": OURS, "fast": OURS, **HOSTS_OWN}, "best"),
        ({"fast": OURS, "caption": OURS, **HOSTS_OWN}, "fast"),
        ({"negative": OURS, "tables": OURS, **HOSTS_OWN}, "webui/clip"),
        ({"negative": OURS, "tables": OURS}, "negative"),
    ):
        assert Offer(routes).first == first


# -- what is answered ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["a1111", "forge"])
def test_the_hosts_own_interrogation_is_no_mode_of_ours(kind: Any) -> None:
    with FakeWebUI(kind, has_deepdanbooru=True) as host:
        webui = remote(host)
        found = webui.interrogate(PICTURE, "webui/clip")
        tags = webui.interrogate(PICTURE, "webui/deepdanbooru")
        assert (found.mode, found.model) == ("webui/clip", "webui")
        assert found.text == f"a picture of {seen(PICTURE)}, by Rembrandt, highly detailed"
        assert found.settings == tags.settings == {"via": SDAPI}
        assert tags.text == f"1girl, solo, {seen(PICTURE)} \\(hair\\)"
        with pytest.raises(ModeUnavailable, match="no best: neither promptglass nor clip-interr") as no_best:
            webui.interrogate(PICTURE, "best")
        assert line_of(no_best.value).endswith("It gives webui/clip, webui/deepdanbooru.")
        assert len(host.interrogations()) == 2


def test_clip_interrogator_ext_is_asked_for_the_mode() -> None:
    with FakeWebUI(has_ext=True) as host:
        webui = remote(host)
        for mode in ("best", "fast", "classic", "negative"):
            found = webui.interrogate(PICTURE, mode, model="ViT-H-14/laion2b_s32b_b79k")
            assert (found.mode, found.text) == (mode, f"{mode} of {seen(PICTURE)}")
            assert found.model == "ViT-H-14/laion2b_s32b_b79k"
        tables = webui.interrogate(PICTURE, "tables")
        assert tables.model == "ViT-L-14/openai"
        assert tables.text.startswith(f"medium of {seen(PICTURE)}, artist of")
        assert [*tables.details["tables"]] == ["mediums", "artists", "movements", "trendings", "flavors"]  # type: ignore[call-overload]


def test_a_host_gets_the_pixels_and_nothing_else_of_the_file(tmp_path: Path) -> None:
    from PIL import PngImagePlugin

    texts = PngImagePlugin.PngInfo()
    texts.add_text("parameters", "a secret prompt")
    noise(2, (3000, 1500)).save(tmp_path / "secret name.png", pnginfo=texts)
    with FakeWebUI() as host:
        remote(host).interrogate(open_picture(tmp_path / "secret name.png").image, "webui/clip")
        (asked,) = host.interrogations()
    sent = base64.b64decode(asked.body.pop("image"))
    assert asked.body == {"model": "clip"}
    assert Image.open(io.BytesIO(sent)).size == (2048, 1024)
    assert b"secret" not in sent and "secret" not in json.dumps(asked.headers)


def test_wishes_that_a_route_cannot_heed_are_refused() -> None:
    with FakeWebUI(has_ext=True) as host:
        webui = remote(host)
        for mode, wish in (
            ("webui/clip", {"caption": "a cat"}),
            ("webui/clip", {"model": "ViT-H-14/laion2b_s32b_b79k"}),
            ("fast", {"caption": "a cat"}),
        ):
            with pytest.raises(InputError, match=mode) as refused:
                webui.interrogate(PICTURE, mode, **wish)
            line_of(refused.value)
        assert not host.interrogations()
        assert webui.interrogate(PICTURE, "negative", caption="a cat").text


# -- a failure is never a prompt -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "mode", "kind", "words"),
    [
        ({"fails": "blip"}, "webui/clip", ReplyError, "BLIP or CLIP could not be fetched, or memory ran out"),
        ({"fails": "vram"}, "webui/clip", ReplyError, "Its console says which"),
        ({"fails": "beams"}, "webui/clip", ModeUnavailable, "num_beams = 4, as in every WebUI. Set it to 1"),
        ({"fails": "vram", "has_ext": True}, "fast", ReplyError, "it failed: Ran out of VRAM"),
        (
            {"fails": "blip", "has_ext": True},
            "best",
            ReplyError,
            "it failed: Exception <class 'RuntimeError'>",
        ),
        ({}, "webui/deepdanbooru", ModeUnavailable, "deepdanbooru is not there"),
    ],
)
@pytest.mark.parametrize("host_kind", ["a1111", "forge"])
def test_a_failure_in_a_200_is_explained(
    host_kind: Any, how: dict[str, Any], mode: str, kind: type[Exception], words: str
) -> None:
    with FakeWebUI(host_kind, **how) as host, pytest.raises(kind, match=words) as failed:
        remote(host).interrogate(PICTURE, mode)
    assert type(failed.value) is kind
    line_of(failed.value)


@pytest.mark.parametrize(
    ("host_kind", "then", "words"),
    [("a1111", ReplyError, "no tags: none is"), ("forge", ModeUnavailable, "deepdanbooru is not there")],
)
def test_deepdanbooru_that_is_not_there_stays_explained(host_kind: Any, then: type, words: str) -> None:
    with FakeWebUI(host_kind) as host:
        webui = remote(host)
        with pytest.raises(ModeUnavailable, match="deepdanbooru is not there"):
            webui.interrogate(PICTURE, "webui/deepdanbooru")
        with pytest.raises(then, match=words):
            webui.interrogate(PICTURE, "webui/deepdanbooru")


def instead(reply: Any) -> dict[str, Any]:
    return {"sdapi/v1/interrogate": reply}


def truncated(handler: BaseHTTPRequestHandler) -> None:
    answer(200, b'{"caption": "a cat on a m')(handler)


@pytest.mark.parametrize(
    ("reply", "kind", "words"),
    [
        ((200, {"caption": ""}), ReplyError, "an empty text"),
        ((200, {"caption": " , ,"}), ReplyError, "an empty text"),
        ((200, {"caption": None}), ReplyError, "no text in the answer"),
        ((200, {"prompt": "a cat"}), ReplyError, "no text in the answer"),
        (
            (200, {"caption": "a cat", "error": "CUDA out of memory"}),
            ReplyError,
            "it failed: CUDA out of mem",
        ),
        ((200, ["a cat"]), ReplyError, "another shape"),
        ((200, b"<!DOCTYPE html><p>a cat"), ReplyError, "a web page came back. Check --via"),
        (truncated, ReplyError, "no JSON, or half of it, came back. Check --via"),
        (cut, EndpointUnreachable, "the connection broke"),
        (drop, EndpointUnreachable, "the connection broke"),
        (huge, ReplyError, "more than 32 MB"),
        ((302, b"http://127.0.0.1:1/login"), EndpointRefused, "leads to http.*/login. Put that address into"),
        ((401, {"detail": "Not authenticated"}), EndpointRefused, "PROMPTGLASS_VIA_AUTH"),
        ((403, b"<html>forbidden"), EndpointRefused, "refuses us .403: a web page"),
        ((404, {"detail": "Model not found"}), ModeUnavailable, "no such model .404: Model not found"),
        ((404, {"detail": "Not Found"}), EndpointRefused, "no longer has this route"),
        ((413, b"<html>too large"), EndpointError, "413: a web page. Raise the limit of the proxy"),
        ((422, {"detail": [{"loc": ["body", "image"], "msg": "odd"}]}), EndpointError, "422: image: odd"),
        ((422, {"detail": "odd"}), EndpointError, "422: odd"),
        ((500, {"error": "HTTPException", "detail": "Invalid", "errors": ""}), EndpointError, "500: Invalid"),
        (
            (500, {"detail": "Invalid encoded image"}),
            EndpointError,
            "500: Invalid encoded image. Its console",
        ),
        ((500, {"error": "KeyError", "detail": "", "errors": "'x'"}), EndpointError, "500: KeyError: 'x'"),
        ((500, {"error": "KeyError", "message": "'x'"}), EndpointError, "500: KeyError: 'x'"),
        ((500, b"Internal Server Error"), EndpointError, "answered 500. Its console"),
        ((504, b"<html>"), EndpointError, "A proxy before it does not wait as long"),
    ],
)
def test_every_wrong_answer_is_one_line_with_a_way_out(reply: Any, kind: type, words: str) -> None:
    with FakeWebUI(**instead(reply)) as host, pytest.raises(kind, match=words) as failed:
        remote(host, source="--via").interrogate(PICTURE, "webui/clip")
    assert type(failed.value) is kind
    line_of(failed.value)
    assert len(host.interrogations()) == (4 if reply in (cut, drop) else 1)


BROKEN_TEXTS = st.one_of(
    st.text().map(lambda text: text + "<error>"),
    st.text().map(lambda text: f"{text}<ERROR> "),
    st.sampled_from(["Ran out of VRAM", " ran out of VRAM!", "Exception <class 'RuntimeError'>", "<html>x"]),
    st.sampled_from(["CUDA out of memory. Tried to", "RuntimeError: x", "Traceback (most recent call last)"]),
    st.text(alphabet=" \t\n,.;<>/-_\x00\u200b"),
    st.none() | st.booleans() | st.integers() | st.floats() | st.lists(st.text()),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda parts: st.lists(parts, max_size=4) | st.dictionaries(st.text(), parts, max_size=4),
    max_leaves=10,
)
NAMES = st.sampled_from(["caption", "prompt", "answers", "failures", "left_out", "error", "detail", "medium"])
BODIES = st.dictionaries(NAMES, BROKEN_TEXTS | JSON, max_size=6)
ROUTES = st.sampled_from(
    [(SDAPI, "webui/clip"), (EXT_PROMPT, "fast"), (EXT_TABLES, "tables"), (OURS, "best")]
)


def texts_of(body: Any, route: str, mode: str) -> list[str]:
    """The prompts that come of a body; errors are of the family."""
    try:
        outcomes = outcomes_in(body, route, [mode], Wish())
    except ReplyError as error:
        assert "\n" not in str(error)
        return []
    (outcome,) = outcomes
    assert outcome.mode == mode
    if isinstance(outcome, Failure):
        assert isinstance(outcome.error, EndpointError)
        return []
    json.dumps([outcome.settings, outcome.details], allow_nan=False)
    return [outcome.text]


@given(BROKEN_TEXTS, ROUTES)
def test_no_broken_text_becomes_a_prompt(broken: Any, way: tuple[str, str]) -> None:
    route, mode = way
    told = {"mode": mode, "text": broken, "model": "m", "score": 0.3, "elapsed_s": 1.0}
    ranks = {"medium": {broken: 0.2} if isinstance(broken, str) else broken}
    body = {
        SDAPI: {"caption": broken},
        EXT_PROMPT: {"prompt": broken},
        EXT_TABLES: ranks,
        OURS: {"answers": [told], "failures": [], "left_out": []},
    }[route]
    assert not texts_of(body, route, mode)


@given(BODIES | JSON, ROUTES)
@example({"answers": [{"mode": "best", "text": "a cat", "score": float("nan")}]}, (OURS, "best"))
@example({"answers": [{"mode": "best", "text": "a cat", "settings": {"x": float("inf")}}]}, (OURS, "best"))
@example({"answers": [{"mode": "best", "text": "x"}], "failures": [{"mode": "best"}]}, (OURS, "best"))
def test_whatever_comes_back_is_a_prompt_or_an_error(body: Any, way: tuple[str, str]) -> None:
    for text in texts_of(body, *way):
        assert text.strip() and text.isprintable() and any(character.isalnum() for character in text)
        assert "<error>" not in text.lower() and "vram" not in text.lower()[:11]
        assert not body.get("error") and not body.get("detail")
        assert not body.get("failures") or body["failures"] != [{"mode": way[1]}]


@given(st.integers(300, 599), st.binary() | JSON.map(lambda found: json.dumps(found).encode()))
@example(500, b'{"detail": [1, {"loc": 5}]}')
@example(500, b"[" * 100_000)
def test_every_status_has_its_line(status: int, body: bytes) -> None:
    fault = RemoteTeller("WebUI (http://h)", "secret", "c2VjcmV0", "--via").answered(status, body + b"secret")
    line = str(fault.error)
    assert line.startswith("WebUI (http://h)") and line.isprintable() and len(line) < 500
    assert "secret" not in line
    assert fault.may_pass == (status in (429, 502, 503))


# -- retries, limits, and those who leave --------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 502, 503])
def test_what_may_pass_is_tried_again(status: int) -> None:
    left = [(status, {"error": "busy"})] * 2

    def busy(handler: Any) -> None:
        handler.reply(*left.pop() if left else (200, {"caption": "a cat"}))

    with FakeWebUI(**instead(busy)) as host:
        assert remote(host).interrogate(PICTURE, "webui/clip").text == "a cat"
        assert len(host.interrogations()) == 3


def test_a_host_that_is_about_to_start_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("promptglass.llm.transport.BACKOFF_S", 0.6)
    host = FakeWebUI()
    address = host.url
    host.__enter__()
    host.__exit__()
    port = int(address.rpartition(":")[2])
    late = FakeWebUI.__new__(FakeWebUI)

    def start() -> None:
        time.sleep(0.5)
        late.__init__(port=port)  # type: ignore[misc]
        late.__enter__()

    thread = threading.Thread(target=start)
    thread.start()
    try:
        assert RemoteWebUI(address).interrogate(PICTURE, "webui/clip").text
    finally:
        thread.join()
        late.__exit__()


def test_nobody_there_is_said_soon(capsys: pytest.CaptureFixture[str], photo: Path) -> None:
    began = time.monotonic()
    line = complained(capsys, "interrogate", str(photo), "--via", closed())
    assert time.monotonic() - began < 10
    assert line.endswith("nobody listens there. Start the server, or check --via.")


@pytest.mark.parametrize("reply", [silence, drip])
def test_a_host_that_hangs_has_its_time(reply: Callable[[BaseHTTPRequestHandler], None]) -> None:
    with FakeWebUI(**instead(reply)) as host:
        webui = remote(host, timeout_s=0.7)
        began = time.monotonic()
        with pytest.raises(EndpointUnreachable, match=r"within 0.7 s\..* raise CLIP_TIME"):
            webui.interrogate(PICTURE, "webui/clip")
        assert time.monotonic() - began < 2
        assert host.hung_up.wait(2)
        assert len(host.interrogations()) == 1


def test_one_who_stops_is_free_at_once_and_the_host_hears_of_it() -> None:
    with FakeWebUI(**instead(silence)) as host:
        webui = remote(host)
        webui.probe()
        stop = threading.Event()
        threading.Timer(0.3, stop.set).start()
        began = time.monotonic()
        with pytest.raises(Stopped):
            webui.interrogate(PICTURE, "webui/clip", stop=stop)
        assert time.monotonic() - began < 1
        assert host.hung_up.wait(2)


def test_a_progress_that_raises_ends_the_request() -> None:
    class Interrupted(Exception):
        pass

    def progress(what: str, done: int, total: int) -> None:
        if host.interrogations():
            raise Interrupted

    with FakeWebUI(**instead(silence)) as host:
        analyzer = RemoteAnalyzer(remote(host), progress=progress)
        with pytest.raises(Interrupted):
            list(analyzer.analyze([picture_of(PICTURE)], ["webui/clip"]))
        assert host.hung_up.wait(2)


@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT")
def test_ctrl_c_ends_it_at_once(photo: Path) -> None:
    with FakeWebUI(**instead(silence)) as host:
        command = [sys.executable, "-m", "promptglass", "interrogate", str(photo), "--via", host.url]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        end = time.monotonic() + 20
        while not host.interrogations() and time.monotonic() < end:
            time.sleep(0.02)
        began = time.monotonic()
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=20)
        assert time.monotonic() - began < 2
        assert child.returncode == 130
        assert "stopped" in err and "Traceback" not in err
        assert host.hung_up.wait(2)


def test_one_picture_that_brings_it_down_costs_the_others_nothing() -> None:
    calls: list[int] = []

    def once(handler: Any) -> None:
        calls.append(1)
        if 2 <= len(calls) <= 5:
            drop(handler)
        handler.reply(200, {"caption": "a cat"})

    with FakeWebUI(**instead(once)) as host:
        analyzer = RemoteAnalyzer(remote(host))
        pictures = [picture_of(noise(number)) for number in range(3)]
        told = [outcome for _, outcome in analyzer.analyze(pictures, ["webui/clip"])]
    assert [type(outcome) for outcome in told] == [Answer, Failure, Answer]


# -- passwords -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["a1111", "forge"])
def test_a_password_is_asked_for_before_anything_is_interrogated(kind: Any) -> None:
    with FakeWebUI(kind, auth=AUTH) as host:
        with pytest.raises(EndpointRefused, match=r"401: Not authenticated.*into PROMPTGLASS_VIA_AUTH"):
            remote(host).interrogate(PICTURE, "webui/clip")
        with pytest.raises(EndpointRefused, match=r"Incorrect username or password.*in PROMPTGLASS_VIA_AUTH"):
            remote(host, "someone:else").interrogate(PICTURE, "webui/clip")
        assert not host.interrogations()
        assert remote(host, AUTH).interrogate(PICTURE, "webui/clip").text


def test_a_password_stands_in_no_line_and_no_file(
    capsys: pytest.CaptureFixture[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMPTGLASS_VIA_AUTH", AUTH)
    token = base64.b64encode(AUTH.encode()).decode()

    def repeats(handler: Any) -> None:
        handler.reply(500, {"detail": f"bad {AUTH} and {token} and pass:word-9"})

    with FakeWebUI(auth=AUTH) as host:
        assert main(["batch", str(folder), "--modes", "webui/clip", "--via", host.url, "-v"]) == 0
        host.instead = {f"/{name}": reply for name, reply in instead(repeats).items()}
        assert main(["batch", str(folder), "--modes", "webui/clip", "--via", host.url, "-v", "--force"]) == 1
        port = host.url.rpartition(":")[2]
    told = "".join(capsys.readouterr())
    sidecars = "".join(path.read_text() for path in folder.glob("*.promptglass.json"))
    for secret in ("word-9", token):
        assert secret not in told and secret not in sidecars
    assert port not in sidecars, "an address is nobody's business"


def test_a_password_goes_to_no_other_host(monkeypatch: pytest.MonkeyPatch) -> None:
    from promptglass.llm import connections

    with FakeWebUI() as other:
        leads = (307, f"{other.url}/sdapi/v1/interrogate".encode())
        with FakeWebUI(auth=AUTH, **instead(leads)) as host, pytest.raises(EndpointRefused, match="leads to"):
            remote(host, AUTH).interrogate(PICTURE, "webui/clip")
        assert not other.asked
        monkeypatch.setattr(connections, "_is_public", lambda address: True)
        with pytest.raises(EndpointRefused, match="could read the password"):
            remote(other, AUTH).probe()
        assert not other.asked
        assert remote(other).probe()


@pytest.mark.parametrize(
    "address", ["http://someone:pass-9@host:7860", "someone:pass-9@host", "https://:pass-9@host"]
)
def test_a_password_in_the_address_is_refused_and_not_repeated(
    address: str, capsys: pytest.CaptureFixture[str], photo: Path
) -> None:
    line = complained(capsys, "interrogate", str(photo), "--via", address)
    assert line == ("promptglass: --via must hold no password. Put NAME:PASSWORD into PROMPTGLASS_VIA_AUTH.")


# -- settings ------------------------------------------------------------------------------------------------


def test_the_environment_names_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    assert RemoteWebUI.from_environment().address == "http://127.0.0.1:7860"
    assert RemoteWebUI.from_environment().timeout_s == 600
    monkeypatch.setenv("STABLE_DIFFUSION_API_URL", "http://old:1/")
    assert RemoteWebUI.from_environment("auto").address == "http://old:1"
    monkeypatch.setenv("STABLE_DIFFUSION_BASE_URL", "http://new:2/sd/")
    assert RemoteWebUI.from_environment("AUTO").address == "http://new:2/sd"
    assert RemoteWebUI.from_environment("https://told").address == "https://told"
    monkeypatch.setenv("CLIP_TIMEOUT_SECS", "45.5")
    assert RemoteWebUI.from_environment().timeout_s == 45.5
    monkeypatch.setenv("CLIP_ENABLED", "true")
    assert RemoteWebUI.from_environment()
    for wrong in ("soon", "0", "-1", "nan", "inf"):
        monkeypatch.setenv("CLIP_TIMEOUT_SECS", wrong)
        with pytest.raises(InputError, match="CLIP_TIMEOUT_SECS="):
            RemoteWebUI.from_environment()
    monkeypatch.delenv("CLIP_TIMEOUT_SECS")
    for wrong in ("someone", ":pass", "some one:\x07"):
        monkeypatch.setenv("PROMPTGLASS_VIA_AUTH", wrong)
        with pytest.raises(InputError, match="PROMPTGLASS_VIA_AUTH must be NAME:PASSWORD") as refused:
            RemoteWebUI.from_environment()
        assert "some" not in str(refused.value) and "pass" not in str(refused.value)
    monkeypatch.setenv("CLIP_ENABLED", "False")
    with pytest.raises(InputError, match="CLIP_ENABLED switches --via off"):
        RemoteWebUI.from_environment()


def test_an_address_is_taken_as_people_write_it() -> None:
    for said, meant in (
        ("gpu-box:7860", "http://gpu-box:7860"),
        ("http://0.0.0.0:7860/", "http://127.0.0.1:7860"),
        ("http://[::]:7860", "http://[::1]:7860"),
        (" https://host/sd/ ", "https://host/sd"),
    ):
        assert RemoteWebUI(said).address == meant
    for wrong in ("", "ftp://host", "http://", "http://h:x", "http://h/?a=b", "http://h#x", "http://a b"):
        with pytest.raises(InputError, match="the address must"):
            RemoteWebUI(wrong)


# -- the command line ----------------------------------------------------------------------------------------


def test_without_modes_it_picks_what_is_there(capsys: pytest.CaptureFixture[str], photo: Path) -> None:
    with FakeWebUI() as host:
        found = answers(capsys, str(photo), "--via", host.url)
        assert "webui/clip" in found and "best" not in found and "palette" in found
    with FakeWebUI(has_ext=True) as host:
        found = answers(capsys, str(photo), "--via", host.url)
        assert found["best"]["text"] == f"best of {seen(PICTURE)}"
        assert "webui/clip" not in found


def test_a_mode_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str], photo: Path) -> None:
    with FakeWebUI() as host:
        line = complained(capsys, "interrogate", str(photo), "--via", host.url, "--modes", "palette,fast")
        assert "no fast: neither promptglass nor clip-interrogator-ext is installed there. It gives" in line
        assert not host.interrogations()
    line = complained(capsys, "interrogate", str(photo), "--modes", "webui/clip")
    assert line.endswith("webui/clip: a WebUI is to answer that. Name it: --via http://host:7860")
    with FakeWebUI() as host:
        line = complained(capsys, "interrogate", str(photo), "--via", host.url, "--modes", "webui/clop")
        assert "no webui/clop: there is no such mode. It gives webui/clip" in line


def test_all_is_what_is_there(capsys: pytest.CaptureFixture[str], photo: Path) -> None:
    with FakeWebUI() as host:
        assert main(["interrogate", str(photo), "--via", host.url, "--modes", "all", "--json"]) == 0
        captured = capsys.readouterr()
        modes = [told["mode"] for told in json.loads(captured.out)["answers"]]
        assert "webui/clip" in modes and "palette" in modes and not {*CLIP_MODES} & {*modes}
        assert "left out: caption, best, fast, classic, negative, tables: WebUI" in captured.err


def test_options_of_models_here_are_not_silently_ignored(
    capsys: pytest.CaptureFixture[str], photo: Path
) -> None:
    with FakeWebUI(has_ext=True) as host:
        for option in (["--captioner", "blip-base"], ["--tables", "flavors"]):
            line = complained(capsys, "interrogate", str(photo), "--via", host.url, *option)
            assert line.endswith("--captioner and --tables are about models of this machine: not with --via")
        caption = ["--caption", "a cat", "--modes", "best"]
        line = complained(capsys, "interrogate", str(photo), "--via", host.url, *caption)
        assert line.endswith("best through /interrogator/prompt starts from no caption of yours.")
        assert not host.interrogations()
    assert list(answers(capsys, str(photo), "--via", closed(), "--modes", "palette")) == ["palette"]


def test_a_failure_leaves_the_other_modes_alone(capsys: pytest.CaptureFixture[str], photo: Path) -> None:
    with FakeWebUI(fails="blip") as host:
        arguments = ["--via", host.url, "--modes", "webui/deepdanbooru,webui/clip,palette"]
        assert list(answers(capsys, str(photo), *arguments, code=1)) == ["palette"]
        host.fails = ""
        host.has_deepdanbooru = True
        assert len(answers(capsys, str(photo), *arguments)) == 3


def test_a_batch_fills_sidecars_and_nothing_twice(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    modes = ["best", "fast", "classic", "negative", "tables", "webui/clip", "webui/deepdanbooru"]
    with FakeWebUI(has_ext=True, has_deepdanbooru=True) as host:
        command = ["batch", str(folder), "--via", host.url, "--modes", ",".join(modes), "--quiet"]
        assert main(command) == 0
        assert len(host.interrogations()) == 3 * len(modes)
        for number in range(3):
            content = json.loads(path_of(folder / f"{number}.png").read_text())
            jsonschema.validate(content, SCHEMA)
            assert [*content["analysis"]] == modes
            (entry,) = content["analysis"]["fast"]
            assert entry["prompt"] == f"fast of {seen(noise(number))}"
        assert main(command) == 0
        assert len(host.interrogations()) == 3 * len(modes)
        assert main([*command, "--model", "ViT-H-14/laion2b_s32b_b79k", "--modes", "fast"]) == 0
        assert len(host.interrogations()) == 3 * len(modes) + 3
    assert not leftovers(folder)
    assert capsys.readouterr().out == ""


def test_a_batch_goes_on_where_a_picture_fails(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    def picky(handler: Any) -> None:
        image = json.loads(json.dumps(host.asked[-1].body))["image"]
        picture = Image.open(io.BytesIO(base64.b64decode(image)))
        is_second = picture.tobytes() == noise(1).tobytes()
        handler.reply(200, {"caption": "a cat<error>" if is_second else "a cat"})

    with FakeWebUI(**instead(picky)) as host:
        command = ["batch", str(folder), "--via", host.url, "--modes", "webui/clip", "--txt", "overwrite"]
        assert main(command) == 1
        assert "1.png: " in capsys.readouterr().err.replace("webui/clip: ", "1.png: ")
        assert [(folder / f"{number}.txt").exists() for number in range(3)] == [True, False, True]
        host.instead = {}
        assert main(command) == 0


# -- our own routes, behind a real server --------------------------------------------------------------------


@contextlib.contextmanager
def served(service: Any, credentials: dict[str, str] | None = None) -> Iterator[str]:
    uvicorn = pytest.importorskip("uvicorn")
    from fastapi import FastAPI

    from promptglass.server.mount import mount

    app = FastAPI()
    mount(app, service, lambda: credentials or {}, set(), with_interrogator_ext=True)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def words(tmp_path: Path) -> Any:
    for package in ("torch", "fastapi", "httpx", "uvicorn"):
        pytest.importorskip(package)
    from fakes.word_host import WordHost

    return WordHost(roots=[tmp_path])


def painted(text: str, path: Path) -> Path:
    """A picture that looks like the text to a WordEncoder."""
    from fakes import word_encoder

    word_encoder.painted(text).save(path)
    return path


def picture_of(image: Image.Image) -> Any:
    from promptglass.images import picture_from_bytes

    file = io.BytesIO()
    image.save(file, "PNG")
    return picture_from_bytes(file.getvalue(), "a picture")


def test_our_own_routes_give_every_mode_as_it_is_given_there(words: Any, tmp_path: Path) -> None:
    from promptglass.choice import Choice
    from promptglass.service import Service

    picture = open_picture(painted("a golden cat", tmp_path / "cat.png"))
    with served(Service(words)) as address:
        webui = RemoteWebUI(address)
        assert webui.probe().routes == dict.fromkeys(CLIP_MODES, OURS)
        told = {mode: webui.interrogate(picture.image, mode) for mode in CLIP_MODES}
    clip = words.clip(Choice(), lambda *_: None)
    there = {outcome.mode: outcome for _, outcome in clip.analyze([picture], CLIP_MODES)}
    for mode, found in told.items():
        assert (found.text, found.model) == (there[mode].text, there[mode].model)
        assert found.score == (None if there[mode].score is None else pytest.approx(there[mode].score))
        assert found.settings == {**there[mode].settings, "via": OURS}
        assert json.dumps(found.details) == json.dumps(there[mode].details)


def test_every_mode_of_a_folder_by_our_own_routes_and_nothing_twice(
    words: Any, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from promptglass.service import Service

    for number, text in enumerate(("a golden cat", "a silver photo", "a tiny Rembrandt")):
        painted(text, folder / f"{number}.png")
    with served(service := Service(words)) as address:
        command = ["batch", str(folder), "--via", address, "--modes", ",".join(CLIP_MODES), "--quiet"]
        assert main(command) == 0
        assert len(service.jobs.of("interrogate")) == 3, "one question for all modes of a picture"
        for number in range(3):
            content = json.loads(path_of(folder / f"{number}.png").read_text())
            jsonschema.validate(content, SCHEMA)
            assert [*content["analysis"]] == [*CLIP_MODES]
            assert {entry["model"] for (entry,) in content["analysis"].values()} == {"words"}
        assert main(command) == 0
        assert len(service.jobs.of("interrogate")) == 3
        assert main([*command, "--caption", "a cat", "--modes", "fast,negative"]) == 0
        assert len(service.jobs.of("interrogate")) == 6
        (default, given) = json.loads(path_of(folder / "0.png").read_text())["analysis"]["fast"]
        assert (default["settings"]["captioner"], given["settings"]["caption"]) == ("words", "a cat")
        assert main([*command, "--caption", "a cat", "--modes", "fast,negative"]) == 0
        assert len(service.jobs.of("interrogate")) == 6
    assert not leftovers(folder)
    assert capsys.readouterr().err == ""


def test_our_own_routes_ask_for_a_password(words: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from promptglass.service import Service

    with served(Service(words), {"someone": "pass:word-9"}) as address:
        with pytest.raises(EndpointRefused, match="PROMPTGLASS_VIA_AUTH"):
            RemoteWebUI(address).probe()
        with pytest.raises(EndpointRefused, match="Check the name and password in PROMPTGLASS_VIA_AUTH"):
            RemoteWebUI(address, "someone:else").probe()
        monkeypatch.setenv("PROMPTGLASS_VIA_AUTH", AUTH)
        assert RemoteWebUI.from_environment(address).probe().first == "best"


def test_who_leaves_stops_the_work_there(words: Any, tmp_path: Path) -> None:
    from promptglass.service import Service

    service = Service(words)
    begun, ended = threading.Event(), threading.Event()

    def work(job: Any) -> None:
        begun.set()
        try:
            while True:
                time.sleep(0.02)
                job.check()
        finally:
            ended.set()

    service.interrogate = lambda *_: service.jobs.start("interrogate", work)  # type: ignore[method-assign,assignment]
    stop = threading.Event()
    threading.Thread(target=lambda: (begun.wait(10), stop.set()), daemon=True).start()
    with served(service) as address:
        with pytest.raises(Stopped):
            RemoteWebUI(address).interrogate(PICTURE, "fast", stop=stop)
        assert ended.wait(2)


def test_what_cannot_run_there_is_said_with_its_reason(tmp_path: Path) -> None:
    pytest.importorskip("fastapi")
    from promptglass.host import Standalone
    from promptglass.service import Service

    with served(Service(Standalone())) as address, pytest.raises(ModeUnavailable, match="is not here") as no:
        RemoteWebUI(address).probe()
    line_of(no.value)


# -- the fake is honest, and the real thing ------------------------------------------------------------------


def encoded(image: Image.Image = PICTURE) -> str:
    file = io.BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def shape(content: Any) -> Any:
    """An answer without what is particular to a host, a picture or a version of pydantic."""
    if isinstance(content, dict) and "caption" in content:
        return {"caption": "text" if content["caption"] and "<error>" not in content["caption"] else "none"}
    if isinstance(content, dict) and isinstance(content.get("detail"), list):
        return {"detail": [entry["loc"] for entry in content["detail"]]}
    if isinstance(content, list):
        return [sorted(entry) for entry in content[:1]]
    return content


def table(address: str, auth: tuple[str, str]) -> dict[str, tuple[int, Any]]:
    """What a host says to the questions that matter."""
    post = "/sdapi/v1/interrogate"
    asked: dict[str, tuple[str, Any, Any]] = {
        "right": (post, {"image": encoded(), "model": "clip"}, auth),
        "data uri": (post, {"image": f"data:image/png;base64,{encoded()}"}, auth),
        "nothing": (post, {}, auth),
        "no picture": (post, {"image": "bm8gcGljdHVyZQ=="}, auth),
        "null": (post, {"image": None}, auth),
        "unknown model": (post, {"image": encoded(), "model": "best"}, auth),
        "deepdanbooru": (post, {"image": encoded(), "model": "deepdanbooru"}, auth),
        "deepdanbooru again": (post, {"image": encoded(), "model": "deepdanbooru"}, auth),
        "anonymous": (post, {"image": encoded()}, None),
        "wrong password": (post, {"image": encoded()}, (auth[0], "wrong")),
        "samplers": ("/sdapi/v1/samplers", None, auth),
        "samplers, anonymous": ("/sdapi/v1/samplers", None, None),
        "no such route": ("/interrogator/models", None, auth),
    }
    told: dict[str, tuple[int, Any]] = {}
    for name, (path, body, credentials) in asked.items():
        ask = requests.get if body is None else requests.post
        options = {} if body is None else {"json": body}
        response = ask(address + path, auth=credentials, timeout=120, **options)  # type: ignore[operator]
        told[name] = response.status_code, shape(response.json())
    return told


@pytest.mark.skipif(WEBUI is None, reason="WEBUI names no host: see docs/hosts.md")
@pytest.mark.timeout(600)
def test_a_real_host_answers_as_the_fake_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from webui import is_forge

    with running_webui(tmp_path / "host", "--api-auth", AUTH) as host:
        name, _, password = AUTH.partition(":")
        real = table(host.url, (name, password))
        webui = RemoteWebUI(host.url, AUTH)
        offer = webui.probe()
        assert {offer.routes["webui/clip"], offer.routes["best"]} == {SDAPI, OURS}
        told = webui.interrogate(PICTURE, "webui/clip")
        assert told.text and "<error>" not in told.text
        assert webui.interrogate(PICTURE, "tables").details["tables"]
    with FakeWebUI("forge" if is_forge() else "a1111", auth=AUTH) as fake:
        assert table(fake.url, (name, password)) == {
            **real,
            "no such route": (404, {"detail": "Not Found"}),  # there it is ours
        }
