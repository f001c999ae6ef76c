"""Wildcards: literal in the real dynamicprompts and in Impact-Pack's way of reading, merged without loss."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fakes.impact_wildcards import ImpactWildcards
from hypothesis import example, given, settings
from hypothesis import strategies as st

from promptglass.errors import DependencyMissing, InputError
from promptglass.literal import literal_line
from promptglass.wildcards import Outcome, collect, write_wildcards

dynamicprompts = pytest.importorskip("dynamicprompts")
yaml = pytest.importorskip("yaml")

SPECIAL = "{}$%#_|:!~@()[]<>,.-/*\\\"'= \t\n\r0159aZ&^?+\u00a0\u0085\u2028\u200b\u200d\ufeff"
SPECIAL += "\ufe0f\u0338\u037e漢é🐱½ß"
PIECES = [
    "__a__",
    "{a|b}",
    "${v=1}",
    "%{a$$b}",
    "0.5::",
    "//",
    "/*",
    "*/",
    "<lora:x:1>",
    "<lyco:",
    ", ",
    "::",
    "word",
]
HOSTILE = st.one_of(
    st.text(SPECIAL, max_size=30),
    st.lists(st.sampled_from(PIECES), max_size=8).map("".join),
    st.text(max_size=30),
)


def sidecar(*best: str, **modes: Any) -> dict[str, Any]:
    analysis = {mode: [{"prompt": text}] for mode, text in modes.items()}
    return {
        "schema": 1,
        "analysis": {**({"best": [{"prompt": text} for text in best]} if best else {}), **analysis},
    }


def write(
    out: Path, *best: str, format: str = "txt", source: str = "photos", weights: bool = False
) -> list[Outcome]:
    return write_wildcards(collect([("", sidecar(*best))]), out, source, format, weights)


def best_lines(out: Path) -> list[str]:
    return (out / "promptglass" / "best.txt").read_text("utf-8").splitlines()


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def generated(out: Path, prompt: str, count: int = 1) -> list[set[str]]:
    """What the random and the combinatorial generator make of a prompt."""
    from dynamicprompts.generators import CombinatorialPromptGenerator, RandomPromptGenerator
    from dynamicprompts.wildcards import WildcardManager

    wildcards = WildcardManager(out)
    return [
        set(RandomPromptGenerator(wildcards).generate(prompt, count)),
        set(CombinatorialPromptGenerator(wildcards).generate(prompt, count)),
    ]


def test_what_is_added_leaves_what_was_there(tmp_path):
    for texts in (["a cat", "a dog"], ["a fox"]):
        write_wildcards(collect([("", sidecar(*texts))]), tmp_path, "node", adds=True)
    assert best_lines(tmp_path) == ["a cat", "a dog", "a fox"]
    # A line that was deleted by hand stays deleted, and another wildcard is not touched.
    (tmp_path / "promptglass" / "best.txt").write_text("a cat\na fox\n")
    write_wildcards(collect([("", sidecar(fast="a hen"))]), tmp_path, "node", adds=True)
    write_wildcards(collect([("", sidecar("a bee"))]), tmp_path, "node", adds=True)
    assert best_lines(tmp_path) == ["a cat", "a fox", "a bee"]


# Lines that every reader takes literally


@pytest.mark.parametrize("format", ["txt", "yaml", "json"])
@settings(max_examples=60)
@given(texts=st.lists(HOSTILE, min_size=1, max_size=5))
def test_every_line_is_literal_in_dynamicprompts(format, texts):
    with folder() as out:
        lines = collect([("", sidecar(**{f"m{i}": text for i, text in enumerate(texts)}))])
        write_wildcards(lines, out, "photos", format)
        for name, (line,) in lines.items():
            assert generated(out, f"__promptglass/{name}__") == [{line}, {line}]
            assert generated(out, f"a __promptglass/{name}__, b") == [{f"a {line}, b"}] * 2


@settings(max_examples=40)
@given(texts=st.lists(HOSTILE, min_size=2, max_size=8))
def test_a_file_of_many_lines_gives_each_of_them(texts):
    with folder() as out:
        lines = set(collect([("", sidecar(*texts))]).get("best", {}))
        write(out, *texts)
        if lines:
            assert generated(out, "__promptglass/best__", len(lines))[1] == lines


@settings(max_examples=400)
@given(texts=st.lists(HOSTILE, min_size=1, max_size=5))
def test_every_line_is_literal_in_impact_pack(texts):
    with folder() as as_yaml, folder() as as_txt:
        lines = collect([("", sidecar(**{f"m{i}": text for i, text in enumerate(texts)}))])
        write_wildcards(lines, as_yaml, "photos", "yaml")
        outcomes = write_wildcards(lines, as_txt, "photos", "txt")
        ascii_names = {outcome.name for outcome in outcomes if outcome.is_ascii}
        for name, (line,) in lines.items():
            reference = f"promptglass/{name}"
            assert ImpactWildcards(as_yaml).process(f"a __{reference}__, b") == f"a {line}, b"
            assert ImpactWildcards(as_yaml).process(f"{{2$$__{reference}__}}") == line
            if reference in ascii_names:
                assert ImpactWildcards(as_txt).process(f"__{reference}__") == line


def test_other_than_ascii_is_right_in_impact_pack_as_yaml_only(tmp_path):
    (as_txt,) = write(tmp_path / "txt", "café, 日本 🙂")
    write(tmp_path / "yaml", "café, 日本 🙂", format="yaml")
    assert not as_txt.is_ascii
    assert "cafÃ©" in ImpactWildcards(tmp_path / "txt").choices["promptglass/best"][0]
    assert ImpactWildcards(tmp_path / "yaml").choices == {"promptglass/best": ["café, 日本 🙂"]}
    (file,) = (tmp_path / "yaml").glob("*.yaml")
    assert file.read_bytes().isascii()


@settings(max_examples=1000)
@given(HOSTILE, st.booleans())
@example("a <$\u0338 b", False)  # what one replacement leaves is what another looks for
def test_a_line_is_literal_once_and_for_all(text, keep_networks):
    line = literal_line(text, keep_networks)
    assert literal_line(line, keep_networks) == line
    assert line == "" or any(map(str.isalnum, line))
    assert "".join(line.splitlines()) == line == line.strip()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a cat, oil painting (by Monet:1.2) [x] ^_^", "a cat, oil painting (by Monet:1.2) [x] ^_^"),
        (
            "100% cotton, 50%, 5%x",
            "100 percent cotton, 50 percent, 5 percentx".replace("percentx", "percent x"),
        ),
        ("{red|blue} __init__ a__b ___", "(red/blue) _init_ a_b _"),
        ("$5 #1 shot", "5 1 shot"),
        ("a // b /* c */ d ** e", "a / b / c / d ** e"),
        ("0.5::a::b", "a:b"),
        ("two\nlines\tand\u00a0\u200bspace ,", "two lines and space"),
        ("cafe\u0301 👩‍🚀❤️", "café 👩‍🚀❤️"),
        ("🐱 ...", ""),
    ],
)
def test_what_has_a_meaning_is_replaced(text, line):
    assert literal_line(text) == line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a cat <lora:x:0.8>, oil", "a cat, oil"),
        ("a cat, <lora:x:0.8>, <lyco:y>, oil", "a cat, oil"),
        ("photo <hypernet:h:1> of b", "photo of b"),
        ("a <lora:x", "a lora:x"),
        ("<lo<lora:x>ra:y> a", "<lo ra:y> a"),
        ("<lo$ra:x> a", "a"),
        ("1 < 2 > 0, <3", "1 < 2 > 0, <3"),
        ("<lora:x:1>", ""),
    ],
)
def test_networks_in_model_made_text_are_dropped(text, line):
    assert literal_line(text) == line


def test_networks_stay_when_asked():
    assert literal_line("a <lora:x:0.8>", keep_networks=True) == "a <lora:x:0.8>"


@settings(max_examples=500)
@given(
    st.lists(st.sampled_from(["<", ">", "lora", ":", "x", "_", "$", "%", " ", ",", "1::"]), max_size=14).map(
        "".join
    )
)
def test_no_line_can_open_a_network(text):
    assert not re.search(r"<\w+:", literal_line(text))


@pytest.mark.parametrize(
    "piece", ["<", "<a:", "> <a:", "%", "%a", "/", "/*", "_", ":", "1::", ", ", "{", "\u0338"]
)
def test_hostile_length_takes_no_quadratic_time(piece):
    start = time.perf_counter()
    literal_line(piece * 50_000 + "é,")
    assert time.perf_counter() - start < 2


# What a sidecar gives


def test_one_wildcard_per_mode_and_table():
    tables = {
        "mediums": {"oil painting": 0.3, "etching": 0.2},
        "artists": {"Monet": 0.2},
        "my moods": {"calm": 0.1},
    }
    content = {
        "schema": 1,
        "file_info": {},
        "analysis": {
            "best": [{"model": "m", "prompt": "a cat"}, {"model": "n", "prompt": "a dog"}],
            "llm/describe": [{"text": "A cat sits."}],
            "tables": [{"model": "m", "tables": tables}],
            "categories": [{"model": "m", "style": [{"label": "oil"}]}],
        },
    }
    assert collect([("", content)]) == {
        "best": {"a cat": 1, "a dog": 1},
        "llm/describe": {"A cat sits.": 1},
        "medium": {"oil painting": 1},
        "artist": {"Monet": 1},
        "my-moods": {"calm": 1},
    }


def test_lines_are_counted_once_whatever_their_case_in_the_order_they_came():
    sidecars = [
        ("", sidecar("b cat")),
        ("", sidecar("a dog")),
        ("", sidecar("B Cat")),
        ("", sidecar("b  cat")),
    ]
    assert list(collect(sidecars)["best"].items()) == [("b cat", 3), ("a dog", 1)]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["analysis", "best", "tables", "prompt", "text", ""]), inner, max_size=3
        )
    ),
    max_leaves=12,
)


@settings(max_examples=300)
@given(JSON, JSON)
def test_what_is_malformed_is_passed_by(content, analysis):
    lines = collect([("", content), ("", {"analysis": analysis}), ("", sidecar("a cat"))])
    assert "a cat" in lines["best"]


def test_folders_that_are_called_alike_stay_apart():
    def names(*folders: str) -> list[str]:
        return list(collect([(folder, sidecar("a cat")) for folder in folders], per_folder=True))

    assert names("", "Trip 1/day") == ["best", "trip-1/day/best"]
    plain, *hashed = names("trip-1", "Trip 1", "trip_1")
    assert plain == "trip-1/best"
    assert len(set(hashed)) == 2 and all(name.startswith("trip-1-") for name in hashed)
    assert set(names("trip_1", "Trip 1", "trip-1")) == {plain, *hashed}
    assert len(set(names("日本", "中国", "..", "../..", "x" * 300, "x" * 301))) == 6
    assert len(collect([("a", sidecar("a cat")), ("b", sidecar("a dog"))])) == 1


def test_folders_become_part_of_the_name(tmp_path):
    write_wildcards(collect([("Trip/Day 1", sidecar("a cat"))], per_folder=True), tmp_path, "photos")
    assert (tmp_path / "promptglass/trip/day-1/best.txt").read_text() == "a cat\n"
    assert generated(tmp_path, "__promptglass/trip/day-1/best__") == [{"a cat"}] * 2


# Formats


@pytest.mark.parametrize("format", ["txt", "yaml", "json"])
def test_names_are_the_same_in_all_formats_and_nothing_else_is_read(tmp_path, format):
    from dynamicprompts.wildcards import WildcardManager

    write_wildcards({"best": {"a cat": 1}, "llm/describe": {"A cat.": 1}}, tmp_path, "photos", format)
    names = {"promptglass/best", "promptglass/llm/describe"}
    assert WildcardManager(tmp_path).get_collection_names() == names
    assert set(ImpactWildcards(tmp_path).choices) == (names if format != "json" else set())


def test_weights_are_how_often_a_line_came(tmp_path):
    from dynamicprompts.wildcards import WildcardManager

    write(tmp_path, "a cat", "a dog", "A cat", "a cat", format="json", weights=True)
    values = WildcardManager(tmp_path).get_values("promptglass/best")
    assert {str(item): getattr(item, "weight", 1) for item in values.items} == {"a cat": 3, "a dog": 1}
    assert generated(tmp_path, "__promptglass/best__", 20)[1] == {"a cat", "a dog"}
    write(tmp_path, "a dog", "a cat", "a dog", format="json", weights=True)
    values = WildcardManager(tmp_path).get_values("promptglass/best")
    assert {str(item): getattr(item, "weight", 1) for item in values.items} == {"a cat": 1, "a dog": 2}
    write(tmp_path, "a cat", "a dog", format="json")
    assert json.loads((tmp_path / "promptglass/best.json").read_text()) == {"best": ["a cat", "a dog"]}


def test_a_weight_that_the_user_changed_stays(tmp_path):
    write(tmp_path, "a cat", "a dog", format="json", weights=True)
    file = tmp_path / "promptglass/best.json"
    file.write_text(file.read_text().replace('"weight": 1', '"weight": 7', 1))
    write(tmp_path, "a cat", "a cat", "a dog", "a dog", format="json", weights=True)
    assert [entry["weight"] for entry in json.loads(file.read_text())["best"]] == [7, 2]


@pytest.mark.parametrize(("format", "weights"), [("txt", True), ("yaml", True), ("csv", False)])
def test_what_no_reader_takes_is_refused(tmp_path, format, weights):
    with pytest.raises(InputError, match=r"weights need --format json|no wildcard format"):
        write(tmp_path, "a cat", format=format, weights=weights)
    assert list(tmp_path.iterdir()) == []


def test_changing_the_format_leaves_no_second_file(tmp_path):
    write(tmp_path, "a cat")
    outcomes = write(tmp_path, "a cat", format="yaml")
    assert {(outcome.path.name, outcome.state) for outcome in outcomes} == {
        ("promptglass.best.yaml", "written"),
        ("best.txt", "removed"),
    }
    assert not (tmp_path / "promptglass/best.txt").exists()


def test_lines_of_the_user_in_another_format_are_pointed_out(tmp_path, caplog):
    write(tmp_path, "a cat")
    with (tmp_path / "promptglass/best.txt").open("a") as file:
        file.write("mine\n")
    with caplog.at_level(logging.WARNING, "promptglass"):
        write(tmp_path, "a cat", format="yaml")
    assert best_lines(tmp_path) == ["mine"]
    assert "best.txt is the same wildcard as promptglass.best.yaml" in caplog.text


def test_yaml_is_asked_for_only_where_it_is_needed(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "yaml", None)
    write(tmp_path, "a cat")
    with pytest.raises(DependencyMissing, match="pip install pyyaml"):
        write(tmp_path, "a cat", format="yaml")


def test_importing_is_light():
    heavy = "{'yaml', 'numpy', 'torch', 'PIL'}"
    code = f"import sys, promptglass.wildcards, promptglass.hosts; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Merging


OURS = [f"line {i}" for i in range(6)]
THEIRS = ["# a comment", "", "mine 1", "mine 2", "LINE 3", "line 4", "mine 1"]


@settings(max_examples=400)
@given(st.data())
def test_merging_keeps_and_never_reorders_the_users_lines(data):
    draw = data.draw
    with folder() as out:
        theirs = draw(st.lists(st.sampled_from(THEIRS), max_size=5))
        (out / "promptglass").mkdir()
        file = out / "promptglass" / "best.txt"
        file.write_text("".join(f"{line}\n" for line in theirs))
        for _ in range(3):
            given_now = draw(st.lists(st.sampled_from(OURS), min_size=1, unique=True))
            write(out, *given_now)
            lines = best_lines(out) if file.exists() else []
            users = [line for line in lines if line not in OURS or line in theirs]
            assert users == theirs
            assert {line.casefold() for line in given_now} <= {line.casefold() for line in lines}
            assert len(set(lines) & set(OURS)) <= len({*given_now, *theirs})
            # The user puts a line of his own anywhere between ours.
            added = f"new {draw(st.integers(0, 99))}"
            place = draw(st.integers(0, len(lines)))
            file.write_text("".join(f"{line}\n" for line in [*lines[:place], added, *lines[place:]]))
            theirs = [line for line in best_lines(out) if line in [*theirs, added]]


@pytest.mark.parametrize("format", ["txt", "yaml", "json"])
def test_lines_come_go_and_stay(tmp_path, format):
    def lines() -> list[str]:
        file = next(tmp_path.rglob(f"*best.{format}"))
        if format == "txt":
            return file.read_text().splitlines()
        held = yaml.safe_load(file.read_text()) if format == "yaml" else json.loads(file.read_text())
        return held if isinstance(held, list) else held["promptglass/best"]

    def edit(old: str, new: str) -> None:
        file = next(tmp_path.rglob(f"*best.{format}"))
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))

    write(tmp_path, "a cat", "a dog", "a fox", format=format)
    assert lines() == ["a cat", "a dog", "a fox"]
    write(tmp_path, "a newt", "a fox", "a cat", format=format)  # the dog's picture is gone, a newt's is new
    assert lines() == ["a cat", "a fox", "a newt"]
    edit("a fox", "a red fox")  # edited: the user's now, and ours is not written again
    write(tmp_path, "a newt", "a fox", "A CAT", format=format)
    assert lines() == ["a cat", "a red fox", "a newt"]
    write(tmp_path, "a newt", format=format)
    assert lines() == ["a red fox", "a newt"]
    (outcome,) = write(tmp_path, format=format)
    assert (outcome.state, outcome.lines, lines()) == ("written", 1, ["a red fox"])


def test_a_line_deleted_by_hand_is_not_written_again(tmp_path):
    write(tmp_path, "a cat", "a dog")
    file = tmp_path / "promptglass" / "best.txt"
    file.write_text("a cat\n")
    write(tmp_path, "a cat", "a dog", "a fox")
    assert best_lines(tmp_path) == ["a cat", "a fox"]
    file.unlink()  # the whole file: begin anew
    write(tmp_path, "a cat", "a dog", "a fox")
    assert best_lines(tmp_path) == ["a cat", "a dog", "a fox"]


def test_a_file_that_is_left_empty_goes(tmp_path):
    write(tmp_path, "a cat")
    (outcome,) = write(tmp_path)
    assert (outcome.state, outcome.name) == ("removed", "promptglass/best")
    assert not (tmp_path / "promptglass" / "best.txt").exists()
    assert write(tmp_path) == []


def test_another_folder_of_pictures_adds_and_removes_only_its_own(tmp_path):
    write(tmp_path, "a cat", "a dog", source="photos")
    write(tmp_path, "A Dog", "a fox", source="drawings")
    assert best_lines(tmp_path) == ["a cat", "a dog", "a fox"]
    write(tmp_path, "a cat", source="photos")
    assert best_lines(tmp_path) == ["a cat", "a dog", "a fox"]
    write(tmp_path, "a fox", source="drawings")
    assert best_lines(tmp_path) == ["a cat", "a fox"]


def test_a_source_may_have_a_name_that_is_no_text(tmp_path):
    write(tmp_path, "a cat", "a dog", source="caf\udce9")
    write(tmp_path, "a cat", source="caf\udce9")
    assert best_lines(tmp_path) == ["a cat"]


def test_a_line_that_the_user_had_first_stays_the_users(tmp_path):
    (tmp_path / "promptglass").mkdir()
    (tmp_path / "promptglass" / "best.txt").write_text("A Cat")
    write(tmp_path, "a cat", "a dog")
    assert best_lines(tmp_path) == ["A Cat", "a dog"]
    write(tmp_path)
    assert best_lines(tmp_path) == ["A Cat"]


@pytest.mark.parametrize(
    "damage", ["", "[]", '{"schema": 1}', '{"schema": 1, "sources": {"a": {"promptglass/best.txt": 3}}}']
)
def test_without_the_record_every_line_is_the_users(tmp_path, caplog, damage):
    write(tmp_path, "a cat", "a dog")
    (tmp_path / "promptglass" / ".written").write_text(damage)
    write(tmp_path, "a fox")
    assert best_lines(tmp_path) == ["a cat", "a dog", "a fox"]
    assert "counts as yours" in caplog.text


def test_a_record_leads_to_no_file_outside(tmp_path):
    (tmp_path / "notes.txt").write_text("a cat\n")
    files = {name: {"a cat": 1} for name in ("notes.txt", "promptglass/../notes.txt", "../notes.txt")}
    (tmp_path / "promptglass").mkdir()
    record = tmp_path / "promptglass" / ".written"
    record.write_text(json.dumps({"schema": 1, "sources": {"photos": files}}))
    write(tmp_path, "a dog")
    assert (tmp_path / "notes.txt").read_text() == "a cat\n"
    record.write_text(json.dumps({"schema": 2}))
    with pytest.raises(InputError, match="newer promptglass"):
        write(tmp_path, "a dog")


def test_what_did_not_change_is_not_touched(tmp_path):
    for format in ("txt", "json"):
        out = tmp_path / format
        write(out, "a cat", "a dog", format=format)
        files = [path for path in out.rglob("*") if path.is_file()]
        for file in files:
            os.utime(file, (1, 1))
        (outcome,) = write(out, "a dog", "A CAT", format=format)
        assert outcome.state == "unchanged"
        assert {file.stat().st_mtime for file in files} == {1}


def test_files_from_other_editors_are_read(tmp_path):
    (tmp_path / "promptglass").mkdir()
    file = tmp_path / "promptglass" / "best.txt"
    file.write_bytes("\ufeffmine é\r\n\r\n# note\r\nA CAT".encode())
    write(tmp_path, "a cat", "a dog")
    assert file.read_bytes() == "mine é\n\n# note\nA CAT\na dog\n".encode()


def test_a_users_yaml_keeps_what_else_it_holds(tmp_path):
    file = tmp_path / "promptglass.best.yaml"
    file.write_text("mine: {deep: [x, 3]}\npromptglass/best: a bird\n")
    write(tmp_path, "a cat", format="yaml")
    assert yaml.safe_load(file.read_text()) == {
        "mine": {"deep": ["x", 3]},
        "promptglass/best": ["a bird", "a cat"],
    }


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("promptglass/best.txt", b"caf\xe9\n", "not UTF-8"),
        ("promptglass/best.json", b'["a",', "Expecting value"),
        ("promptglass/best.json", b"3", "no mapping"),
        ("promptglass/best.json", b'{"best": 3}', "no list under best"),
        ("promptglass.best.yaml", b"a: [b", "expected"),
        ("promptglass.best.yaml", b"- a\n", "no mapping"),
    ],
)
def test_a_file_that_cannot_be_merged_is_left_alone_with_all_others(tmp_path, name, content, reason):
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content)
    both = {"another": {"a cat": 1}, "best": {"a cat": 1}}
    with pytest.raises(InputError, match=reason) as caught:
        write_wildcards(both, tmp_path, "photos", file.suffix[1:])
    assert str(file) in str(caught.value) and "rename it" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert file.read_bytes() == content
    assert not [path for path in tmp_path.rglob("*another*") if path.is_file()]


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write wildcards to"):
        write(tmp_path / "file", "a cat")


# Whole or not at all


def test_a_killed_write_leaves_the_old_file(tmp_path):
    write(tmp_path, "a cat")
    code = f"""
import os
from pathlib import Path
from promptglass.wildcards import write_wildcards
os.fsync = lambda fd: os.kill(os.getpid(), 9)  # the new text is on its way to the disk
write_wildcards({{"best": {{"a cat": 1, "a dog": 1}}}}, Path({str(tmp_path)!r}), "photos")
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert best_lines(tmp_path) == ["a cat"]
    assert list((tmp_path / "promptglass").glob("*.tmp"))  # what it left, no reader takes
    assert set(ImpactWildcards(tmp_path).choices) == {"promptglass/best"}
    write(tmp_path, "a cat", "a dog")
    assert best_lines(tmp_path) == ["a cat", "a dog"]


def test_a_failed_write_leaves_nothing_behind(tmp_path, monkeypatch):
    write(tmp_path, "a cat")
    before = sorted(tmp_path.rglob("*"))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space left"):
        write(tmp_path, "a dog")
    assert sorted(tmp_path.rglob("*")) == before
    assert best_lines(tmp_path) == ["a cat"]


@pytest.mark.skipif(os.name == "nt", reason="modes and links of POSIX")
def test_a_replaced_file_keeps_its_mode_and_its_link(tmp_path):
    write(tmp_path / "out", "a cat")
    file = tmp_path / "out" / "promptglass" / "best.txt"
    file.chmod(0o640)
    file.rename(tmp_path / "kept.txt")
    file.symlink_to(tmp_path / "kept.txt")
    write(tmp_path / "out", "a cat", "a dog")
    assert file.is_symlink()
    assert (tmp_path / "kept.txt").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "kept.txt").read_text() == "a cat\na dog\n"


def test_two_processes_that_merge_at_once_lose_nothing(tmp_path):
    code = """
import sys
from pathlib import Path
from promptglass.wildcards import write_wildcards
for i in range(25):
    lines = {f"{sys.argv[2]} {j}": 1 for j in range(i + 1)}
    write_wildcards({"best": lines}, Path(sys.argv[1]), sys.argv[2])
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    running = [subprocess.Popen([*command, name], stderr=subprocess.DEVNULL) for name in ("cat", "dog")]
    assert [process.wait(60) for process in running] == [0, 0]
    lines = best_lines(tmp_path)
    assert sorted(lines) == sorted(f"{name} {i}" for name in ("cat", "dog") for i in range(25))
    assert [line for line in lines if line.startswith("cat")] == [f"cat {i}" for i in range(25)]
