"""Language models as modes of `interrogate` and `batch`: what is asked, kept, told, and when it ends."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
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
import yaml
from conftest import noise
from fakes.llm_server import MODELS, FakeServer, as_json, broken, by_path, drop, silence, streamed, whole
from test_batch import SCHEMA, leftovers
from test_cli_folders import models as models  # a fixture

from promptglass import open_picture
from promptglass.analyzers import Answer, Failure
from promptglass.cli import main
from promptglass.errors import EndpointRefused, EndpointUnreachable, ModelError
from promptglass.llm import Endpoint
from promptglass.llm.analyzer import LlmAnalyzer, endpoint_of, prompt_id
from promptglass.llm.profiles import Profile
from promptglass.ocr import Line
from promptglass.prompts import load_prompts
from promptglass.sidecar import path_of

SAMPLES = Path(__file__).parent.parent / "samples"
ANSWERS = {
    "Write the prompt": "a refined prompt of a picture, oil painting",
    "Describe this picture": "A cat on a wall.",
    "Tag this picture": '{"tags": ["cat", "wall", "fur", "stone", "sun"]}',
    "Read the text": '{"lines": ["OPEN", "24 hours"]}',
    "What must not be in it": "blurry, text",
    "Judge this picture": "Good light.\n\nMore {contrast}.",
    "Write the caption": "A cat lies on a wall.",
}
Reply = Callable[[BaseHTTPRequestHandler], None]


def task_of(handler: BaseHTTPRequestHandler) -> str:
    return next(task for task in ANSWERS if task in json.dumps(handler.asked.body["messages"][-1]))


def answering(**instead: Reply) -> Reply:
    """A server that knows its tasks. instead: how it answers one, by a word of the task."""

    def chat(handler: BaseHTTPRequestHandler) -> None:
        task = task_of(handler)
        other = next((reply for word, reply in instead.items() if word.lower() in task.lower()), None)
        model = handler.asked.body["model"]
        (other or whole("openai", ANSWERS[task], model=model))(handler)

    listed = {"object": "list", "data": [{"id": "m", "object": "model"}, {"id": "n", "object": "model"}]}
    return by_path(models=as_json(listed), completions=chat)


def chats(server: FakeServer) -> list[Any]:
    """The questions; not what was broken off before it was one, as a stop does it on a busy machine."""
    return [asked.body for asked in server.asked if asked.path.endswith("completions") and asked.body]


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the settings, the prompts and the caches of whoever runs this, and from the real services."""
    (tmp_path / "config").mkdir()
    monkeypatch.setenv("PROMPTGLASS_CONFIG", str(tmp_path / "config" / "config.yaml"))
    (tmp_path / "config" / "config.yaml").write_text("{}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")
    monkeypatch.setattr("promptglass.llm.transport.BACKOFF_S", 0.02)
    # Whether OCR is installed must make no difference here; the test of their merging puts it back.
    monkeypatch.setattr(LlmAnalyzer, "_ocr_name", None)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer(answering()) as fake:
        yield fake


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "pictures"
    place.mkdir()
    for number in range(3):
        noise(number).save(place / f"{number}.png")
    return place


def configure(tmp_path: Path, **endpoints: Any) -> None:
    (tmp_path / "config" / "config.yaml").write_text(yaml.safe_dump({"endpoints": endpoints}))


def profile(fake: FakeServer, **settings: Any) -> dict[str, Any]:
    return {"protocol": "openai", "base_url": fake.url, "model": "m", "retries": 0, **settings}


def analyzer(fake: FakeServer, *modes: str, **how: Any) -> LlmAnalyzer:
    settings = {
        name: how.pop(name) for name in list(how) if name in ("model", "unload", "concurrency", "server")
    }
    endpoint = Endpoint(Profile("fake", **{**profile(fake), **settings}))
    return LlmAnalyzer(endpoint, modes, load_prompts(), **how)


def outcomes(analyzer: LlmAnalyzer, *paths: Path) -> dict[tuple[int, str], Answer | Failure]:
    pictures = [open_picture(path) for path in paths]
    return {(place, one.mode): one for place, one in analyzer.analyze(pictures, analyzer.modes)}


def batch(folder: Path, modes: str, *options: str) -> int:
    return main(["batch", str(folder), "--modes", modes, "--llm", "fake", "--quiet", *options])


def analysis(picture: Path) -> dict[str, Any]:
    content = json.loads(path_of(picture).read_text("utf-8"))
    jsonschema.validate(content, SCHEMA)
    return content["analysis"]


# Names


def test_a_mode_names_a_prompt_an_endpoint_and_a_model() -> None:
    assert (prompt_id("llm/describe"), endpoint_of("llm/describe")) == ("describe", ("", ""))
    mode = "llm/describe@eyes/hf.co/Qwen/qwen2.5-VL:7b@q4"
    assert (prompt_id(mode), endpoint_of(mode)) == ("describe", ("eyes", "hf.co/Qwen/qwen2.5-VL:7b@q4"))


def test_unknown_names_are_one_line_each(server, tmp_path, capsys) -> None:
    configure(tmp_path, fake=profile(server))
    picture = str(SAMPLES / "cat.jpg")
    for options, said in (
        (["--modes", "llm/descrbe"], "no mode llm/descrbe: language models answer llm/refine, "),
        (["--modes", "llm/describe@nobody"], "no endpoint 'nobody'"),
        (["--modes", "llm/describe", "--llm", "nobody"], "no endpoint 'nobody'"),
        (["--modes", "llm/refine", "--candidates", "0"], "--candidates 0: give 1 or more"),
        (["--modes", "lm/refine"], "no mode lm/refine"),
    ):
        assert main(["interrogate", picture, *options]) == 2
        captured = capsys.readouterr()
        assert said in captured.err
        assert captured.err.count("\n") == 1
    assert not server.asked


# What is asked, what is answered


def test_every_prompt_is_a_mode_and_its_answer_agrees_with_its_recipe(server) -> None:
    modes = [f"llm/{id_}" for id_ in load_prompts()]
    asks = analyzer(server, *modes, caption="a picture of a cat", wishes="more light")
    found = outcomes(asks, SAMPLES / "cat.jpg")
    assert {mode for _, mode in found} == {*modes}
    for (_, mode), answer in found.items():
        assert isinstance(answer, Answer), answer
        recipe = asks.recipe(mode)
        assert (answer.model, answer.settings) == (recipe.model, recipe.settings)
        assert recipe.made({"model": answer.model, "settings": json.loads(json.dumps(answer.settings))})
        assert answer.details["usage"]["completion_tokens"] > 0
    assert found[0, "llm/describe"].text == "A cat on a wall."
    assert found[0, "llm/tags"].text == "cat, wall, fur, stone, sun"
    assert found[0, "llm/tags"].details["data"]["tags"][0] == "cat"
    refined = found[0, "llm/refine"]
    assert isinstance(refined, Answer)
    assert (refined.text, refined.score) == (ANSWERS["Write the prompt"], None)


def test_only_what_needs_to_see_is_shown_the_picture(server) -> None:
    outcomes(analyzer(server, "llm/describe", "llm/refine", caption="a cat", count=1), SAMPLES / "cat.jpg")
    shown = {"image_url" in json.dumps(body): json.dumps(body) for body in chats(server)}
    assert "Describe this picture" in shown[True]
    assert "Write the prompt" in shown[False]
    assert all("a cat" in body for body in shown.values())  # the user's own words are told in any case
    server.asked.clear()
    sees = {"data": [{"id": "m", "architecture": {"input_modalities": ["text", "image"]}}]}
    chat = whole("openai", "a cat")
    server.answers = [by_path(models=as_json(sees), completions=chat)]
    outcomes(analyzer(server, "llm/refine", caption="a cat", count=1), SAMPLES / "cat.jpg")
    assert ["image_url" in json.dumps(body) for body in chats(server)] == [True]


def test_nothing_but_pixels_of_a_picture_leaves_the_house(server, tmp_path) -> None:
    from PIL import Image, PngImagePlugin

    hidden = PngImagePlugin.PngInfo()
    hidden.add_text("parameters", "a SECRET prompt")
    place = tmp_path / "SECRET name.png"
    noise(1).save(place, pnginfo=hidden, exif=b"Exif\x00\x00SECRET", icc_profile=b"SECRET")
    with Image.open(place) as image:
        assert "SECRET" in str(image.info)
    outcomes(analyzer(server, "llm/describe"), place)
    (body,) = chats(server)
    parts = body["messages"][-1]["content"]
    address = next(part["image_url"]["url"] for part in parts if "image_url" in part)
    sent = base64.b64decode(address.partition(",")[2])
    assert sent[:2] == b"\xff\xd8"
    assert b"SECRET" not in sent
    assert "SECRET" not in json.dumps(body).replace(address, "")


def test_the_prompt_in_the_file_is_told_and_has_to_be_beaten(server) -> None:
    found = outcomes(analyzer(server, "llm/refine", "llm/critique", count=1), SAMPLES / "with-prompt.png")
    embedded = open_picture(SAMPLES / "with-prompt.png").embedded
    assert embedded is not None
    assert found[0, "llm/refine"].details["input"]["prompt"] == embedded.positive
    assert all(embedded.positive[:40] in json.dumps(body) for body in chats(server))
    # A picture without one has nothing to be refined, and that is its own affair.
    found = outcomes(
        analyzer(server, "llm/refine", count=1), SAMPLES / "cat.jpg", SAMPLES / "with-prompt.png"
    )
    assert isinstance(found[0, "llm/refine"], Failure)
    assert "nothing to work on: give it caption or tags or prompt (caption: --caption TEXT" in str(
        found[0, "llm/refine"].error
    )
    assert isinstance(found[1, "llm/refine"], Answer)


def test_clip_judges_in_the_same_breath(models, server, tmp_path, capsys) -> None:
    configure(tmp_path, fake=profile(server))
    command = ["interrogate", str(SAMPLES / "cat.jpg"), "--llm", "fake", "--keep", "ohwx", "--json", *models]
    assert main([*command, "--modes", "tables,llm/refine"]) == 0
    tables, refined = json.loads(capsys.readouterr().out)["answers"]
    assert refined["mode"] == "llm/refine"
    assert len(refined["candidates"]) == 4
    assert "ohwx" in refined["text"]
    medium = next(iter(tables["tables"]["mediums"]))
    assert medium in refined["input"]["prompt"]
    best = max(candidate["score"] for candidate in refined["candidates"])
    assert refined["gain"] == pytest.approx(best - refined["input"]["score"], abs=1e-5)
    assert refined["refined"] is (refined["gain"] >= 0.005)
    assert refined["score"] == pytest.approx(
        best if refined["refined"] else refined["input"]["score"], abs=1e-5
    )
    question = json.dumps(chats(server)[0])
    assert medium in question
    assert refined["settings"]["clip"].keys() == {"model", "vocabulary", "captioner"}


def test_without_clip_it_is_said(server, tmp_path, capsys) -> None:
    configure(tmp_path, fake=profile(server))
    command = ["interrogate", str(SAMPLES / "cat.jpg"), "--llm", "fake", "--modes", "llm/refine"]
    assert main([*command, "--caption", "a picture of a cat"]) == 0
    captured = capsys.readouterr()
    assert "llm/refine: not compared with the picture: ViT-L-14/openai is not here" in captured.err
    assert captured.out.split("\t")[2].strip() == ANSWERS["Write the prompt"]


def test_ocr_and_model_are_read_together(server, tmp_path, monkeypatch) -> None:

    class Reader:
        name = "reader 1"

        def read(self, image):
            return [Line("0PEN", 0.9, (0, 0, 9, 9)), Line("CLOSED ON MONDAY", 0.9, (0, 9, 9, 9))]

    monkeypatch.setattr(LlmAnalyzer, "_ocr_name", "reader 1")
    monkeypatch.setattr(LlmAnalyzer, "_reader", Reader())
    asks = analyzer(server, "llm/text")
    answer = outcomes(asks, SAMPLES / "cat.jpg")[0, "llm/text"]
    assert isinstance(answer, Answer)
    assert answer.text.split("\n") == ["OPEN", "CLOSED ON MONDAY", "24 hours"]
    assert {line["text"]: tuple(line["by"]) for line in answer.details["lines"]} == {
        "OPEN": ("llm", "ocr"),
        "24 hours": ("llm",),
        "CLOSED ON MONDAY": ("ocr",),
    }
    assert asks.recipe("llm/text").settings["ocr"] == answer.settings["ocr"] == "reader 1"


def test_progress_of_three_steps(server) -> None:
    told: list[tuple[int, int]] = []
    modes = ("llm/describe", "llm/tags", "llm/text")
    asks = analyzer(
        server, *modes, concurrency=1, progress=lambda what, done, total: told.append((done, total))
    )
    outcomes(asks, SAMPLES / "cat.jpg")
    assert [f"{done / total:.0%}" for done, total in dict.fromkeys(told)] == ["0%", "33%", "67%", "100%"]


# In a batch


def test_only_what_is_missing_is_asked(server, folder, tmp_path) -> None:
    configure(tmp_path, fake=profile(server))
    assert batch(folder, "llm/describe,llm/tags,palette") == 0
    assert len(chats(server)) == 6
    assert analysis(folder / "0.png")["llm/describe"][0]["prompt"] == "A cat on a wall."
    assert batch(folder, "llm/describe,llm/tags,palette") == 0
    assert len(chats(server)) == 6
    # Another prompt, other wishes, another model: each is another answer beside the others.
    (tmp_path / "config" / "prompts.yaml").write_text("describe: {temperature: 0.9}")
    assert batch(folder, "llm/describe,llm/tags") == 0
    assert batch(folder, "llm/describe", "--wishes", "be brief") == 0
    assert batch(folder, "llm/describe", "--llm", "fake/n") == 0
    assert len(chats(server)) == 6 + 3 * 3
    entries = analysis(folder / "0.png")["llm/describe"]
    assert [entry["model"] for entry in entries] == ["m", "m", "m", "n"]
    assert leftovers(folder) == []


def test_several_models_side_by_side(server, folder, tmp_path) -> None:
    configure(tmp_path, fake=profile(server), eyes=profile(server, model="n"))
    assert batch(folder, "llm/describe,llm/describe@eyes,llm/describe@fake/other") == 0
    found = analysis(folder / "1.png")
    assert {*found} == {"llm/describe"}
    assert {entry["model"] for entry in found["llm/describe"]} == {"m", "n", "other"}
    asked = len(chats(server))
    assert asked == 9
    assert batch(folder, "llm/describe@eyes,llm/describe") == 0
    assert len(chats(server)) == asked


def test_answers_become_wildcards(server, folder, tmp_path) -> None:
    configure(tmp_path, fake=profile(server))
    assert batch(folder, "llm/describe,llm/critique") == 0
    assert main(["wildcards", str(folder), "--out", str(tmp_path / "wildcards")]) == 0
    written = {path.name: path.read_text("utf-8") for path in (tmp_path / "wildcards").rglob("*.txt")}
    assert written == {"describe.txt": "A cat on a wall.\n", "critique.txt": "Good light. More (contrast).\n"}


def test_one_bad_answer_costs_no_other(server, folder, tmp_path, capsys) -> None:
    configure(tmp_path, fake=profile(server))
    server.answers = [answering(tag=whole("openai", "no tags today"))]
    assert batch(folder, "llm/describe,llm/tags") == 1
    assert capsys.readouterr().err.count("llm/tags: fake (") == 3
    for picture in folder.glob("*.png"):
        assert {*analysis(picture)} == {"llm/describe"}
    asked = len(chats(server))
    server.answers = [answering()]
    assert batch(folder, "llm/describe,llm/tags") == 0
    assert len(chats(server)) == asked + 3  # tags alone
    assert not (folder / ".promptglass.journal.jsonl").exists()


REFUSALS = [
    broken(401, "Invalid API Key"),
    broken(402, "pay"),
    broken(429, "You exceeded your current quota: insufficient_quota"),
    broken(404, "model 'm' not found"),
    broken(500, "image input is not supported - hint: mmproj"),
]


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_refusal_stops_the_queue_with_one_message(refusal, server, folder, tmp_path, capsys) -> None:
    for number in range(3, 40):
        shutil.copy(folder / "0.png", folder / f"{number}.png")
    configure(tmp_path, fake=profile(server, concurrency=2))
    server.answers = [by_path(models=as_json(MODELS["openai"]), completions=refusal)]
    assert batch(folder, "llm/describe") == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1, captured.err
    assert len(chats(server)) <= 2  # those that were under way
    assert leftovers(folder) == []
    # Beside another mode it is left out, and the other goes on.
    server.asked.clear()
    assert batch(folder, "llm/describe,llm/tags,palette") == 1
    assert "left out from here on: llm/describe, llm/tags: fake (" in capsys.readouterr().err
    assert len(chats(server)) <= (6 if refusal is REFUSALS[-1] else 2)  # sight is asked for mode by mode
    assert {*analysis(folder / "39.png")} == {"palette"}


def test_money_that_runs_out_half_way_costs_no_answer(server, folder, tmp_path, capsys) -> None:
    for number in range(3, 40):
        noise(number).save(folder / f"{number}.png")
    configure(tmp_path, fake=profile(server, concurrency=2))
    left = threading.Semaphore(25)
    paid = answering()

    def until_spent(handler: BaseHTTPRequestHandler) -> None:
        is_paid = not handler.path.endswith("completions") or left.acquire(blocking=False)
        (paid if is_paid else broken(402, "no credit"))(handler)

    server.answers = [until_spent]
    assert batch(folder, "llm/describe,llm/tags") == 2
    assert "nothing left to spend" in capsys.readouterr().err
    done = [entry for path in folder.glob("*.json") for entry in json.loads(path.read_text())["analysis"]]
    assert len(done) >= 23  # two may have been under way when the refusal came
    server.answers = [paid]
    server.asked.clear()
    assert batch(folder, "llm/describe,llm/tags") == 0
    assert len(chats(server)) == 80 - len(done)


def test_prose_that_was_cut_off_is_no_answer(server, folder, tmp_path, capsys) -> None:
    configure(tmp_path, fake=profile(server))
    server.answers = [answering(describe=whole("openai", "A cat sits on the", "length"))]
    assert batch(folder, "llm/describe,llm/tags") == 1
    assert "cut off: raise max_tokens of the prompt describe" in capsys.readouterr().err
    assert {*analysis(folder / "0.png")} == {"llm/tags"}


def test_captions_lack_what_an_endpoint_cannot_give(server, folder, tmp_path, capsys) -> None:
    configure(tmp_path, fake=profile(server), gone=profile(server, model="", base_url="http://127.0.0.1:9"))
    assert batch(folder, "llm/describe@gone,llm/describe", "--txt", "overwrite") == 1
    assert "left out: llm/describe@gone" in capsys.readouterr().err
    assert not [*folder.glob("*.txt")]  # half a caption would look like a whole one
    assert {*analysis(folder / "0.png")} == {"llm/describe"}


def test_all_leaves_refine_as_it_is_without_clip(server, tmp_path, capsys) -> None:
    pytest.importorskip("rapidocr")
    configure(tmp_path, fake=profile(server))
    picture = str(SAMPLES / "with-prompt.png")
    assert main(["interrogate", picture, "--modes", "all,llm/refine", "--llm", "fake", "--json"]) == 0
    answers = json.loads(capsys.readouterr().out)["answers"]
    refined = next(answer for answer in answers if answer["mode"] == "llm/refine")
    assert refined["score"] is None
    assert len(refined["candidates"]) == 1  # nobody could choose


def test_a_reader_that_fails_costs_no_reading(server, monkeypatch) -> None:
    class Broken:
        name = "reader 1"

        def read(self, image):
            raise ModelError("it failed")

    monkeypatch.setattr(LlmAnalyzer, "_ocr_name", "reader 1")
    monkeypatch.setattr(LlmAnalyzer, "_reader", Broken())
    answer = outcomes(analyzer(server, "llm/text"), SAMPLES / "cat.jpg")[0, "llm/text"]
    assert answer.text == "OPEN\n24 hours"


def test_paths_and_addresses_stay_out_of_sidecars(server) -> None:
    path = "/home/jane/models/qwen.gguf"
    listed = {"data": [{"id": path}]}
    server.answers = [by_path(models=as_json(listed), completions=whole("openai", "A cat.", model=path))]
    answer = outcomes(analyzer(server, "llm/describe", model=""), SAMPLES / "cat.jpg")[0, "llm/describe"]
    assert chats(server)[0]["model"] == path
    assert answer.model == "qwen.gguf"
    assert "jane" not in json.dumps(answer.details)


def test_one_picture_that_is_flagged_costs_no_other(server, folder, tmp_path, capsys) -> None:
    configure(tmp_path, fake=profile(server, concurrency=1))
    flagged = iter([broken(403, "Your chosen model requires moderation and your input was flagged")])
    honest = answering()

    def moderated(handler: BaseHTTPRequestHandler) -> None:
        (next(flagged, honest) if handler.path.endswith("completions") else honest)(handler)

    server.answers = [moderated]
    assert batch(folder, "llm/describe") == 1
    assert "llm/describe: fake (" in (err := capsys.readouterr().err)
    assert "refuses to answer this (403: Your chosen" in err
    assert len([*folder.glob("*.promptglass.json")]) == 2


def test_a_model_that_is_known_to_be_blind_is_shown_nothing(server, folder, tmp_path, capsys) -> None:
    configure(tmp_path, fake=profile(server))
    blind = {"data": [{"id": "m", "architecture": {"input_modalities": ["text"]}}]}
    server.answers = [by_path(models=as_json(blind), completions=whole("openai", "A cat I made up."))]
    assert batch(folder, "llm/describe,llm/negative", "--caption", "a cat") == 1
    assert "left out from here on: llm/describe: fake (" in capsys.readouterr().err
    assert {*analysis(folder / "0.png")} == {"llm/negative"}
    assert not any("image_url" in json.dumps(body) for body in chats(server))
    (obstacle,) = analyzer(server, "llm/describe").obstacles("llm/describe")
    assert "m does not see pictures" in obstacle
    assert analyzer(server, "llm/negative").obstacles("llm/negative") == []


def test_a_server_that_goes_away_ends_the_queue_soon(server, folder, tmp_path, capsys) -> None:
    for number in range(3, 60):
        noise(number).save(folder / f"{number}.png")
    configure(tmp_path, fake=profile(server, concurrency=2))
    left = threading.Semaphore(5)
    honest = answering()

    def until_gone(handler: BaseHTTPRequestHandler) -> None:
        is_there = not handler.path.endswith("completions") or left.acquire(blocking=False)
        (honest if is_there else drop)(handler)

    server.answers = [until_gone]
    assert batch(folder, "llm/describe,llm/tags,palette") == 1
    assert "left out from here on: llm/describe, llm/tags: fake (" in capsys.readouterr().err
    # Three in a row, and one that was under way; a connection that is dropped without a word is tried twice.
    assert len(chats(server)) <= 5 + 2 * 4
    assert len([*folder.glob("*.promptglass.json")]) == 60


def test_without_a_model_in_the_profile_its_server_is_asked(server, folder, tmp_path, capsys) -> None:
    one = {"data": [{"id": "only"}]}
    configure(
        tmp_path,
        fake=profile(server, model=""),
        gone=profile(server, model="", base_url="http://127.0.0.1:9"),
    )
    server.answers = [by_path(models=as_json(one), completions=whole("openai", "A cat.", model="only"))]
    assert batch(folder, "llm/describe") == 0
    assert analysis(folder / "0.png")["llm/describe"][0]["model"] == "only"
    assert batch(folder, "llm/describe@gone,palette") == 1
    assert "left out: llm/describe@gone: gone (" in capsys.readouterr().err
    assert "palette" in analysis(folder / "0.png")
    assert batch(folder, "llm/describe@gone") == 2


def test_the_same_question_is_asked_once(server, folder, tmp_path) -> None:
    configure(tmp_path, fake=profile(server), other=profile(server))
    modes = "llm/describe,LLM/describe@fake,llm/describe@fake/m,llm/describe@other,llm/describe@/n"
    assert batch(folder, modes) == 0
    assert len(chats(server)) == 6
    assert {entry["model"] for entry in analysis(folder / "0.png")["llm/describe"]} == {"m", "n"}


def test_what_is_no_caption_stays_out_of_captions(server, folder, tmp_path) -> None:
    configure(tmp_path, fake=profile(server))
    modes = "llm/describe,llm/negative,llm/critique,llm/text,llm/describe@fake/n"
    assert batch(folder, modes, "--txt", "overwrite", "--caption", "a cat") == 0
    assert (folder / "0.txt").read_text() == "A cat on a wall.\n"


def test_nobody_there_is_told_once_and_a_short_absence_is_borne(server, folder, tmp_path, capsys) -> None:
    configure(tmp_path, fake={**profile(server), "base_url": "http://127.0.0.1:9"})
    assert batch(folder, "llm/describe") == 2
    assert capsys.readouterr().err.count("\n") == 1
    asks = analyzer(server, "llm/describe", concurrency=1)
    pictures = [open_picture(path) for path in sorted(folder.glob("*.png"))]
    found = asks.analyze(pictures, asks.modes)
    assert isinstance(next(found)[1], Answer)
    server.answers = [broken(503), answering()]
    kinds = [type(one) for _, one in found]
    assert sorted(kinds, key=str) == [Answer, Failure]


def test_refusals_are_raised(server, folder) -> None:
    server.answers = [broken(401)]
    with pytest.raises(EndpointRefused):
        outcomes(analyzer(server, "llm/describe"), folder / "0.png")
    asks = analyzer(server, "llm/describe")
    server.__exit__()
    with pytest.raises(EndpointUnreachable):
        outcomes(asks, folder / "0.png")


# Memory


@pytest.mark.parametrize(("unload", "count"), [("after_batch", 1), ("after_each", 2), ("never", 0)])
def test_the_model_is_unloaded_when_the_profile_says(
    unload, count, server, folder, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr("promptglass.pipeline._GROUP", 2)
    configure(tmp_path, fake=profile(server, server="llama.cpp", unload=unload))
    assert batch(folder, "llm/describe") == 0
    assert len([asked for asked in server.asked if asked.path == "/models/unload"]) == count
    server.asked.clear()
    assert batch(folder, "llm/describe") == 0  # nothing is missing: nobody is asked, nothing is unloaded
    assert not server.asked


# Stops


def run_command(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "promptglass", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ},
    )


def wait_until(condition: Callable[[], object], within_s: float = 20.0) -> None:
    until = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_ctrl_c_ends_what_is_under_way_and_keeps_what_is_done(server, folder, tmp_path) -> None:
    configure(tmp_path, fake=profile(server, concurrency=2))
    server.answers = [answering(tag=silence)]
    with run_command("batch", str(folder), "--modes", "llm/describe,llm/tags", "--llm", "fake") as process:
        wait_until(lambda: any("Tag this" in json.dumps(body) for body in chats(server)))
        time.sleep(0.2)
        started = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
        took_s = time.monotonic() - started
    assert process.returncode == 130
    assert "stopped; what was computed so far is kept" in err
    assert took_s < 1.5  # 0.3 s for the stop, the rest for the interpreter to end
    assert server.hung_up.wait(1)
    described = [
        path for path in folder.glob("*.json") if "llm/describe" in json.loads(path.read_text())["analysis"]
    ]
    assert described
    assert leftovers(folder) == []


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize("protocol", ["openai", "ollama"])
def test_ctrl_c_does_not_wait_for_a_server_that_hangs(protocol, server, folder, tmp_path) -> None:
    configure(tmp_path, fake=profile(server, protocol=protocol, server="llama.cpp", concurrency=1))
    server.answers = [whole(protocol, "A cat."), silence]
    server.answers[:0] = [as_json(MODELS[protocol])] * (1 if protocol == "openai" else 0)
    if protocol == "ollama":
        server.answers[:0] = [as_json(MODELS["ollama"]), as_json({"capabilities": ["vision"]})]
    with run_command(
        "batch", str(folder), "--modes", "llm/describe,llm/critique", "--llm", "fake"
    ) as process:
        wait_until(
            lambda: sum(asked.path.endswith(("completions", "api/chat")) for asked in server.asked) == 2
        )
        time.sleep(0.2)
        started = time.monotonic()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
        took_s = time.monotonic() - started
    assert process.returncode == 130
    assert took_s < 1.5


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_what_took_long_outlives_even_a_kill(server, folder, tmp_path) -> None:
    configure(tmp_path, fake=profile(server, concurrency=1))

    def slow(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(1.1)
        whole("openai", "A cat on a wall.")(handler)

    server.answers = [answering(describe=slow, tag=silence)]
    with run_command("batch", str(folder), "--modes", "llm/describe,llm/tags", "--llm", "fake") as process:
        wait_until(lambda: any("Tag this" in json.dumps(body) for body in chats(server)))
        time.sleep(0.2)
        process.kill()
        process.communicate()
    (sidecar,) = folder.glob("*.promptglass.json")
    assert [*json.loads(sidecar.read_text())["analysis"]] == ["llm/describe"]
    server.answers = [answering()]
    server.asked.clear()
    assert batch(folder, "llm/describe,llm/tags") == 0
    assert len(chats(server)) == 5


def test_streams_are_understood_too(server, folder, tmp_path) -> None:
    server.answers = [streamed("openai", ["A ", "cat."])]
    found = outcomes(analyzer(server, "llm/describe"), folder / "0.png")
    assert found[0, "llm/describe"].text == "A cat."
    assert chats(server)[0]["stream"] is True  # so that a stop frees the server
