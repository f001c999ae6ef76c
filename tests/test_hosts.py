"""Where hosts keep their wildcards, found in folders laid out as theirs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from promptglass.errors import InputError
from promptglass.hosts import wildcard_folders


def folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def impact_pack(root: Path, name: str = "ComfyUI-Impact-Pack", ini: str = "") -> Path:
    pack = folder(root / "custom_nodes" / name)
    (folder(pack / "modules" / "impact") / "wildcards.py").write_text("")
    if ini:
        (pack / "impact-pack.ini").write_text(ini)
    return pack


def readers(root: Path) -> list[tuple[str, Path, bool]]:
    return [(found.reader, found.path, found.is_read_as_latin1) for found in wildcard_folders(root)]


@pytest.mark.parametrize("name", ["sd-dynamic-prompts", "a clone of mine"])
def test_a_webui_keeps_them_in_the_extension_whatever_its_name(tmp_path, name):
    folder(tmp_path / "extensions" / "another")
    folder(tmp_path / "extensions" / name / "sd_dynamic_prompts")
    expected = ("sd-dynamic-prompts", tmp_path / "extensions" / name / "wildcards", False)
    assert readers(tmp_path) == [expected]


@pytest.mark.parametrize("is_absolute", [True, False])
def test_a_webui_heeds_wildcard_dir(tmp_path, is_absolute):
    folder(tmp_path / "extensions" / "sd-dynamic-prompts" / "sd_dynamic_prompts")
    chosen = tmp_path / "my wildcards"
    config = {"wildcard_dir": str(chosen) if is_absolute else chosen.name}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert readers(tmp_path) == [("sd-dynamic-prompts", chosen, False)]


@pytest.mark.parametrize("config", ["", "[]", "{", '{"wildcard_dir": null}', '{"wildcard_dir": ""}'])
def test_a_config_that_names_no_folder_changes_nothing(tmp_path, config):
    extension = folder(tmp_path / "extensions" / "sd-dynamic-prompts")
    folder(extension / "sd_dynamic_prompts")
    (tmp_path / "config.json").write_text(config)
    assert readers(tmp_path) == [("sd-dynamic-prompts", extension / "wildcards", False)]


def test_comfyui_dynamicprompts_reads_its_own_folder_only_while_there_is_no_shared_one(tmp_path):
    pack = folder(tmp_path / "custom_nodes" / "comfyui-dynamicprompts")
    assert readers(tmp_path) == [("comfyui-dynamicprompts", pack / "wildcards", False)]
    shared = folder(tmp_path / "wildcards")
    assert wildcard_folders(tmp_path)[0].path == shared
    assert "comfyui-dynamicprompts" in wildcard_folders(tmp_path)[0].reader
    assert len(wildcard_folders(tmp_path)) == 1


def test_impact_pack_reads_its_custom_folder_as_latin1(tmp_path):
    pack = impact_pack(tmp_path)
    assert readers(tmp_path) == [("Impact-Pack", pack / "custom_wildcards", True)]


def test_impact_pack_is_asked_for_its_folder(tmp_path):
    chosen = folder(tmp_path / "mine")
    impact_pack(tmp_path, ini=f"[default]\ndependency_version = 23\ncustom_wildcards = {chosen}\n")
    assert readers(tmp_path) == [("Impact-Pack", chosen, True)]


@pytest.mark.parametrize(
    "ini", ["[default]\ncustom_wildcards = /not/here\n", "[default]\n", "no ini", "[default]\nx = %z"]
)
def test_impact_pack_falls_back_to_its_own_folder(tmp_path, ini):
    pack = impact_pack(tmp_path, ini=ini)
    assert readers(tmp_path) == [("Impact-Pack", pack / "custom_wildcards", True)]


def test_a_folder_that_two_read_is_one_and_latin1_if_impact_pack_reads_it(tmp_path):
    shared = folder(tmp_path / "wildcards")
    folder(tmp_path / "custom_nodes" / "comfyui-dynamicprompts")
    impact_pack(tmp_path, ini=f"[default]\ncustom_wildcards = {shared}\n")
    (found,) = wildcard_folders(tmp_path)
    assert found.path == shared and found.is_read_as_latin1
    assert found.reader.startswith("comfyui-dynamicprompts, Impact-Pack")


def test_a_known_reader_comes_before_a_folder_that_perhaps_nobody_reads(tmp_path):
    shared = folder(tmp_path / "wildcards")
    pack = impact_pack(tmp_path)
    assert [path for _, path, _ in readers(tmp_path)] == [pack / "custom_wildcards", shared]


@pytest.mark.parametrize(("inner", "kind"), [("ComfyUI", "custom_nodes"), ("webui", "extensions")])
def test_a_portable_build_is_looked_into(tmp_path, inner, kind):
    home = folder(tmp_path / inner)
    if kind == "custom_nodes":
        impact_pack(home)
    else:
        folder(home / "extensions" / "sd-dynamic-prompts" / "sd_dynamic_prompts")
    (found,) = wildcard_folders(tmp_path)
    assert found.path.is_relative_to(home)


@pytest.mark.parametrize(
    ("kind", "what"), [("custom_nodes", "Impact-Pack"), ("extensions", "sd-dynamic-prompts")]
)
def test_a_host_without_a_reader_says_what_to_install(tmp_path, kind, what):
    folder(tmp_path / kind / "another")
    if kind == "custom_nodes":
        impact_pack(tmp_path, "ComfyUI-Impact-Pack.disabled")
    with pytest.raises(InputError, match=f"install .*{what}.*--out DIR") as caught:
        wildcard_folders(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_what_is_no_host_is_told(tmp_path):
    for root in (tmp_path, tmp_path / "missing"):
        with pytest.raises(InputError, match=r"no host in .*custom_nodes.*extensions.*--out DIR"):
            wildcard_folders(root)
