"""The command line, as a person and as a script meet it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from families import write_transformers_model
from test_caption import write_captioner

from promptglass.analyzers import MODES, Answer
from promptglass.cli import main
from promptglass.errors import InputError
from promptglass.images import open_picture
from promptglass.terminal import TerminalProgress, table

SAMPLES = Path(__file__).parent.parent / "samples"
CAT, WITH_PROMPT = str(SAMPLES / "cat.jpg"), str(SAMPLES / "with-prompt.png")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> tuple[str, str]:
    """Folders of a tiny CLIP and a tiny BLIP."""
    folder = tmp_path_factory.mktemp("models")
    write_transformers_model(folder / "clip", "clip")
    write_captioner(folder / "blip", "blip")
    return str(folder / "clip"), str(folder / "blip")


@pytest.fixture
def tables(tmp_path: Path) -> list[str]:
    """Options that keep the vocabulary small."""
    (tmp_path / "words, mine.txt").write_text("red sky\nblue sea\noil painting\n", encoding="utf-8")
    (tmp_path / "words.txt").write_text("red sky\nblue sea\noil painting\n", encoding="utf-8")
    return ["--tables", f"mediums,flavors={tmp_path / 'words.txt'}"]


def answers(output: str) -> dict[str, dict]:
    (line,) = output.splitlines()
    return {answer["mode"]: answer for answer in json.loads(line)["answers"]}


def test_with_no_models_the_main_job_still_runs(capsys) -> None:
    assert main(["interrogate", CAT, WITH_PROMPT]) == 0
    captured = capsys.readouterr()
    rows = [line.split("\t") for line in captured.out.splitlines()]
    assert {(Path(name).name, mode) for name, mode, _ in rows} == {
        ("cat.jpg", "tags"), ("cat.jpg", "palette"),
        ("with-prompt.png", "embedded"), ("with-prompt.png", "tags"), ("with-prompt.png", "palette"),
    }  # fmt: skip
    assert any(mode == "tags" and "cat" in text for _, mode, text in rows)
    assert captured.err.splitlines() == [
        "promptglass: left out: best: "
        "ViT-L-14/openai is not here (promptglass models get ViT-L-14/openai); "
        "blip-large is not here (promptglass models get blip-large), or give --caption TEXT"
    ]


def test_json_has_one_line_per_picture_with_evidence(capsys) -> None:
    assert main(["interrogate", WITH_PROMPT, "--json", "--mode", "embedded,tags,palette"]) == 0
    found = answers(capsys.readouterr().out)
    assert found["embedded"]["source"] == "a1111" and "espresso" in found["embedded"]["positive"]
    assert found["tags"]["tags"][0]["label"] == "espresso"
    assert found["tags"]["model"] and found["tags"]["elapsed_s"] > 0
    assert sum(colour["share"] for colour in found["palette"]["colours"]) <= 1.0001


def test_every_mode_with_local_models(capsys, models, tables) -> None:
    pytest.importorskip("rapidocr")
    clip, blip = models
    options = ["--model", clip, "--captioner", blip, "--device", "cpu", *tables]
    assert main(["interrogate", CAT, "--mode", "all", "--json", *options]) == 0
    captured = capsys.readouterr()
    found = answers(captured.out)
    assert set(found) == {*MODES} - {"embedded"}
    assert "left out" not in captured.err
    assert found["fast"]["model"] == clip and -1 <= found["fast"]["score"] <= 1
    assert found["fast"]["settings"]["captioner"] == blip
    assert found["fast"]["text"].startswith(found["caption"]["text"])
    assert found["best"]["score"] >= max(found[mode]["score"] for mode in ("caption", "fast")) - 1e-6
    assert set(found["negative"]["text"].split(", ")) <= {"red sky", "blue sea", "oil painting"}


def test_a_caption_of_the_users_own_needs_no_captioner(capsys, models, tables) -> None:
    options = ["--model", models[0], "--device", "cpu", "--caption", "a cat, my own words", *tables]
    assert main(["interrogate", CAT, "--mode", "fast,classic", *options]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [mode for _, mode, _ in rows] == ["fast", "classic"]
    assert all(text.startswith("a cat, my own words, ") for *_, text in rows)


def test_without_captioner_clip_modes_say_what_to_do(capsys, models, tables) -> None:
    assert main(["interrogate", CAT, "--mode", "all", "--model", models[0], "--device", "cpu", *tables]) == 0
    captured = capsys.readouterr()
    assert "caption, best, fast, classic" in captured.err and "--caption TEXT" in captured.err
    assert "\tnegative\t" in captured.out


def test_without_captioner_what_needs_no_caption_is_answered(capsys, models, tables) -> None:
    options = ["--model", models[0], "--device", "cpu", *tables]
    assert main(["interrogate", CAT, "--modes", "fast,negative,tables", *options]) == 1
    captured = capsys.readouterr()
    assert [line.split("\t")[1] for line in captured.out.splitlines()] == ["negative", "tables"]
    (line,) = [line for line in captured.err.splitlines() if line.startswith("promptglass: ")]
    assert "blip-large" in line


def test_a_broken_picture_is_one_line_and_the_rest_succeeds(capsys, tmp_path: Path) -> None:
    broken = tmp_path / "broken\nname 🐈.jpg"
    broken.write_bytes(Path(CAT).read_bytes()[:2000])
    assert main(["interrogate", str(broken), CAT, str(tmp_path / "missing.png"), "--mode", "palette"]) == 1
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == 1
    assert [line.count("cannot read") for line in captured.err.splitlines()] == [1, 1]
    assert main(["interrogate", str(broken), CAT, "--mode", "palette", "--json"]) == 1
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["picture"] == str(broken) and "cannot read" in first["error"]
    assert "error" not in second


def test_a_mode_that_fails_costs_no_other_answer(capsys, tmp_path: Path) -> None:
    options = ["--mode", "embedded,tags,palette", "--tagger", str(tmp_path)]
    assert main(["interrogate", WITH_PROMPT, CAT, *options]) == 1
    captured = capsys.readouterr()
    assert [line.split("\t")[1] for line in captured.out.splitlines()] == ["embedded", "palette", "palette"]
    (line,) = captured.err.splitlines()  # said once, not for every picture
    assert str(tmp_path) in line
    assert main(["interrogate", CAT, "--mode", "tags", "--tagger", str(tmp_path)]) == 2


def test_json_is_right_in_every_encoding(tmp_path: Path) -> None:
    picture = tmp_path / "猫.jpg"
    picture.write_bytes(Path(CAT).read_bytes())
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}
    found = run("interrogate", str(picture), "--mode", "palette", "--json", env=environment)
    assert json.loads(found.stdout)["picture"] == str(picture)


def test_no_secret_of_an_address_is_repeated(capsys) -> None:
    address = "http://user:hunter2@127.0.0.1:9/x.png?token=SECRET"
    assert main(["interrogate", address, "--mode", "palette", "--json"]) == 1
    captured = capsys.readouterr()
    assert "127.0.0.1" in captured.out
    assert not any(secret in captured.out + captured.err for secret in ("hunter2", "SECRET"))


def test_a_model_of_another_kind_is_refused_before_it_is_fetched(capsys) -> None:
    assert main(["interrogate", CAT, "--mode", "fast", "--caption", "x", "--model", "blip-large"]) == 2
    assert "blip-large is for caption, not for clip" in capsys.readouterr().err
    assert main(["interrogate", CAT, "--mode", "caption", "--captioner", "ViT-L-14/openai"]) == 2
    assert main(["interrogate", CAT, "--model", "nosuch"]) == 0
    assert "no model and no file is called nosuch" in capsys.readouterr().err


def test_a_cache_that_cannot_be_written_is_one_line(
    capsys, models, tables, tmp_path: Path, monkeypatch
) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    options = ["--model", models[0], "--device", "cpu", "--caption", "a cat", *tables]
    assert main(["interrogate", CAT, "--mode", "fast", *options]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "embeddings" in line]
    assert "XDG_CACHE_HOME" in line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--mode", "bset"], "there is no mode bset"),
        (["--mode", ","], "there is no mode"),
        (["--tables", "flavours"], "there is no table flavours"),
        (["--tables", "flavours=off"], "there is no table flavours"),
        (["--tables", "flavors=/no/such/file.txt"], "cannot read the table"),
        (["--mode", "tags", "--tagger", "/no/such/tagger"], "/no/such/tagger"),
        (["--mode", "best", "--device", "toaster"], "toaster"),
    ],
)  # fmt: skip
def test_what_cannot_be_carried_out_is_one_line_and_exit_2(capsys, options: list[str], message: str) -> None:
    assert main(["interrogate", CAT, *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_weights_that_are_nowhere_give_three_ways_out(capsys) -> None:
    assert main(["interrogate", CAT, "--mode", "fast", "--caption", "a cat"]) == 2
    message = capsys.readouterr().err
    assert "ViT-L-14/openai" in message and "promptglass models get" in message and "--model PATH" in message
    assert "Traceback" not in message


def test_tables_are_chosen_replaced_extended_and_switched_off(tmp_path: Path) -> None:
    from promptglass.clip.tables import choose_tables, default_tables

    mine = tmp_path / "mine.txt"
    mine.write_text("alpha\nbeta\n")
    default = default_tables()
    assert choose_tables([]) == default
    assert list(choose_tables(["mediums,movements"])) == ["mediums", "movements"]
    assert (choose_tables([f"flavors={mine}"]))["flavors"] == ["alpha", "beta"]
    assert (choose_tables([f"flavors+={mine}"]))["flavors"] == [*default["flavors"], "alpha", "beta"]
    assert (choose_tables([f"styles={mine}", "mediums"])) == {
        "mediums": default["mediums"],
        "styles": ["alpha", "beta"],
    }
    comma = tmp_path / "words, mine.txt"
    comma.write_text("gamma\n")
    found = choose_tables([f"mediums,flavors={comma}"])
    assert found == {"mediums": default["mediums"], "flavors": ["gamma"]}
    for wrong in ("=x.txt", "+=x.txt", "=off"):
        with pytest.raises(InputError):
            choose_tables([wrong])
    without = choose_tables(["artists=off"])
    assert "artists" not in without and len(without["flavors"]) < len(default["flavors"])


def test_models_are_listed_with_size_licence_and_place(capsys) -> None:
    assert main(["models"]) == 0
    out = capsys.readouterr().out
    assert "ViT-L-14/openai" in out and "GB" in out and "MIT" in out and "not here" in out


def test_getting_a_model_offline_is_one_message(capsys) -> None:
    assert main(["models", "get", "blip-large"]) == 2
    assert "HF_HUB_OFFLINE" in capsys.readouterr().err


def run(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "promptglass", *arguments],
        capture_output=True,
        text=True,
        check=False,
        encoding="utf-8",
        **options,
    )


def test_version_and_help_as_a_module() -> None:
    assert run("--version").stdout.startswith("promptglass 0.")
    for arguments in (
        ["--help"],
        *([name, "--help"] for name in ("interrogate", "batch", "wildcards", "models")),
    ):
        found = run(*arguments)
        assert found.returncode == 0 and "usage: promptglass" in found.stdout
    assert "embedded" in run("interrogate", "--help").stdout
    assert run().returncode == 2


@pytest.mark.parametrize(
    "code", ["import promptglass", "import promptglass.cli", "import promptglass.analyzers"]
)
def test_imports_are_cheap(code: str) -> None:
    heavy = "('torch', 'transformers', 'open_clip', 'numpy', 'PIL', 'huggingface_hub', 'requests', 'tqdm')"
    found = subprocess.run(
        [sys.executable, "-c", f"{code}; import sys; print([m for m in {heavy} if m in sys.modules])"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert found.stdout.strip() == "[]"


@pytest.mark.long
@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT")
def test_ctrl_c_keeps_what_was_computed(models, tmp_path: Path) -> None:
    """On the real lists: the tiny model takes a while to embed a hundred thousand labels."""
    command = [
        sys.executable,
        "-m",
        "promptglass",
        "interrogate",
        CAT,
        "--mode",
        "fast",
        "--caption",
        "a cat",
    ]
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache"), "PYTHONUNBUFFERED": "1"}
    child = subprocess.Popen(
        [*command, "--model", models[0], "--device", "cpu"],
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert child.stderr is not None
    for line in child.stderr:
        if line.startswith("embedding labels: ") and not line.startswith("embedding labels: 0 "):
            break
    child.send_signal(signal.SIGINT)
    rest = child.stderr.read()
    assert child.wait() == 130
    assert "Traceback" not in rest and "stopped" in rest
    (part,) = (tmp_path / "cache" / "promptglass" / "embeddings").glob("*.part")
    assert part.stat().st_size > 0


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    pictures = " ".join([f"'{CAT}'"] * 5)
    shell = f"'{sys.executable}' -m promptglass interrogate {pictures} --mode palette | head -1"
    found = subprocess.run(shell, shell=True, capture_output=True, text=True, check=False)
    assert "Traceback" not in found.stderr and "BrokenPipe" not in found.stderr


def test_a_console_without_unicode_gets_stand_ins(tmp_path: Path) -> None:
    picture = tmp_path / "猫 🐈.jpg"
    picture.write_bytes(Path(CAT).read_bytes())
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}
    found = run("interrogate", str(picture), "--mode", "palette", env=environment)
    assert found.returncode == 0 and "palette" in found.stdout


def test_the_table_fits_and_holds_no_control_characters() -> None:
    picture = open_picture(CAT)
    long = Answer("best", "word " * 60 + "\x1b[31m end", "ViT-L-14/openai", 0.3123, 41.2)
    shown = table(picture, [long], colour=False, width=60)
    assert all(len(line) <= 60 for line in shown.splitlines()[1:])
    assert "score 0.312 · ViT-L-14/openai · 41.2 s" in shown
    assert "\x1b" not in shown
    settings = {"sampler": "Euler \x1b[2J\x07", "model": "m" * 300}
    details = {"source": "a1111", "positive": "p", "negative": "", "settings": settings}
    shown = table(picture, [Answer("embedded", "p", "a1111", details=details)], colour=False, width=60)
    assert "\x1b" not in shown and "\x07" not in shown
    assert all(len(line) <= 60 for line in shown.splitlines()[1:])


def test_progress_writes_few_lines_to_a_log(capsys) -> None:
    progress = TerminalProgress()
    for done in range(0, 10_001, 100):
        progress("embedding labels", done, 10_000)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 11 and lines[-1].startswith("embedding labels: 10,000 of 10,000")
