"""The nodes that read and write files: run as the host runs them, with a host that is made up."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from conftest import noise
from fakes.comfyui_running import Nodes, Ran
from fakes.comfyui_running import nodes as nodes  # a fixture
from fakes.word_encoder import WordEncoder
from PIL import PngImagePlugin
from test_batch import SCHEMA


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Five pictures of different sizes, one of them in a folder of its own."""
    place = tmp_path / "my pictures"
    (place / "more").mkdir(parents=True)
    for number in range(4):
        noise(number, (20 + number, 10)).save(place / f"{number}.png")
    noise(4, (9, 9)).save(place / "more" / "4.png")
    return place


def wider_by(ran: Ran) -> list[int]:
    return [image.shape[2] - 20 for image in ran["image"]]


# -- pictures of a folder ------------------------------------------------------------------------------------


def test_a_folder_is_loaded_by_name_from_where_and_as_many_as_asked(nodes: Nodes, folder: Path) -> None:
    whole = nodes.run("LoadFolder", folder=str(folder))
    assert (wider_by(whole), whole["name"]) == ([0, 1, 2, 3], ["0", "1", "2", "3"])
    assert whole["file"] == [str(folder / f"{number}.png") for number in range(4)]
    assert whole["image"][2].shape == (1, 10, 22, 3) and whole["image"][2].dtype == torch.float32
    assert 0.5 < whole["image"][0].max() <= 1
    for skip, count, found in ((1, 2, ["1", "2"]), (3, 100, ["3"]), (2, 0, ["2", "3"]), (0, 1, ["0"])):
        assert nodes.run("LoadFolder", folder=str(folder), skip=skip, count=count)["name"] == found
    assert nodes.run("LoadFolder", folder=str(folder), recursive=True)["name"][-1] == "4"


def test_a_folder_without_a_path_lies_in_the_hosts_input_folder(nodes: Nodes) -> None:
    inner = nodes.host.base / "input" / "trip"
    inner.mkdir()
    noise(1).save(inner / "in.png")
    noise(2).save(inner.parent / "out.png")
    assert nodes.run("LoadFolder", folder="trip")["file"] == [str(inner / "in.png")]
    assert nodes.run("LoadFolder")["name"] == ["out"]


def test_a_broken_picture_does_not_stop_the_others(nodes: Nodes, folder: Path) -> None:
    (folder / "1.png").write_bytes(b"no picture")
    ran = nodes.run("LoadFolder", folder=str(folder))
    assert ran["name"] == ["0", "2", "3"]
    [card] = ran.cards
    assert card["text"] == "3 of 4 pictures"
    [line] = card["lines"]
    assert "1.png" in line


def test_no_picture_at_all_is_one_clear_line(nodes: Nodes, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with nodes.refused("no picture to load: .*empty holds no pictures"):
        nodes.run("LoadFolder", folder=str(tmp_path / "empty"))
    with nodes.refused("no picture to load: the input folder holds no pictures"):
        nodes.run("LoadFolder")
    with nodes.refused("no picture to load: .*my pictures holds no pictures there"):
        nodes.run("LoadFolder", folder=str(folder), skip=9)
    with nodes.refused("gone"):
        nodes.run("LoadFolder", folder=str(tmp_path / "gone"))
    (tmp_path / "empty" / "a.png").write_bytes(b"no picture")
    with nodes.refused("no picture to load: .*a.png"):
        nodes.run("LoadFolder", folder=str(tmp_path / "empty"))


def test_a_folder_is_loaded_again_when_a_picture_of_it_changes(nodes: Nodes, folder: Path) -> None:
    def state(**inputs: Any) -> str:
        return nodes.state("LoadFolder", **{"folder": str(folder), **inputs})

    first = state()
    assert state() == first != state(recursive=True)
    os.utime(folder / "2.png", ns=(1, 1))
    second = state()
    (folder / "3.png").unlink()
    assert len({first, second, state()}) == 3
    assert state(folder=[None]) == "nan"


# -- what a file holds ---------------------------------------------------------------------------------------


def png_with(path: Path, prompt: str) -> Path:
    note = PngImagePlugin.PngInfo()
    if prompt:
        note.add_text("parameters", f"{prompt}\nNegative prompt: blurry\nSteps: 20, Seed: 7")
    noise(5, (12, 8)).save(path, pnginfo=note)
    return path


def test_the_prompt_of_each_file_is_found_and_what_has_none_says_so(nodes: Nodes, tmp_path: Path) -> None:
    files = [str(png_with(tmp_path / "a.png", "a red cat")), str(png_with(tmp_path / "b.png", ""))]
    ran = nodes.run("Embedded", file=files, image="unused.png")
    assert (ran["prompt"], ran["negative"], ran["file"]) == (["a red cat", ""], ["blurry", ""], files)
    assert json.loads(ran["details"][0])["settings"]["Seed"] in (7, "7")
    assert [image.shape for image in ran["image"]] == [(1, 8, 12, 3)] * 2
    assert [len(answers) for answers in ran["answers"]] == [1, 0]
    assert ran.cards[1]["note"] == "this file holds no prompt"


def test_an_embedded_prompt_is_of_the_input_folder_and_of_none_above_it(nodes: Nodes) -> None:
    picture = png_with(nodes.host.base / "input" / "in.png", "a red cat")
    png_with(nodes.host.base / "secret.png", "a secret")
    assert nodes.run("Embedded", image="in.png [input]")["prompt"] == ["a red cat"]
    first = nodes.state("Embedded", image="in.png")
    assert first == nodes.state("Embedded", image="in.png")
    os.utime(picture, ns=(1, 1))
    assert nodes.state("Embedded", image="in.png") != first
    assert nodes.state("Embedded", image="in.png", file=[str(picture)]) != first
    with nodes.refused("secret.png is not in ComfyUI's input folder"):
        nodes.run("Embedded", image="../secret.png")


# -- beside pictures -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["0.png", "gone.png", "notes.md", "folder.png"])
@pytest.mark.parametrize("node", ["SaveSidecar", "AppendCaption"])
def test_nothing_is_written_but_beside_a_picture(
    nodes: Nodes, folder: Path, monkeypatch: pytest.MonkeyPatch, node: str, name: str
) -> None:
    monkeypatch.chdir(folder)
    (folder / "notes.md").write_text("mine")
    (folder / "folder.png").mkdir()
    before = {*folder.rglob("*")}
    inputs: dict[str, Any] = {"answers": [[]]} if node == "SaveSidecar" else {"text": "a cat"}
    with nodes.refused("there is no picture .*: connect `file` of Load images from folder"):
        nodes.run(node, file=name if name == "0.png" else str(folder / name), **inputs)
    assert {*folder.rglob("*")} == before


def captions(nodes: Nodes, folder: Path, **inputs: Any) -> list[str]:
    ran = nodes.run("AppendCaption", **{"file": [str(folder / "0.png"), str(folder / "1.png")], **inputs})
    return [Path(path).read_text("utf-8").strip() for path in ran["caption_file"]]


def test_captions_meet_those_that_are_there_as_asked(nodes: Nodes, folder: Path) -> None:
    (folder / "1.txt").write_text("mine")
    for existing, second in (
        ("skip", "mine"),
        ("append", "mine, dog"),
        ("prepend", "dog, mine"),
        ("overwrite", "dog"),
    ):
        (folder / "1.txt").write_text("mine")
        assert captions(nodes, folder, text=["cat", "dog"], existing=existing) == ["cat", second], existing
    (folder / "1.txt").write_text("mine")
    assert captions(nodes, folder, text=["cat", "dog"])[1] == "mine, dog"


def test_captions_begin_and_end_as_asked(nodes: Nodes, folder: Path) -> None:
    found = captions(nodes, folder, text="cat", prefix="ohwx", suffix="best quality")
    assert found == ["ohwx, cat, best quality"] * 2
    with nodes.refused("3 texts for 2 pictures"):
        captions(nodes, folder, text=["a", "b", "c"])


def test_two_pictures_that_would_share_a_caption_get_none(nodes: Nodes, folder: Path) -> None:
    noise(7).save(folder / "0.jpg")
    with nodes.refused("0.png and 0.jpg would share 0.txt: rename one"):
        captions(nodes, folder, file=[str(folder / name) for name in ("1.png", "0.png", "0.jpg")], text="cat")
    assert not [*folder.glob("*.txt")]


def test_a_sidecar_holds_what_several_nodes_found_and_keeps_what_was_there(
    nodes: Nodes, folder: Path
) -> None:
    loaded = nodes.run("LoadFolder", folder=str(folder), count=2)
    clip = nodes.clip(WordEncoder(is_blind=True))
    colours = nodes.run("Palette", image=loaded["image"])["answers"]
    [labels, ranked] = [
        nodes.run(node, image=loaded["image"], encoder=clip, **inputs)["answers"]
        for node, inputs in (
            ("Classify", {"categories": "mood", "labels": "cat\ndog"}),
            (
                "Interrogate",
                {"mode": "fast", "caption": "a cat", "tables": "none", "own_labels": "red\nblue"},
            ),
        )
    ]
    nodes.run("SaveSidecar", file=loaded["file"], answers=colours)
    ran = nodes.run("SaveSidecar", file=loaded["file"], answers=labels, answers_2=ranked, answers_4=[[]])
    assert ran["sidecar"] == [f"{file}.promptglass.json" for file in loaded["file"]]
    for sidecar in ran["sidecar"]:
        content = json.loads(Path(sidecar).read_text("utf-8"))
        jsonschema.validate(content, SCHEMA)
        assert content["analysis"].keys() == {"palette", "categories", "tables", "fast"}
    assert ran.cards[0]["text"] == "2 written"
    with nodes.refused("2 answers for 3 pictures"):
        nodes.run("SaveSidecar", file=[*loaded["file"], str(folder / "3.png")], answers=colours)


# -- wildcards -----------------------------------------------------------------------------------------------


def impact_pack(nodes: Nodes) -> Path:
    """Its folder of wildcards, which it reads as ISO-8859-1."""
    pack = nodes.host.base / "custom_nodes" / "impact-pack"
    (pack / "modules" / "impact").mkdir(parents=True)
    (pack / "modules" / "impact" / "wildcards.py").touch()
    (pack / "custom_wildcards").mkdir()
    return pack / "custom_wildcards"


def test_lines_are_added_to_a_wildcard_and_those_of_the_user_stay(nodes: Nodes) -> None:
    place = nodes.host.base / "wildcards" / "promptglass"
    place.mkdir(parents=True)
    (place / "my-best.txt").write_text("mine\n")
    ran = nodes.run("WriteWildcards", text=["a red cat", "a dog"], name=" My Best ")
    assert ran["wildcard"] == "__promptglass/my-best__"
    nodes.run("WriteWildcards", text=["a bird", "a dog"], name="promptglass/My Best")
    lines = (place / "my-best.txt").read_text("utf-8").splitlines()
    assert sorted(lines) == ["a bird", "a dog", "a red cat", "mine"]
    assert ran.cards[0]["text"] == "3 lines, written"
    assert ran.cards[0]["lines"] == [str(place / "my-best.txt")]


def test_where_a_pack_reads_latin_letters_only_auto_writes_yaml(nodes: Nodes) -> None:
    place = impact_pack(nodes)
    nodes.run("WriteWildcards", text="café 🦊")
    [file] = [path for path in place.rglob("*") if path.suffix in (".txt", ".yaml", ".json")]
    assert file.name == "promptglass.best.yaml"
    assert file.read_bytes().isascii()
    nodes.run("WriteWildcards", text="a cat", name="plain", format="txt")
    assert (place / "promptglass" / "plain.txt").read_text() == "a cat\n"


def test_a_wildcard_may_be_called_tables(nodes: Nodes) -> None:
    assert nodes.run("WriteWildcards", text="a cat", name="tables")["wildcard"] == "__promptglass/tables__"


def test_the_file_that_was_written_is_shown(nodes: Nodes) -> None:
    nodes.run("WriteWildcards", text="a cat", format="txt")
    [card] = nodes.run("WriteWildcards", text="a dog", format="yaml").cards
    assert card["lines"][0].endswith("promptglass.best.yaml")


def test_nothing_to_write_is_an_error(nodes: Nodes) -> None:
    with nodes.refused("there is nothing to write: the texts are empty"):
        nodes.run("WriteWildcards", text=["", " "])
    with nodes.refused("there is no wildcard folder old any more: choose auto, wildcards"):
        nodes.run("WriteWildcards", text="a cat", folder="old")


def test_folders_of_one_name_are_two_choices(nodes: Nodes, tmp_path: Path) -> None:
    places = [tmp_path / name / "wildcards" for name in ("one", "two")]
    for place in places:
        place.mkdir(parents=True)
    nodes.host.folders.folder_names_and_paths["wildcards"] = ([*map(str, places)], {".txt"})
    node = nodes.pack.NODE_CLASS_MAPPINGS["PromptglassWriteWildcards"]
    choices = node.INPUT_TYPES()["required"]["folder"][0]
    assert len(choices) == 3
    nodes.run("WriteWildcards", text="a cat", folder=choices[2])
    assert [(place / "promptglass" / "best.txt").exists() for place in places] == [False, True]
    nodes.run("WriteWildcards", text="a cat")
    assert (places[0] / "promptglass" / "best.txt").exists()


def test_a_preview_draws_what_was_written_and_names_what_is_missing(nodes: Nodes) -> None:
    pytest.importorskip("dynamicprompts")
    lines = [f"cat {number}" for number in range(9)]
    nodes.run("WriteWildcards", text=lines)
    first, again, other = (
        nodes.run("PreviewWildcard", template="a {red|blue} __promptglass/best__", count=20, seed=seed)
        for seed in (1, 1, 2)
    )
    assert first["prompt"] == again["prompt"] != other["prompt"]
    assert len(first["prompt"]) == 20
    assert {prompt.split(" ", 2)[2] for prompt in first["prompt"]} <= {*lines}
    missing = nodes.run("PreviewWildcard", template="__none/such__", count=1)
    assert missing.cards[0]["note"] == "no file gives __none/such__"
    with nodes.refused("dynamic-prompts cannot read this template"):
        nodes.run("PreviewWildcard", template="{a|")


def test_a_preview_is_drawn_again_when_a_file_changes(nodes: Nodes) -> None:
    nodes.run("WriteWildcards", text="a cat")
    first = nodes.state("PreviewWildcard")
    assert nodes.state("PreviewWildcard") == first
    nodes.run("WriteWildcards", text="a dog")
    assert nodes.state("PreviewWildcard") != first
