"""Named endpoints: built in, from a file, from the environment; and where their keys are from."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from promptglass.errors import InputError
from promptglass.llm import Endpoint
from promptglass.llm.profiles import changed, profile, profiles


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("PROMPTGLASS_CONFIG", "OLLAMA_HOST", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("APPDATA", str(tmp_path))
    path = tmp_path / "promptglass" / "config.yaml"
    path.parent.mkdir()
    return path


def test_without_a_file_there_is_what_people_run() -> None:
    known = profiles()
    assert list(known) == ["ollama", "llama.cpp", "lmstudio", "vllm", "openai", "anthropic", "openrouter"]
    assert known["ollama"].concurrency == 1
    assert {one.concurrency for name, one in known.items() if name != "ollama"} == {4}
    assert known["openai"].key_env == "OPENAI_API_KEY"
    ollama = known["ollama"]
    limits = (ollama.connect_s, ollama.first_byte_s, ollama.between_chunks_s, ollama.total_s)
    assert limits == (5, 180, 60, 600)
    assert Endpoint.from_settings("ollama", model="llava").profile.model == "llava"


def test_a_file_adds_and_changes(config: Path) -> None:
    config.write_text(
        """
        prompts: {}   # of somebody else
        endpoints:
          ollama: {model: "qwen2.5:3b"}
          eyes:
            protocol: openai
            base_url: http://gpu-box:8080/v1
            model: 7
            first_byte_s: 30
            extra: {chat_template_kwargs: {enable_thinking: false}}
        """.replace("model: 7", "model: '7'"),
        encoding="utf-8",
    )
    assert profile("ollama").model == "qwen2.5:3b"
    assert profile("ollama").base_url == "http://127.0.0.1:11434"
    eyes = profile("eyes")
    assert (eyes.model, eyes.first_byte_s, eyes.concurrency) == ("7", 30, 4)
    assert eyes.extra == {"chat_template_kwargs": {"enable_thinking": False}}
    with pytest.raises(InputError, match=r"no endpoint 'ears'. There are: ollama.*eyes.*config\.yaml"):
        profile("ears")


def test_the_file_is_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = tmp_path / "mine.yaml"
    elsewhere.write_text("endpoints: {ollama: {model: here}}")
    monkeypatch.setenv("PROMPTGLASS_CONFIG", str(elsewhere))
    assert profile("ollama").model == "here"
    elsewhere.unlink()
    with pytest.raises(InputError, match=r"mine\.yaml: there is no such file"):
        profile("ollama")


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (
            "endpoints: {ollama: {modle: x}}",
            r"config.yaml: endpoint ollama: unknown setting 'modle'; known are",
        ),
        ("endpoints: {ollama: {api_key: sk-secret}}", "endpoint ollama: unknown setting 'api_key'.*key_env"),
        ("endpoints: {x: {protocol: openai}}", "endpoint x: base_url missing"),
        ("endpoints: {x: {}}", "protocol and base_url missing"),
        ("endpoints: {x: sk-secret}", "endpoint x: must hold settings"),
        ("endpoints: [sk-secret]", "endpoints must hold names"),
        ("[1, 2]", "endpoints must hold names"),
        ("endpoints: {ollama: {protocol: sk-secret}}", "protocol must be one of openai, ollama, anthropic"),
        ("endpoints: {ollama: {unload: no}}", "unload must be one of after_batch, after_each, never"),
        ("endpoints: {ollama: {model: 7}}", "model must be text. Put it in quotes"),
        ("endpoints: {ollama: {total_s: soon}}", "total_s must be a number above 0"),
        ("endpoints: {ollama: {total_s: -1}}", "total_s must be a number"),
        ("endpoints: {ollama: {total_s: .nan}}", "total_s must be a number"),
        ("endpoints: {ollama: {concurrency: 1.5}}", "concurrency must be a whole number"),
        ("endpoints: {ollama: {retries: yes}}", "retries must be a whole number"),
        ("endpoints: {ollama: {allow_plain_http: 1}}", "allow_plain_http must be true or false"),
        ("endpoints: {ollama: {extra: [1]}}", "extra must hold names"),
        ("endpoints: {ollama: {base_url: gpu-box}}", "base_url must be an address"),
        ("endpoints: {ollama: {base_url: 'file:///x'}}", "base_url must be an address"),
        ("endpoints: {ollama: {base_url: 'http://[::1'}}", "base_url must be an address"),
        ("endpoints: {ollama: {base_url: 'http://h:99999'}}", "base_url must be an address"),
        ("endpoints: {ollama: {base_url: 'http://me:sk-secret@h'}}", "no password"),
        ("endpoints: {ollama: {base_url: 'http://h/v1?key=sk-secret'}}", "no query"),
        ("endpoints:\n  ollama: {key: sk-secret\n", "it is no YAML from line 3 on"),
        ("endpoints: {ollama: !!python/object:os.system {}}", "no YAML from line 1"),
    ],
)
def test_what_is_wrong_in_the_file_is_named_and_not_quoted(config: Path, content: str, cause: str) -> None:
    config.write_text(content)
    with pytest.raises(InputError, match=cause) as raised:
        profiles()
    assert "config.yaml" in str(raised.value)
    assert "secret" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_that_is_not_text(config: Path) -> None:
    config.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not YAML in UTF-8"):
        profiles()
    config.write_text("")
    assert "ollama" in profiles()
    config.write_text("endpoints:\n")
    assert "ollama" in profiles()


@pytest.mark.parametrize(
    ("said", "address"),
    [
        ("", "http://127.0.0.1:11434"),
        ("gpu-box", "http://gpu-box:11434"),
        ("gpu-box:1234", "http://gpu-box:1234"),
        ("0.0.0.0", "http://127.0.0.1:11434"),
        ("0.0.0.0:8080", "http://127.0.0.1:8080"),
        (":8080", "http://127.0.0.1:8080"),
        ("http://gpu-box", "http://gpu-box:80"),
        ("https://gpu-box/ollama/", "https://gpu-box:443/ollama"),
        ("[::1]", "http://[::1]:11434"),
        ("[::]:7", "http://[::1]:7"),
        ('"gpu-box"', "http://gpu-box:11434"),
    ],
)
def test_ollama_host_is_read_as_ollama_reads_it(
    said: str, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OLLAMA_HOST", said)
    assert profile("ollama").base_url == address


def test_an_ollama_host_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for said in ("host:port", "ftp://x", "[::1"):
        monkeypatch.setenv("OLLAMA_HOST", said)
        with pytest.raises(InputError, match="OLLAMA_HOST"):
            profiles()


def test_a_key_stays_with_its_host(config: Path) -> None:
    config.write_text("endpoints: {openai: {base_url: 'http://elsewhere:1', model: x}}")
    assert profile("openai").key_env == ""
    config.write_text("endpoints: {openai: {base_url: 'https://api.openai.com/v1/', model: x}}")
    assert profile("openai").key_env == "OPENAI_API_KEY"
    config.write_text("endpoints: {openai: {base_url: 'http://elsewhere:1', key_env: OTHER}}")
    assert profile("openai").key_env == "OTHER"
    moved = changed(profile("anthropic"), base_url="https://proxy.example", model=None)
    assert (moved.key_env, moved.model) == ("", "")
    with pytest.raises(InputError, match="unknown setting 'modle'"):
        Endpoint.from_settings("ollama", modle="x")


def test_a_key_is_from_the_environment_or_from_a_private_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = tmp_path / "key"
    held.write_text("sk-from-file\n")
    held.chmod(0o600)
    known = changed(profile("openai"), key_file=str(held))
    assert known.key() == ("sk-from-file", str(held))
    monkeypatch.setenv("OPENAI_API_KEY", " sk-from-environment ")
    assert known.key() == ("sk-from-environment", "OPENAI_API_KEY")
    assert profile("ollama").key() == ("", "")
    monkeypatch.setenv("OPENAI_API_KEY", " ")
    with pytest.raises(InputError, match="OPENAI_API_KEY is not set"):
        profile("openai").key()
    held.write_text("")
    with pytest.raises(InputError, match="holds no key"):
        known.key()
    with pytest.raises(InputError, match="there is no such file"):
        changed(profile("openai"), key_file=str(tmp_path / "nothing")).key()


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o622])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    held = tmp_path / "key"
    held.write_text("sk-secret")
    held.chmod(mode)
    with pytest.raises(InputError, match=f"chmod 600 {held}") as raised:
        changed(profile("openai"), key_file=str(held)).key()
    assert "secret" not in str(raised.value)
