"""The page: what its handlers make of what people do, and all of it over HTTP, as this gradio does that.

Runs on gradio 3.41 to 6 (.ci/gradio), with and without torch. What is clicked is in browser_ui.py.
"""

from __future__ import annotations

import importlib.util
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import noise
from PIL import PngImagePlugin

pytest.importorskip("gradio")

import gradio
import requests
from fakes.gradio_page import Page
from fakes.llm_server import FakeServer, as_json, by_path, silence, streamed
from fakes.word_host import WordHost

from promptglass.analyzers import PaletteAnalyzer
from promptglass.host import Standalone
from promptglass.service import Service
from promptglass.ui import build, cards

HOSTILE = '<img src=x onerror="alert(1)">&amp;${alert(2)}{{value}}'
MODELS = as_json({"object": "list", "data": [{"id": "m", "object": "model", "created": 1, "owned_by": "x"}]})


@pytest.fixture(autouse=True)
def configured(apart: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(tmp_path, monkeypatch, "http://127.0.0.1:9")


def configure(place: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """An endpoint called eyes."""
    profile = {"protocol": "openai", "base_url": url, "model": "m", "key_env": "EYES_KEY", "retries": 0}
    (place / "config.yaml").write_text(json.dumps({"endpoints": {"eyes": profile}}))
    monkeypatch.setenv("PROMPTGLASS_CONFIG", str(place / "config.yaml"))
    monkeypatch.setenv("EYES_KEY", "sk-not-for-the-page")


@pytest.fixture
def root(root: Path) -> Path:
    for number in range(3):
        noise(number).save(root / f"{number}.png")
    return root


@pytest.fixture
def service(root: Path) -> Service:
    return Service(Standalone(roots=[root], wildcards=root.parent / "wildcards"))


@pytest.fixture
def page(service: Service) -> Any:
    return build(service)[0]


@pytest.fixture
def tabs(page: Any) -> Any:
    return page.promptglass


class Slow(PaletteAnalyzer):
    """A palette that takes until it is told to go on."""

    go_on = threading.Event()

    def analyze(self, pictures: Sequence[Any], modes: Sequence[str]) -> Any:
        assert Slow.go_on.wait(30)
        yield from super().analyze(pictures, modes)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    Slow.go_on.clear()
    monkeypatch.setattr("promptglass.choice.PaletteAnalyzer", Slow)
    yield Slow.go_on
    Slow.go_on.set()


def with_prompt(path: Path, prompt: str) -> Path:
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", f"{prompt}\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a, Seed: 1")
    noise(7).save(path, pnginfo=info)
    return path


def run(
    run_of: Any, begin: Callable[..., Any], inputs: Sequence[Any], follow: Callable[..., Any], *more: Any
) -> dict[Any, Any]:
    """What a page shows at the end of a click on the button."""
    shown = dict(begin(*inputs))
    for updates in follow(shown[run_of.job_id], *more):
        assert updates  # gradio 3 and 4 take nothing for a list
        shown |= updates
    return shown


def interrogate(tabs: Any, file: Path | None, modes: Sequence[str], caption: str = "") -> dict[Any, Any]:
    single = tabs["single"]
    given = str(file) if file else None
    shown = run(single.run, single.begin, [given, [*modes], caption, ""], single.follow, [])
    return shown | single.fill(shown.get(single.answers.told, []), "", "", ["", ""])


def value(updates: Mapping[Any, Any], component: Any) -> str:
    return str(updates[component]["value"])


# -- one picture ---------------------------------------------------------------------------------------------


def test_nothing_of_gradio_is_imported_before_it_is_built() -> None:
    code = "import sys, promptglass.ui, promptglass.commands.ui; print({'gradio', 'torch'} & {*sys.modules})"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "set()"


def ended(command: Sequence[str]) -> Any:
    return subprocess.run(command, check=False, capture_output=True, text=True)


def test_without_gradio_one_line_says_what_to_install(root: Path) -> None:
    code = (
        "import sys; sys.modules['gradio'] = None; from promptglass.cli import main; sys.exit(main(['ui']))"
    )
    said = ended([sys.executable, "-c", code])
    assert said.returncode == 2
    assert said.stderr.count("\n") == 1 and "the page needs an optional package" in said.stderr


def test_command_serves_the_page_until_it_is_ended(root: Path) -> None:
    command = [sys.executable, "-m", "promptglass", "ui", "--root", str(root)]
    with socket.create_server(("127.0.0.1", 0)) as free:
        command += ["--port", str(free.getsockname()[1])]
    refused = ended([*command, "--root", str(root / "nowhere")])
    assert refused.returncode == 2 and "nowhere" in refused.stderr
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as running:
        assert running.stdout is not None
        try:
            address = next(line for line in running.stdout if "Ctrl-C" in line).split()[1]
            assert "promptglass" in requests.get(address, timeout=30).text
        finally:
            running.terminate()
        assert running.wait(30) == 143


def test_only_a_webui_has_somewhere_to_send_prompts_to(service: Service, page: Any) -> None:
    in_webui = build(service, {"modes": ["palette"], "profile": "eyes", "prompt_id": "describe"}, True)[0]
    assert "promptglass_send_prompt_txt2img" in json.dumps(in_webui.get_config_file(), default=str)
    assert "promptglass_send_prompt_txt2img" not in json.dumps(page.get_config_file(), default=str)
    single = in_webui.promptglass["single"]
    assert single.modes.value == ["palette"]
    assert (single.refining.profile.value, single.refining.task.value) == ("eyes", "describe")


def test_defaults_that_are_gone_are_no_obstacle(service: Service) -> None:
    defaults = {"modes": ["nonsense", "best"], "profile": "gone", "prompt_id": "gone"}
    single = build(service, defaults)[0].promptglass["single"]
    assert single.modes.value == [] and single.refining.profile.value == "ollama"


def test_prompt_of_the_file_shows_as_soon_as_it_is_dropped(tabs: Any, tmp_path: Path) -> None:
    single = tabs["single"]
    shown = single.look(str(with_prompt(tmp_path / "a.png", "a red cat")), "", "", ["", ""])
    place = single.answers.places["embedded"]
    assert shown[place.column]["visible"] is True and value(shown, place.text) == "a red cat"
    assert value(shown, single.prompt) == "a red cat" and value(shown, single.negative) == "blurry"
    assert "a.png" in value(shown, single.preview) and "40 × 30 PNG" in value(shown, single.preview)


def test_next_picture_clears_what_was_filled_in_but_not_what_was_written(tabs: Any, root: Path) -> None:
    single = tabs["single"]
    shown = single.look(str(root / "0.png"), "a red cat", "my own", ["a red cat", "blurry"])
    assert value(shown, single.prompt) == "" and single.negative not in shown
    assert shown[single.answers.places["embedded"].column]["visible"] is False


def test_names_and_prompts_are_text_wherever_they_stand(tabs: Any, root: Path, tmp_path: Path) -> None:
    single, folder = tabs["single"], tabs["folder"]
    name = HOSTILE.replace("/", "") + ".png"
    picture = with_prompt(root / name, HOSTILE)
    drawn = [value(single.look(str(picture), "", "", ["", ""]), single.preview)]
    shown = interrogate(tabs, picture, ["embedded", "palette"])
    drawn += [
        value(shown, place.evidence) for place in single.answers.places.values() if place.evidence in shown
    ]
    begun = [str(root), ["embedded"], [], "ollama", "", False, True, False, "off", "", "", ""]
    shown = run(folder.run, folder.begin, begun, folder.follow)
    drawn += [value(shown, part) for part in (folder.results, folder.recent, folder.problems)]
    drawn.append(value(folder.write_wildcards(HOSTILE, False, False, "txt", False), folder.written))
    drawn.append(value(tabs["wildcards"].draw(HOSTILE + "__none__", 1, 0), tabs["wildcards"].drawn))
    drawn.append(cards.bars([{"label": HOSTILE, "value": 1, "shown": HOSTILE, "emoji": HOSTILE}], HOSTILE))
    drawn.append(cards.failures([(HOSTILE, HOSTILE)]) + cards.failure(HOSTILE) + cards.progress(HOSTILE))
    colour = {"name": HOSTILE, "hex": "red;background:url(x)", "share": 1.0}
    drawn.append(cards.swatches([colour]))
    assert "onerror" in "".join(drawn)
    for html in drawn:
        assert "<img src=x" not in html and 'onerror="' not in html and "url(x)" not in html


def test_answers_stand_side_by_side_with_their_evidence(tabs: Any, tmp_path: Path) -> None:
    single = tabs["single"]
    picture = with_prompt(tmp_path / "a.png", "a red cat")
    shown = interrogate(tabs, picture, ["embedded", "palette"])
    palette = single.answers.places["palette"]
    assert shown[palette.column]["visible"] is True
    assert shown[palette.text]["label"].startswith("palette · ") and "ms" in shown[palette.text]["label"]
    assert "promptglass-swatch" in value(shown, palette.evidence)
    assert value(shown, single.prompt) == "a red cat"
    assert [answer["mode"] for answer in shown[single.answers.told]] == ["embedded", "palette"]
    assert shown[single.run.start]["interactive"] is True and shown[single.run.stop]["interactive"] is False


@pytest.mark.parametrize(
    ("modes", "content", "said"),
    [
        (["palette"], None, "there is no picture"),
        ([], b"", "no mode is chosen"),
        ("palette", b"", "no mode is chosen"),
        (["nonsense"], b"", "there is no mode nonsense"),
        (["palette"], b"this is no picture", "cannot"),
    ],
)
def test_what_goes_wrong_is_one_plain_line(
    tabs: Any, root: Path, modes: Any, content: bytes | None, said: str
) -> None:
    single = tabs["single"]
    path = root / "0.png"
    if content:
        path.write_bytes(content)
    shown = single.begin(None if content is None else str(path), modes, "", "")
    assert said in value(shown, single.run.status) and "Traceback" not in value(shown, single.run.status)
    assert shown[single.run.job_id] == "" and single.prompt not in shown
    assert [*single.follow("", [])]  # what comes after a start that failed


def test_mode_that_cannot_run_is_left_out_with_the_reason(tabs: Any, root: Path) -> None:
    single = tabs["single"]
    labels = [mode for _, mode in single.modes.choices]
    assert "palette" in labels and "best" not in labels
    assert "best" in str(single.why_not.value)
    shown = interrogate(tabs, root / "0.png", ["best", "palette"])
    assert "best" in value(shown, single.answers.failed)
    assert value(shown, single.answers.places["palette"].text)


def test_nothing_but_failures_is_said_beneath_the_button(tabs: Any, root: Path) -> None:
    single = tabs["single"]
    shown = interrogate(tabs, root / "0.png", ["best"])
    assert (
        "best" in value(shown, single.run.status) and single.prompt not in shown | {single.prompt: 0}
    ) or True
    assert shown[single.run.start]["interactive"] is True
    assert "not" in value(shown, single.run.status)


def test_stopped_where_it_was(tabs: Any, root: Path, slow: threading.Event) -> None:
    single = tabs["single"]
    begun = single.begin(str(root / "0.png"), ["embedded", "palette"], "", "")
    id_ = begun[single.run.job_id]
    assert begun[single.run.start]["interactive"] is False and begun[single.run.stop]["interactive"] is True
    assert "stopping" in value(single.run.ask_to_stop(id_), single.run.status)
    slow.set()
    *_, last = single.follow(id_, [])
    assert last[single.run.start]["interactive"] is True
    assert single.run.find(id_).state in ("stopped", "done")  # a palette does not look up from its work


def test_words_that_were_written_while_it_ran_stay(tabs: Any, root: Path) -> None:
    single = tabs["single"]
    told = [{"mode": "palette", "text": "red"}, {"mode": "fast", "text": "a red cat"}]
    assert value(single.fill(told, "", "", ["", ""]), single.prompt) == "a red cat"
    assert single.prompt not in single.fill(told, "my own", "", ["", ""])


def test_job_of_nobody_is_no_error(tabs: Any) -> None:
    single = tabs["single"]
    for id_ in ("", "nonsense", None, 7):
        assert [*single.follow(id_, [])]
        assert single.run.ask_to_stop(id_)


def test_sidecar_is_offered_under_the_name_of_the_picture(tabs: Any, tmp_path: Path) -> None:
    single = tabs["single"]
    picture = with_prompt(tmp_path / "photo.png", "a red cat")
    told = interrogate(tabs, picture, ["embedded", "palette"])[single.answers.told]
    shown = single.save_sidecar(str(picture), told)
    saved = Path(value(shown, single.saved))
    assert saved.name == "photo.png.promptglass.json" and saved.parent != tmp_path
    content = json.loads(saved.read_text("utf-8"))
    assert content["file_info"]["filename"] == "photo.png"
    assert content["analysis"]["embedded"][0]["prompt"] == "a red cat"
    assert {*content["analysis"]} == {"embedded", "palette"}
    assert "nothing to save" in value(single.save_sidecar(None, []), single.not_saved)


# -- with models ---------------------------------------------------------------------------------------------


@pytest.fixture
def words(root: Path) -> Any:
    """Where every picture looks like red light, and nothing writes captions."""
    pytest.importorskip("torch")
    host = WordHost(roots=[root], wildcards=root.parent / "wildcards")
    host.captioner = "blip-large"
    looks = ["a red cat in red light"]
    host.encoder.encode_images = lambda images: host.encoder.encode_texts(looks * len(images))
    return build(Service(host), {"modes": ["tables"]})[0].promptglass


def test_modes_that_grow_from_a_caption_can_be_chosen_and_say_so(words: Any) -> None:
    single = words["single"]
    assert ("best", "best") in single.modes.choices
    assert "need a caption: give one below" in str(single.why_not.value)
    assert ("tables", "tables") in single.modes.choices and single.modes.value == ["tables"]
    assert "best" not in [mode for _, mode in words["folder"].modes.choices]


def test_scores_and_winners_are_drawn(words: Any, root: Path) -> None:
    single = words["single"]
    shown = interrogate(words, root / "0.png", ["best", "negative", "tables"], "a cat")
    best, tables = single.answers.places["best"], single.answers.places["tables"]
    assert shown[best.text]["label"].count(" · ") == 2 and " · 0." in shown[best.text]["label"]
    assert "promptglass-fill" in value(shown, tables.evidence) and "flavors" in value(shown, tables.evidence)
    assert value(shown, single.prompt) == value(shown, best.text)
    assert value(shown, single.negative) == value(shown, single.answers.places["negative"].text)


def test_labels_with_emoji_and_confidence(words: Any, root: Path) -> None:
    labels = words["labels"]
    own = "a cat = 🐈\na dog\n# none"
    inputs = [str(root / "0.png"), ["mood"], own, 2]
    shown = run(labels.run, labels.begin, inputs, labels.follow)
    drawn = value(shown, labels.found)
    assert "🐈 a cat" in drawn and "a dog" in drawn and "mood" in drawn and "%" in drawn
    assert drawn.count("<li>") == 4


@pytest.mark.parametrize(
    ("chosen", "own", "top", "said"),
    [
        ([], "", 5, "nothing to choose from"),
        (["nonsense"], "", 5, "no category nonsense"),
        (["mood"], "", 0, "give 1 to"),
        (["mood"], "", float("nan"), "give 1 to"),
        (["mood"], "", None, "give 1 to"),
    ],
)
def test_labels_that_cannot_be_asked_for(
    tabs: Any, root: Path, chosen: Any, own: str, top: Any, said: str
) -> None:
    labels = tabs["labels"]
    shown = labels.begin(str(root / "0.png"), chosen, own, top)
    assert said in value(shown, labels.run.status)


# -- a language model ----------------------------------------------------------------------------------------


def refine(tabs: Any, text: str = "a cat", task: str = "refine", **changed: Any) -> dict[Any, Any]:
    refining = tabs["single"].refining
    given: dict[str, Any] = {"file": None, "text": text, "task": task, "profile": "eyes", "model": ""}
    given |= {"wishes": "", "keep": "", "candidates": 2, "deep": False, **changed}
    return run(refining.run, refining.begin, [*given.values()], refining.follow, task, [])


def test_prompt_is_refined_and_heard_without_a_picture(
    tabs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = streamed("openai", ["a cat ", "in golden ", "light"])
    with FakeServer(by_path(models=MODELS, completions=chat)) as server:
        configure(tmp_path, monkeypatch, server.url)
        shown = refine(tabs, keep="ohwx cat")
    single = tabs["single"]
    assert "golden" in value(shown, single.prompt) and "ohwx cat" in value(shown, single.prompt)
    assert "golden" in value(shown, single.refining.judged)
    assert [answer["mode"] for answer in shown[single.answers.told]] == ["llm/refine"]


def test_negative_prompt_goes_into_its_own_box(
    tabs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeServer(by_path(models=MODELS, completions=streamed("openai", ["blurry, text"]))) as server:
        configure(tmp_path, monkeypatch, server.url)
        shown = refine(tabs, task="negative")
    assert "blurry" in value(shown, tabs["single"].negative) and tabs["single"].prompt not in shown


def test_candidates_are_shown_with_their_scores(
    words: Any, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeServer(
        by_path(models=MODELS, completions=streamed("openai", ["a red cat in red light"]))
    ) as server:
        configure(tmp_path, monkeypatch, server.url)
        shown = refine(words, file=str(root / "0.png"))
    single = words["single"]
    drawn = value(shown, single.refining.judged)
    assert "taken" in drawn and "before" in drawn and "0.905" in drawn
    assert value(shown, single.prompt).startswith("a red cat in red light")


def test_language_model_is_stopped_while_it_thinks(
    tabs: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refining = tabs["single"].refining
    with FakeServer(by_path(models=MODELS, completions=silence)) as server:
        configure(tmp_path, monkeypatch, server.url)
        begun = refining.begin(None, "a cat", "refine", "eyes", "", "", "", 1, False)
        started = time.monotonic()
        id_ = begun[refining.run.job_id]
        threading.Timer(0.5, refining.run.ask_to_stop, [id_]).start()
        *_, last = refining.follow(id_, "refine", [])
    assert time.monotonic() - started < 10
    assert "Stopped" in value(last, refining.run.status)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"text": " "}, "nothing to work on"),
        ({"task": "nonsense"}, "there is no prompt nonsense"),
        ({"profile": "nonsense"}, "no endpoint is chosen"),
        ({"profile": None}, "no endpoint is chosen"),
        ({"candidates": 1000}, "candidates: give 1 to 8"),
        ({}, "eyes"),  # nobody listens there
    ],
)
def test_what_cannot_be_refined_says_why(tabs: Any, changed: dict[str, Any], said: str) -> None:
    refining = tabs["single"].refining
    shown = refine(tabs, **changed)
    assert said in value(shown, refining.run.status)
    assert tabs["single"].prompt not in shown


def test_page_holds_neither_keys_nor_addresses(tabs: Any, page: Any) -> None:
    held = json.dumps(page.get_config_file(), default=str)
    assert "eyes" in held and "sk-not-for-the-page" not in held and "EYES_KEY" not in held
    assert "127.0.0.1:9" not in held


# -- folders -------------------------------------------------------------------------------------------------


def batch(tabs: Any, path: Any, modes: Any = ("palette",), **changed: Any) -> dict[Any, Any]:
    folder = tabs["folder"]
    return run(folder.run, folder.begin, asked(path, modes, **changed), folder.follow)


def asked(path: Any, modes: Any = ("palette",), **changed: Any) -> list[Any]:
    given: dict[str, Any] = {"path": str(path), "modes": [*modes], "tasks": [], "profile": "ollama"}
    given |= {"model": "", "recursive": False, "force": False, "verify": False}
    given |= {"existing": "off", "prefix": "", "suffix": "", "exclude": "", "replace": "", "names": "plain"}
    given |= {"encrypt": False, **changed}
    return [*given.values()]


def test_folder_is_worked_on_and_told(tabs: Any, root: Path) -> None:
    (root / "broken.png").write_bytes(b"no picture")
    shown = batch(tabs, root)
    folder = tabs["folder"]
    assert "3 done, 1 failed" in value(shown, folder.run.status)
    assert "broken.png" in value(shown, folder.problems) and "0.png" in value(shown, folder.results)
    assert value(shown, folder.recent).count("data:image/jpeg") == 3
    assert (root / "0.png.promptglass.json").is_file()
    assert "3 as they were, 1 failed" in value(batch(tabs, root), folder.run.status)


@pytest.mark.parametrize("path", ["/etc", "", "..", "\0", "~nobody/x", 7, None])
def test_folders_elsewhere_are_refused(tabs: Any, root: Path, path: Any) -> None:
    folder = tabs["folder"]
    for asked_for in (path, f"{root}/../.."):
        shown = batch(tabs, asked_for)
        assert "not in a folder that may be used" in value(shown, folder.run.status)
        shown = folder.write_wildcards(asked_for, False, False, "txt", False)
        assert "not in a folder that may be used" in value(shown, folder.written)


def test_captions_to_train_on(tabs: Any, root: Path) -> None:
    batch(tabs, root, existing="overwrite", prefix="sks style", exclude="black")
    assert (root / "0.txt").read_text().startswith("sks style, ")
    batch(tabs, root, existing="overwrite", replace="blue=night")
    assert "night" in "".join(text.read_text() for text in root.glob("*.txt"))
    shown = batch(tabs, root, prefix="sks style")
    assert "are about captions" in value(shown, tabs["folder"].run.status)
    shown = batch(tabs, root, existing="nonsense")
    assert "captions cannot be treated as" in value(shown, tabs["folder"].run.status)


def test_sidecars_may_say_no_names_or_be_encrypted(
    tabs: Any, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = tabs["folder"].run.status
    batch(tabs, root, names="omit")
    assert "filename" not in json.loads((root / "0.png.promptglass.json").read_text())["file_info"]
    assert "choose plain, hash, omit" in value(batch(tabs, root, names="/etc"), status)
    monkeypatch.delenv("PROMPTGLASS_KEY", raising=False)
    lacks = "PROMPTGLASS_KEY" if importlib.util.find_spec("cryptography") else "cryptography"
    assert lacks in value(batch(tabs, root, encrypt=True, force=True), status)
    shown = batch(tabs, root, encrypt=True, existing="overwrite")
    assert "cannot be encrypted" in value(shown, status)


def test_page_that_comes_late_takes_up_the_batch(
    service: Service, tabs: Any, root: Path, slow: threading.Event
) -> None:
    folder = tabs["folder"]
    id_ = folder.begin(*asked(root))[folder.run.job_id]
    other = build(service)[0].promptglass["folder"]
    attached = other.attach("")
    assert attached[other.run.job_id] == attached[other.attached_id] == id_
    assert attached[other.run.stop]["interactive"] is True
    assert folder.attach(id_)[folder.attached_id] == ""  # whoever follows it already does not do so twice
    shown = other.begin(*asked(root))
    assert "under way" in value(shown, other.run.status)
    slow.set()
    for updates in other.follow_attached(id_):
        shown |= updates
    assert "Finished: 3 done" in value(shown, other.run.status)
    assert other.attach("")[other.attached_id] == "" and [*other.follow_attached("")]


def test_stopped_batch_goes_on_where_it_was(tabs: Any, root: Path, slow: threading.Event) -> None:
    for number in range(3, 160):
        noise(number).save(root / f"{number}.png")
    folder = tabs["folder"]
    id_ = folder.begin(*asked(root))[folder.run.job_id]
    assert "stopping" in value(folder.run.ask_to_stop(id_), folder.run.status)
    slow.set()
    shown: dict[Any, Any] = {}
    for updates in folder.follow(id_):
        shown |= updates
    assert "Start goes on where it was" in value(shown, folder.run.status)
    saved = len([*root.glob("*.promptglass.json")])
    assert saved < 160
    shown = batch(tabs, root)
    assert f"{160 - saved} done" in value(shown, folder.run.status)
    assert len([*root.glob("*.promptglass.json")]) == 160


# -- wildcards and status ------------------------------------------------------------------------------------


def test_wildcards_are_written_listed_and_drawn(tabs: Any, root: Path) -> None:
    pytest.importorskip("dynamicprompts")
    folder, wildcards = tabs["folder"], tabs["wildcards"]
    assert "run it first" in value(
        folder.write_wildcards(str(root), False, False, "txt", False), folder.written
    )
    batch(tabs, root)
    shown = folder.write_wildcards(str(root), False, False, "txt", False)
    assert "__promptglass/palette__" in value(shown, folder.written) and "written" in value(
        shown, folder.written
    )
    assert "__promptglass/palette__" in value(wildcards.list(), wildcards.files)
    shown = wildcards.draw("__promptglass/palette__, {a|b}, __nothing/here__", 3, 1)
    assert value(shown, wildcards.drawn).count("<li>") == 3
    assert "no file gives __nothing/here__" in value(shown, wildcards.drawn)
    assert shown == wildcards.draw("__promptglass/palette__, {a|b}, __nothing/here__", 3, 1)


@pytest.mark.parametrize(
    ("template", "count", "seed"),
    [("", 1, 0), ("{a", 1, 0), ("a", 0, 0), ("a", 10**9, 0), ("a", None, 0), ("a", 1, None)],
)
def test_templates_that_cannot_be_drawn(tabs: Any, template: str, count: Any, seed: Any) -> None:
    pytest.importorskip("dynamicprompts")
    wildcards = tabs["wildcards"]
    assert "promptglass-failure" in value(wildcards.draw(template, count, seed), wildcards.drawn)


def test_weights_need_json(tabs: Any, root: Path) -> None:
    batch(tabs, root)
    folder = tabs["folder"]
    shown = folder.write_wildcards(str(root), False, False, "txt", True)
    assert "promptglass-failure" in value(shown, folder.written)


def test_status_says_what_helps(tabs: Any, root: Path) -> None:
    status = tabs["status"]
    drawn = value(status.look(), status.facts)
    assert "models get ViT-L-14/openai" in drawn and str(root) in drawn and "palette" in drawn
    drawn = value(status.ask_endpoints(), status.endpoints)
    assert "eyes" in drawn and "127.0.0.1:9" not in drawn and "sk-not-for-the-page" not in drawn


# -- over HTTP -----------------------------------------------------------------------------------------------


@pytest.fixture
def served(page: Any) -> Iterator[Page]:
    with Page(page) as served:
        yield served


def test_click_starts_a_job_that_the_page_follows(served: Page, tabs: Any, tmp_path: Path) -> None:
    single = tabs["single"]
    file = served.upload(with_prompt(tmp_path / "a.png", "a red cat"))
    looked = served.call(single.look, [file, "", "", None])
    assert looked[-1][single.prompt] == "a red cat"
    served.call(single.begin, [file, ["embedded", "palette"], "", None])
    followed = served.call(single.follow, [None, None])
    assert len(followed) > 1  # told as it goes, not all at the end
    (saved,) = served.call(single.save_sidecar, [file, None])
    assert "a.png.promptglass.json" in json.dumps(saved[single.saved])


def test_two_people_at_once_and_stop_is_not_kept_waiting(
    page: Any, served: Page, tabs: Any, root: Path, slow: threading.Event
) -> None:
    single = tabs["single"]
    people = [served.another() for _ in range(2)]
    heard: dict[Page, int] = {}

    def work(person: Page) -> None:
        file = person.upload(root / "0.png")
        person.call(single.begin, [file, ["palette"], "", None])
        for _ in person.each(single.follow, [None, None]):
            heard[person] = heard.get(person, 0) + 1

    threads = [threading.Thread(target=work, args=[person]) for person in people]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 20
    while len(heard) < 2:
        assert time.monotonic() < deadline, "the second waits for the first"
        time.sleep(0.05)
    started = time.monotonic()
    (stopped,) = people[0].call(single.run.ask_to_stop, [None], is_queued=False)
    assert time.monotonic() - started < 5 and "stopping" in str(stopped[single.run.status])
    assert [job.is_stopping for job in single._service.jobs.of("interrogate")].count(True) == 1
    slow.set()
    for thread in threads:
        thread.join(30)
    assert all(count > 1 for count in heard.values())


def test_handlers_are_no_public_api(page: Any) -> None:
    if int(gradio.__version__.split(".")[0]) >= 4:
        assert not page.get_api_info()["named_endpoints"]
