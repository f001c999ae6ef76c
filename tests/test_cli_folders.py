"""`batch` and `wildcards`, as a person and as a script meet them."""

from __future__ import annotations

import json
import re
import shutil
import time
from pathlib import Path

import jsonschema
import pytest
from dynamicprompts.generators import CombinatorialPromptGenerator
from dynamicprompts.wildcards import WildcardManager
from families import write_transformers_model
from test_batch import SCHEMA
from test_caption import write_captioner

from promptglass.analyzers import MODES
from promptglass.cli import main
from promptglass.journal import NAME as JOURNAL
from promptglass.sidecar import path_of
from promptglass.terminal import BatchProgress

SAMPLES = Path(__file__).parent.parent / "samples"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("PROMPTGLASS_KEY", raising=False)


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> list[str]:
    """Options for a tiny CLIP, a tiny BLIP and a small vocabulary."""
    folder = tmp_path_factory.mktemp("models")
    write_transformers_model(folder / "clip", "clip")
    write_captioner(folder / "blip", "blip")
    (folder / "words.txt").write_text("red sky\nblue sea\n100% cotton {soft|hard}\noil painting\n", "utf-8")
    tables = f"mediums,flavors={folder / 'words.txt'}"
    return ["--model", str(folder / "clip"), "--captioner", str(folder / "blip"), "--device", "cpu",
            "--tables", tables]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "my pictures 🦊"
    (place / "trip").mkdir(parents=True)
    for name in ("cat.jpg", "coffee.jpg", "with-prompt.png"):
        shutil.copy(SAMPLES / name, place)
    shutil.copy(SAMPLES / "rocket.jpg", place / "trip")
    return place


def sidecars(folder: Path) -> dict[str, dict]:
    found = {}
    for path in sorted(folder.rglob("*.promptglass.json")):
        content = json.loads(path.read_text("utf-8"))
        jsonschema.validate(content, SCHEMA)
        found[path.name.removesuffix(".promptglass.json")] = content
    return found


def test_every_mode_of_a_folder_and_nothing_twice(folder: Path, models, capsys) -> None:
    pytest.importorskip("rapidocr")
    command = ["batch", str(folder), "--modes", "all", "--recursive", *models]
    assert main([*command, "--json"]) == 0
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {line["status"] for line in told} == {"done"} and len(told) == 4
    found = sidecars(folder)
    for content in found.values():
        assert {*content["analysis"]} == {*MODES}
    for line in told:
        by_mode = found[Path(line["picture"]).name]["analysis"]
        assert line["analysis"] == {
            mode: entries[0] if entries else None for mode, entries in by_mode.items()
        }
    best = found["cat.jpg"]["analysis"]["best"][0]
    assert best["score"] >= found["cat.jpg"]["analysis"]["fast"][0]["score"] - 1e-5
    assert found["cat.jpg"]["analysis"]["tables"][0]["tables"]["flavors"].keys() == {
        "red sky", "blue sea", "100% cotton {soft|hard}", "oil painting"
    }  # fmt: skip
    # What a sidecar says of settings is what the next run expects: no mode is computed again.
    assert main([*command, "--json"]) == 0
    captured = capsys.readouterr()
    assert "4 unchanged" in captured.err
    again = [json.loads(line) for line in captured.out.splitlines()]
    assert sorted([{**line, "status": "done"} for line in again], key=str) == sorted(told, key=str)
    assert main([*command, "--caption", "my own words"]) == 0
    assert "4 done" in capsys.readouterr().err
    analyses = [content["analysis"] for content in sidecars(folder).values()]
    twice = {mode for mode, entries in analyses[0].items() if len(entries) == 2}
    assert twice == {"caption", "best", "fast", "classic"}
    assert main([*command, "--caption", "other words", "--quiet"]) == 0
    assert len(sidecars(folder)["cat.jpg"]["analysis"]["fast"]) == 3


def test_answers_are_those_of_interrogate(folder: Path, models, capsys) -> None:
    options = ["--modes", "fast,best,negative,tags", "--json", *models]
    assert main(["interrogate", str(folder / "cat.jpg"), *options]) == 0
    (alone,) = map(json.loads, capsys.readouterr().out.splitlines())
    assert main(["batch", str(folder), *options]) == 0
    capsys.readouterr()
    together = sidecars(folder)["cat.jpg"]["analysis"]
    for answer in alone["answers"]:
        assert together[answer["mode"]][0]["prompt"] == answer["text"]


def test_without_models_the_folder_still_gets_what_can_run(folder: Path, capsys) -> None:
    assert main(["batch", str(folder)]) == 0
    captured = capsys.readouterr()
    assert "left out: best: ViT-L-14/openai is not here" in captured.err and "3 done" in captured.err
    assert {*sidecars(folder)["with-prompt.png"]["analysis"]} == {"embedded", "tags", "palette"}
    assert captured.out == ""


def test_a_mode_that_cannot_run_costs_no_other(folder: Path, capsys) -> None:
    assert main(["batch", str(folder), "--modes", "fast,palette"]) == 1
    errors = capsys.readouterr().err
    assert errors.count("left out from here on: fast: no weights for ViT-L-14/openai") == 1
    assert "3 done" in errors
    assert {*sidecars(folder)["cat.jpg"]["analysis"]} == {"palette"}
    for command in (["batch", str(folder)], ["interrogate", str(folder / "cat.jpg")]):
        assert main([*command, "--modes", "negative,tables"]) == 2
        errors = capsys.readouterr().err
        assert errors.count("no weights for ViT-L-14/openai") == 1  # both want it, it is said once


def test_broken_files_are_a_line_each_and_exit_1(folder: Path, capsys) -> None:
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert main(["batch", str(folder), "--modes", "palette", "--quiet"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "broken.png" in line
    assert json.loads((folder / JOURNAL).read_text())["picture"] == "broken.png"


def test_captions_to_train_on(folder: Path, capsys) -> None:
    (folder / "coffee.txt").write_text("a cup, by hand\n")
    options = ["--txt", "prepend", "--prefix", "sks", "--exclude", "tiger*", "--replace", "espresso=coffee"]
    assert main(["batch", str(folder), "--modes", "tags", *options]) == 0
    assert (folder / "cat.txt").read_text() == "sks, cat, Egyptian Mau\n"
    assert (folder / "coffee.txt").read_text() == "sks, coffee, a cup, by hand\n"
    assert main(["batch", str(folder), "--modes", "tags", *options]) == 0
    assert (folder / "coffee.txt").read_text() == "sks, coffee, a cup, by hand\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--prefix", "sks"], "add --txt"),
        (["--txt", "overwrite", "--encrypt"], "cannot be encrypted"),
        (["--txt", "overwrite", "--replace", "cat"], "cat"),
        (["--modes", "bset"], "there is no mode bset"),
        (["--encrypt", "--modes", "palette"], "PROMPTGLASS_KEY"),
    ],
)
def test_what_cannot_be_carried_out_is_one_line_and_exit_2(folder: Path, capsys, options, message) -> None:
    assert main(["batch", str(folder), "--quiet", *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert sidecars(folder) == {}
    assert main(["batch", str(folder / "nowhere")]) == 2


def test_encrypted_and_anonymous(folder: Path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("PROMPTGLASS_KEY", "hunter2")
    options = ["--modes", "palette", "--encrypt", "--anonymize", "omit", "--quiet"]
    assert main(["batch", str(folder), *options]) == 0
    assert {*sidecars(folder)["cat.jpg"]} == {"schema", "encrypted"}
    assert main(["batch", str(folder), "--modes", "palette"]) == 0
    assert "3 unchanged" in capsys.readouterr().err
    monkeypatch.setenv("PROMPTGLASS_KEY", "hunter3")
    for command in (
        ["batch", str(folder), "--modes", "palette"],
        ["wildcards", str(folder), "--out", str(folder)],
    ):
        assert main(command) == 2
        (line,) = [line for line in capsys.readouterr().err.splitlines() if "PROMPTGLASS_KEY" in line]
        assert "hunter" not in line


def test_a_log_is_rotated(folder: Path, tmp_path: Path) -> None:
    log = tmp_path / "run.log"
    log.write_bytes(b"x" * (5 << 20))
    assert main(["batch", str(folder), "--modes", "palette", "--quiet", "--log", str(log)]) == 0
    assert (tmp_path / "run.log.1").stat().st_size == 5 << 20 and 0 < log.stat().st_size < 10_000


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a disk that is always full")
def test_a_log_that_cannot_be_written_costs_no_work(folder: Path, capsys) -> None:
    assert main(["batch", str(folder), "--modes", "palette", "--quiet", "--log", "/dev/full"]) == 0
    assert capsys.readouterr().err.count("cannot be written any more") == 1
    assert len(sidecars(folder)) == 3


def test_a_log_tells_of_every_picture(folder: Path, tmp_path: Path) -> None:
    (folder / "broken.png").write_bytes(b"x")
    log = tmp_path / "run.log"
    assert main(["batch", str(folder), "--modes", "palette", "--quiet", "--log", str(log)]) == 1
    text = log.read_text("utf-8")
    assert "cat.jpg: done" in text and "ERROR cannot read" in text and "3 done, 1 failed" in text
    assert main(["batch", str(folder), "--quiet", "--log", str(tmp_path / "no" / "run.log")]) == 2


class Terminal:
    """A stream that says it is a terminal."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None: ...

    def isatty(self) -> bool:
        return True


def test_the_bar_tells_rate_file_and_failures() -> None:
    stream = Terminal()
    progress = BatchProgress(stream=stream)  # type: ignore[arg-type]
    progress.start(30)
    for number in range(30):
        time.sleep(0.02)
        progress("growing 8 prompts", 3, 32)
        progress.next(f"folder/{number} \x1b[2J🦊.png", min(number, 2))
    progress.close()
    assert "30/30" in stream.text and "picture/s" in stream.text and "\x1b[2J" not in stream.text
    assert re.search(r"growing 8 prompts 9%, \d+ .*🦊.png, 2 failed", stream.text)


def test_a_log_of_progress_has_a_line_every_ten_seconds(capsys, monkeypatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    progress = BatchProgress()
    progress.start(100)
    for number in range(100):
        now[0] += 0.5
        progress.next(f"{number}.png", int(number >= 7))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 5 and lines[0] == "20 of 100 pictures, 0:00:40 left, 19.png, 1 failed"
    for step in range(32):  # a model at work says so, too
        now[0] += 1
        progress("growing 8 prompts", step, 32)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3 and "growing 8 prompts 28%, 99.png" in lines[0]
    progress.close()


# -- wildcards --------------------------------------------------------------------------------------------


def test_dynamicprompts_samples_what_promptglass_wrote(folder: Path, models, tmp_path: Path, capsys) -> None:
    assert main(["batch", str(folder), "--modes", "all", "--recursive", "--quiet", *models]) == 0
    out = tmp_path / "wildcards"
    assert main(["wildcards", str(folder), "--recursive", "--out", str(out)]) == 0
    told = capsys.readouterr().out
    manager = WildcardManager(out)
    for name in (
        "best",
        "fast",
        "classic",
        "caption",
        "negative",
        "tags",
        "palette",
        "embedded",
        "medium",
        "flavor",
    ):
        assert f"__promptglass/{name}__" in told
        values = [*manager.get_values(f"promptglass/{name}").string_values]
        assert values
        generated = CombinatorialPromptGenerator(manager).generate(f"a, __promptglass/{name}__", 100)
        assert sorted(str(prompt) for prompt in generated) == sorted(f"a, {value}" for value in values)
    assert "cat, tiger cat, Egyptian Mau" in manager.get_values("promptglass/tags").string_values
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    assert main(["wildcards", str(folder), "--recursive", "--out", str(out)]) == 0
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}


def test_wildcards_per_folder_in_the_hosts_place(folder: Path, tmp_path: Path, capsys) -> None:
    assert main(["batch", str(folder), "--modes", "palette", "--recursive", "--quiet"]) == 0
    host = tmp_path / "webui"
    extension = host / "extensions" / "dynamic"
    (extension / "sd_dynamic_prompts").mkdir(parents=True)
    assert main(["wildcards", str(folder), "--per-folder", "--host", str(host), "--format", "json"]) == 0
    manager = WildcardManager(extension / "wildcards")
    assert len([*manager.get_values("promptglass/palette").string_values]) == 3
    assert len([*manager.get_values("promptglass/trip/palette").string_values]) == 1


def test_wildcards_of_nothing_and_of_broken_sidecars(folder: Path, tmp_path: Path, capsys) -> None:
    assert main(["wildcards", str(folder), "--out", str(tmp_path / "w")]) == 0
    assert "promptglass batch" in capsys.readouterr().out
    path_of(folder / "cat.jpg").write_text("{")
    assert main(["wildcards", str(folder), "--out", str(tmp_path / "w")]) == 1
    assert "cat.jpg" in capsys.readouterr().err
    assert main(["wildcards", str(folder), "--host", str(tmp_path)]) == 2
    with pytest.raises(SystemExit):
        main(["wildcards", str(folder)])
