"""The three wire formats, without a network; and the official clients as judges of them and of our fakes."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from conftest import noise
from fakes.llm_server import MODELS, FakeServer, as_json, by_path, lines_of, streamed, whole, whole_body
from PIL import Image

from promptglass.llm import Endpoint, anthropic, ollama, openai
from promptglass.llm.pictures import jpeg
from promptglass.llm.profiles import Profile
from promptglass.llm.wire import Piece, Question, ServerError, Turn, joined, lines

WIRES: dict[str, Any] = {"openai": openai, "anthropic": anthropic, "ollama": ollama}
SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "string"}},
    "required": ["a"],
    "additionalProperties": False,
}
ASKED = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]


def question(**more: Any) -> Question:
    turns = tuple(Turn(m["role"], m["content"]) for m in ASKED)
    return Question(**{"model": "m", "turns": turns, **more})


def heard(protocol: str, text: str, size: int = 7) -> Piece:
    """A stream, cut into pieces of `size` bytes."""
    content = text.encode("utf-8", "surrogatepass")
    chunks = [content[i : i + size] for i in range(0, len(content), size)]
    return joined(piece for line in lines(chunks) if (piece := WIRES[protocol].line(line)))


@pytest.mark.parametrize("protocol", WIRES)
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_a_stream_is_heard_wherever_it_is_cut(protocol: str, size: int) -> None:
    piece = heard(protocol, "".join(lines_of(protocol, ["Grüße", ", ", "世界 🚀"], "length")), size)
    assert piece.text == "Grüße, 世界 🚀"
    assert (piece.model, piece.finish_reason, piece.is_end) == ("m", "length", True)
    assert piece.usage == {"prompt_tokens": 3, "completion_tokens": 2}


@pytest.mark.parametrize("protocol", WIRES)
def test_a_whole_answer_says_what_a_stream_says(protocol: str) -> None:
    piece = WIRES[protocol].whole(whole_body(protocol, "hello there"))
    assert (piece.text, piece.model, piece.finish_reason) == ("hello there", "m", "stop")
    assert piece.usage == {"prompt_tokens": 3, "completion_tokens": 2}


def test_what_servers_do_to_events_is_borne() -> None:
    event = '{"choices":[{"delta":{"content":"ok"},"finish_reason":null}],"model":"m"}'
    stream = (
        "\ufeff: ping\r\n\r\nevent: message\r\nid: 3\r\nretry: 10\r\n"
        f"data:{event}\r\n\r\ndata:   {event}\r\ndata:\r\ndata\r\n"
        'data: {"choices":[]}\r\ndata: {"choices":null}\r\n'
        'data: {"choices":[{"delta":null,"finish_reason":null}]}\r\n'
        'data: {"choices":[{"delta":{"content":null,"reasoning":"hm","reasoning_content":null}}]}\r\n'
        'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}'
    )
    piece = heard("openai", stream)
    assert (piece.text, piece.reasoning, piece.finish_reason) == ("okok", "hm", "stop")


def test_an_emoji_cut_in_two_by_its_escapes_is_whole_again() -> None:
    halves = [
        '{"choices":[{"delta":{"content":"\\ud83d"}}]}',
        '{"choices":[{"delta":{"content":"\\ude80"}}]}',
    ]
    assert heard("openai", "".join(f"data: {half}\n\n" for half in halves)).text == "🚀"
    assert heard("openai", f"data: {halves[0]}\n\n").text == "\ufffd"


@pytest.mark.parametrize(
    ("protocol", "event"),
    [
        ("openai", 'data: {"error":{"message":"no memory","code":500}}\n\n'),
        ("anthropic", 'event: error\ndata: {"type":"error","error":{"type":"overloaded_error"}}\n\n'),
        ("ollama", '{"error":"no memory"}\n'),
    ],
)
def test_an_error_in_a_stream_is_one(protocol: str, event: str) -> None:
    with pytest.raises(ServerError):
        heard(protocol, event)


def test_reasoning_is_kept_apart() -> None:
    thought = whole_body("openai", None, reasoning_content="let me see")
    assert openai.whole(thought) == Piece(
        "", "let me see", "m", "stop", {"prompt_tokens": 3, "completion_tokens": 2}
    )
    assert ollama.whole(whole_body("ollama", "cat", thinking="let me see")).text == "cat"
    parts = [{"type": "thinking", "thinking": "let me see"}, {"type": "text", "text": "cat"}]
    piece = anthropic.whole(whole_body("anthropic", None, content=parts))
    assert (piece.text, piece.reasoning) == ("cat", "let me see")


def test_schemas_are_sent_in_the_manner_of_each() -> None:
    strict = openai.body(question(schema=SCHEMA, form="json_schema"))["response_format"]
    assert strict == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "strict": True, "schema": SCHEMA},
    }
    loose = {**SCHEMA, "required": []}
    lenient = openai.body(question(schema=loose, form="json_schema"))["response_format"]
    assert lenient["json_schema"]["strict"] is False
    assert openai.body(question(schema=SCHEMA, form="json_object"))["response_format"] == {
        "type": "json_object"
    }
    assert "response_format" not in openai.body(question(schema=SCHEMA, form="words"))

    request = ollama.body(question(schema=SCHEMA, form="json_schema"))
    assert request["format"] == SCHEMA
    assert "think" not in request  # ollama/ollama#14645: it breaks the schema
    assert ollama.body(question(schema=SCHEMA, form="json_object"))["format"] == "json"
    assert ollama.body(question())["think"] is False

    config = anthropic.body(question(schema=SCHEMA, form="json_schema"))["output_config"]
    assert config == {"format": {"type": "json_schema", "schema": SCHEMA}}


def test_anthropic_knows_temperature_only_in_its_older_version() -> None:
    plain, warm = anthropic.body(question()), anthropic.body(question(temperature=1.3))
    assert warm["temperature"] == 1.0  # its highest
    assert anthropic.headers("k", plain) == {"anthropic-version": "2026-10-21", "x-api-key": "k"}
    assert anthropic.headers("", warm) == {"anthropic-version": "2023-06-01"}


def test_what_an_endpoint_refused_is_left_out() -> None:
    asked = question(max_tokens=9, seed=1, temperature=0.5, left_out=frozenset({"max_tokens", "temperature"}))
    request = openai.body(asked)
    assert request["max_completion_tokens"] == 9
    assert "max_tokens" not in request
    assert "temperature" not in request


@pytest.mark.parametrize(
    ("given", "chat"),
    [
        ("http://h:1", "http://h:1/v1/chat/completions"),
        ("http://h:1/", "http://h:1/v1/chat/completions"),
        ("http://h:1/v1", "http://h:1/v1/chat/completions"),
        ("http://h:1/v1/chat/completions", "http://h:1/v1/chat/completions"),
        ("https://openrouter.ai/api", "https://openrouter.ai/api/v1/chat/completions"),
        ("https://openrouter.ai/api/v1/", "https://openrouter.ai/api/v1/chat/completions"),
        ("https://g.com/v1beta/openai/", "https://g.com/v1beta/openai/chat/completions"),
        ("https://z.ai/api/paas/v4", "https://z.ai/api/paas/v4/chat/completions"),
    ],
)
def test_a_base_address_may_be_given_with_or_without_its_version(given: str, chat: str) -> None:
    assert openai.addresses(given).chat == chat


def test_every_format_finds_its_addresses() -> None:
    for given in ("http://h:1", "http://h:1/", "http://h:1/v1", "http://h:1/api", "http://h:1/api/chat"):
        assert ollama.addresses(given).chat == "http://h:1/api/chat"
    for given in ("https://a", "https://a/v1", "https://a/v1/messages"):
        assert anthropic.addresses(given).chat == "https://a/v1/messages"
    assert openai.addresses("http://h:1/v1").root == "http://h:1"


def test_pictures_are_small_upright_opaque_jpegs() -> None:
    picture = Image.new("RGBA", (3000, 1500), (255, 0, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.new("RGB", (40, 20)).save(buffer, "JPEG", exif=exif)
    turned = Image.open(buffer)
    for source, size in ((picture, (1024, 512)), (noise(1, (200, 100)), (200, 100)), (turned, (20, 40))):
        content = jpeg(source, 1024)
        assert content.startswith(b"\xff\xd8\xff")
        assert content[8:12] != b"WEBP"
        with Image.open(io.BytesIO(content)) as sent:
            assert (sent.format, sent.mode, sent.size) == ("JPEG", "RGB", size)
    with Image.open(io.BytesIO(jpeg(picture, 64))) as sent:
        assert sent.getpixel((5, 5)) == (255, 255, 255)
    assert jpeg(Image.new("L", (5000, 1)), 100).startswith(b"\xff\xd8")


def test_importing_costs_a_host_nothing() -> None:
    code = (
        "import sys; from promptglass.llm import Endpoint; Endpoint.from_settings('ollama');"
        "heavy = {'requests', 'urllib3', 'tenacity', 'PIL', 'numpy', 'torch', 'http.client'};"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# The official clients as judges


def official(protocol: str, url: str) -> Any:
    package = pytest.importorskip(protocol, reason=f"the official {protocol} client is not installed")
    if protocol == "openai":
        return package.OpenAI(base_url=f"{url}/v1", api_key="sk-k", max_retries=0)
    if protocol == "anthropic":
        return package.Anthropic(base_url=url, api_key="sk-k", max_retries=0)
    return package.Client(host=url)


def ask_officially(protocol: str, client: Any, is_streamed: bool, **more: Any) -> Any:
    if protocol == "openai":
        if is_streamed:
            more["stream_options"] = {"include_usage": True}
        return client.chat.completions.create(model="m", messages=ASKED, stream=is_streamed, **more)
    if protocol == "anthropic":
        more = {"system": "Be brief.", "max_tokens": 1024, **more}
        return client.messages.create(model="m", messages=ASKED[1:], stream=is_streamed, **more)
    more = {"options": {}, "keep_alive": "10m", "think": False, **more}
    return client.chat(model="m", messages=ASKED, stream=is_streamed, **more)


@pytest.mark.parametrize("protocol", WIRES)
def test_the_official_clients_accept_what_the_fake_answers(protocol: str) -> None:
    with FakeServer(whole(protocol, "hello")) as server:
        client = official(protocol, server.url)
        said = ask_officially(protocol, client, is_streamed=False)
        found = {
            "openai": lambda: said.choices[0].message.content,
            "anthropic": lambda: said.content[0].text,
            "ollama": lambda: said.message.content,
        }
        assert found[protocol]() == "hello"

        server.answers = [streamed(protocol, ["hel", "lo"])]
        events = list(ask_officially(protocol, client, is_streamed=True))
        read: dict[str, Callable[[Any], str | None]] = {
            "openai": lambda event: event.choices[0].delta.content if event.choices else "",
            "anthropic": lambda event: event.delta.text if event.type == "content_block_delta" else "",
            "ollama": lambda event: event.message.content,
        }
        assert "".join(read[protocol](event) or "" for event in events) == "hello"

        server.answers = [as_json(MODELS[protocol])]
        listed = client.list().models if protocol == "ollama" else client.models.list().data
        assert len(listed) == 1


@pytest.mark.parametrize("protocol", WIRES)
@pytest.mark.parametrize("kind", ["plain", "stream", "picture", "schema", "options"])
def test_what_we_send_is_what_the_official_client_sends(
    protocol: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = noise(3)
    content = base64.b64encode(jpeg(picture, 1024)).decode()
    wished = [dict(m) for m in ASKED]
    more: dict[str, Any] = {}
    ours: dict[str, Any] = {}
    monkeypatch.setitem(ask_officially.__globals__, "ASKED", wished)
    if kind == "picture":
        ours["images"] = [picture]
        url = f"data:image/jpeg;base64,{content}"
        source = {"type": "base64", "media_type": "image/jpeg", "data": content}
        text = {"type": "text", "text": "Hi"}
        wished[1] = {
            "openai": {"role": "user", "content": [text, {"type": "image_url", "image_url": {"url": url}}]},
            "anthropic": {"role": "user", "content": [{"type": "image", "source": source}, text]},
            "ollama": {"role": "user", "content": "Hi", "images": [content]},
        }[protocol]
    if kind == "schema":
        ours["schema"] = SCHEMA
        wish = f"Hi\n\nAnswer with JSON alone, as this JSON schema says:\n{json.dumps(SCHEMA)}"
        wished[1] = {"role": "user", "content": wish}
        form = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": SCHEMA}}
        more = {
            "openai": {"response_format": form},
            "anthropic": {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
            "ollama": {"format": SCHEMA, "think": None},
        }[protocol]
    if kind == "options":
        ours = (
            {"max_tokens": 7} if protocol == "anthropic" else {"max_tokens": 7, "seed": 1, "temperature": 0.5}
        )
        options = {"num_predict": 7, "seed": 1, "temperature": 0.5}
        more = {"options": options} if protocol == "ollama" else ours
    is_streamed = kind == "stream"
    said = '{"a": "b"}'
    monkeypatch.setenv("FAKE_KEY", "sk-k")
    with FakeServer(streamed(protocol, [said]) if is_streamed else whole(protocol, said)) as server:
        theirs = ask_officially(protocol, official(protocol, server.url), is_streamed, **more)
        if is_streamed:
            list(theirs)
        key = "" if protocol == "ollama" else "FAKE_KEY"
        endpoint = Endpoint(Profile("t", protocol, server.url, model="m", key_env=key))
        endpoint.chat(ASKED_AS_GIVEN, stream=is_streamed, **ours)
    official_one, our_one = server.asked
    assert (our_one.method, our_one.path) == (official_one.method, official_one.path)
    # What their clients send without being asked, and servers take as absent.
    expected = {name: value for name, value in official_one.body.items() if name != "tools"}
    assert {"stream": False, **expected} == our_one.body
    assert our_one.headers["content-type"] == official_one.headers["content-type"]
    if protocol == "openai":
        assert our_one.headers["authorization"] == official_one.headers["authorization"]
    if protocol == "anthropic":
        assert our_one.headers["anthropic-version"] == official_one.headers["anthropic-version"]
        # The documented header, which older servers want; their client moved to Bearer in 2.0.
        assert official_one.headers["authorization"] == f"Bearer {our_one.headers['x-api-key']}"


ASKED_AS_GIVEN = [dict(message) for message in ASKED]


@pytest.mark.parametrize("protocol", WIRES)
def test_lists_and_unloading_ask_as_the_official_clients_do(protocol: str) -> None:
    shown = {"capabilities": ["completion", "vision"], "details": {}, "model_info": {}, "modelfile": ""}
    answers = by_path(
        models=as_json(MODELS[protocol]),
        tags=as_json(MODELS[protocol]),
        show=as_json(shown),
        chat=whole(protocol, "", "unload"),
    )
    with FakeServer(answers) as server:
        client = official(protocol, server.url)
        if protocol == "ollama":
            client.list(), client.show("m:latest"), client.chat(model="m", messages=[], keep_alive=0)
        else:
            client.models.list()
        theirs, server.asked = server.asked, []
        endpoint = Endpoint(Profile("t", protocol, server.url, model="m"))
        health = endpoint.check()
        endpoint.release()
        assert health.reachable
        assert health.sees_images == {"m:latest": True} if protocol == "ollama" else {"m": None}
    ours = server.asked
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert one.path.partition("?")[0] == other.path
        expected = {k: v for k, v in (other.body or {}).items() if k != "tools"}
        assert (one.body or {}) == expected
