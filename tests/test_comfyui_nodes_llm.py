"""The nodes that ask a language model: what it is asked, what comes of it, what is shown, when it ends."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from fakes.comfyui_running import Nodes
from fakes.comfyui_running import nodes as nodes  # a fixture
from fakes.llm_server import (
    MODELS,
    Answer,
    FakeServer,
    as_json,
    broken,
    by_path,
    lines_of,
    silence,
    stream_of,
    whole,
)
from fakes.word_encoder import WordEncoder, paint

KEY = "sk-0123456789-secret"
TABLES = {"flavors": ["golden hour", "soft light"], "mediums": ["a photo"]}


PICTURE = "red cat sitting under golden trees"


@pytest.fixture(autouse=True)
def apart(nodes: Nodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_KEY", KEY)
    monkeypatch.setattr(nodes.module("promptglass.llm.transport"), "BACKOFF_S", 0.01)
    monkeypatch.setattr(nodes.module("promptglass.clip.tables"), "default_tables", lambda: TABLES)
    # Whether OCR is installed must make no difference here.
    monkeypatch.setattr(nodes.module("promptglass.llm.analyzer").LlmAnalyzer, "_ocr_name", None)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FakeServer]:
    with FakeServer(saying("a refined prompt")) as fake:
        configure(tmp_path, fake)
        yield fake


def configure(tmp_path: Path, fake: FakeServer, **settings: Any) -> None:
    profile = {"protocol": "openai", "base_url": fake.url, "model": "m", "retries": 0, "key_env": "FAKE_KEY"}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"endpoints": {"fake": profile | settings}}))


def saying(*texts: str, seed: int = 0) -> Answer:
    """To the first candidate of that seed the first text, and so on."""

    def chat(handler: Any) -> None:
        place = max((handler.asked.body.get("seed") or 0) - seed - 1, 0)
        whole("openai", texts[place % len(texts)])(handler)

    return answering(chat)


def answering(chat: Answer) -> Answer:
    return by_path(models=as_json(MODELS["openai"]), completions=chat)


def chats(server: FakeServer) -> list[dict[str, Any]]:
    return [asked.body for asked in server.asked if asked.path.endswith("completions")]


def told(server: FakeServer, place: int = -1) -> str:
    """The text of the last message of a question."""
    content = chats(server)[place]["messages"][-1]["content"]
    return content if isinstance(content, str) else " ".join(part.get("text", "") for part in content)


def pictures_in(question: dict[str, Any]) -> int:
    content = question["messages"][-1]["content"]
    return 0 if isinstance(content, str) else sum(part["type"] == "image_url" for part in content)


def refined(nodes: Nodes, text: Any = "a red cat", **inputs: Any) -> Any:
    return nodes.run("Refine", text=text, profile="fake", unique_id="7", **inputs)


def described(nodes: Nodes, *pictures: str, **inputs: Any) -> Any:
    images = [paint(picture) for picture in pictures or ("red cat",)]
    return nodes.run("Describe", image=images, profile="fake", unique_id="7", **inputs)


# -- refine --------------------------------------------------------------------------------------------------


def test_the_candidate_that_is_closest_to_the_picture_wins(nodes: Nodes, server: FakeServer) -> None:
    says = ("a blue dog sitting", "red cat sitting under golden trees", "a dog sitting down")
    server.answers = [saying(*says)]
    clip = nodes.clip(WordEncoder())
    ran = refined(nodes, "cat sitting", image=paint(PICTURE), encoder=clip, candidates=3)
    assert ran["prompt"] == ["red cat sitting under golden trees"]
    evidence = json.loads(ran["evidence"][0])
    scores = {one["prompt"]: one["score"] for one in evidence["candidates"]}
    assert scores.keys() == {*says}
    assert max(scores, key=lambda prompt: scores[prompt]) == says[1]
    assert evidence["score"] == pytest.approx(scores[says[1]], abs=1e-5) == pytest.approx(1)
    assert evidence["gain"] > 0 and "candidate 2 is closer" in evidence["why"]
    [[answer]] = ran["answers"]
    assert (answer.mode, answer.text, answer.model) == ("llm/refine", says[1], "m")
    [card] = ran.cards
    assert (card["text"], card["note"]) == (says[1], evidence["why"])
    assert card["bars"][0]["label"] == says[1]


def test_what_went_in_stands_where_no_candidate_is_closer(nodes: Nodes, server: FakeServer) -> None:
    server.answers = [saying("some cat elsewhere", "cat of stone")]
    clip = nodes.clip(WordEncoder())
    ran = refined(nodes, PICTURE, image=paint(PICTURE), encoder=clip, candidates=2)
    assert ran["prompt"] == [PICTURE]
    assert "what went in stands" in ran.cards[0]["note"]


def test_candidates_seed_wishes_and_what_is_known_reach_the_model(nodes: Nodes, server: FakeServer) -> None:
    inputs = {"image": paint(PICTURE), "encoder": nodes.clip(WordEncoder()), "wishes": "make it rain"}
    refined(nodes, "cat sitting", candidates=3, seed=10, **inputs)
    assert sorted(question["seed"] for question in chats(server)) == [11, 12, 13]
    assert len({question["temperature"] for question in chats(server)}) == 3
    assert {question["model"] for question in chats(server)} == {"m"}
    assert all("make it rain" in told(server, n) and "cat sitting" in told(server, n) for n in range(3))
    assert "golden hour" in told(server)  # what CLIP sees
    refined(nodes, "cat sitting", candidates=1, seed=2**63 + 5, deep=True, model="other", **inputs)
    last = chats(server)[-1]
    assert (last["seed"] < 2**31, last["temperature"], last["model"]) == (True, 0.7, "other")


def test_words_to_keep_are_in_the_prompt(nodes: Nodes, server: FakeServer) -> None:
    keep = "ohwx woman, <lora:x:1>"
    for inputs in (
        {},
        {"image": paint(PICTURE)},
        {"image": paint(PICTURE), "encoder": nodes.clip(WordEncoder())},
    ):
        [prompt] = refined(nodes, "a refined cat", keep=keep, candidates=2, **inputs)["prompt"]
        assert "ohwx woman" in prompt and "<lora:x:1>" in prompt


def test_without_a_picture_one_candidate_is_asked_for_each_text(nodes: Nodes, server: FakeServer) -> None:
    ran = refined(nodes, ["a cat", "a dog"], candidates=4, wishes="in snow", seed=4)
    assert ran["prompt"] == ["a refined prompt"] * 2
    assert ran["answers"] == [[], []]
    assert [question["seed"] for question in chats(server)] == [5, 5]
    assert "a cat" in told(server, 0) and "a dog" in told(server, 1) and "in snow" in told(server, 1)
    assert json.loads(ran["evidence"][0])["candidates"][0]["prompt"] == "a refined prompt"
    assert "score" not in ran.cards[0] and ran.text == ran["prompt"]


def test_texts_pair_up_with_pictures(nodes: Nodes, server: FakeServer) -> None:
    images = torch.cat([paint("red cat"), paint("blue dog")])
    ran = refined(nodes, ["a cat", "a dog"], image=images)
    assert len(ran["prompt"]) == len(ran["answers"]) == 2
    with nodes.refused("3 texts for 2 pictures"):
        refined(nodes, ["a", "b", "c"], image=images)


def test_no_seed_is_too_large_for_a_server(nodes: Nodes, server: FakeServer) -> None:
    clip = nodes.clip(WordEncoder())
    refined(nodes, seed=2**31 - 1, candidates=4, image=paint(PICTURE), encoder=clip)
    assert max(question["seed"] for question in chats(server)) < 2**31


@pytest.mark.parametrize(
    "inputs", [{}, {"image": torch.cat([paint("cat"), paint("dog")])}], ids=["texts", "pictures"]
)
def test_the_server_is_told_once_to_free_its_memory(
    nodes: Nodes, server: FakeServer, tmp_path: Path, inputs: dict[str, Any]
) -> None:
    configure(tmp_path, server, server="llama.cpp")
    refined(nodes, ["a cat", "a dog"], **inputs)
    assert questions_before_unloading(server) == [2]


def test_the_server_keeps_its_memory_until_all_pictures_are_described(
    nodes: Nodes, server: FakeServer, tmp_path: Path
) -> None:
    configure(tmp_path, server, server="llama.cpp")
    described(nodes, "red cat", "blue dog", notes=["two cats", "one dog"])
    assert questions_before_unloading(server) == [2]


def questions_before_unloading(server: FakeServer) -> list[int]:
    """For each time that the model was unloaded. Nobody waits for that, so it may take a moment."""
    time.sleep(0.3)
    paths = [asked.path for asked in server.asked]
    unloadings = [place for place, path in enumerate(paths) if path == "/models/unload"]
    return [sum(path.endswith("completions") for path in paths[:place]) for place in unloadings]


# -- describe ------------------------------------------------------------------------------------------------


def test_the_picture_its_notes_and_wishes_reach_the_model(nodes: Nodes, server: FakeServer) -> None:
    ran = described(
        nodes, "red cat", "blue dog", notes=["two cats", "one dog"], wishes="mind the dog", seed=3
    )
    assert [pictures_in(question) for question in chats(server)] == [1, 1]
    assert [question["seed"] for question in chats(server)] == [3, 3]
    assert all("mind the dog" in told(server, n) for n in range(2))
    assert ran["text"] == ["a refined prompt"] * 2 == ran.text
    assert [(answer.mode, answer.model) for (answer,) in ran["answers"]] == [("llm/describe", "m")] * 2
    assert ran.cards[0]["title"] == "describe"


@pytest.mark.parametrize("prompt_id", ["critique", "describe", "tags"])
def test_notes_reach_the_model(nodes: Nodes, server: FakeServer, prompt_id: str) -> None:
    if prompt_id == "tags":
        server.answers = [saying('{"tags": ["a", "b", "c", "d", "e"]}')]
    described(nodes, "red cat", "blue dog", notes=["two cats", "one dog"], prompt_id=prompt_id)
    together = sorted(told(server, n) for n in range(2))
    assert "one dog" in " ".join(together) and "two cats" in " ".join(together)
    assert not any("one dog" in text and "two cats" in text for text in together)


def test_an_answer_in_json_is_given_as_such(nodes: Nodes, server: FakeServer) -> None:
    tags = ["cat", "wall", "fur", "stone", "sun"]
    server.answers = [saying(json.dumps({"tags": tags}))]
    ran = described(nodes, prompt_id="tags")
    assert ran["text"] == ["cat, wall, fur, stone, sun"]
    assert json.loads(ran["details"][0])["data"] == {"tags": tags}


@pytest.mark.parametrize("status", [500, 401, 404])
def test_an_error_of_the_endpoint_is_one_line_and_has_no_key(
    nodes: Nodes, server: FakeServer, status: int
) -> None:
    server.answers = [answering(broken(status, f"no\n{KEY}\nnot that way"))]
    for run in (described, refined):
        with nodes.refused("not that way|fake") as caught:
            run(nodes)
        assert KEY not in str(caught.value)


def test_what_is_gone_is_named(nodes: Nodes, server: FakeServer) -> None:
    with nodes.refused("there is no prompt old any more: choose from refine"):
        described(nodes, prompt_id="old")
    with nodes.refused("there is no endpoint 'old'"):
        nodes.run("Refine", text="a cat", profile="old")
    assert server.asked == []


def test_no_key_and_no_address_gets_into_a_workflow_a_picture_or_a_card(
    nodes: Nodes, server: FakeServer
) -> None:
    server.answers = [saying(f"a cat with your key {KEY} at {server.url}")]
    clip = nodes.clip(WordEncoder())
    for ran in (refined(nodes), refined(nodes, image=paint(PICTURE), encoder=clip), described(nodes)):
        assert KEY not in ran.everything
    assert all(asked.headers["authorization"] == f"Bearer {KEY}" for asked in server.asked)
    shown = repr([node.INPUT_TYPES() for node in nodes.pack.NODE_CLASS_MAPPINGS.values()])
    assert KEY not in shown and server.url not in shown and "'fake'" in shown


def test_no_key_is_shown_while_an_answer_is_written(nodes: Nodes, server: FakeServer) -> None:
    server.answers = [saying(f"a cat with your key {KEY}, sitting")]
    described(nodes)
    assert "sitting" in nodes.host.texts[-1][1]
    assert KEY not in repr(nodes.host.texts)


# -- while it is written -------------------------------------------------------------------------------------

WORDS = [f"word{n} " for n in range(12)]


def speaking(pause_s: float) -> Answer:
    return answering(stream_of(lines_of("openai", WORDS), pause_s=pause_s))


def test_the_answer_grows_on_the_node_and_is_not_sent_at_every_word(nodes: Nodes, server: FakeServer) -> None:
    server.answers = [speaking(0.1)]
    ran = described(nodes)
    shown = [text for node, text in nodes.host.texts if node == "7"]
    assert shown and len(shown) == len(nodes.host.texts)
    assert all(ran["text"][0].startswith(text.strip()) for text in shown)
    assert shown == sorted(shown, key=len)
    assert 3 <= len(shown) <= 9  # of 16 steps in 1.6 s, one in 0.2 s


@pytest.mark.parametrize("run", [described, refined])
def test_the_whole_answer_stands_on_the_node_at_last(nodes: Nodes, server: FakeServer, run: Any) -> None:
    lines = lines_of("openai", WORDS)
    # The first words are sent at the first look, after 0.1 s; the rest comes right then.
    halves = ["".join(lines[:4]), "".join(lines[4:])]
    server.answers = [answering(stream_of(halves, pause_s=0.15))]
    run(nodes)
    assert nodes.host.texts[-1][1].strip() == "".join(WORDS).strip()


class NewInterrupt(BaseException):
    """As hosts of 2025 have it."""


class OldInterrupt(Exception):
    """As older hosts have it."""


@pytest.mark.parametrize("interrupt", [NewInterrupt, OldInterrupt])
@pytest.mark.parametrize("run", [described, refined])
def test_an_interrupt_ends_the_question_at_once(
    nodes: Nodes, server: FakeServer, monkeypatch: pytest.MonkeyPatch, run: Any, interrupt: Any
) -> None:
    def speaks_then_waits(handler: BaseHTTPRequestHandler) -> None:
        stream_of(lines_of("openai", WORDS)[:5], then="silence")(handler)

    def stop_once_words_are_shown(node_id: str, text: str) -> None:
        nodes.host.interrupt = interrupt("stop")

    monkeypatch.setattr(nodes.module("nodes.host"), "show", stop_once_words_are_shown)
    server.answers = [answering(speaks_then_waits)]
    began = time.monotonic()
    with pytest.raises(interrupt, match="stop"):
        run(nodes)
    assert time.monotonic() - began < 5
    assert server.hung_up.wait(5)


def test_an_interrupt_while_nothing_is_said_ends_it_too(nodes: Nodes, server: FakeServer) -> None:
    def waits(handler: BaseHTTPRequestHandler) -> None:
        nodes.host.interrupt = OldInterrupt("stop")
        silence(handler)

    server.answers = [answering(waits)]
    with pytest.raises(OldInterrupt):
        refined(nodes, image=paint(PICTURE), encoder=nodes.clip(WordEncoder()))
    assert server.hung_up.wait(5)


# -- whether it is asked again -------------------------------------------------------------------------------


@pytest.mark.parametrize(("node", "prompt_id"), [("Refine", "refine"), ("Describe", "describe")])
def test_it_is_asked_again_when_profile_or_prompt_change(
    nodes: Nodes,
    server: FakeServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    node: str,
    prompt_id: str,
) -> None:
    def state(**inputs: Any) -> str:
        return nodes.state(node, **{"profile": "fake", "prompt_id": prompt_id, **inputs})

    states = [state(), state(model="other"), state(profile="openai")]
    assert state() == states[0] == state(model="m")
    monkeypatch.setenv("FAKE_KEY", "another")
    assert state() == states[0]
    configure(tmp_path, server, model="n")
    states.append(state())
    configure(tmp_path, server, base_url="http://127.0.0.1:9")
    states.append(state())
    configure(tmp_path, server)
    (tmp_path / "prompts.yaml").write_text(yaml.safe_dump({prompt_id: {"text": "Look: {caption}"}}))
    states.append(state())
    assert len({*states}) == len(states)
    assert not any(KEY in one or "127.0.0.1" in one for one in states)
    assert server.asked == []
    assert state(profile=[None]) == state(prompt_id=[None])  # linked
