"""`endpoints` and `prompts`, as a person and as a script meet them; only this machine is asked."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from fakes.llama_server import MISSING, MODEL, LlamaServer, llama_server
from fakes.llm_server import FakeServer, as_json, broken, silence
from fakes.ollama_shim import OllamaShim
from hypothesis import given
from hypothesis import strategies as st

from promptglass.cli import main
from promptglass.commands import endpoints as endpoints_command
from promptglass.commands.prompts import as_yaml
from promptglass.llm import endpoint as llm_endpoint
from promptglass.llm import profiles as llm_profiles
from promptglass.llm.profiles import Profile, profiles
from promptglass.prompts import Example, Prompt, built_in_prompts, load_prompts

KEY = "sk-very-secret/9+x"


def closed() -> str:
    """An address where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Writes the settings; whatever runs on the developer's own ports is not asked."""
    clouds = ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "OPENROUTER_API_KEY")
    for name in (*clouds, "OLLAMA_HOST", "PROMPTGLASS_PROMPTS", "HTTP_PROXY", "http_proxy", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PROMPTGLASS_CONFIG", str(tmp_path / "config.yaml"))
    monkeypatch.setenv("FAKE_KEY", KEY)
    monkeypatch.setenv("COLUMNS", "80")
    nowhere = {name: {"base_url": closed()} for name in ("ollama", "llama.cpp", "lmstudio", "vllm")}

    def write(content: str | None = None, **endpoints: dict[str, Any]) -> Path:
        known = {"endpoints": {**nowhere, **endpoints}}
        (tmp_path / "config.yaml").write_text(
            content or yaml.safe_dump(known, sort_keys=False), encoding="utf-8"
        )
        return tmp_path / "config.yaml"

    write()
    return write


def fake(server: FakeServer, **settings: Any) -> dict[str, Any]:
    return {"protocol": "openai", "base_url": server.url, **settings}


def listed(*names: str, **more: Any) -> Any:
    return as_json({"data": [{"id": name, **more} for name in names]})


def told(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    assert main([*arguments]) == code
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def complained(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line of a command that cannot be carried out."""
    assert main([*arguments]) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert captured.out == ""
    return line


def rows(out: str) -> dict[str, str]:
    """The rows of a listing by their names, each with the lines below it."""
    blocks = re.split(r"\n(?=\S)", out.partition("\n\n")[0])[1:]
    return {block.split()[0]: " ".join(block.split()) for block in blocks}


# Endpoints


def test_where_nothing_runs_it_says_so_at_once(capsys, config) -> None:
    began = time.monotonic()
    out = told(capsys, "endpoints")
    assert time.monotonic() - began < 3
    found = rows(out)
    assert [*found] == ["ollama", "llama.cpp", "lmstudio", "vllm", "openai", "anthropic", "openrouter"]
    assert all(found[name].endswith("nobody listens there") for name in [*found][:4])
    assert found["openai"] == "openai openai https://api.openai.com no key: set OPENAI_API_KEY"
    assert out.splitlines()[-1] == f"Settings: {config()}; --help shows how to add yours"


def test_without_a_settings_file_it_says_where_one_belongs(
    capsys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ollama = Profile("ollama", "ollama", closed())
    monkeypatch.setattr(llm_profiles, "_built_in", lambda: {"ollama": ollama})
    monkeypatch.delenv("PROMPTGLASS_CONFIG")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "none"))
    monkeypatch.setenv("APPDATA", str(tmp_path / "none"))
    path = tmp_path / "none" / "promptglass" / "config.yaml"
    last = told(capsys, "endpoints").splitlines()[-1]
    assert last == f"Settings: {path} (not there yet); --help shows how to add yours"


@pytest.fixture(scope="module")
def llama() -> Iterator[LlamaServer]:
    if MISSING or sys.platform == "win32":
        pytest.skip(f"{' and '.join(MISSING)}: see tests/fakes/llama_server.py")
    with llama_server() as server:
        yield server


def test_real_servers_are_listed_first_with_what_they_have(capsys, config, llama: LlamaServer) -> None:
    with OllamaShim(llama.url, MODEL, sees=True) as shim:
        config(
            vllm={"base_url": llama.url},
            lmstudio={"base_url": llama.url, "model": "llava"},
            eyes={"protocol": "ollama", "base_url": shim.url, "model": MODEL},
        )
        found = rows(told(capsys, "endpoints"))
        assert [*found][:3] == ["vllm", "eyes", "lmstudio"]
        assert found["vllm"].endswith(f"answers model {MODEL} · 1 model · seeing pictures: none")
        assert found["eyes"].endswith(f"answers model {MODEL} · 1 model · seeing pictures: {MODEL}:latest")
        assert found["lmstudio"].endswith("has no model 'llava' 1 model · seeing pictures: none")

        blocks = told(capsys, "endpoints", "eyes", "vllm").split("\n\n")
        assert blocks[0] == f"eyes  ollama  {shim.url}\n  answers · model {MODEL}"
        assert blocks[1].split() == ["SETTING", "VALUE", "model", MODEL]
        assert blocks[2].split() == ["MODEL", "SEES", "PICTURES", f"{MODEL}:latest", "yes"]
        assert blocks[3].startswith("vllm  openai  ")
        assert blocks[4].split()[-2:] == [MODEL, "no"]

        seen = json.loads(told(capsys, "endpoints", "eyes", "--json"))
        assert seen["usable"] and seen["model"] == MODEL
        assert seen["models"] == [{"name": f"{MODEL}:latest", "sees_pictures": True}]
        assert f"has no model 'llava'. It has {MODEL}" in told(capsys, "endpoints", "lmstudio", code=1)


def test_a_named_one_that_cannot_be_asked_is_exit_1(capsys, config) -> None:
    with FakeServer(listed("a")) as server:
        config(good=fake(server, model="a"), lacks=fake(server, model="b"))
        told(capsys, "endpoints", "good", code=0)
        told(capsys, "endpoints", "good", "lacks", code=1)
        seeing = "1 model · seeing pictures: it does not say"
        found = rows(told(capsys, "endpoints"))
        assert found["good"].endswith(f"answers model a · {seeing}")
        assert found["lacks"].endswith(f"has no model 'b' {seeing}")
        assert "nobody listens there. Start the server" in told(capsys, "endpoints", "vllm", code=1)
        server.answers = [broken(401, "no such key")]
        assert "refuses us (401: no such key)" in told(capsys, "endpoints", "good", code=1)
        assert "refuses us (401: no such key)" in re.sub(r"\s+", " ", told(capsys, "endpoints"))
        server.answers = [broken(404)]  # some do not list their models, and answer all the same
        assert "answers, but does not list" in told(capsys, "endpoints", "good", code=0)


def test_without_a_name_a_model_has_to_be_named(capsys, config) -> None:
    names = [f"vendor/model-{i}" for i in range(40)]
    with FakeServer(listed(*names)) as server:
        config(many=fake(server))
        assert rows(told(capsys, "endpoints"))["many"].endswith(
            "answers; name a model 40 models · seeing pictures: it does not say"
        )
        out = told(capsys, "endpoints", "many")
        assert [re.split("  +", line.strip()) for line in out.splitlines()[-40:]] == [
            [name, "does not say"] for name in names
        ]
        server.answers = [listed(*names, architecture={"input_modalities": ["text", "image"]})]
        config(many=fake(server, model="vendor/model-30"))
        shown = rows(told(capsys, "endpoints"))["many"]
        assert (
            "model vendor/model-30 · 40 models · seeing pictures: vendor/model-30, vendor/model-0," in shown
        )
        assert shown.endswith("and 34 more")


def test_one_without_its_key_is_no_error_and_nothing_is_sent(
    capsys, config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("FAKE_KEY")
    with FakeServer(listed("a")) as server:
        config(keyed=fake(server, key_env="FAKE_KEY"), filed=fake(server, key_file=str(tmp_path / "no.key")))
        found = rows(told(capsys, "endpoints"))
        assert found["keyed"].endswith("no key: set FAKE_KEY")
        assert "no key: cannot read" in found["filed"]
        out = told(capsys, "endpoints", "keyed", code=1)
        assert "no key: set FAKE_KEY" in out and "FAKE_KEY (not set)" in out
        seen = json.loads(told(capsys, "endpoints", "keyed", "--json", code=1))
        assert (seen["has_key"], seen["reachable"]) == (False, False)
        assert not server.asked


def test_settings_are_those_that_were_changed(capsys, config) -> None:
    with FakeServer(listed("a")) as server:
        config(mine=fake(server, total_s=900, extra={"token": KEY, "num_ctx": 9}, key_env="FAKE_KEY"))
        block = told(capsys, "endpoints", "mine").split("\n\n")[1]
        settings = dict(line.split(maxsplit=1) for line in block.splitlines()[1:])
        assert settings == {"key_env": "FAKE_KEY (set)", "total_s": "900", "extra": "token, num_ctx"}
        seen = json.loads(told(capsys, "endpoints", "mine", "--json"))
        assert seen["settings"] == {"key_env": "FAKE_KEY", "total_s": 900, "extra": ["token", "num_ctx"]}
        assert seen["has_key"] is True


def test_no_key_is_ever_shown_even_if_the_server_repeats_it(capsys, config, tmp_path: Path) -> None:
    file = tmp_path / "private.key"
    file.write_text(KEY)
    file.chmod(0o600)
    answers = (
        broken(401, f"Invalid API key {KEY}"),
        broken(500, f"{KEY} broke it"),
        listed("a", KEY, f"models/{KEY}"),
        as_json({"object": KEY}),
    )
    for answer in answers:
        with FakeServer(answer) as server:
            config(
                by_env=fake(server, key_env="FAKE_KEY", extra={"key": KEY}),
                by_file=fake(server, key_file=str(file), model="a"),
            )
            for options in ([], ["by_env", "by_file"]):
                for more in (["-v"], ["--json", "-v"]):
                    main(["endpoints", *options, *more])
            shown = "".join(capsys.readouterr())
            assert "by_env" in shown
            for part in (KEY, "very-secret", json.dumps(KEY)[1:-1]):
                assert part not in shown
            assert {asked.headers["authorization"] for asked in server.asked} == {f"Bearer {KEY}"}


def test_a_key_in_the_place_of_its_name_is_not_repeated(capsys, config) -> None:
    path = config(mine={"protocol": "openai", "base_url": closed(), "key_env": KEY})
    line = complained(capsys, "endpoints")
    assert line.startswith(f"promptglass: {path}: endpoint mine: key_env must be the name of the variable")
    assert "very-secret" not in line


def test_what_cannot_be_carried_out_is_one_line(capsys, config, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "there is no endpoint 'olama'. There are: ollama, llama.cpp" in complained(
        capsys, "endpoints", "ollama", "olama"
    )
    path = config("endpoints: {ollama: [")
    for arguments in (["endpoints"], ["endpoints", "ollama"], ["endpoints", "--json"]):
        assert f"cannot read {path}: it is no YAML from line 1 on" in complained(capsys, *arguments)
    config("endpoints: {ollama: {modle: x}}")
    assert "endpoint ollama: unknown setting 'modle'" in complained(capsys, "endpoints")
    path.unlink()
    assert f"cannot read {path}: there is no such file" in complained(capsys, "endpoints")


def test_a_silent_server_has_its_time(capsys, config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llm_endpoint, "CHECK_S", 0.6)
    monkeypatch.setattr(endpoints_command, "_PATIENCE_S", 0.1)
    with FakeServer(silence) as server:
        config(silent=fake(server))
        assert main(["endpoints", "silent", "vllm"]) == 1
        captured = capsys.readouterr()
        assert captured.err == f"promptglass: waiting for silent ({server.url})\n"
        assert "not finished within 0.6 s. Check that the server is not stuck." in captured.out
        main(["endpoints"])
        assert rows(capsys.readouterr().out)["silent"].endswith("not finished within 0.6 s")


def test_all_are_asked_at_the_same_time(capsys, config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llm_endpoint, "CHECK_S", 1.0)
    with FakeServer(silence) as server:
        config(**{f"silent-{i}": fake(server) for i in range(5)})
        began = time.monotonic()
        told(capsys, "endpoints")
        assert time.monotonic() - began < 3
        assert len(server.asked) == 5


@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT")
def test_ctrl_c_ends_it_at_once(config) -> None:
    with FakeServer(silence) as server:
        config(silent=fake(server), mute=fake(server))
        child = subprocess.Popen(
            [sys.executable, "-m", "promptglass", "endpoints"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        end = time.monotonic() + 20
        while len(server.asked) < 2 and time.monotonic() < end:
            time.sleep(0.02)
        began = time.monotonic()
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=20)
        assert time.monotonic() - began < 2
        assert child.returncode == 130
        assert out == "" and "stopped" in err and "Traceback" not in err


@pytest.mark.parametrize("columns", [80, 120])
def test_the_listing_is_aligned_and_fits(
    capsys, config, monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    sees = {"architecture": {"input_modalities": ["text", "image"]}}
    with FakeServer(listed(*(f"vendor/a-rather-long-name-{i}" for i in range(9)), **sees)) as server:
        refused = "no. " * 40
        with FakeServer(broken(401, refused)) as refuses:
            config(**{
                "eyes": fake(server, model="vendor/a-rather-long-name-8"),
                "far\x1b[2J": fake(server, base_url=f"{server.url}/with/a/long/path/v1"),
                "longer": fake(server, base_url=f"{server.url}/a/v1", model="vendor/a-rather-long-name-8"),
                "no": fake(refuses),
            })  # fmt: skip
            out = told(capsys, "endpoints")
    lines = out.partition("\n\n")[0].splitlines()
    assert all(len(line) <= columns for line in lines)
    assert not re.search(r"[^\n\x20-\x7e·]", out)
    states = [found.end() for line in lines if (found := re.match(r"\S.* https?://\S+ +(?=\S)", line))]
    assert {*states} == {lines[0].index("STATE")}
    assert len(states) == 1 + 4 + 3 + (0 if columns == 80 else 2)


def test_colour_is_for_terminals_alone(capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b" not in told(capsys, "endpoints") + told(capsys, "endpoints", "vllm", code=1)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert "\x1b[2m" in told(capsys, "endpoints")
    assert "\x1b[1mvllm\x1b[0m" in told(capsys, "endpoints", "vllm", code=1)
    assert "\x1b" not in told(capsys, "endpoints", "--json")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in told(capsys, "endpoints")


def example_of(capsys: pytest.CaptureFixture[str], command: str, first: str) -> str:
    """The YAML that the help of a command teaches."""
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    start = lines.index(first)
    return "\n".join(lines[start : lines.index("", start)])


def test_what_the_help_teaches_works(capsys, config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config(example_of(capsys, "endpoints", "  endpoints:"))
    known = profiles()
    assert known["ollama"].model == "qwen2.5:3b"
    assert known["eyes"].key_env == "GPU_BOX_KEY"

    mine = tmp_path / "prompts.yaml"
    monkeypatch.setenv("PROMPTGLASS_PROMPTS", str(mine))
    start = "  refine:                  # one of ours: what stands here changes, the rest stays"
    mine.write_text(example_of(capsys, "prompts", start))
    prompts = load_prompts()
    assert prompts["refine"].temperature == 0.2
    assert prompts["haiku"].messages(caption="a cat")[-1]["content"].startswith('Caption: "a cat"')


# Prompts


@pytest.fixture
def own(tmp_path: Path):
    """Writes the user's own prompts, which lie beside the settings."""

    def write(content: str) -> Path:
        path = tmp_path / "prompts.yaml"
        path.write_text(content, encoding="utf-8")
        return path

    return write


def test_prompts_are_listed_with_whose_they_are(capsys, own, tmp_path: Path) -> None:
    out = told(capsys, "prompts")
    assert {line.split()[-1] for line in out.splitlines()[1:-2]} == {"ours"}
    assert re.search(r"^refine +Prompt in tags, .* no +ours$", out, re.MULTILINE)
    assert re.search(r"^describe +Description +needed +ours$", out, re.MULTILINE)
    last = f"Yours: {tmp_path / 'prompts.yaml'} (not there yet); the same id changes single fields"
    assert out.splitlines()[-1] == last
    assert all(len(line) <= 80 for line in out.splitlines()[:-1])

    own("refine: {temperature: 0.1, max_tokens: 9}\nhaiku: {title: Haiku, text: 'A haiku: {caption}'}\n")
    out = told(capsys, "prompts")
    assert re.search(r"^refine +.* ours, with your temperature, max_tokens$", out, re.MULTILINE)
    assert re.search(r"^haiku +Haiku +no +yours$", out, re.MULTILINE)
    assert "not there yet" not in out


ODD = """
refine: {temperature: 0.1}
tags: {schema: null, examples: []}
odd:
  title: "yes"
  text: "  two spaces\\n\\n{caption}  \\n\\ttab: # no comment\\n"
  system: "Tür 猫 🐈: \\"quoted\\", 'single' {{word}}\\u2028and \\x85 breaks\\n"
  needs_image: true
  temperature: 1
  examples:
    - {input: {caption: "null"}, output: "- a\\n- b"}
    - {input: "2026-01-01", output: "1.0"}
"""


def test_a_prompt_that_is_shown_can_stand_in_ones_own_file(capsys, own) -> None:
    own(ODD)
    known = load_prompts()
    assert known["odd"].system.count("\x85") == 1
    for id_, prompt in known.items():
        shown = told(capsys, "prompts", id_)
        assert [*yaml.safe_load(shown)[id_]][:4] == ["title", "needs_image", "system", "text"]
        assert {*yaml.safe_load(shown)[id_]} == {field.name for field in fields(Prompt)} - {"id"}
        assert "&id" not in shown and "!!" not in shown
        own(shown)
        assert load_prompts()[id_] == prompt
        own(ODD)
    shown = told(capsys, "prompts", "refine")
    assert "\n  system: |-\n    You write prompts for Stable Diffusion." in shown
    assert "\n    output: oil painting of a man in front of a lighthouse" in shown
    assert "temperature: 0.1\n" in shown


@given(st.text(min_size=1) | st.text(alphabet="a \n\t\x85\u2028-:#'\"{}é🐈", min_size=1))
def test_any_text_comes_back(text: str) -> None:
    prompt = Prompt("mine", text, text, system=text, examples=(Example(text, text),))
    (entry,) = yaml.safe_load(as_yaml(prompt)).values()
    assert {entry["title"], entry["text"], entry["system"], *entry["examples"][0].values()} == {text}


def test_it_can_be_pasted_from_every_console(own) -> None:
    own(ODD)
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}
    command = [sys.executable, "-m", "promptglass", "prompts", "odd"]
    shown = subprocess.run(command, env=environment, capture_output=True, check=True).stdout
    assert yaml.safe_load(shown.decode("cp1252"))["odd"]["system"] == load_prompts()["odd"].system


def test_a_prompt_that_is_unknown_is_one_line(capsys, own) -> None:
    line = complained(capsys, "prompts", "refine-naturel")
    assert line.startswith("promptglass: there is no prompt 'refine-naturel'. Did you mean refine-natural")
    assert "There are: refine, refine-natural, negative" in complained(capsys, "prompts", "\x1bzzz")
    path = own("refine: {temprature: 0.2}")
    for arguments in (["prompts"], ["prompts", "refine"]):
        assert f"cannot use the prompts in {path}: refine has no field 'temprature'" in complained(
            capsys, *arguments
        )


def test_ours_alone_know_nothing_of_the_users(own) -> None:
    ours = built_in_prompts()
    own("refine: {temperature: 0.1}\nhaiku: {title: Haiku, text: x}")
    assert built_in_prompts() == ours
    assert load_prompts()["refine"] != ours["refine"]
