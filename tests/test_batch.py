"""A folder is filled with sidecars, whatever is in it and whatever happens meanwhile."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import jsonschema
import pytest
from conftest import noise
from PIL import Image

from promptglass import atomic, pipeline
from promptglass import batch as batch_module
from promptglass.analyzers import Analyzer, Answer, EmbeddedAnalyzer, PaletteAnalyzer, Recipe
from promptglass.atomic import claim
from promptglass.batch import Batch, Outcome
from promptglass.errors import CaptionerMissing, InputError, ModelError, WeightsMissing
from promptglass.images import Picture
from promptglass.journal import NAME as JOURNAL
from promptglass.sidecar import Privacy, path_of
from promptglass.training import CaptionFiles

SCHEMA = json.loads((Path(__file__).parent.parent / "docs" / "sidecar.schema.json").read_text("utf-8"))


class Scribe(Analyzer):
    """An analyzer that writes down what it was asked, and fails where it is told to."""

    def __init__(self, modes: Sequence[str] = ("fast",), model: str = "scribe") -> None:
        self.modes = tuple(modes)
        self.model = model
        self.settings: dict[str, object] = {}
        self.groups: list[int] = []
        self.seen: list[str] = []
        self.fails_at: dict[str, BaseException] = {}

    def obstacles(self, mode: str) -> list[str]:
        return []

    def recipe(self, mode: str) -> Recipe:
        return Recipe(self.model, self.settings)

    def analyze(self, pictures: Sequence[Picture], modes: Sequence[str]) -> Iterator[tuple[int, Answer]]:
        self.groups.append(len(pictures))
        for place, picture in enumerate(pictures):
            name = Path(picture.name).name
            if name in self.fails_at:
                raise self.fails_at[name]
            for mode in modes:
                self.seen.append(name)
                yield (
                    place,
                    Answer(mode, f"{mode} of {name}", self.model, 0.25, 0.01, self.settings, {"extra": [1]}),
                )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "pictures"
    place.mkdir()
    for number in range(5):
        noise(number).save(place / f"{number}.png")
    return place


def run(batch: Batch, folder: Path, recursive: bool = False) -> dict[str, Outcome]:
    told: list[Outcome] = []
    is_whole = batch.run(batch.plan(folder, recursive), told.append)
    outcomes = {Path(outcome.path).name: outcome for outcome in told}
    assert len(outcomes) == len(told)
    if any(outcome.status == "failed" for outcome in told):
        assert not is_whole
    assert leftovers(folder) == []
    for path in filter(Path.exists, folder.rglob("*.promptglass.json")):
        content = json.loads(path.read_text("utf-8"))
        if content["schema"] == 1:
            jsonschema.validate(content, SCHEMA)
    return outcomes


def leftovers(folder: Path) -> list[str]:
    """Locks, claims and temporary files."""
    return [path.name for path in folder.rglob(".*.promptglass.*") if path.name != JOURNAL]


def statuses(outcomes: dict[str, Outcome]) -> set[str]:
    return {outcome.status for outcome in outcomes.values()}


def analysis(picture: Path) -> dict:
    return json.loads(path_of(picture).read_text("utf-8"))["analysis"]


def test_every_picture_gets_a_sidecar_and_the_second_run_nothing_to_do(folder: Path) -> None:
    scribe = Scribe()
    outcomes = run(Batch([scribe, PaletteAnalyzer()], ["fast", "palette"]), folder)
    assert statuses(outcomes) == {"done"} and len(outcomes) == 5
    found = analysis(folder / "3.png")
    assert found["fast"][0] | {"at": "", "elapsed_s": 0} == {
        "model": "scribe", "prompt": "fast of 3.png", "score": 0.25, "extra": [1], "at": "", "elapsed_s": 0,
    }  # fmt: skip
    assert found["palette"][0]["colours"]
    before = path_of(folder / "3.png").stat().st_mtime_ns
    plan = Batch([scribe, PaletteAnalyzer()], ["fast", "palette"]).plan(folder)
    assert not plan.todo and len(plan.unchanged) == 5
    assert path_of(folder / "3.png").stat().st_mtime_ns == before


def test_what_is_loaded_while_a_model_works_is_seen_together(folder: Path) -> None:
    class Slow(Scribe):
        def analyze(self, pictures, modes):
            time.sleep(0.3)
            return super().analyze(pictures, modes)

    scribe = Slow()
    run(Batch([scribe], ["fast"]), folder)
    assert sum(scribe.groups) == 5 and len(scribe.groups) <= 2


def test_only_what_is_missing_is_computed(folder: Path) -> None:
    run(Batch([Scribe()], ["fast"]), folder)
    both = Scribe(("fast", "best"))
    run(Batch([both], ["fast", "best"]), folder)
    assert sorted(both.seen) == [f"{n}.png" for n in range(5)]  # best alone
    other_model = Scribe(model="other")
    run(Batch([other_model], ["fast"]), folder)
    other_settings = Scribe()
    other_settings.settings = {"max_flavors": 3}
    run(Batch([other_settings], ["fast"]), folder)
    entries = analysis(folder / "0.png")["fast"]
    assert [(entry["model"], entry.get("settings")) for entry in entries] == [
        ("scribe", None), ("other", None), ("scribe", {"max_flavors": 3}),
    ]  # fmt: skip


def test_a_new_picture_among_old_ones(folder: Path) -> None:
    run(Batch([Scribe()], ["fast"]), folder)
    noise(9).save(folder / "new one 🦊.png")
    scribe = Scribe()
    run(Batch([scribe], ["fast"]), folder)
    assert scribe.seen == ["new one 🦊.png"]


def test_a_changed_picture_is_computed_whole(folder: Path) -> None:
    run(Batch([Scribe(("fast", "best"))], ["fast", "best"]), folder)
    sidecar = path_of(folder / "1.png")
    content = json.loads(sidecar.read_text("utf-8"))
    sidecar.write_text(json.dumps({**content, "rating": 5}))
    noise(77).save(folder / "1.png")
    scribe = Scribe()
    run(Batch([scribe], ["fast"]), folder)
    after = json.loads(sidecar.read_text("utf-8"))
    assert scribe.seen == ["1.png"]
    assert after["rating"] == 5 and list(after["analysis"]) == ["fast"]  # best was another picture's
    assert after["file_info"]["sha256"] != content["file_info"]["sha256"]


def test_a_copied_file_is_hashed_but_not_computed_again(folder: Path) -> None:
    run(Batch([Scribe()], ["fast"]), folder)
    os.utime(folder / "2.png", ns=(1, 1_500_000_000_123_456_000))
    scribe = Scribe()
    outcomes = run(Batch([scribe], ["fast"]), folder)
    assert outcomes["2.png"].status == "unchanged" and not scribe.seen
    assert not Batch([scribe], ["fast"]).plan(folder).todo  # the new time is noted
    assert json.loads(path_of(folder / "2.png").read_text())["file_info"]["modified"].startswith(
        "2017-07-14T"
    )


def test_verify_sees_what_size_and_time_hide(folder: Path) -> None:
    picture = folder / "4.bmp"
    Image.new("RGB", (20, 20), "red").save(picture)
    run(Batch([Scribe()], ["fast"]), folder)
    time_before = picture.stat().st_mtime_ns
    Image.new("RGB", (20, 20), "blue").save(picture)
    os.utime(picture, ns=(time_before, time_before))
    assert not Batch([Scribe()], ["fast"]).plan(folder).todo
    scribe = Scribe()
    outcomes = run(Batch([scribe], ["fast"], verify=True), folder)
    assert scribe.seen == ["4.bmp"]
    assert {name: outcome.status for name, outcome in outcomes.items()} == {
        **{f"{n}.png": "unchanged" for n in range(5)}, "4.bmp": "done",
    }  # fmt: skip


def test_force_computes_again_in_place(folder: Path) -> None:
    run(Batch([Scribe(("fast", "best"))], ["fast", "best"]), folder)
    scribe = Scribe()
    run(Batch([scribe], ["fast"], force=True), folder)
    assert len(scribe.seen) == 5
    found = analysis(folder / "0.png")
    assert len(found["fast"]) == 1 and len(found["best"]) == 1


def test_a_mode_without_an_answer_is_not_asked_twice(folder: Path) -> None:
    run(Batch([EmbeddedAnalyzer()], ["embedded"]), folder)
    assert analysis(folder / "0.png") == {"embedded": []}
    assert not Batch([EmbeddedAnalyzer()], ["embedded"]).plan(folder).todo


def test_a_newer_schema_is_left_alone(folder: Path) -> None:
    newer = '{"schema": 2, "all": "is different"}'
    path_of(folder / "0.png").write_text(newer)
    scribe = Scribe()
    outcomes = run(Batch([scribe], ["fast"]), folder)
    assert outcomes["0.png"].status == "failed" and "newer promptglass" in str(outcomes["0.png"].error)
    assert path_of(folder / "0.png").read_text() == newer and "0.png" not in scribe.seen


def test_a_damaged_sidecar_is_kept_aside(folder: Path) -> None:
    sidecar = path_of(folder / "0.png")
    for number, damaged in enumerate(['{"schema": 1, "analy', "[]"]):
        sidecar.write_text(damaged)
        outcomes = run(Batch([Scribe()], ["fast"]), folder)
        kept = sidecar.name + ".bad" + ("1" if number else "")
        assert outcomes["0.png"].status == "done" and kept in str(outcomes["0.png"].note)
        assert (folder / kept).read_text() == damaged
        assert analysis(folder / "0.png")["fast"]


def test_a_picture_that_fails_costs_no_other_its_answer(folder: Path) -> None:
    scribe = Scribe()
    scribe.fails_at["3.png"] = ModelError("no words for it")
    outcomes = run(Batch([scribe, PaletteAnalyzer()], ["fast", "palette"]), folder)
    assert outcomes["3.png"].status == "failed" and outcomes["3.png"].error == "no words for it"
    assert {*analysis(folder / "3.png")} == {"palette"}  # what worked is kept
    assert all(outcomes[f"{n}.png"].status == "done" for n in (0, 1, 2, 4))
    scribe.fails_at.clear()
    run(Batch([scribe, PaletteAnalyzer()], ["fast", "palette"]), folder)
    assert {*analysis(folder / "3.png")} == {"palette", "fast"}


def test_a_bug_in_an_analyzer_is_one_line_about_one_picture(folder: Path) -> None:
    scribe = Scribe()
    scribe.fails_at["3.png"] = KeyError("pixels")
    outcomes = run(Batch([scribe], ["fast"]), folder)
    assert outcomes["3.png"].error == "KeyError: 'pixels'"


@pytest.mark.parametrize("error", [WeightsMissing("no weights"), ModuleNotFoundError("torch")])
def test_an_analyzer_that_cannot_go_on_is_left_out(folder: Path, caplog, error: Exception) -> None:
    scribe = Scribe()
    scribe.fails_at.update({f"{n}.png": error for n in range(5)})
    batch = Batch([scribe, PaletteAnalyzer()], ["fast", "palette"])
    assert not batch.run(batch.plan(folder), lambda outcome: None)
    assert {*analysis(folder / "0.png")} == {"palette"}
    (line,) = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert line.startswith("left out from here on: fast: ") and str(error) in line
    # The same object again: nothing of the first run sticks.
    scribe.fails_at.clear()
    assert statuses(run(batch, folder)) == {"done"} and analysis(folder / "0.png")["fast"]
    scribe.fails_at.update({f"{n}.png": error for n in range(5)})
    with pytest.raises(type(error)):
        run(Batch([scribe], ["fast"], force=True), folder)


def test_a_mode_that_cannot_go_on_costs_no_other_mode(folder: Path) -> None:
    class Speechless(Scribe):
        def analyze(self, pictures, modes):
            if "fast" in modes or "best" in modes:
                raise CaptionerMissing("nobody writes captions")
            return super().analyze(pictures, modes)

    modes = ["fast", "negative", "best"]
    batch = Batch([Speechless(modes)], modes)
    assert not batch.run(batch.plan(folder), lambda outcome: None)
    assert {*analysis(folder / "0.png")} == {"negative"}


def test_an_analyzer_that_fails_again_and_again_is_left_out(folder: Path, monkeypatch, caplog) -> None:
    monkeypatch.setattr(pipeline, "_TOO_MANY_IN_A_ROW", 3)
    scribe = Scribe()
    scribe.fails_at.update({f"{n}.png": RuntimeError("CUDA error") for n in range(5)})
    outcomes = run(Batch([scribe, PaletteAnalyzer()], ["fast", "palette"]), folder)
    assert sum(outcome.error == "RuntimeError: CUDA error" for outcome in outcomes.values()) == 3
    assert (
        "left out from here on: fast: 3 pictures in a row failed: RuntimeError: CUDA error" in caplog.messages
    )
    assert all(analysis(folder / f"{n}.png")["palette"] for n in range(5))
    caplog.clear()
    scribe.fails_at = {"1.png": ModelError("x"), "2.png": ModelError("y"), "4.png": ModelError("x")}
    run(Batch([scribe], ["fast"]), folder)
    assert not any("left out" in message for message in caplog.messages)


def test_answers_stand_once_when_another_picture_of_the_group_fails(folder: Path) -> None:
    class AllItsModes(Scribe):
        """As palette and embedded do, whatever they are asked."""

        def analyze(self, pictures, modes):
            time.sleep(0.2)
            return super().analyze(pictures, self.modes)

    analyzer = AllItsModes()
    analyzer.fails_at["3.png"] = ModelError("x")
    run(Batch([analyzer], ["fast"]), folder)
    assert [len(analysis(folder / f"{n}.png")["fast"]) for n in (0, 1, 2, 4)] == [1, 1, 1, 1]


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_a_score_that_is_no_number_fails_one_picture(folder: Path, wrong: float) -> None:
    class Overflowing(Scribe):
        def analyze(self, pictures, modes):
            for place, answer in super().analyze(pictures, modes):
                is_dark = pictures[place].name.endswith("2.png")
                yield place, dataclasses.replace(answer, score=wrong) if is_dark else answer

    outcomes = run(Batch([Overflowing()], ["fast"]), folder)
    assert "is no number" in str(outcomes["2.png"].error)
    assert [outcome.status for outcome in outcomes.values()].count("done") == 4


def test_an_answer_that_is_no_json_fails_one_picture(folder: Path) -> None:
    class Odd(Scribe):
        def analyze(self, pictures, modes):
            for place, answer in super().analyze(pictures, modes):
                odd = {"raw": b"x", "nan": math.nan}
                yield (
                    place,
                    dataclasses.replace(
                        answer, details=odd if pictures[place].name.endswith("2.png") else {}
                    ),
                )

    outcomes = run(Batch([Odd()], ["fast"]), folder)
    assert outcomes["2.png"].status == "failed" and not path_of(folder / "2.png").exists()
    assert [outcome.status for outcome in outcomes.values()].count("done") == 4


def test_a_disk_that_fails_at_one_picture(folder: Path, monkeypatch) -> None:
    from promptglass import intake

    def broken(file):
        if file.name.endswith("1.png"):
            raise OSError(errno.EIO, "Input/output error")
        return "0" * 64

    monkeypatch.setattr(intake, "file_sha256", broken)
    outcomes = run(Batch([Scribe()], ["fast"]), folder)
    assert "1.png: Input/output error" in str(outcomes["1.png"].error)
    assert [outcome.status for outcome in outcomes.values()].count("done") == 4


def test_few_files_are_open_at_a_time(folder: Path, monkeypatch) -> None:
    """Claims are open files, and some systems allow 256."""
    for number in range(5, 4 * pipeline._GROUP):
        noise(number, (8, 8)).save(folder / f"{number}.png")
    most = 0
    take = atomic._try_lock

    def counting(place: Path) -> int | None:
        nonlocal most
        most = max(most, sum(path.name.endswith(".claim") for path in folder.iterdir()))
        return take(place)

    monkeypatch.setattr(atomic, "_try_lock", counting)
    monkeypatch.setattr(os, "fsync", lambda descriptor: time.sleep(0.01))
    assert statuses(run(Batch([Scribe()], ["fast"]), folder)) == {"done"}
    assert 0 < most <= 2 * pipeline._GROUP


def test_interrupted_it_keeps_and_tells_what_is_done(folder: Path) -> None:
    scribe = Scribe()
    scribe.fails_at["3.png"] = KeyboardInterrupt()
    told: list[Outcome] = []
    batch = Batch([scribe], ["fast"])
    with pytest.raises(KeyboardInterrupt):
        batch.run(batch.plan(folder), told.append)
    done = {path.name.removesuffix(".promptglass.json") for path in folder.glob("*.promptglass.json")}
    assert done == {*scribe.seen} == {Path(outcome.path).name for outcome in told}
    assert leftovers(folder) == []
    scribe.fails_at.clear()
    seen_before = [*scribe.seen]
    run(Batch([scribe], ["fast"]), folder)
    assert (
        sorted(scribe.seen) == [f"{n}.png" for n in range(5)]
        and scribe.seen[: len(seen_before)] == seen_before
    )


def test_whoever_is_told_can_stop_the_work(folder: Path) -> None:
    for number in range(5, 150):
        noise(number, (8, 8)).save(folder / f"{number}.png")

    def stop(outcome: Outcome) -> None:
        raise BrokenPipeError

    scribe = Scribe()
    batch = Batch([scribe], ["fast"])
    with pytest.raises(BrokenPipeError):
        batch.run(batch.plan(folder), stop)
    assert 0 < len(scribe.seen) < 150
    assert len([*folder.glob("*.promptglass.json")]) == len(scribe.seen)
    assert leftovers(folder) == []


def test_memory_is_bounded_and_nothing_waits_for_ever(folder: Path, monkeypatch) -> None:
    held: list[int] = []
    monkeypatch.setattr(pipeline, "_BUDGET_BYTES", 8 * 40 * 30 * 4)  # four pictures; the large one is ten
    noise(5, (400, 30)).save(folder / "a large one.png")
    for number in range(6, 30):
        noise(number).save(folder / f"{number}.png")

    class Watcher(Scribe):
        def analyze(self, pictures, modes):
            held.append(len(pictures))
            return super().analyze(pictures, modes)

    assert len(run(Batch([Watcher()], ["fast"]), folder)) == 30
    assert max(held) <= 4


def test_a_picture_another_process_works_on_is_left_to_it(folder: Path) -> None:
    taken = claim(folder / "2.png")
    assert taken is not None
    scribe = Scribe()
    batch = Batch([scribe], ["fast"])
    told: list[Outcome] = []
    assert batch.run(batch.plan(folder), told.append)
    assert [Path(o.path).name for o in told if o.status == "elsewhere"] == ["2.png"]
    assert "2.png" not in scribe.seen
    taken.release()
    run(Batch([scribe], ["fast"]), folder)
    assert "2.png" in scribe.seen


def test_a_picture_that_is_given_back_meanwhile_is_done(folder: Path) -> None:
    taken = claim(folder / "2.png")
    assert taken is not None

    class Slow(Scribe):
        def analyze(self, pictures, modes):
            taken.release()
            return super().analyze(pictures, modes)

    assert statuses(run(Batch([Slow()], ["fast"]), folder)) == {"done"}


@pytest.mark.parametrize("status", ["elsewhere", "done", "failed"])
def test_an_error_of_whoever_is_told_is_not_taken_for_the_disks(folder: Path, status: str) -> None:
    (folder / "broken.png").write_text("x")
    taken = claim(folder / "2.png")

    def closed(outcome: Outcome) -> None:
        if outcome.status == status:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    batch = Batch([Scribe()], ["fast"])
    with pytest.raises(BrokenPipeError):
        batch.run(batch.plan(folder), closed)
    assert taken is not None
    taken.release()
    assert leftovers(folder) == []


@pytest.mark.parametrize("force", [False, True])
def test_what_another_process_did_since_the_scan_is_not_done_again(folder: Path, force: bool) -> None:
    late = Scribe()
    batch = Batch([late], ["fast"], force=force)
    plan = batch.plan(folder)
    told: list[Outcome] = []
    work = pipeline.Pipeline(batch, plan, told.append)
    run(Batch([Scribe()], ["fast"]), folder)
    work.work()
    assert {outcome.status for outcome in told} == {"unchanged"} and not late.seen


def test_a_full_disk_ends_the_batch_with_one_error(folder: Path, monkeypatch) -> None:
    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("promptglass.sidecar.replace_file", full)
    with pytest.raises(InputError, match="the disk is full"):
        run(Batch([Scribe()], ["fast"]), folder)
    assert leftovers(folder) == []
    monkeypatch.undo()
    monkeypatch.setattr("promptglass.training.replace_file", full)
    with pytest.raises(InputError, match="the disk is full"):
        run(Batch([Scribe()], ["fast"], captions=CaptionFiles("overwrite")), folder)


def test_a_file_that_cannot_be_written_is_one_line(folder: Path, monkeypatch) -> None:
    path_of(folder / "1.png").symlink_to(folder / "no such folder" / "x.json")
    long_name = "x" * 250 + ".png"
    noise(1).save(folder / long_name)
    outcomes = run(Batch([Scribe()], ["fast"]), folder)
    assert outcomes["1.png"].status == outcomes[long_name].status == "failed"
    assert "the name is too long. Rename" in str(outcomes[long_name].error)
    assert outcomes["0.png"].status == "done"


# -- folders as they are found ---------------------------------------------------------------------------


def test_the_bad_input_folder(tmp_path: Path) -> None:
    folder = tmp_path / "bad"
    folder.mkdir()
    noise(1, (200, 200)).save(folder / "cut.jpg")
    (folder / "cut.jpg").write_bytes((folder / "cut.jpg").read_bytes()[:2000])
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.png").write_text("not a picture")
    bomb(folder / "bomb.png")
    noise(2).convert("CMYK").save(folder / "cmyk.tif")
    noise(3).save(folder / "moving.gif", save_all=True, append_images=[noise(4), noise(5)])
    Image.fromarray(__import__("numpy").arange(1200, dtype="uint16").reshape(30, 40) * 50).save(
        folder / "16bit.png"
    )
    noise(6).save(folder / "emoji 🦊 and\nnewline.png")
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    (folder / "circle.png").symlink_to(folder / "circle.png")
    (folder / "nowhere.png").symlink_to(folder / "gone.png")
    (folder / ".hidden.png").write_bytes(b"x")
    (folder / "~temporary.png").write_bytes(b"x")
    (folder / "notes.txt").write_text("x")
    expected = {"cut.jpg", "empty.png", "text.png", "bomb.png", "circle.png", "nowhere.png"}

    outcomes = run(Batch([Scribe()], ["fast"]), folder, recursive=True)
    failed = {name: str(outcome.error) for name, outcome in outcomes.items() if outcome.status == "failed"}
    assert {*failed} == expected
    for name, reason in failed.items():
        assert name in reason and "\n" not in reason and len(reason) < 400
    assert {name for name, outcome in outcomes.items() if outcome.status == "done"} == {
        "cmyk.tif", "moving.gif", "16bit.png", "emoji 🦊 and\nnewline.png",
    }  # fmt: skip
    assert {p.name.removesuffix(".promptglass.json") for p in folder.glob("*.promptglass.json")} == {
        *outcomes
    } - expected
    journal = [json.loads(line) for line in (folder / JOURNAL).read_text().splitlines()]
    assert {entry["picture"] for entry in journal} == expected

    for name in expected - {"cut.jpg"}:
        (folder / name).unlink()
    noise(1).save(folder / "cut.jpg")
    run(Batch([Scribe()], ["fast"]), folder, recursive=True)
    assert not (folder / JOURNAL).exists()  # all is well again


def bomb(path: Path) -> None:
    """A PNG of a few bytes that says it is 60,000 pixels square."""
    import struct
    import zlib

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    )


def test_folders_within_are_entered_only_when_told(folder: Path) -> None:
    for place in ("a", "a/b", ".hidden", "@eaDir"):
        (folder / place).mkdir()
        noise(1).save(folder / place / "x.png")
    assert len(Batch([Scribe()], ["fast"]).plan(folder).todo) == 5
    (folder / "a" / "up").symlink_to(folder, target_is_directory=True)
    found = [
        Path(f.path).relative_to(folder).as_posix()
        for f in Batch([Scribe()], ["fast"]).plan(folder, True).todo
    ]
    assert found == [*(f"{n}.png" for n in range(5)), "a/x.png", "a/b/x.png"]


@pytest.mark.parametrize("name", ["nowhere", "0.png"])
def test_what_is_no_folder_is_one_error(folder: Path, name: str) -> None:
    with pytest.raises(InputError, match=name):
        Batch([Scribe()], ["fast"]).plan(folder / name)


def test_formats_without_a_decoder_are_one_note(folder: Path, monkeypatch) -> None:
    monkeypatch.setattr(
        batch_module, "missing_decoder", lambda extension: "needs x" if extension == ".heic" else None
    )
    for name in ("a.HEIC", "b.heic"):
        (folder / name).write_bytes(b"x")
    plan = Batch([Scribe()], ["fast"]).plan(folder)
    assert plan.notes == ["2 pictures passed over: needs x"] and len(plan.todo) == 5


_ODD = ("La", "PA", "RGBa", "I;16")  # which Pillow converts nothing to
_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", *_ODD)


def test_every_format_pillow_writes_gets_through_or_gets_a_line(tmp_path: Path) -> None:
    Image.init()
    suffix_of = {kind: suffix for suffix, kind in Image.EXTENSION.items()}
    for suffix in (".png", ".jpg", ".webp", ".gif", ".bmp", ".tif", ".avif", ".heic"):
        suffix_of[Image.EXTENSION.get(suffix, "")] = suffix
    written = 0
    for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "AVIF", "HEIF"):
        for mode in _MODES:
            try:
                image = noise(3, (24, 16)).convert(mode) if mode not in _ODD else Image.new(mode, (24, 16))
                image.save(tmp_path / f"{mode.replace(';', '_')}-{kind}{suffix_of[kind]}", kind)
                written += 1
            except (OSError, ValueError, KeyError):  # Pillow does not write this
                continue
    outcomes = run(Batch([Scribe()], ["fast"]), tmp_path)
    assert written > 40 and len(outcomes) == written
    failed = {name: str(outcome.error) for name, outcome in outcomes.items() if outcome.status != "done"}
    assert {*failed} <= {"YCbCr-TIFF.tif"}  # which Pillow 9.5 cannot read back
    assert all(name in error and "\n" not in error for name, error in failed.items())


@contextlib.contextmanager
def as_nobody() -> Iterator[Path]:
    """A folder of somebody who is not root: root may read and write everything."""
    if not hasattr(os, "setresuid") or os.geteuid():
        pytest.skip("needs root, to be somebody else")
    place = Path(tempfile.mkdtemp())  # pytest's own folders are root's alone
    os.chown(place, 65534, 65534)
    try:
        run(Batch([Scribe()], ["fast"]), place)  # all that is imported on the way
        os.setresuid(65534, 65534, 0)
        try:
            yield place
        finally:
            os.setresuid(0, 0, 0)
    finally:
        shutil.rmtree(place)


def test_a_file_that_may_not_be_read_costs_no_other() -> None:
    with as_nobody() as place:
        for number in range(3):
            noise(number).save(place / f"{number}.png")
        (place / "1.png").chmod(0)
        outcomes = run(Batch([Scribe()], ["fast"]), place)
        assert {name: outcome.status for name, outcome in outcomes.items()} == {
            "0.png": "done", "1.png": "failed", "2.png": "done",
        }  # fmt: skip
        assert "1.png: no permission. Change its permissions" in str(outcomes["1.png"].error)
        assert json.loads((place / JOURNAL).read_text())["picture"] == "1.png"


def test_a_folder_that_may_not_be_written_to() -> None:
    with as_nobody() as place:
        (place / "within").mkdir()
        noise(1).save(place / "within" / "1.png")
        noise(0).save(place / "0.png")
        (place / "within").chmod(0o555)
        outcomes = run(Batch([Scribe()], ["fast"]), place, recursive=True)
        assert outcomes["0.png"].status == "done"
        assert "cannot write beside" in str(outcomes["1.png"].error)
        (place / "within").chmod(0o755)
        noise(2).save(place / "2.png")
        place.chmod(0o555)
        with pytest.raises(InputError, match="sidecars lie beside their pictures"):
            run(Batch([Scribe()], ["fast"]), place)


# -- captions, privacy ------------------------------------------------------------------------------------


def test_captions_to_train_on(folder: Path) -> None:
    (folder / "0.txt").write_text("by hand")
    modes = ["negative", "tags", "fast"]
    scribe = Scribe(modes)
    run(Batch([scribe], modes, captions=CaptionFiles("append", prefix="sks")), folder)
    assert (folder / "1.txt").read_text() == "sks, tags of 1.png, fast of 1.png\n"
    assert (folder / "0.txt").read_text() == "sks, by hand, tags of 0.png, fast of 0.png\n"
    again = Batch([scribe], modes, captions=CaptionFiles("append", prefix="sks"))
    assert statuses(run(again, folder)) == {"unchanged"}
    # From what the sidecars hold, with no model at work.
    seen = len(scribe.seen)
    outcomes = run(Batch([scribe], ["tags"], captions=CaptionFiles("overwrite")), folder)
    assert statuses(outcomes) == {"done"} and len(scribe.seen) == seen
    assert (folder / "0.txt").read_text() == "tags of 0.png\n"
    assert not Batch([scribe], ["tags"], captions=CaptionFiles("skip")).plan(folder).todo


def test_two_pictures_with_one_caption_file(folder: Path) -> None:
    noise(8).save(folder / "0.jpg")
    outcomes = run(Batch([Scribe()], ["fast"], captions=CaptionFiles("overwrite")), folder)
    assert (folder / "0.txt").read_text() == "fast of 0.jpg\n"
    assert outcomes["0.png"].status == "failed" and "0.jpg" in str(outcomes["0.png"].error)
    assert analysis(folder / "0.png")["fast"]  # its sidecar is its own


def test_no_caption_from_half_of_the_modes(folder: Path) -> None:
    scribe, tagger = Scribe(), Scribe(("tags",))
    tagger.fails_at["2.png"] = ModelError("x")
    run(Batch([scribe, tagger], ["fast", "tags"], captions=CaptionFiles("overwrite")), folder)
    assert not (folder / "2.txt").exists() and (folder / "1.txt").exists()


def test_file_names_can_be_hashed_or_left_out(folder: Path) -> None:
    run(Batch([Scribe()], ["fast"], Privacy("hash")), folder)
    hashed = json.loads(path_of(folder / "0.png").read_text())["file_info"]["filename"]
    assert hashed.startswith("sha256:") and "0.png" not in hashed
    scribe = Scribe()
    assert statuses(run(Batch([scribe], ["fast"], Privacy("omit")), folder)) == {"done"}
    assert "filename" not in json.loads(path_of(folder / "0.png").read_text())["file_info"]
    assert not scribe.seen and not Batch([scribe], ["fast"], Privacy("omit")).plan(folder).todo
    run(Batch([scribe], ["fast"], force=True), folder)  # nobody asks for it any more
    assert "filename" not in json.loads(path_of(folder / "0.png").read_text())["file_info"]


def test_with_nothing_to_hide_yet_a_failure_is_only_its_own(folder: Path) -> None:
    scribe = Scribe()
    scribe.fails_at["3.png"] = ModelError("no words for it")
    outcomes = run(Batch([scribe], ["fast"], Privacy("omit")), folder)
    assert outcomes["3.png"].error == "no words for it"
    scribe.fails_at = {f"{n}.png": WeightsMissing("x") for n in range(5)}
    noise(9).save(folder / "9.png")
    shown = run(Batch([scribe, PaletteAnalyzer()], ["fast", "palette"], Privacy("omit")), folder)
    assert statuses(shown) == {"done"}


def test_a_finished_folder_can_be_encrypted(folder: Path, monkeypatch) -> None:
    monkeypatch.setenv("PROMPTGLASS_KEY", "hunter2")
    run(Batch([Scribe()], ["fast"]), folder)
    scribe = Scribe()
    batch = Batch([scribe], ["fast"], Privacy(encrypt=True))
    assert statuses(run(batch, folder)) == {"done"} and not scribe.seen
    assert "scribe" not in path_of(folder / "0.png").read_text()
    assert not batch.plan(folder).todo


def test_a_damaged_encrypted_sidecar_costs_no_other(folder: Path, monkeypatch) -> None:
    monkeypatch.setenv("PROMPTGLASS_KEY", "hunter2")
    run(Batch([Scribe()], ["fast"], Privacy(encrypt=True)), folder)
    sidecar = path_of(folder / "3.png")
    content = json.loads(sidecar.read_text())
    content["encrypted"]["data"] = content["encrypted"]["data"][:-20]
    sidecar.write_text(json.dumps(content))
    outcomes = run(Batch([Scribe()], ["fast"]), folder)
    assert {name: o.status for name, o in outcomes.items()} == {"3.png": "done"}
    assert (
        ".bad" in str(outcomes["3.png"].note) and "scribe" not in sidecar.read_text()
    )  # encrypted as before


@pytest.mark.parametrize("existing", ["skip", "append"])
def test_a_caption_that_cannot_be_used_fails_one_picture(folder: Path, existing: str) -> None:
    (folder / "1.txt").write_bytes("für".encode("latin-1"))
    for _ in range(2):
        outcomes = run(Batch([Scribe()], ["fast"], captions=CaptionFiles(existing)), folder)
        assert outcomes["1.png"].status == "failed" and "UTF-8" in str(outcomes["1.png"].error)
    assert (folder / "4.txt").exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
def test_a_pipe_in_the_place_of_a_sidecar_is_not_waited_for(folder: Path) -> None:
    os.mkfifo(path_of(folder / "1.png"))
    assert run(Batch([Scribe()], ["fast"]), folder)["0.png"].status == "done"


def test_a_journal_that_is_not_ours_stops_nobody(folder: Path) -> None:
    lines = [b"\xff\xfe", b'{"picture": 5}', b"[" * 100_000, b'{"picture": "gone.png"}']
    (folder / JOURNAL).write_bytes(b"\n".join(lines))
    assert statuses(run(Batch([Scribe()], ["fast"]), folder)) == {"done"}
    assert not (folder / JOURNAL).exists()


def test_a_batch_without_pictures(tmp_path: Path) -> None:
    assert run(Batch([Scribe()], ["fast"]), tmp_path) == {}
