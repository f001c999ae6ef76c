"""Sidecars: what stands in one survives, whoever wrote it."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_batch import SCHEMA

from promptglass import encryption
from promptglass.analyzers import Answer, Recipe
from promptglass.errors import DependencyMissing, EncryptionKeyError, SidecarError
from promptglass.sidecar import FileFacts, Privacy, describes, entry_of, path_of, read, rewrite, update

FACTS = FileFacts("a" * 64, "b" * 64, 1234, 1_700_000_000_123_456_789, None, 40, 30, "PNG")
RECIPE = Recipe("ViT-L-14/openai", {"max_flavors": 3})
ANSWER = Answer("fast", "a cat", "ViT-L-14/openai", 0.31, 0.5, {"max_flavors": 3})

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)
some_dict = st.dictionaries(
    st.text() | st.sampled_from(["sha256", "size", "fast", "best"]), json_values, max_size=3
)
strangers = json_values | st.fixed_dictionaries(
    {},
    optional={
        "schema": st.just(1) | json_values,
        "file_info": some_dict | json_values,
        "analysis": some_dict | json_values,
        "rating": json_values,
        "": json_values,
    },
)


def put(picture: Path, *answers: Answer, privacy: Privacy = Privacy()) -> Path | None:  # noqa: B008 - frozen
    kept = update(picture, FACTS, {"fast": RECIPE}, answers or (ANSWER,), privacy)
    assert [p.name for p in picture.parent.iterdir() if p.name.startswith(".")] == []
    jsonschema.validate(json.loads(path_of(picture).read_text("utf-8")), SCHEMA)
    return kept


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("sidecars")


@settings(max_examples=400)
@given(stranger=strangers)
def test_any_json_a_stranger_puts_in_a_sidecar_survives(place: Path, stranger: object) -> None:
    for path in place.iterdir():
        path.unlink()
    picture = place / "x.png"
    raw = json.dumps(stranger)
    path_of(picture).write_text(raw)
    try:
        kept = update(picture, FACTS, {"fast": RECIPE}, [ANSWER])
    except (SidecarError, EncryptionKeyError):  # of a newer schema, or encrypted: left alone
        assert path_of(picture).read_text() == raw
        return
    after = json.loads(path_of(picture).read_text("utf-8"))
    assert after["analysis"]["fast"][-1]["prompt"] == "a cat"
    if kept is not None:
        assert json.loads(kept.read_text()) == stranger
        return
    assert isinstance(stranger, dict)
    for key in {*stranger} - {"schema", "file_info", "analysis"}:
        assert after[key] == stranger[key]
    for key in {*stranger.get("file_info", {})} - {*after["file_info"]} - {"filename"}:
        raise AssertionError(f"{key} is lost")
    if stranger.get("file_info", {}).get("sha256", FACTS.sha256) == FACTS.sha256:
        for mode, entries in stranger.get("analysis", {}).items():
            if mode != "fast":
                assert after["analysis"][mode] == entries
            else:
                assert after["analysis"]["fast"][:-1] == (entries if isinstance(entries, list) else [entries])


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"\xff\xfe\x00", b'{"schema": 1e400}', b'{"x": 1e400}', b'{"x": NaN}', b"[" * 100_000,
     b'{"a":' * 700 + b"1" + b"}" * 700, b"[1, 2]", b'"text"', b'{"schema": "1"}', b'{"schema": true}',
     b'{"analysis": []}', b'{"file_info": 3}', b"9" * 5000],
)  # fmt: skip
def test_what_cannot_be_understood_is_kept_byte_for_byte(tmp_path: Path, raw: bytes) -> None:
    picture = tmp_path / "x.png"
    path_of(picture).write_bytes(raw)
    if raw == b'{"schema": 1e400}':
        with pytest.raises(SidecarError, match="newer"):
            read(path_of(picture))
        return
    kept = put(picture)
    if kept is None:  # newer Pythons can write nesting that older ones cannot
        assert raw.startswith(b'{"a":') and b'"a": {' in path_of(picture).read_bytes()
    else:
        assert kept.read_bytes() == raw
    assert read(path_of(picture))["analysis"]["fast"]  # type: ignore[index]


def test_bytes_other_programs_put_around_json_are_read(tmp_path: Path) -> None:
    picture = tmp_path / "x.png"
    put(picture)
    content = read(path_of(picture))
    for encoding in ("utf-8-sig", "utf-16"):
        path_of(picture).write_text(json.dumps(content), encoding)
        assert read(path_of(picture)) == content


def test_a_file_name_that_is_no_text(tmp_path: Path) -> None:
    picture = tmp_path / "broken \udcff name 🦊.png"
    put(picture)
    assert read(path_of(picture))["file_info"]["filename"] == picture.name  # type: ignore[index]


def test_answers_replace_their_own_kind_only(tmp_path: Path) -> None:
    picture = tmp_path / "x.png"
    put(picture)
    path = path_of(picture)
    content = json.loads(path.read_text())
    content["analysis"]["fast"] += [{"model": "other"}, "a note", {"model": "ViT-L-14/openai"}]
    path.write_text(json.dumps(content))
    two = Answer("fast", "two cats", "ViT-L-14/openai", 0.4, 0.5, {"max_flavors": 3})
    update(picture, FACTS, {"fast": RECIPE}, [two])
    found = json.loads(path.read_text())["analysis"]["fast"]
    assert found[:3] == [{"model": "other"}, "a note", {"model": "ViT-L-14/openai"}]
    assert [entry["prompt"] for entry in found[3:]] == ["two cats"]
    assert entry_of(read(path) or {}, "fast", RECIPE)["prompt"] == "two cats"  # type: ignore[index]
    assert entry_of(read(path) or {}, "fast", Recipe("ViT-L-14/openai", {"max_flavors": 9})) is None
    assert entry_of(read(path) or {}, "best", RECIPE) is None


def test_size_and_time_tell_whether_the_file_is_the_same(tmp_path: Path) -> None:
    picture = tmp_path / "x.png"
    put(picture)
    content = read(path_of(picture))
    assert content and describes(content, 1234, 1_700_000_000_123_456_789)
    assert not describes(content, 1235, 1_700_000_000_123_456_789)
    assert not describes(content, 1234, 1_700_000_000_123_457_789)
    times = SimpleNamespace(st_size=99, st_mtime_ns=-5_000_000_000)
    rewrite(picture, times)  # type: ignore[arg-type]
    content = read(path_of(picture))
    assert content and content["file_info"]["modified"] == "1969-12-31T23:59:55.000000Z"
    assert describes(content, 99, -5_000_000_000) and content["analysis"]["fast"]


def test_a_time_outside_of_every_calendar(tmp_path: Path) -> None:
    picture = tmp_path / "x.png"
    update(picture, FileFacts(**{**FACTS.__dict__, "modified_ns": 10**30}), {"fast": RECIPE}, [ANSWER])
    content = read(path_of(picture))
    assert content and content["file_info"]["modified"] is None
    jsonschema.validate(content, SCHEMA)


def test_a_score_that_is_no_number_is_an_error_and_not_a_sidecar(tmp_path: Path) -> None:
    picture = tmp_path / "x.png"
    path_of(picture).write_text('{"mine": 1}')
    with pytest.raises(SidecarError, match="JSON"):
        update(picture, FACTS, {"fast": RECIPE}, [Answer("fast", "x", "m", math.nan)])
    assert [path.name for path in tmp_path.iterdir()] == [path_of(picture).name]
    assert path_of(picture).read_text() == '{"mine": 1}'


# -- encryption -------------------------------------------------------------------------------------------


def test_encrypted_it_tells_nothing_and_stays_encrypted(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PROMPTGLASS_KEY", "correct horse battery 🐴")
    picture = tmp_path / "x.png"
    put(picture, privacy=Privacy(encrypt=True))
    raw = path_of(picture).read_text()
    assert "a cat" not in raw and "ViT" not in raw and "x.png" not in raw and "horse" not in raw
    assert read(path_of(picture))["analysis"]["fast"][0]["prompt"] == "a cat"  # type: ignore[index]
    put(picture, Answer("fast", "two cats", "other"))  # nobody asks for encryption any more
    rewrite(picture)
    assert "two cats" not in path_of(picture).read_text()
    assert [e["prompt"] for e in read(path_of(picture))["analysis"]["fast"]] == ["two cats"]  # type: ignore[index]


def test_a_plain_sidecar_becomes_encrypted(tmp_path: Path, monkeypatch) -> None:
    picture = tmp_path / "x.png"
    put(picture)
    monkeypatch.setenv("PROMPTGLASS_KEY", "k")
    put(picture, privacy=Privacy(encrypt=True))
    assert "a cat" not in path_of(picture).read_text()


@pytest.mark.parametrize("key", [None, "", "hunter3"])
def test_a_wrong_key_is_one_clear_error(tmp_path: Path, monkeypatch, key: str | None) -> None:
    picture = tmp_path / "x.png"
    monkeypatch.setenv("PROMPTGLASS_KEY", "hunter2")
    put(picture, privacy=Privacy(encrypt=True))
    encryption._salts.pop("hunter3", None)
    before = path_of(picture).read_bytes()
    if key is None:
        monkeypatch.delenv("PROMPTGLASS_KEY")
    else:
        monkeypatch.setenv("PROMPTGLASS_KEY", key)
    for use in (lambda: read(path_of(picture)), lambda: put(picture)):
        with pytest.raises(EncryptionKeyError, match="PROMPTGLASS_KEY") as caught:
            use()
        assert "hunter" not in str(caught.value)
    assert path_of(picture).read_bytes() == before


def test_without_the_package_the_error_names_it(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PROMPTGLASS_KEY", "never used before")
    for module in ("cryptography", "cryptography.fernet"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(DependencyMissing, match="pip install cryptography"):
        put(tmp_path / "x.png", privacy=Privacy(encrypt=True))
    assert [*tmp_path.iterdir()] == []


def test_two_salts_give_one_key_two_ciphertexts(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PROMPTGLASS_KEY", "k")
    first = encryption.seal(b"content")
    encryption._salts.clear()
    second = encryption.seal(b"content")
    assert first["salt"] != second["salt"]
    assert encryption.unseal(first, "x") == encryption.unseal(second, "y") == b"content"
    encryption._salts.clear()
    encryption.unseal(first, "x")
    assert encryption.seal(b"more")["salt"] == first["salt"]  # one folder, few keys to derive


def test_a_passphrase_that_is_no_text(monkeypatch) -> None:
    monkeypatch.setenv("PROMPTGLASS_KEY", "\udcff")
    assert encryption.unseal(encryption.seal(b"content"), "x") == b"content"


@pytest.mark.parametrize("inner", ['{"schema": 0}', "[]", "{"])
def test_what_was_encrypted_is_never_written_plain(tmp_path: Path, monkeypatch, inner: str) -> None:
    monkeypatch.setenv("PROMPTGLASS_KEY", "k")
    picture = tmp_path / "x.png"
    path_of(picture).write_text(json.dumps({"schema": 1, "encrypted": encryption.seal(inner.encode())}))
    assert put(picture) is not None
    assert "a cat" not in path_of(picture).read_text()
