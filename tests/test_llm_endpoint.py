"""An endpoint and a server that does everything wrong: each fault ends in a result or one clear error."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from conftest import noise
from fakes import llm_server as fake
from fakes.llm_server import Answer, FakeServer, as_json, broken, by_path, stream_of, streamed, whole

from promptglass.errors import (
    EndpointError,
    EndpointRefused,
    EndpointUnreachable,
    InputError,
    ModelSeesNot,
    PromptglassError,
    ReplyError,
    Stopped,
)
from promptglass.llm import Endpoint, transport
from promptglass.llm.profiles import Profile

PROTOCOLS = ("openai", "anthropic", "ollama")
HI = [{"role": "user", "content": "Hi"}]
KEY = "sk-very-secret/9+x"
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "BACKOFF_S", 0.02)
    monkeypatch.setattr(transport, "LOADING_S", 0.02)
    monkeypatch.setattr(transport, "_growing", lambda state: 0.02)
    monkeypatch.setenv("FAKE_KEY", KEY)
    monkeypatch.delenv("HTTP_PROXY", raising=False)
    monkeypatch.delenv("http_proxy", raising=False)


def endpoint(fake_server: FakeServer, protocol: str = "openai", **settings: Any) -> Endpoint:
    quick_ones: dict[str, Any] = {"connect_s": 1, "first_byte_s": 0.4, "between_chunks_s": 0.3, "total_s": 5}
    profile = Profile("fake", protocol, fake_server.url, model="m", key_env="FAKE_KEY")
    return Endpoint(replace(profile, **{**quick_ones, **settings}))


# Answers


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("is_streamed", [False, True])
def test_it_answers(protocol: str, is_streamed: bool) -> None:
    answer = streamed(protocol, ["a ", "cat"]) if is_streamed else whole(protocol, "a cat")
    with FakeServer(answer) as server:
        reply = endpoint(server, protocol).chat(HI, stream=is_streamed)
        assert (reply.text, reply.model, reply.finish_reason) == ("a cat", "m", "stop")
        assert reply.usage == {"prompt_tokens": 3, "completion_tokens": 2}
        assert 0 < reply.elapsed_s < 2
        server.answers = [streamed(protocol, ["a ", "cat"])]
        assert list(endpoint(server, protocol).stream(HI)) == ["a ", "cat"]


def test_pictures_go_with_the_last_words_of_the_user() -> None:
    messages = [
        {"role": "user", "content": "first"},
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": "look"},
        {"role": "assistant", "content": "I see"},
    ]
    with FakeServer(whole("ollama", "two cats")) as server:
        endpoint(server, "ollama").chat(messages, [noise(1), noise(2)])
        sent = server.asked[0].body["messages"]
        assert [len(message.get("images", ())) for message in sent] == [0, 0, 2, 0]
        with pytest.raises(InputError, match="nothing to ask"):
            endpoint(server, "ollama").chat(messages[1:2])


def test_reasoning_does_not_get_into_a_prompt() -> None:
    words = ["<th", "ink>hm", "m</thi", "nk>\n", "a cat", " <b>"]
    with FakeServer(streamed("openai", words)) as server:
        assert "".join(endpoint(server).stream(HI)) == "a cat <b>"
        assert endpoint(server).chat(HI, stream=True).text == "a cat <b>"
        server.answers = [whole("openai", 'Here is your prompt:\n"a cat"')]
        assert endpoint(server).chat(HI).text == "a cat"


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (whole("openai", None), "nothing was returned"),
        (whole("openai", "  \n"), "nothing was returned"),
        (whole("openai", None, "length", reasoning_content="hmm"), "only reasoning.*max_tokens"),
        (whole("openai", "<think>hmm"), "only reasoning.*max_tokens"),
        (as_json({"choices": [], "model": "m"}), "nothing was returned"),
        (whole("openai", None, refusal="I cannot help with that"), "refuses.*I cannot help"),
        (whole("openai", "a", "content_filter"), "refuses"),
        (streamed("openai", []), "nothing was returned"),
    ],
)
def test_an_answer_without_content_is_an_error(answer: Answer, cause: str) -> None:
    with FakeServer(answer) as server:
        with pytest.raises(ReplyError, match=f"^fake .*{cause}"):
            endpoint(server).chat(HI)
        assert len(server.asked) == 1


def test_a_stream_of_reasoning_alone_is_an_error() -> None:
    with (
        FakeServer(streamed("openai", ["<think>", "hmm"])) as server,
        pytest.raises(ReplyError, match="only"),
    ):
        list(endpoint(server).stream(HI))


@pytest.mark.parametrize(
    "answer",
    [
        stream_of(fake.lines_of("openai", ["a ", "cat"])[:-1]),  # no [DONE]
        stream_of(fake.lines_of("openai", ["a ", "cat"])[:-1], is_chunked=False),
        stream_of([line.replace("\n", "\r\n") for line in fake.lines_of("openai", ["a ", "cat"])]),
        stream_of(
            [line.replace("data: ", ": ping\n\ndata:") for line in fake.lines_of("openai", ["a ", "cat"])]
        ),
        stream_of(fake.lines_of("openai", ["a ", "cat"]), then="silence"),  # [DONE], and still there
        whole("openai", "a cat"),  # in one piece, though a stream was asked for
    ],
)
def test_streams_that_are_a_little_odd_are_heard(answer: Answer) -> None:
    with FakeServer(answer) as server:
        assert "".join(endpoint(server).stream(HI)) == "a cat"


def test_a_stream_that_nobody_asked_for_is_heard() -> None:
    with FakeServer(streamed("openai", ["a ", "cat"])) as server:
        assert endpoint(server).chat(HI).text == "a cat"


def test_who_listens_hears_all_that_was_said_so_far() -> None:
    heard: list[str] = []
    words = ["<think>hm", "</think>", "a ", "cat"]
    with FakeServer(streamed("openai", words)) as server:
        reply = endpoint(server).chat(HI, stop=threading.Event(), listen=heard.append)
    assert reply.text == "a cat"
    assert heard[-1].strip() == "a cat" and len(heard) > 1
    assert all(heard[-1].startswith(text) for text in heard)


def test_words_arrive_as_they_are_written() -> None:
    lines = fake.lines_of("openai", ["a ", "cat"])
    for is_chunked in (True, False):
        with FakeServer(stream_of(lines, pause_s=0.1, is_chunked=is_chunked)) as server:
            began = time.monotonic()
            words = endpoint(server).stream(HI)
            assert next(words) == "a "
            assert time.monotonic() - began < 0.35
            assert list(words) == ["cat"]


# Faults


def test_what_passes_is_tried_again() -> None:
    faults = [
        broken(429),
        broken(500, "oops"),
        broken(503),
        broken(529),
        broken(408),
        fake.drop,
        fake.cut,
        fake.silence,
        as_json({"error": {"type": "overloaded_error", "message": "Overloaded"}}),
    ]
    for fault in faults:
        with FakeServer(fault, whole("openai", "a cat")) as server:
            assert endpoint(server).chat(HI).text == "a cat"
            assert len(server.asked) == 2
    with FakeServer(stream_of([], then="drop"), streamed("openai", ["a cat"])) as server:
        assert list(endpoint(server).stream(HI)) == ["a cat"]


def test_it_waits_for_a_model_that_is_loading_however_often_it_must() -> None:
    loading = broken(503, "Loading model")
    with FakeServer(*[loading] * 9, whole("openai", "a cat")) as server:
        assert endpoint(server, retries=1, first_byte_s=3).chat(HI).text == "a cat"
    with FakeServer(loading) as server, pytest.raises(EndpointError, match="503: Loading model"):
        endpoint(server, retries=1).chat(HI)


@pytest.mark.parametrize(
    ("fault", "error", "cause"),
    [
        (broken(429), EndpointError, "429: slow down"),
        (broken(500, "oops"), EndpointError, "500: oops. Try again later"),
        (broken(529), EndpointError, "529"),
        (fake.drop, EndpointUnreachable, "the connection broke"),
        (fake.cut, EndpointUnreachable, "the connection broke"),
        (fake.silence, EndpointUnreachable, "silent for 0.2 s.*first_byte_s"),
    ],
)
def test_what_does_not_pass_is_given_up(fault: Answer, error: type[EndpointError], cause: str) -> None:
    with FakeServer(fault) as server:
        with pytest.raises(error, match=f"^fake \\({server.url}\\).*{cause}"):
            endpoint(server, retries=2, first_byte_s=0.2).chat(HI)
        assert len(server.asked) == 3


FINAL = [
    (broken(400, "bad"), EndpointError, "400: bad"),
    (broken(401, "Invalid API Key"), EndpointRefused, "401: Invalid API Key.*FAKE_KEY"),
    (broken(402, "pay"), EndpointRefused, "nothing left"),
    (broken(403, "no"), EndpointRefused, "403: no"),
    (broken(413, "large"), EndpointError, "413: large.*max_image_side"),
    (broken(422, "odd"), EndpointError, "422: odd"),
    (broken(429, "x insufficient_quota"), EndpointRefused, "nothing left"),
    (broken(400, "Your credit balance is too low"), EndpointRefused, "nothing left"),
    (broken(500, "image input is not supported"), ModelSeesNot, "does not see pictures"),
    (
        broken(403, "Your chosen model requires moderation and your input was flagged"),
        ReplyError,
        "refuses to",
    ),
    (broken(403, "no"), EndpointRefused, "refuses us"),
    (as_json({"error": "model 'x' not found"}, 404), EndpointRefused, "404: model 'x' not found"),
    (as_json({"detail": [{"msg": "field required"}]}, 422), EndpointError, "field required"),
    (fake.answer(404, b"<html>no</html>", "text/html"), EndpointRefused, "404: a web page"),
    (fake.answer(200, b"<html>hi</html>", "text/html"), ReplyError, "a web page"),
    (fake.answer(200, b"<html>hi</html>"), ReplyError, "a web page"),
    (fake.answer(200, b"not json"), ReplyError, "damaged"),
    (fake.answer(200, b"[" * 100_000), ReplyError, "damaged"),
    (as_json(["what"]), ReplyError, "another protocol"),
    (as_json({"choices": {"a": 1}}), ReplyError, "another protocol"),
    (fake.answer(302, b"", Location="http://127.0.0.1:1/v1?token=x"), EndpointError, "302.*it leads to"),
    (fake.answer(308, b"", Location="https://elsewhere.example/"), EndpointError, "308.*base_url"),
    (stream_of(["data: {bro\n\n"]), ReplyError, "damaged"),
    (stream_of(['data: {"error":{"message":"no memory","code":400}}\n\n']), EndpointError, "no memory"),
]


@pytest.mark.parametrize(("fault", "error", "cause"), FINAL)
def test_what_cannot_pass_is_not_tried_again(fault: Answer, error: type[EndpointError], cause: str) -> None:
    with FakeServer(by_path(completions=fault)) as server:
        with pytest.raises(EndpointError, match=cause) as raised:
            endpoint(server).chat(HI)
        assert type(raised.value) is error
        assert "\n" not in str(raised.value)
        assert sum("completions" in asked.path for asked in server.asked) == 1


def test_a_missing_model_is_told_with_those_that_are_there() -> None:
    missing = as_json({"error": "model 'm' not found"}, 404)
    tags = as_json({"models": [{"name": "llava:latest"}, {"name": "qwen2.5:3b"}]})
    with FakeServer(by_path(chat=missing, tags=tags)) as server:
        with pytest.raises(EndpointError, match=r"It has llava:latest, qwen2\.5:3b\."):
            endpoint(server, "ollama").chat(HI)
        message = endpoint(server, "ollama").check().message
        assert "has no model 'm'. It has llava:latest" in message


@pytest.mark.parametrize("then", ["drop", "end", "silence"])
def test_after_the_first_word_nothing_is_tried_again(then: str) -> None:
    lines = fake.lines_of("openai", ["a ", "cat"])[:2]
    with FakeServer(stream_of(lines, then=then)) as server:
        words = endpoint(server).stream(HI)
        assert next(words) == "a "
        with pytest.raises(EndpointUnreachable, match=r"broke|silent"):
            next(words)
        assert len(server.asked) == 1


def test_what_nobody_has_read_may_be_tried_again() -> None:
    lines = fake.lines_of("openai", ["a ", "cat"])
    with FakeServer(stream_of(lines[:2], then="drop"), stream_of(lines)) as server:
        assert endpoint(server).chat(HI, stop=threading.Event()).text == "a cat"
        assert [asked.body["stream"] for asked in server.asked] == [True, True]  # so that a stop frees it


def test_a_damaged_piece_in_mid_stream_is_an_error_and_no_gap() -> None:
    lines = fake.lines_of("openai", ["a ", "cat"])
    lines[2] = lines[2][:20] + "\n\n"
    with FakeServer(stream_of(lines)) as server, pytest.raises(ReplyError, match="damaged"):
        endpoint(server).chat(HI, stream=True)


@pytest.mark.parametrize("fault", [fake.drip, fake.pour, fake.drip_headers])
def test_who_drips_does_not_get_past_the_whole_time(fault: Answer) -> None:
    with FakeServer(fault) as server:
        began = time.monotonic()
        with pytest.raises(EndpointUnreachable, match=r"not finished within 0\.6 s|silent"):
            endpoint(server, total_s=0.6, first_byte_s=0.5).chat(HI, stream=True)
        assert time.monotonic() - began < 1.2
        assert server.hung_up.wait(1)


def test_a_huge_answer_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "MAX_ANSWER", 1 << 20)
    with FakeServer(fake.huge) as server:
        with pytest.raises(ReplyError, match="more than 1 MB"):
            endpoint(server).chat(HI)
        assert server.hung_up.wait(1)


def test_retry_after_is_kept_to_and_capped(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeServer(broken(429, Retry_After="0.4"), whole("openai", "a cat")) as server:
        endpoint(server).chat(HI)
        assert 0.4 <= server.times[1] - server.times[0] < 0.8
    monkeypatch.setattr(transport, "MAX_RETRY_AFTER_S", 0.1)
    for stated in ("9999", "Fri, 20 Nov 2099 08:00:00 GMT"):
        with FakeServer(broken(503, Retry_After=stated), whole("openai", "a cat")) as server:
            endpoint(server).chat(HI)
            assert 0.1 <= server.times[1] - server.times[0] < 0.5
    for odd in ("soon", "nan", "-5", "inf"):
        with FakeServer(broken(429, Retry_After=odd), whole("openai", "a cat")) as server:
            assert endpoint(server).chat(HI).text == "a cat"


def test_a_pause_that_the_time_does_not_allow_is_not_begun() -> None:
    with FakeServer(broken(429, Retry_After="30")) as server:
        began = time.monotonic()
        with pytest.raises(EndpointError, match="429"):
            endpoint(server, total_s=3).chat(HI)
        assert time.monotonic() - began < 1


def test_nobody_there() -> None:
    with FakeServer(fake.silence) as server:
        pass
    with pytest.raises(EndpointUnreachable, match="nobody listens there"):
        endpoint(server, retries=1).chat(HI)
    nowhere = Endpoint(Profile("x", "openai", "http://no-such-host.invalid", model="m", retries=0))
    with pytest.raises(EndpointUnreachable, match="no such host"):
        nowhere.chat(HI)
    assert not nowhere.check().reachable


# Stopping


def stopped_after(seconds: float) -> threading.Event:
    stop = threading.Event()
    threading.Timer(seconds, stop.set).start()
    return stop


SLOW = {
    "before the first byte": fake.silence,
    "in mid-stream": stream_of(fake.lines_of("openai", ["a "])[:2], then="silence"),
    "while headers drip": fake.drip_headers,
    "while nothing but comments come": fake.drip,
}


@pytest.mark.parametrize("case", SLOW)
def test_a_stop_ends_it_at_once_and_frees_the_server(case: str) -> None:
    with FakeServer(SLOW[case]) as server:
        slow = endpoint(server, first_byte_s=20, between_chunks_s=20, total_s=20)
        began = time.monotonic()
        with pytest.raises(Stopped):
            slow.chat(HI, stop=stopped_after(0.3))
        assert time.monotonic() - began < 0.6
        assert server.hung_up.wait(0.3)


def test_a_stop_ends_the_pause_before_another_try() -> None:
    with FakeServer(broken(429, Retry_After="20")) as server:
        began = time.monotonic()
        with pytest.raises(Stopped):
            endpoint(server, total_s=60).chat(HI, stop=stopped_after(0.3))
        assert time.monotonic() - began < 0.6
        assert len(server.asked) == 1


def test_a_stop_ends_a_stream_that_is_read(server_of_words: FakeServer) -> None:
    stop = threading.Event()
    words = endpoint(server_of_words).stream(HI, stop=stop)
    assert next(words) == "a "
    stop.set()
    with pytest.raises(Stopped):
        next(words)
    assert server_of_words.hung_up.wait(0.3)


def test_closing_a_stream_frees_the_server(server_of_words: FakeServer) -> None:
    words = endpoint(server_of_words).stream(HI)
    assert next(words) == "a "
    words.close()  # type: ignore[attr-defined]
    assert server_of_words.hung_up.wait(0.3)


def test_nothing_is_sent_after_a_stop() -> None:
    stop = threading.Event()
    stop.set()
    with FakeServer(whole("openai", "a cat")) as server:
        with pytest.raises(Stopped):
            endpoint(server).chat(HI, stop=stop)
        with pytest.raises(Stopped):
            endpoint(server).check(stop)
        assert not server.asked


@pytest.fixture
def server_of_words() -> Iterator[FakeServer]:
    with FakeServer(stream_of(fake.lines_of("openai", ["a "])[:2], then="silence")) as server:
        yield server


# JSON


def test_the_ladder_goes_down_to_what_an_endpoint_takes_and_remembers() -> None:
    def choosy(handler: Any) -> None:
        asked = server.asked[-1].body.get("response_format", {"type": "words"})["type"]
        refusal = broken(400, f"response_format {asked} is not available")
        (whole("openai", '{"a": "cat"}') if asked == "words" else refusal)(handler)

    with FakeServer(choosy) as server:
        choosing = endpoint(server)
        reply = choosing.chat(HI, schema=SCHEMA)
        assert reply.data == {"a": "cat"}
        assert len(server.asked) == 3
        choosing.chat(HI, schema=SCHEMA)
        assert len(server.asked) == 4
        assert '"required": ["a"]' in server.asked[-1].body["messages"][0]["content"]


def test_a_mistake_in_json_may_be_mended_once() -> None:
    with FakeServer(whole("openai", '{"b": 1}'), whole("openai", '```json\n{"a": "cat"}\n```')) as server:
        assert endpoint(server).chat(HI, schema=SCHEMA).data == {"a": "cat"}
        mending = server.asked[1].body["messages"]
        assert [message["role"] for message in mending] == ["user", "assistant", "user"]
        assert "a is missing" in mending[2]["content"]
        server.answers = [whole("openai", "I would rather not.")]
        with pytest.raises(ReplyError, match="no JSON") as raised:
            endpoint(server).chat(HI, schema=SCHEMA)
        assert raised.value.text == "I would rather not."
        assert len(server.asked) == 4


def test_json_that_was_cut_off_is_an_error_that_says_so() -> None:
    with FakeServer(whole("openai", '{"a": "ca', "length")) as server:
        with pytest.raises(ReplyError, match="cut off: raise max_tokens"):
            endpoint(server).chat(HI, schema=SCHEMA)
        assert len(server.asked) == 1


def test_nothing_is_not_mended() -> None:
    with FakeServer(whole("openai", "")) as server:
        with pytest.raises(ReplyError, match="nothing was returned"):
            endpoint(server).chat(HI, schema=SCHEMA)
        assert len(server.asked) == 1


def test_a_question_that_is_too_long_does_not_walk_the_ladder() -> None:
    with FakeServer(broken(400, "request (12030 tokens) exceeds the available context size")) as server:
        with pytest.raises(EndpointError, match="12030"):
            endpoint(server).chat(HI, schema=SCHEMA)
        assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("protocol", "said", "name"),
    [
        ("anthropic", "`temperature` is deprecated for this model.", "temperature"),
        (
            "openai",
            "Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens'.",
            "max_tokens",
        ),
        ("openai", "Unsupported value: 'temperature' does not support 0.5 with this model.", "temperature"),
        ("ollama", '"m" does not support thinking', "think"),
    ],
)
def test_a_parameter_that_is_refused_is_left_out_from_then_on(protocol: str, said: str, name: str) -> None:
    with FakeServer(broken(400, said), whole(protocol, "a cat")) as server:
        asking = endpoint(server, protocol)
        for _ in range(2):
            assert asking.chat(HI, temperature=0.5, max_tokens=9).text == "a cat"
        assert [name in asked.body for asked in server.asked] == [True, False, False]
        server.answers = [broken(400, said)]
        with pytest.raises(EndpointError, match="400"):
            asking.chat(HI, temperature=0.5, max_tokens=9)


# What is there


def test_the_health_of_a_server() -> None:
    llama = {"data": [{"id": "m", "owned_by": "llamacpp"}, {"id": "n", "architecture": {}}]}
    props = as_json({"modalities": {"vision": True}})
    with FakeServer(by_path(models=as_json(llama), props=props)) as server:
        health = endpoint(server).check()
        assert health.reachable
        assert health.models == ("m", "n")
        assert health.sees_images == {"m": True, "n": True}
        assert "has m, which sees pictures" in health.message
        router = {"data": [{"id": "m", "architecture": {"input_modalities": ["text", "image"]}}, {"id": "n"}]}
        server.answers = [by_path(models=as_json(router))]
        assert endpoint(server).check().sees_images == {"m": True, "n": None}
        server.answers = [broken(404)]
        assert endpoint(server).check().reachable
        server.answers = [broken(401)]
        assert "FAKE_KEY" in endpoint(server).check().message
        server.answers = [fake.answer(200, b"<html>", "text/html")]
        assert "web page" in endpoint(server).check().message


def test_without_a_name_the_only_model_is_asked() -> None:
    one = as_json({"data": [{"id": "only"}]})
    with FakeServer(by_path(models=one, completions=whole("openai", "a cat", model="only"))) as server:
        asking = endpoint(server, model="")
        assert asking.chat(HI).model == "only"
        assert server.asked[-1].body["model"] == "only"
        asking.chat(HI)
        assert len(server.asked) == 3
        server.answers = [as_json({"data": [{"id": "x"}, {"id": "y"}]})]
        with pytest.raises(InputError, match=r"name a model\. It has x, y"):
            endpoint(server, model="").chat(HI)


def test_another_model_that_answers_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    with FakeServer(whole("openai", "a cat", model="smollm2")) as server:
        asking = endpoint(server, model="qwen2.5")
        assert asking.chat(HI).model == "smollm2"
        asking.chat(HI)
        assert [r.message for r in caplog.records if "smollm2 answers" in r.message] == [caplog.messages[0]]
        caplog.clear()
        server.answers = [whole("openai", "a cat", model="gpt-4o-2026-08-06")]
        endpoint(server, model="openai/gpt-4o").chat(HI)
        assert not caplog.records


@pytest.mark.parametrize(
    ("protocol", "kind", "path", "body"),
    [
        ("ollama", "", "/api/chat", {"model": "m", "messages": [], "keep_alive": 0, "stream": False}),
        ("openai", "llama.cpp", "/models/unload", {"model": "m"}),
        ("openai", "lmstudio", "/api/v1/models/unload", {"instance_id": "m"}),
    ],
)
def test_releasing_is_the_right_call_for_each_server(
    protocol: str, kind: str, path: str, body: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    with FakeServer(as_json({"success": True})) as server:
        endpoint(server, protocol, server=kind).release()
        assert (server.asked[0].path, server.asked[0].body) == (path, body)
        server.answers = [broken(500)]
        endpoint(server, protocol, server=kind).release()
        assert "not unloaded" in caplog.text
        endpoint(server, "anthropic").release()
        assert len(server.asked) == 2


def test_settings_of_the_profile_are_in_every_request() -> None:
    with FakeServer(whole("ollama", "a cat")) as server:
        endpoint(server, "ollama", extra={"options": {"num_ctx": 8192}, "keep_alive": "1h"}).chat(HI, seed=1)
        assert server.asked[0].body["options"] == {"seed": 1, "num_ctx": 8192}
        assert server.asked[0].body["keep_alive"] == "1h"


def test_many_threads_share_an_endpoint_and_its_connections() -> None:
    with FakeServer(whole("openai", "a cat")) as server:
        asking = endpoint(server)
        said: list[str] = []
        threads = [threading.Thread(target=lambda: said.append(asking.chat(HI).text)) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(5)
        assert said == ["a cat"] * 12


# Keys


def test_the_key_is_in_no_error_and_no_log(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    echo = f"Incorrect API key provided: {KEY}. " + "x" * 260 + KEY
    faults = [
        *(broken(status, echo) for status in (400, 401, 402, 403, 404, 422, 429, 500, 503)),
        as_json({"error": echo}, 400),
        as_json({"error": {"message": echo, "metadata": {"raw": echo}}}),
        as_json({"detail": [{"key": KEY}]}, 422),
        fake.answer(400, echo.encode(), "text/plain"),
        fake.answer(500, f"<html>{echo}</html>".encode(), "text/html"),
        fake.answer(302, b"", Location=f"http://{KEY}@elsewhere/{KEY}?key={KEY}"),
        stream_of([f'data: {{"error": {{"message": "{echo}"}}}}\n\n']),
        whole("openai", None, refusal=echo),
        whole("openai", "a cat", model=KEY),
        whole("openai", "<think>" + KEY),
        whole("openai", "x" * 50 + KEY),
        streamed("openai", ["<think>", KEY[:9], KEY[9:]]),
        fake.drop,
        fake.silence,
        fake.cut,
    ]
    seen: list[str] = []
    for fault in faults:
        with FakeServer(fault) as server:
            asking = endpoint(server, retries=1, first_byte_s=0.1)
            seen += [repr(asking.profile), repr(asking), asking.check().message]
            for schema in (None, SCHEMA):
                try:
                    asking.chat(HI, schema=schema)
                except PromptglassError as error:
                    chain: BaseException | None = error
                    while chain is not None:
                        seen += [str(chain), repr(chain)]
                        chain = chain.__cause__ or chain.__context__
            asking.release()
            assert all(asked.headers["authorization"] == f"Bearer {KEY}" for asked in server.asked)
    everything = "\n".join([*seen, caplog.text, *capsys.readouterr()])
    assert "[key]" in everything
    for part in (KEY, "very-secret", "sk-ve"):
        assert part not in everything


def test_the_key_does_not_follow_a_redirect() -> None:
    with FakeServer(whole("openai", "a cat")) as elsewhere:
        leads = fake.answer(307, b"", Location=f"{elsewhere.url}/v1/chat/completions")
        with FakeServer(leads) as server:
            with pytest.raises(EndpointError, match=f"it leads to {elsewhere.url}"):
                endpoint(server).chat(HI)
            with pytest.raises(ValueError, match="own host"):
                endpoint(server)._client.json(
                    "GET", elsewhere.url, None, endpoint(server)._client.call(None, 1)
                )
        assert not elsewhere.asked


def test_neither_a_netrc_nor_a_proxy_gets_between(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login me password hidden\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    with FakeServer(whole("openai", "a cat")) as server, FakeServer(whole("openai", "proxied")) as proxy:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        assert endpoint(server).chat(HI).text == "a cat"
        assert server.asked[0].headers["authorization"] == f"Bearer {KEY}"
        assert not proxy.asked
        # A netrc is passed over where proxies are not, too.
        far = Endpoint(Profile("far", "openai", "http://far.example", model="m"))
        assert far.chat(HI).text == "proxied"
        assert "authorization" not in proxy.asked[0].headers


def test_a_key_goes_unencrypted_to_ones_own_network_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from promptglass.llm import connections

    assert [
        connections._is_public(a) for a in ("127.0.0.1", "192.168.1.2", "100.64.0.1", "fe80::1%1", "::1")
    ] == ([False] * 5)
    assert all(connections._is_public(a) for a in ("8.8.8.8", "::ffff:8.8.8.8", "2606:4700::1"))
    monkeypatch.setattr(connections, "_is_public", lambda address: True)
    with FakeServer(whole("openai", "a cat")) as server:
        with pytest.raises(EndpointRefused, match="allow_plain_http"):
            endpoint(server).chat(HI)
        assert not server.asked
        assert endpoint(server, allow_plain_http=True).chat(HI).text == "a cat"
        assert endpoint(server, key_env="").chat(HI).text == "a cat"


def test_a_key_that_no_header_can_hold_is_not_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeServer(whole("openai", "a cat")) as server:
        for key in ("sk-a\nb", "sk-ключ", "sk a"):
            monkeypatch.setenv("FAKE_KEY", key)
            with pytest.raises(InputError, match="FAKE_KEY") as raised:
                endpoint(server).chat(HI)
            assert "sk" not in str(raised.value)
        monkeypatch.delenv("FAKE_KEY")
        with pytest.raises(InputError, match="FAKE_KEY is not set"):
            endpoint(server).chat(HI)
        assert "FAKE_KEY is not set" in endpoint(server).check().message
        assert not server.asked
