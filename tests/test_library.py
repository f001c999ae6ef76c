"""The library: what a scan takes in, what is found in it, and what it survives."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from conftest import noise
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import PngImagePlugin

from promptglass import library_schema
from promptglass.analyzers import Answer, Recipe
from promptglass.errors import Busy, InputError, PromptglassError, Stopped
from promptglass.intake import facts_of
from promptglass.library import LIBRARY_VARIABLE, Library, Scanned, library_path
from promptglass.library_files import Prompt
from promptglass.sidecar import Privacy, path_of, update

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    return folder


@pytest.fixture
def library(tmp_path: Path):
    library = Library(tmp_path / "library.db")
    yield library
    library.close()


def saved(path: Path | str, seed: int = 0, prompt: str = "", negative: str = "blurry") -> str:
    texts = PngImagePlugin.PngInfo()
    if prompt:
        texts.add_text("parameters", f"{prompt}\nNegative prompt: {negative}\nSteps: 20, Seed: 1")
    with open(path, "wb") as file:  # noqa: PTH123 - a name may be no text
        noise(seed, (12, 9)).save(file, "PNG", pnginfo=texts)
    return os.fspath(path)


def answered(path: str, *answers: Answer, privacy: Privacy = Privacy()) -> None:  # noqa: B008
    recipes = {answer.mode: Recipe(answer.model, answer.settings) for answer in answers}
    update(path, facts_of(path), recipes, answers, privacy)


def best(text: str, **settings: object) -> Answer:
    return Answer("best", text, "ViT-L-14/openai", 0.31, settings=settings)


def texts_of(library: Library, path: str) -> dict[str, str]:
    image = next(image for image in library.images(with_missing=True) if image.path == path)
    return {prompt.type: prompt.text for prompt in library.prompts_of(image.id)}


def told(scanned: Scanned) -> dict[str, int]:
    """The counts that are not zero."""
    return {name: value for name, value in vars(scanned).items() if value and isinstance(value, int)}


# -- what a scan takes in ------------------------------------------------------------------------------------


def test_a_scan_takes_in_pictures_and_what_their_sidecars_hold(library: Library, pictures: Path):
    a = saved(pictures / "a.png", prompt="a red wall")
    answered(
        a,
        best("a wall, golden light", max_flavors=3),
        Answer("llm/describe", "There is a wall.", "qwen"),
        Answer("palette", "red"),
    )
    (pictures / "below").mkdir()
    saved(pictures / "below" / "b.png", 1)
    (pictures / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    scanned = library.scan(pictures)
    assert told(scanned) == {"found": 3, "added": 2, "failed": 1, "prompts": 3}
    assert "broken.png" in scanned.failures[0][1]
    first, second = library.images()
    assert (first.path, first.width, first.height, first.format) == (a, 12, 9, "PNG")
    assert second.path == str(pictures / "below" / "b.png")
    kept = {prompt.type: prompt for prompt in library.prompts_of(first.id)}
    assert kept["embedded"].text == "a red wall"
    assert (kept["embedded"].negative, kept["embedded"].model) == ("blurry", "a1111")
    assert kept["clip_generated"].score == pytest.approx(0.31)
    assert kept["clip_generated"].settings == {"max_flavors": 3}
    assert kept["llm_generated"].model == "qwen"


def test_again_nothing_is_opened(library: Library, pictures: Path, monkeypatch: pytest.MonkeyPatch):
    answered(saved(pictures / "a.png"), best("a wall"))
    saved(pictures / "b.png", 1)
    library.scan(pictures)
    monkeypatch.setattr("promptglass.library.look", lambda *_: pytest.fail("looked again"))
    assert told(library.scan(pictures)) == {"found": 2, "unchanged": 2, "prompts": 1}


def test_a_sidecar_that_says_enough_spares_the_picture(
    library: Library, pictures: Path, monkeypatch: pytest.MonkeyPatch
):
    a = saved(pictures / "a.png", prompt="a red wall")
    embedded = Answer("embedded", "a red wall", "a1111", details={"negative": "blurry"})
    answered(a, embedded, best("a wall"))
    monkeypatch.setattr("promptglass.library_files.read_picture", lambda *_, **__: pytest.fail("decoded"))
    assert told(library.scan(pictures)) == {"found": 1, "added": 1, "prompts": 2}


def test_without_recursive_only_the_folder_itself(library: Library, pictures: Path):
    (pictures / "below").mkdir()
    saved(pictures / "below" / "b.png")
    saved(pictures / "a.png")
    library.scan(pictures)
    assert told(library.scan(pictures, recursive=False)) == {"found": 1, "unchanged": 1}
    assert library.count() == 2


def test_ids_stay_whatever_becomes_of_a_picture(library: Library, pictures: Path):
    a = saved(pictures / "a.png", prompt="a red wall")
    library.scan(pictures)
    (image,) = library.images()

    answered(a, best("a wall"))  # new in its sidecar
    assert told(library.scan(pictures)) == {"found": 1, "updated": 1, "prompts": 2}
    assert [found.id for found in library.images()] == [image.id]

    (pictures / "b").mkdir()  # moved, with its sidecar
    moved = pictures / "b" / "c.png"
    Path(a).rename(moved)
    path_of(a).rename(path_of(moved))
    assert told(library.scan(pictures)) == {"found": 1, "moved": 1, "prompts": 2}
    assert [(found.id, found.path) for found in library.images()] == [(image.id, str(moved))]

    library.add_prompt(image.id, Prompt("clip_generated", "fast", "said of the old one"))
    saved(moved, 1)  # another picture: what was said of the old one goes
    os.utime(moved, (1, 1))
    assert told(library.scan(pictures)) == {"found": 1, "changed": 1}
    assert [found.id for found in library.images()] == [image.id]

    saved(a, 2)  # where it once was
    assert told(library.scan(pictures))["added"] == 1
    assert len({found.id for found in library.images()}) == 2


def test_what_is_gone_is_marked_and_comes_back(library: Library, pictures: Path):
    a = saved(pictures / "a.png", prompt="a red wall")
    saved(pictures / "b.png", 1)
    library.scan(pictures)
    Path(a).rename(pictures.parent / "away.png")
    assert told(library.scan(pictures)) == {"found": 1, "unchanged": 1, "missing": 1}
    assert [image.path for image in library.images()] == [str(pictures / "b.png")]
    assert [bool(image.missing_since) for image in library.images(with_missing=True)] == [True, False]
    assert texts_of(library, a) == {"embedded": "a red wall"}
    (pictures.parent / "away.png").rename(a)
    library.scan(pictures)
    assert library.count() == 2


def test_what_leaves_a_sidecar_leaves_the_library(library: Library, pictures: Path):
    a = saved(pictures / "a.png", prompt="a red wall")
    answered(a, best("a wall", max_flavors=3))
    library.scan(pictures)
    library.add_prompt(library.images()[0].id, Prompt("clip_generated", "fast", "said elsewhere"))
    path_of(a).unlink()
    library.scan(pictures)
    assert texts_of(library, a) == {"embedded": "a red wall", "clip_generated": "said elsewhere"}


def test_a_sidecar_that_cannot_be_read_takes_nothing_away(library: Library, pictures: Path):
    a = saved(pictures / "a.png")
    answered(a, best("a wall"))
    library.scan(pictures)
    for content in ('{"schema": 99}', "{"):
        path_of(a).write_text(content)
        scanned = library.scan(pictures)
        assert scanned.failed == 1
        assert texts_of(library, a) == {"clip_generated": "a wall"}


def test_a_sidecar_of_another_picture_says_nothing_of_this_one(library: Library, pictures: Path):
    a = saved(pictures / "a.png")
    answered(a, best("a wall"))
    saved(a, 1)
    os.utime(a, (1, 1))
    assert told(library.scan(pictures)) == {"found": 1, "added": 1}


def test_sidecars_that_somebody_else_wrote_do_no_harm(library: Library, pictures: Path):
    a = saved(pictures / "a.png")
    answered(a, best("a wall"))
    content = json.loads(path_of(a).read_text())
    for entries in (
        ["no entry"],
        [{"prompt": 5}, {"prompt": "x", "score": 1e300, "model": [], "settings": 4, "at": {}}],
        [{"prompt": "half \ud800 and \0", "model": "\udfff", "settings": {"a": 1e99}}],
        {"prompt": "no list"},
    ):
        strange = {**content["analysis"], "best": entries, "llm/\ud800": entries}
        path_of(a).write_text(json.dumps({**content, "analysis": strange}))
        os.utime(path_of(a), ns=(time.time_ns(), time.time_ns()))
        assert told(library.scan(pictures))["found"] == 1
    assert texts_of(library, a) == {}
    for name, value in (("width", 10**30), ("height", "tall"), ("sha256", None), ("format", 5)):
        info = {**content["file_info"], name: value}
        path_of(a).write_text(json.dumps({**content, "file_info": info}))
        os.utime(path_of(a), ns=(time.time_ns(), time.time_ns()))
        assert told(library.scan(pictures))["found"] == 1


def test_encrypted_prompts_stay_encrypted(library: Library, pictures: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("cryptography")
    monkeypatch.setenv("PROMPTGLASS_KEY", "a long passphrase of ours")
    a = saved(pictures / "a.png", prompt="a red wall")
    embedded = Answer("embedded", "a red wall", "a1111", details={"negative": "blurry"})
    answered(a, embedded, best("a secret wall"), privacy=Privacy(encrypt=True))
    assert told(library.scan(pictures)) == {"found": 1, "added": 1, "encrypted": 1, "prompts": 1}
    assert texts_of(library, a) == {"embedded": "a red wall"}  # which the file itself tells everybody
    library.close()
    content = b"".join(path.read_bytes() for path in library.path.parent.glob("library.db*"))
    assert b"secret" not in content
    monkeypatch.delenv("PROMPTGLASS_KEY")
    other = Library(library.path.with_name("other.db"))
    assert told(other.scan(pictures)) == {"found": 1, "added": 1, "encrypted": 1, "prompts": 1}
    other.close()


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
def test_names_may_be_anything(library: Library, pictures: Path):
    names = ["🎈 a.png", "line\nbreak.png", "quote'\"%_.png", os.fsdecode(b"half\xff.png"), " lead.png"]
    for seed, name in enumerate(names):
        saved(os.path.join(pictures, name), seed, prompt=f"number {seed}")  # noqa: PTH118
    assert told(library.scan(pictures)) == {"found": 5, "added": 5, "prompts": 5}
    assert {image.path for image in library.images()} == {f"{pictures}/{name}" for name in names}
    assert told(library.scan(pictures))["unchanged"] == 5
    assert [image.path for image in library.images(query="🎈")] == [f"{pictures}/🎈 a.png"]
    assert library.count("%_") == 1


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_links_out_of_the_roots_are_not_taken_in(library: Library, pictures: Path):
    outside = pictures.parent / "outside"
    outside.mkdir()
    saved(outside / "secret.png")
    saved(pictures / "a.png", 1)
    (pictures / "link.png").symlink_to(outside / "secret.png")
    (pictures / "inside.png").symlink_to(pictures / "a.png")
    (pictures / "folder").symlink_to(outside)
    scanned = library.scan(pictures, roots=[pictures])
    assert told(scanned) == {"found": 2, "added": 2, "failed": 2}
    assert all("a link out of the folders" in error for _, error in scanned.failures)


def test_only_what_lies_within_is_there(library: Library, pictures: Path):
    other = pictures.parent / "pictures and more"
    other.mkdir()
    saved(pictures / "a.png", prompt="a red wall")
    saved(other / "b.png", 1, prompt="a red door")
    library.scan(pictures)
    library.scan(other)
    assert [image.path for image in library.images(within=[pictures])] == [str(pictures / "a.png")]
    assert library.count("red", [other]) == 1
    assert [prompt.text for prompt in library.search("red", within=[other])] == ["a red door"]
    b, a = library.images()
    assert library.image(b.id, [pictures]) is None
    assert library.ids([pictures]) == [a.id]
    assert library.images(within=[]) == library.search("red", within=[]) == []
    assert library.count(within=[Path("/")]) == (0 if os.name == "nt" else 2)


def test_whoever_stops_keeps_what_was_taken_in(library: Library, pictures: Path):
    for number in range(40):
        saved(pictures / f"{number:02}.png", number)

    def stop(what: str, done: int, total: int) -> None:
        if what == "taking in" and done >= 32:
            raise Stopped("stopped")

    with pytest.raises(Stopped):
        library.scan(pictures, progress=stop)
    assert library.count() == 32
    assert told(library.scan(pictures)) == {"found": 40, "added": 8, "unchanged": 32}


def test_a_library_made_anew_has_the_same_ids(library: Library, pictures: Path):
    answered(saved(pictures / "a.png", prompt="a red wall"), best("a wall"))
    other = Library(library.path.with_name("other.db"))
    for one in (library, other):
        one.scan(pictures)
    assert [image.id for image in library.images()] == [image.id for image in other.images()]
    ids = [[prompt.id for prompt in one.prompts_of(one.ids()[0])] for one in (library, other)]
    assert ids[0] == ids[1]
    other.close()


# -- prompts, and words --------------------------------------------------------------------------------------


def test_a_prompt_of_the_same_making_takes_the_place_of_the_last(library: Library, pictures: Path):
    saved(pictures / "a.png")
    library.scan(pictures)
    (id_,) = library.ids()
    for text in ("once", "again"):
        kept = library.add_prompt(id_, Prompt("clip_generated", "best", text, "ViT-L-14/openai"))
    library.add_prompt(id_, Prompt("clip_generated", "best", "with less", settings={"max_flavors": 1}))
    assert [prompt.text for prompt in library.prompts_of(id_)] == ["again", "with less"]
    assert library.prompts_of(id_)[0] == kept
    assert library.search("once") == []
    with pytest.raises(InputError, match="no image"):
        library.add_prompt("nobody", kept)


@pytest.fixture(params=["full text", "by pattern"])
def spoken(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A library with some prompts, with FTS5 and without."""
    if request.param == "by pattern":
        monkeypatch.setattr(library_schema, "FULL_TEXT", "CREATE VIRTUAL TABLE prompts_fts USING absent (a)")
    (tmp_path / "spoken").mkdir()
    saved(tmp_path / "spoken" / "a.png")
    library = Library(tmp_path / "spoken.db")
    library.scan(tmp_path / "spoken")
    (id_,) = library.ids()
    for number, text in enumerate(("Golden light, a wizard", "a golden door", "赤い猫 🎈", "100% cat_ears")):
        library.add_prompt(id_, Prompt("embedded", f"mode {number}", text))
    yield library
    library.close()


@pytest.mark.parametrize(
    ("asked", "count"),
    [
        ("golden", 2),
        ("GOLDEN light", 1),
        ("door light", 0),
        ("猫", 1),
        ("🎈", 1),
        ("100%", 1),
        ("", 0),
        (" \0 ", 0),
        ('"', 0),
        ("golden NOT light", 0),
        ("NEAR(golden light)", 0),
        ("text: golden", 0),
    ],
)
def test_words_are_found(spoken: Library, asked: str, count: int):
    assert len(spoken.search(asked)) == count


def test_the_best_come_first_and_no_more_than_asked_for(spoken: Library):
    assert len(spoken.search("golden", limit=1)) == 1
    assert spoken.count("golden") == 1  # an image, by two of its prompts
    assert spoken.count("a.png") == 1


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example('"')
@example("\0")
@example("*")
@example("a\0b")
@example("\ud800")
@example("-" * 2000)
@example("a " * 2000)
@example("(" * 500)
@example('a" OR "b')
@given(st.one_of(st.text(), st.text(alphabet='"*^:()-+{}\\%_ aNEAROT\0\ud800'), st.text(st.characters())))
def test_no_text_is_an_error(spoken: Library, asked: str):
    spoken.search(asked)
    spoken.images(query=asked)
    spoken.count(asked)
    spoken.image(asked)
    spoken.prompts_of(asked)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(alphabet=st.characters(exclude_categories=()), min_size=1))
def test_any_text_is_kept_and_given_again(spoken: Library, text: str):
    (id_,) = spoken.ids()
    spoken.add_prompt(id_, Prompt("embedded", "kept", text, text, text, settings={text: text}))
    kept = next(prompt for prompt in spoken.prompts_of(id_) if prompt.mode == "kept" and prompt.text)
    assert kept.settings == {text: text} or kept.text
    with spoken._writing():
        spoken._run("DELETE FROM prompts WHERE mode = 'kept'")


# -- its file ------------------------------------------------------------------------------------------------


def test_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "data"))
    monkeypatch.delenv(LIBRARY_VARIABLE, raising=False)
    assert library_path() == tmp_path / "data" / "promptglass" / "library.db"
    Library().close()
    assert library_path().is_file()
    monkeypatch.setenv(LIBRARY_VARIABLE, str(tmp_path / "named.db"))
    assert library_path() == tmp_path / "named.db"


def test_an_old_file_is_brought_up_to_date(tmp_path: Path):
    """One of version 1, made by hand: images, and no prompts yet."""
    file = tmp_path / "old.db"
    old = sqlite3.connect(file)
    for statement in library_schema.MIGRATIONS[0]:
        old.execute(statement)
    picture = saved(tmp_path / "a.png", prompt="a red wall")
    status = Path(picture).stat()
    old.execute(
        "INSERT INTO images VALUES ('the-id', ?, 'a.png', ?, ?, ?, NULL, 12, 9, 'PNG', '2026-01-01', '')",
        (os.fsencode(picture), "0" * 64, status.st_size, status.st_mtime_ns - 1),
    )
    old.execute("PRAGMA user_version = 1")
    old.commit()
    old.close()
    library = Library(file)
    assert library.ids() == ["the-id"]
    library.scan(tmp_path)
    assert [prompt.text for prompt in library.prompts_of("the-id")] == ["a red wall"]
    assert len(library.search("wall")) == 1
    library.close()
    assert sqlite3.connect(file).execute("PRAGMA user_version").fetchone() == (
        len(library_schema.MIGRATIONS),
    )


def test_a_migration_that_fails_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "library.db"
    Library(file).close()
    now = library_schema.MIGRATIONS
    monkeypatch.setattr(library_schema, "MIGRATIONS", (*now, ("CREATE TABLE tags (a)", "no SQL")))
    with pytest.raises(sqlite3.OperationalError):
        Library(file)
    monkeypatch.setattr(library_schema, "MIGRATIONS", now)
    library = Library(file)
    assert library._rows("SELECT 1 FROM sqlite_master WHERE name = 'tags'") == []


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ("PRAGMA user_version = 99", "a newer promptglass made it .version 99"),
        ("CREATE TABLE theirs (a)", "another program's database"),
    ],
)
def test_a_file_that_is_not_ours_is_refused_and_left_alone(tmp_path: Path, made: str, said: str):
    file = tmp_path / "theirs.db"
    theirs = sqlite3.connect(file)
    theirs.execute(made)
    theirs.commit()
    theirs.close()
    before = file.read_bytes()
    with pytest.raises(InputError, match=said) as raised:
        Library(file)
    assert "\n" not in str(raised.value)
    assert file.read_bytes() == before


def test_what_is_no_database_is_said_in_one_line(tmp_path: Path):
    (tmp_path / "text.db").write_text("These are notes of mine, and no library at all. " * 99)
    (tmp_path / "folder.db").mkdir()
    for name in ("text.db", "folder.db", "text.db/below.db"):
        with pytest.raises(InputError) as raised:
            Library(tmp_path / name)
        assert str(raised.value).count("\n") == 0


def test_without_fts5_and_with_it_again(tmp_path: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch):
    saved(pictures / "a.png", prompt="a red wall")
    file = tmp_path / "library.db"
    first = Library(file)
    first.scan(pictures)
    first.close()
    with monkeypatch.context() as without:
        # A table is there, whose module is not.
        without.setattr(library_schema, "FULL_TEXT", "CREATE VIRTUAL TABLE other USING absent (a)")
        plain = Library(file)
        saved(pictures / "b.png", 1, prompt="a green wall")
        plain.scan(pictures)
        assert len(plain.search("wall")) == 2
        triggers = "SELECT 1 FROM sqlite_master WHERE type = 'trigger'"
        assert plain._rows(triggers) == []  # which would ask for the module
        plain.close()
    again = Library(file)
    assert len(again.search("walls")) == 2  # by their stem: that is full text
    again.close()


def test_whoever_writes_for_too_long_is_named(
    library: Library, monkeypatch: pytest.MonkeyPatch, pictures: Path
):
    saved(pictures / "a.png")
    library._connection.execute("PRAGMA busy_timeout = 50")
    other = sqlite3.connect(library.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Busy, match="another process"):
        library.scan(pictures)
    other.execute("ROLLBACK")
    assert library.scan(pictures).added == 1


def test_many_threads_use_one_library(library: Library, pictures: Path):
    for number in range(6):
        saved(pictures / f"{number}.png", number, prompt=f"wall {number}")
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for _ in range(5):
                library.scan(pictures)
                for id_ in library.ids():
                    library.add_prompt(id_, Prompt("clip_generated", f"mode {number}", "a wall"))
                library.search("wall")
        except PromptglassError as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert library.count() == 6
    assert len(library.search("wall", limit=1000)) == 6 * 5


SCAN = """
import sys, time
from pathlib import Path
import promptglass.library as library
library._TOGETHER = int(sys.argv[3])
look = library.look
def slow(found, admit):
    time.sleep(0.02)
    return look(found, admit)
library.look = slow
print("ready", flush=True)
print(library.Library(sys.argv[1]).scan(Path(sys.argv[2])).added, flush=True)
"""


def scanning(file: Path, folder: Path, together: int) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(
        [sys.executable, "-c", SCAN, str(file), str(folder), str(together)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )


def is_whole(file: Path) -> bool:
    connection = sqlite3.connect(file)
    try:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        connection.execute("INSERT INTO prompts_fts (prompts_fts) VALUES ('integrity-check')")
        # A picture is in there with its prompt, or not at all.
        lonely = "SELECT COUNT(*) FROM images WHERE id NOT IN (SELECT image_id FROM prompts)"
        return connection.execute(lonely).fetchone() == (0,)
    finally:
        connection.close()


@pytest.mark.skipif(os.name == "nt", reason="no SIGKILL there")
def test_killed_in_the_middle_it_is_whole_and_goes_on(tmp_path: Path, pictures: Path):
    for number in range(80):
        saved(pictures / f"{number:02}.png", number, prompt=f"wall {number}")
    file = tmp_path / "library.db"
    counts = []
    for _ in range(3):
        process = scanning(file, pictures, together=4)
        assert process.stdout is not None
        process.stdout.readline()
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and count_in(file) < (counts[-1] if counts else 0) + 4:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        counts.append(count_in(file))
        assert is_whole(file)
    assert 0 < counts[0] < 80
    assert counts == sorted(counts)
    library = Library(file)
    assert library.scan(pictures).unchanged == counts[-1]
    assert library.count() == 80
    assert len(library.search("wall", limit=100)) == 80
    library.close()


def count_in(file: Path) -> int:
    try:
        with sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=5) as connection:
            return int(connection.execute("SELECT COUNT(*) FROM images").fetchone()[0])
    except sqlite3.OperationalError:  # not there yet
        return 0


def test_two_processes_scan_the_same_folder(tmp_path: Path, pictures: Path):
    for number in range(40):
        saved(pictures / f"{number:02}.png", number, prompt=f"wall {number}")
    file = tmp_path / "library.db"
    processes = [scanning(file, pictures, together=1) for _ in range(3)]
    added = [int(process.communicate(timeout=120)[0].split()[-1]) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert sum(added) == 40
    assert is_whole(file)
    library = Library(file)
    assert library.count() == len(set(library.ids())) == 40
    library.close()
