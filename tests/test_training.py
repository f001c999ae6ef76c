"""Captions beside the pictures, as a trainer finds them; and a person's words, that stay."""

from __future__ import annotations

import os
import re
import tempfile
from fnmatch import translate
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from promptglass import atomic
from promptglass.errors import InputError
from promptglass.training import (
    EXISTING,
    CaptionFiles,
    caption_path,
    colliding,
    parse_list,
    parse_replacement,
)


@pytest.fixture
def picture(tmp_path):
    return tmp_path / "photo.png"


def caption(picture: Path) -> str:
    return caption_path(picture).read_bytes().decode()


def written(
    texts: list[str], there: str | None = None, existing: str = "overwrite", **options: object
) -> str:
    """What the caption file holds after a run over a picture whose caption was `there`; "" for no file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "photo.txt")
        if there is not None:
            path.write_bytes(there.encode())
        CaptionFiles(existing, **options).write(Path(folder, "photo.png"), texts)
        return path.read_bytes().decode() if path.exists() else ""


def parts(text: str) -> list[str]:
    return [part for part in (" ".join(part.split()) for part in re.split(r"[,\r\n]", text)) if part]


def folded(text: str) -> list[str]:
    return [part.casefold() for part in parts(text)]


# Where it is


@pytest.mark.parametrize(
    ("name", "beside"),
    [("photo.png", "photo.txt"), ("a.b.png", "a.b.txt"), ("photo", "photo.txt"), ("x.JPEG", "x.txt")],
)
def test_a_caption_has_the_name_by_which_trainers_look_for_it(name, beside):
    assert caption_path(Path("set", name)) == Path("set", beside)


def test_pictures_that_would_share_a_caption_are_named_in_their_order():
    pictures = [Path("set", name) for name in ("b.png", "a.jpg", "a.png", "A.webp", "c.png", "a.b.png")]
    assert colliding(pictures) == {Path("set/a.txt"): [Path("set", n) for n in ("a.jpg", "a.png", "A.webp")]}


def test_pictures_in_other_folders_or_named_twice_do_not_collide():
    assert colliding([Path("a/x.png"), Path("b/x.jpg"), Path("a/x.png")]) == {}


# What it says


def test_texts_become_one_line_of_parts_in_their_order():
    assert written(["a cat, sitting", "cat, outdoors"]) == "a cat, sitting, cat, outdoors\n"


@pytest.mark.parametrize(
    ("texts", "line"),
    [
        (["Cat, dog", "cat, DOG, bird"], "Cat, dog, bird"),
        (["Straße, STRASSE"], "Straße"),
        ([" , cat,, ", "", "\n"], "cat"),
        (["a cat\non a  mat\r\n, dog"], "a cat on a mat, dog"),
        ([r"miku \(vocaloid\), a\b, (x:1.2)"], r"miku \(vocaloid\), a\b, (x:1.2)"),
        (["a\u2028b\x0bc, \ufeffd\0e, \ud800"], "a b c, d e, ?"),
        (["猫, ネコ, 👨‍👩‍👧"], "猫, ネコ, 👨‍👩‍👧"),
    ],
)
def test_parts_are_each_written_once_each_on_one_line(texts, line):
    assert written(texts) == line + "\n"


def test_prefix_and_suffix_surround_every_caption_and_are_said_once():
    assert written(["cat, SKS, best"], prefix="sks, photo", suffix="best,") == "sks, photo, cat, best\n"


def test_nothing_drops_the_trigger_word():
    line = written(["sks, cat"], prefix="sks", exclude=("*",), replace=(("sks", "dog"),))
    assert line == "sks\n"


@pytest.mark.parametrize(
    ("exclude", "line"),
    [
        ("cat", "black cat, grey Background, [x], xy"),
        ("CAT, *BackGround", "black cat, [x], xy"),
        ("*cat", "grey Background, [x], xy"),
        ("[x]", "cat, black cat, grey Background, xy"),
        ("x?", "cat, black cat, grey Background, [x]"),
        ("grey", "cat, black cat, grey Background, [x], xy"),
        ("grey  background, nothing, [", "cat, black cat, [x], xy"),
    ],
)
def test_excluded_are_whole_parts_by_word_or_wildcard(exclude, line):
    texts = ["cat, black cat, grey Background, [x], xy"]
    assert written(texts, exclude=parse_list(exclude)) == line + "\n"


@pytest.mark.parametrize(
    ("replacements", "text", "line"),
    [
        (["grey=gray"], "grey cat, Grey, greyhound", "gray cat, gray, greyhound"),
        (["red="], "a red cat, red", "a cat"),
        (["a=b", "b=c"], "a, b", "c"),
        (["long hair=short hair"], "very long  hair", "very short hair"),
        (["cat=kitten, pet"], "cat", "kitten, pet"),
        (["(x)=y"], "a(x)b", "ayb"),
        ([":d=smile"], "xx :d, :dd", "xx smile, :dd"),
        ([r"a=\1\g<0>"], "a", r"\1\g<0>"),
        ([".*=x"], "cat", "cat"),
    ],
)
def test_whole_words_are_replaced_in_the_order_given(replacements, text, line):
    assert written([text], replace=tuple(map(parse_replacement, replacements))) == line + "\n"


def test_excluding_or_replacing_nothing_does_nothing():
    assert written(["A cat"], exclude=("", " "), replace=(("", "x"), (" ", "x"))) == "A cat\n"


def test_exclusion_comes_before_replacement():
    assert written(["dog, cat"], exclude=("cat",), replace=(("dog", "cat"),)) == "cat\n"


# What is there already


def test_skip_leaves_a_caption_alone(picture):
    caption_path(picture).write_text("mine")
    skip = CaptionFiles("skip", prefix="sks")
    assert skip.keeps(picture) and not skip.write(picture, ["cat"])
    assert caption(picture) == "mine"


@pytest.mark.parametrize("existing", EXISTING)
@pytest.mark.parametrize("blank", [None, "", " \n\t", "\ufeff", ",\n"])
def test_a_blank_caption_is_none(picture, existing, blank):
    if blank is not None:
        caption_path(picture).write_bytes(blank.encode())
    files = CaptionFiles(existing, prefix="sks", suffix="best")
    assert not files.keeps(picture) and files.write(picture, ["cat"])
    assert caption(picture) == "sks, cat, best\n"


def test_overwrite_replaces_all_of_it():
    assert written(["cat"], "mine,\nand more") == "cat\n"


@pytest.mark.parametrize(
    ("there", "appended", "prepended"),
    [
        ("mine", "mine, cat, dog", "cat, dog, mine"),
        ("mine, Cat ,\n", "mine, Cat, dog", "dog, mine, Cat"),
        (
            "\ufeff\n a  (b:1.2),c\r\n\r\nd.\n",
            "a  (b:1.2),c\r\n\r\nd., cat, dog",
            "cat, dog, a  (b:1.2),c\r\n\r\nd.",
        ),
        ("a cat", "a cat, cat, dog", "cat, dog, a cat"),
        ("x\ncat", "x\ncat, dog", "dog, x\ncat"),
        ("x\rcat", "x\rcat, dog", "dog, x\rcat"),
    ],
)
def test_only_new_parts_join_what_a_person_wrote(there, appended, prepended):
    assert written(["cat, dog"], there, "append") == appended + "\n"
    assert written(["cat, dog"], there, "prepend") == prepended + "\n"


@pytest.mark.parametrize(
    ("there", "appended", "prepended"),
    [
        ("mine", "sks, mine, cat, best", "sks, cat, mine, best"),
        ("SKS,mine\n ,BEST\n", "SKS,mine, cat\n ,BEST", "SKS, cat,mine\n ,BEST"),
        ("sks\nmine", "sks\nmine, cat, best", "sks, cat\nmine, best"),
        ("sks", "sks, cat, best", "sks, cat, best"),
        ("best", "sks, cat, best", "sks, cat, best"),
        ("best, sks", "sks, best, sks, cat, best", "sks, cat, best, sks, best"),
    ],
)
def test_prefix_stays_first_and_suffix_last_around_what_a_person_wrote(there, appended, prepended):
    around = {"prefix": "sks", "suffix": "best"}
    assert written(["cat"], there, "append", **around) == appended + "\n"
    assert written(["cat"], there, "prepend", **around) == prepended + "\n"


@pytest.mark.parametrize("existing", EXISTING)
def test_nothing_to_say_writes_nothing(picture, existing):
    files = CaptionFiles(existing, exclude=("c*",))
    assert not files.write(picture, ["cat", " , "]) and not caption_path(picture).exists()
    caption_path(picture).write_text("mine")
    assert not files.write(picture, ["cat"]) and caption(picture) == "mine"


@pytest.mark.parametrize(
    ("existing", "there"),
    [
        ("overwrite", "cat, dog\n"),
        ("overwrite", "cat, dog"),
        ("append", "Dog,cat"),
        ("prepend", "x,\nDOG, cat\n"),
    ],
)
def test_a_caption_that_says_it_already_is_not_touched(picture, existing, there):
    path = caption_path(picture)
    path.write_text(there)
    os.utime(path, (1, 1))
    assert not CaptionFiles(existing).write(picture, ["cat, dog"])
    assert path.read_text() == there and path.stat().st_mtime == 1


def test_one_word_is_not_prefix_and_suffix_at_once():
    assert written(["cat"], "sks", "append", prefix="sks", suffix="sks") == "sks, cat, sks\n"


# Whatever it holds

ANY = st.text(st.sampled_from("ab ,\r\nAB\\()[*?\ufeff\0\u2028\x85ßé.|") | st.characters(), max_size=12)
TEXTS = st.lists(ANY, max_size=4)
# What a UTF-8 file can hold: no lone surrogates; and of these, the readable: no NULs.
FILES = ANY.map(lambda text: text.encode("utf-8", "replace").decode().replace("\0", "").lstrip("\ufeff"))
SEPARATORS = "," + "".join(c for c in map(chr, range(0x3001)) if c.isspace())
AROUND = st.sampled_from(["", "a", "b", "A, b", "sks", " ,", "\ufeffa", "\n"]) | st.text(max_size=4)
MERGING = st.sampled_from(["append", "prepend"])


@given(TEXTS, st.none() | FILES, st.sampled_from(EXISTING), AROUND, AROUND)
@example(["a"], "a", "append", "a", "a")
@example(["b"], "a", "prepend", "b", "a")
@example(["\ufeffa"], None, "append", "", "")
@example(["ß"], "SS", "append", "", "")
def test_the_same_run_again_changes_nothing(texts, there, existing, prefix, suffix):
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder, "photo.png")
        if there is not None:
            caption_path(picture).write_bytes(there.encode())
        files = CaptionFiles(existing, prefix, suffix)
        files.write(picture, texts)
        once = caption(picture) if caption_path(picture).exists() else None
        assert not files.write(picture, texts)
        assert once == (caption(picture) if caption_path(picture).exists() else None)


@given(TEXTS)
def test_parts_keep_their_order_and_come_once(texts):
    line = folded(written(texts))
    assert len(set(line)) == len(line)
    clean = ",".join(texts).translate({0: " ", 0xFEFF: " "}).encode("utf-8", "replace").decode()
    assert line == list(
        dict.fromkeys(" ".join(part.split()).casefold() for part in clean.split(",") if part.strip())
    )


@given(TEXTS, FILES, MERGING, AROUND, AROUND)
def test_what_a_person_wrote_keeps_its_words_and_order(texts, there, existing, prefix, suffix):
    after = parts(written(texts, there, existing, prefix=prefix, suffix=suffix))
    rest = iter(after)
    assert all(part in rest for part in parts(there))


@given(TEXTS, FILES, MERGING)
def test_what_a_person_wrote_stands_there_letter_by_letter(texts, there, existing):
    after = written(texts, there, existing).strip(SEPARATORS)
    words = there.strip(SEPARATORS)
    assert after.startswith(words) if existing == "append" else after.endswith(words)


@given(TEXTS, st.none() | FILES, st.sampled_from(["overwrite", "append", "prepend"]))
def test_every_caption_starts_with_its_prefix_and_ends_with_its_suffix(texts, there, existing):
    line = written(texts, there, existing, prefix="sks, photo", suffix="best")
    assert folded(line)[:2] == ["sks", "photo"] and folded(line)[-1] == "best"
    assert line.endswith("\n")


HOSTILE = st.text(r"ab.*+?()[]{}|^$\-:1_éß", min_size=1, max_size=5)


@given(HOSTILE, st.text(st.sampled_from(r"xy\1g<0>$&()"), min_size=1, max_size=5))
def test_no_character_of_a_replacement_means_more_than_itself(words, others):
    line = written([f"before {words} after"], replace=((words, others),))
    assert line == f"before {others} after\n"


@given(HOSTILE, TEXTS)
def test_a_part_is_excluded_by_its_own_name_whatever_it_is(part, texts):
    assert part.casefold() not in folded(written([part, *texts], exclude=(part,)))


@given(
    st.lists(st.sampled_from(["cat", "black cat", "dog", "Cat", "c", "ca"]), max_size=6),
    st.text("cat*?[]!- ", max_size=5),
)
def test_wildcards_mean_what_they_mean_in_a_shell(texts, pattern):
    left = folded(written(texts, exclude=(pattern,)))
    wild = re.compile(translate(" ".join(pattern.split())))
    assert left == [part for part in dict.fromkeys(text.casefold() for text in texts) if not wild.match(part)]


# What cannot be used


@pytest.mark.parametrize("existing", EXISTING)
@pytest.mark.parametrize(
    "content",
    ["Café".encode("latin-1"), "cat".encode("utf-16"), "cat".encode("utf-16-le"), b"\x89PNG\r\n\x1a\n\0"],
)
def test_what_is_not_utf8_is_refused_and_left_alone(picture, existing, content):
    path = caption_path(picture)
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"photo\.txt: it is not UTF-8.* Save it as UTF-8") as error:
        CaptionFiles(existing).write(picture, ["cat"])
    assert "\n" not in str(error.value) and path.read_bytes() == content


@pytest.mark.parametrize("existing", EXISTING)
@pytest.mark.parametrize(
    ("kind", "make"),
    [
        ("a folder", lambda path: path.mkdir()),
        ("a broken link", lambda path: path.symlink_to("gone.txt")),
        ("a broken link", lambda path: path.symlink_to(path)),
        ("no file", os.mkfifo if hasattr(os, "mkfifo") else None),
    ],
)
@pytest.mark.skipif(os.name == "nt", reason="links need a right there")
def test_what_is_no_file_is_refused(picture, existing, kind, make):
    make(caption_path(picture))
    with pytest.raises(InputError, match=rf"photo\.txt: it is {kind}\. Move it away"):
        CaptionFiles(existing).write(picture, ["cat"])
    assert not (picture.parent / "gone.txt").exists()


@pytest.mark.skipif(os.name == "nt", reason="no such names there")
def test_a_name_cannot_drive_the_terminal(tmp_path):
    (tmp_path / "\x1b[31m\n.txt").mkdir()
    with pytest.raises(InputError) as error:
        CaptionFiles("skip").write(tmp_path / "\x1b[31m\n.png", ["cat"])
    assert str(error.value).isprintable()


def test_a_read_only_caption_is_not_replaced(picture, monkeypatch):
    path = caption_path(picture)
    path.write_text("mine")
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everything
    with pytest.raises(PermissionError, match="it is read-only"):
        CaptionFiles("overwrite").write(picture, ["cat"])
    assert path.read_text() == "mine"


def test_an_unknown_way_is_not_taken_for_another():
    with pytest.raises(InputError, match=r"'replace'.* skip, overwrite, append, prepend"):
        CaptionFiles("replace")


# How it is written


@pytest.mark.skipif(os.name == "nt", reason="links need a right there")
def test_a_linked_caption_is_written_where_it_lies(tmp_path, picture):
    (tmp_path / "captions").mkdir()
    target = tmp_path / "captions" / "one.txt"
    target.write_text("mine")
    caption_path(picture).symlink_to("captions/one.txt")
    assert CaptionFiles("append").write(picture, ["cat"])
    assert caption_path(picture).is_symlink() and target.read_text() == "mine, cat\n"
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.skipif(os.name == "nt", reason="modes of Unix")
def test_a_caption_keeps_its_mode(picture):
    path = caption_path(picture)
    path.write_text("mine")
    path.chmod(0o640)
    assert CaptionFiles("overwrite").write(picture, ["cat"])
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_write_that_fails_leaves_the_caption_and_nothing_else(picture, monkeypatch):
    path = caption_path(picture)
    path.write_text("mine")
    monkeypatch.setattr(os, "fsync", _disk_full)
    with pytest.raises(OSError, match="No space left"):
        CaptionFiles("overwrite").write(picture, ["cat"])
    assert path.read_text() == "mine" and list(picture.parent.iterdir()) == [path]


def test_a_killed_write_leaves_the_caption_whole_and_the_next_one_cleans_up(picture, monkeypatch):
    path = caption_path(picture)
    path.write_text("mine")
    left = atomic._beside(path, ".promptglass.tmp")
    seen = []
    replace = Path.replace
    monkeypatch.setattr(
        Path, "replace", lambda self, to: (seen.append((self, path.read_text())), replace(self, to))
    )
    left.write_text("half of a much longer capti")
    assert CaptionFiles("overwrite").write(picture, ["cat"])
    assert seen == [(left, "mine")]
    assert list(picture.parent.iterdir()) == [path] and path.read_text() == "cat\n"


def _disk_full(_: int) -> None:
    raise OSError(28, "No space left on device")


# What the user types


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("a=b", ("a", "b")),
        (" long hair = hair ", ("long hair", "hair")),
        ("a=", ("a", "")),
        ("a=b=c", ("a", "b=c")),
    ],
)
def test_a_replacement_is_two_sides_of_an_equals_sign(typed, meant):
    assert parse_replacement(typed) == meant


@pytest.mark.parametrize("typed", ["", "grey", "=b", " =b", "="])
def test_what_is_no_replacement_is_answered_with_one(typed):
    with pytest.raises(InputError, match="grey=gray"):
        parse_replacement(typed)


def test_a_list_is_parted_by_commas():
    assert parse_list("a, b*,c") == ("a", "b*", "c")
    assert parse_list(" , ") == ()
