"""llama.cpp's own server, with a real if small model: the wire as it is, in all three protocols."""

from __future__ import annotations

import json
import logging
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import requests
from conftest import noise
from fakes.llama_server import MISSING, MODEL, LlamaServer, llama_server
from fakes.ollama_shim import OllamaShim
from test_batch import SCHEMA as SIDECAR_SCHEMA
from test_cli_folders import models as models  # a fixture

from promptglass.cli import main
from promptglass.errors import EndpointError, EndpointRefused, EndpointUnreachable, ReplyError, Stopped
from promptglass.llm import Endpoint
from promptglass.llm.profiles import Profile, changed

pytestmark = [
    pytest.mark.skipif(bool(MISSING), reason=f"{' and '.join(MISSING)}: see tests/fakes/llama_server.py"),
    pytest.mark.skipif(sys.platform == "win32", reason="the server's wheel is for Linux and macOS"),
]

KEY = "sk-test-of-promptglass"
HI = [{"role": "user", "content": "Name three animals."}]
SCHEMA = {
    "type": "object",
    "properties": {"animal": {"type": "string", "enum": ["cat", "dog"]}},
    "required": ["animal"],
    "additionalProperties": False,
}
GREEDY: dict[str, Any] = {"temperature": 0.0, "seed": 1}


@pytest.fixture(scope="module")
def llama() -> Iterator[LlamaServer]:
    with llama_server(KEY) as server:
        yield server


@pytest.fixture(params=["openai", "anthropic"])
def endpoint(request: pytest.FixtureRequest, llama: LlamaServer, monkeypatch: pytest.MonkeyPatch) -> Endpoint:
    monkeypatch.setenv("LLAMA_KEY", KEY)
    return Endpoint(Profile("llama", request.param, llama.url, model=MODEL, key_env="LLAMA_KEY"))


def other(endpoint: Endpoint, **changes: Any) -> Endpoint:
    return Endpoint(changed(endpoint.profile, **changes))


def test_it_answers_whole_and_in_a_stream(endpoint: Endpoint) -> None:
    whole = endpoint.chat(HI, max_tokens=12, **GREEDY)
    streamed = endpoint.chat(HI, max_tokens=12, stream=True, **GREEDY)
    assert whole.text
    assert streamed.text == whole.text
    assert (whole.model, whole.finish_reason) == (MODEL, "length")
    assert streamed.usage["completion_tokens"] == whole.usage["completion_tokens"] == 12
    words = list(endpoint.stream(HI, max_tokens=12, **GREEDY))
    assert len(words) > 3
    assert "".join(words).strip() == whole.text


def test_the_openai_route_keeps_to_a_schema(endpoint: Endpoint) -> None:
    # llama.cpp's Anthropic route passes `output_config` over: there the words alone have to do it, and here
    # may fail, as the model is very small. Neither hangs, and what comes back fits.
    try:
        reply = endpoint.chat(HI, schema=SCHEMA, max_tokens=60, **GREEDY)
    except ReplyError:
        assert endpoint.profile.protocol == "anthropic"
    else:
        assert reply.data in ({"animal": "cat"}, {"animal": "dog"})
        assert json.loads(reply.text) == reply.data


def test_json_that_hits_the_limit_is_said_to_be_cut_off(endpoint: Endpoint) -> None:
    if endpoint.profile.protocol == "openai":
        story = {"type": "object", "properties": {"story": {"type": "string", "minLength": 400}}}
        with pytest.raises(ReplyError, match="cut off: raise max_tokens"):
            endpoint.chat(HI, schema={**story, "required": ["story"]}, max_tokens=8, **GREEDY)


def test_what_it_refuses_is_told_once(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EndpointError, match=r"400: request \(\d+ tokens\) exceeds"):
        endpoint.chat([{"role": "user", "content": "word " * 3000}])
    with pytest.raises(EndpointError, match="does not see pictures"):
        endpoint.chat(HI, [noise(1)])
    monkeypatch.setenv("LLAMA_KEY", "sk-wrong")
    with pytest.raises(EndpointRefused, match=r"401: Invalid API Key.*LLAMA_KEY"):
        other(endpoint).chat(HI)
    with pytest.raises(EndpointRefused, match="key_env"):
        other(endpoint, key_env="").chat(HI)
    monkeypatch.setenv("LLAMA_KEY", KEY)
    with pytest.raises(EndpointError, match=r"404.*base_url"):
        other(endpoint, base_url=f"{endpoint.profile.base_url}/elsewhere", key_env="LLAMA_KEY").chat(HI)


def test_another_model_than_was_asked_for_is_noticed(
    endpoint: Endpoint, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = other(endpoint, model="qwen2.5-vl")
    assert wrong.chat(HI, max_tokens=8).model == MODEL
    assert f"asked for qwen2.5-vl, and {MODEL} answers" in caplog.text
    assert f"no model 'qwen2.5-vl'. It has {MODEL}." in wrong.check().message


def test_health(endpoint: Endpoint, caplog: pytest.LogCaptureFixture) -> None:
    health = endpoint.check()
    assert health.reachable
    assert health.sees_images == {MODEL: False}
    assert "does not see pictures" in health.message
    unnamed = other(endpoint, model="", server="llama.cpp")
    assert unnamed.chat(HI, max_tokens=8).model == MODEL
    caplog.set_level(logging.WARNING)
    unnamed.release()  # a server of one model has no such call, and that is no matter
    assert not caplog.records


def test_a_stop_frees_the_server(endpoint: Endpoint, llama: LlamaServer) -> None:
    stop = threading.Event()
    threading.Timer(0.4, stop.set).start()
    if endpoint.profile.protocol == "anthropic":  # whose route does not let a short answer be prevented
        return
    endless = other(endpoint, extra={"ignore_eos": True})
    began = time.monotonic()
    with pytest.raises(Stopped):
        endless.chat(HI, stop=stop, max_tokens=900)
    assert time.monotonic() - began < 0.4 + 0.3
    end = time.monotonic() + 5
    while any(slot["is_processing"] for slot in slots(llama)):
        assert time.monotonic() < end, "the server still writes for nobody"
        time.sleep(0.05)


def slots(llama: LlamaServer) -> list[dict[str, Any]]:
    return requests.get(f"{llama.url}/slots", headers={"Authorization": f"Bearer {KEY}"}, timeout=5).json()


def test_a_connection_that_the_server_closed_in_the_meantime_is_no_matter(endpoint: Endpoint) -> None:
    if endpoint.profile.protocol == "openai":
        assert endpoint.chat(HI, max_tokens=3, **GREEDY).text
        time.sleep(5.5)  # its Keep-Alive is 5 s
        assert endpoint.chat(HI, max_tokens=3, **GREEDY).text


def test_several_at_a_time(endpoint: Endpoint) -> None:
    said: list[str] = []
    ask = lambda: said.append(endpoint.chat(HI, max_tokens=8, **GREEDY).text)  # noqa: E731
    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(said) == 4
    assert all(said)


def test_a_server_that_is_killed_in_mid_answer() -> None:
    with llama_server() as server:
        endpoint = Endpoint(Profile("llama", "openai", server.url, retries=1, extra={"ignore_eos": True}))
        words = endpoint.stream(HI, max_tokens=900)
        next(words)
        server.kill()
        with pytest.raises(EndpointUnreachable, match="broke"):
            list(words)
        with pytest.raises(EndpointUnreachable, match="nobody listens there"):
            endpoint.chat(HI)
        assert not endpoint.check().reachable


def test_a_server_that_is_still_loading_is_waited_for() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with llama_server(port=port) as server:
        endpoint = Endpoint(Profile("llama", "openai", server.url, model=MODEL, retries=6))
        assert endpoint.chat(HI, max_tokens=8).text


@pytest.mark.parametrize("protocol", ["openai", "anthropic", "ollama"])
def test_pictures_arrive(protocol: str, eyes: LlamaServer) -> None:
    profile = Profile("llama", protocol, eyes.url, model=MODEL)
    if protocol == "ollama":
        with OllamaShim(eyes.url, MODEL, sees=True) as shim:
            seeing = Endpoint(changed(profile, base_url=shim.url))
            assert seeing.check().sees_images == {f"{MODEL}:latest": True}
            assert seeing.chat(HI, [noise(1)], max_tokens=4).text
        return
    seeing = Endpoint(profile)
    assert seeing.check().sees_images == {MODEL: True}
    blind = seeing.chat(HI, max_tokens=4)
    sighted = seeing.chat(HI, [noise(1), noise(2)], max_tokens=4)
    assert sighted.text
    if protocol == "openai":  # 64 tokens for each picture
        assert sighted.usage["prompt_tokens"] >= blind.usage["prompt_tokens"] + 128


@pytest.fixture(scope="module")
def eyes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaServer]:
    """A server that takes pictures, though with eyes of random weights it sees nothing."""
    pytest.importorskip("gguf", reason="gguf is not installed")
    from fakes.random_eyes import write_eyes

    path = tmp_path_factory.mktemp("eyes") / "eyes.gguf"
    write_eyes(path, width=576)
    with llama_server(mmproj=str(path)) as server:
        yield server


def test_ollamas_own_route_in_front_of_the_same_model() -> None:
    with llama_server() as server, OllamaShim(server.url, MODEL) as shim:
        endpoint = Endpoint(Profile("ollama", "ollama", shim.url, model=MODEL))
        assert endpoint.check().sees_images == {f"{MODEL}:latest": False}
        whole = endpoint.chat(HI, max_tokens=12, **GREEDY)
        assert whole.text
        assert "".join(endpoint.stream(HI, max_tokens=12, **GREEDY)).strip() == whole.text
        assert endpoint.chat(HI, schema=SCHEMA, max_tokens=60).data["animal"] in ("cat", "dog")
        with pytest.raises(EndpointError, match="does not see pictures"):
            endpoint.chat(HI, [noise(1)])
        with pytest.raises(EndpointError, match=f"'llava' not found.*It has {MODEL}:latest"):
            other(endpoint, model="llava").chat(HI)
        endpoint.release()
        assert shim.asked[-1][1]["keep_alive"] == 0

        client = pytest.importorskip("ollama").Client(host=shim.url)
        theirs = client.chat(
            model=MODEL, messages=HI, options={"num_predict": 12, "temperature": 0, "seed": 1}
        )
        assert theirs.message.content.strip() == whole.text


def test_the_official_clients_hear_the_same(llama: LlamaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLAMA_KEY", KEY)
    package = pytest.importorskip("openai")
    client = package.OpenAI(base_url=f"{llama.url}/v1", api_key=KEY)
    theirs = client.chat.completions.create(model=MODEL, messages=HI, max_tokens=12, **GREEDY)
    profile = Profile("llama", "openai", llama.url, model=MODEL, key_env="LLAMA_KEY")
    ours = Endpoint(profile).chat(HI, max_tokens=12, **GREEDY)
    assert ours.text == theirs.choices[0].message.content.strip()


def test_a_batch_of_refined_prompts_that_clip_judges(
    llama: LlamaServer, models: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config.yaml"
    profile = {"protocol": "openai", "base_url": llama.url, "model": MODEL, "key_env": "LLAMA_KEY"}
    config.write_text(json.dumps({"endpoints": {"llama": {**profile, "server": "llama.cpp"}}}))
    monkeypatch.setenv("PROMPTGLASS_CONFIG", str(config))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LLAMA_KEY", KEY)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(2):
        noise(number).save(folder / f"{number}.png")
    modes = "llm/refine,llm/refine-natural"
    options = ["--llm", "llama", "--candidates", "2", "--keep", "ohwx", "--json", *models]
    assert main(["batch", str(folder), "--modes", modes, *options]) == 0
    for number in range(2):
        content = json.loads((folder / f"{number}.png.promptglass.json").read_text("utf-8"))
        jsonschema.validate(content, SIDECAR_SCHEMA)
        (refined,), (natural,) = content["analysis"]["llm/refine"], content["analysis"]["llm/refine-natural"]
        assert "ohwx" in refined["prompt"]
        assert "ohwx" in natural["prompt"]
        scores = {c["prompt"]: c["score"] for c in [refined["input"], *refined["candidates"]]}
        assert refined["score"] == scores[refined["prompt"]]
        is_closer = refined["gain"] is not None and refined["gain"] >= 0.005
        assert refined["refined"] is is_closer
        assert KEY not in json.dumps(content)
    llama.kill()  # nothing is missing, so nobody is asked
    assert main(["batch", str(folder), "--modes", modes, *options]) == 0
