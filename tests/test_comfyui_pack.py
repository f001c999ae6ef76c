"""The pack as ComfyUI imports it, without ComfyUI: what the nodes declare, and what an import costs."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from fakes.comfyui_host import ROOT, host_modules, imported

HELP = ROOT / "javascript" / "comfyui" / "docs"
LOCALES = sorted(path.parent for path in (ROOT / "locales").glob("*/nodeDefs.json"))

# A saved workflow holds a node's widgets in this order: a list here may grow at its end, and nowhere else.
WIDGETS = {
    "PromptglassEncoder": ["projection"],
    "PromptglassInterrogate": [
        *("mode", "model", "captioner", "max_flavors", "tables", "with_negative"),
        "caption",
    ],
    "PromptglassCaption": ["captioner"],
    "PromptglassTags": ["tagger", "threshold"],
    "PromptglassClassify": ["categories", "labels", "top", "model"],
    "PromptglassPalette": ["colours"],
    "PromptglassEmbedded": ["image"],
    "PromptglassScore": ["texts", "model"],
    "PromptglassRefine": [
        "text", "profile", "model", "prompt_id", "wishes", "keep", "candidates", "deep", "seed",
    ],
    "PromptglassDescribe": ["profile", "model", "prompt_id", "wishes", "seed"],
    "PromptglassLoadFolder": ["folder", "recursive", "skip", "count"],
    "PromptglassSaveSidecar": [],
    "PromptglassAppendCaption": ["existing", "prefix", "suffix"],
    "PromptglassWriteWildcards": ["name", "folder", "format"],
    "PromptglassPreviewWildcard": ["template", "folder", "count", "seed"],
}  # fmt: skip


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    base = tmp_path_factory.mktemp("host")
    with pytest.MonkeyPatch.context() as patch:
        for name, module in host_modules(base).items():
            patch.setitem(sys.modules, name, module)
        before = {*sys.modules}
        yield imported(f"{base}/custom_nodes/my promptglass 🔍")
        for name in {*sys.modules} - before:
            if "my promptglass" in name:
                del sys.modules[name]


def nodes_of(pack: Any) -> list[tuple[str, Any]]:
    return sorted(pack.NODE_CLASS_MAPPINGS.items())


def inputs_of(node: Any) -> dict[str, tuple[Any, dict[str, Any]]]:
    """Type and options of each input that a user sees."""
    declared = node.INPUT_TYPES()
    seen = {**declared.get("required", {}), **declared.get("optional", {})}
    return {name: (kind, options[0] if options else {}) for name, (kind, *options) in seen.items()}


def widgets_of(node: Any) -> list[str]:
    return [name for name, (kind, options) in inputs_of(node).items() if is_widget(kind, options)]


def is_widget(kind: Any, options: dict[str, Any]) -> bool:
    has_value = isinstance(kind, list) or kind in ("INT", "FLOAT", "STRING", "BOOLEAN")
    return has_value and not options.get("forceInput")


def test_every_node_has_its_name_and_is_found_in_one_category(pack: Any) -> None:
    assert pack.NODE_CLASS_MAPPINGS.keys() == pack.NODE_DISPLAY_NAME_MAPPINGS.keys() == WIDGETS.keys()
    assert all(name.startswith("Promptglass") for name in pack.NODE_CLASS_MAPPINGS)
    assert {node.CATEGORY for _, node in nodes_of(pack)} == {"promptglass"}
    assert (ROOT / pack.WEB_DIRECTORY).is_dir()


def test_what_a_node_declares_fits_together(pack: Any) -> None:
    for name, node in nodes_of(pack):
        run = getattr(node, node.FUNCTION)
        parameters = [*inspect.signature(run).parameters][1:]
        declared = [*inputs_of(node), *node.INPUT_TYPES().get("hidden", {})]
        assert parameters == declared, name
        outputs = len(node.RETURN_TYPES)
        assert len(node.RETURN_NAMES) == len(node.OUTPUT_TOOLTIPS) == outputs, name
        assert len(getattr(node, "OUTPUT_IS_LIST", (0,) * outputs)) == outputs, name
        assert len({*node.RETURN_NAMES}) == outputs, name
        assert node.DESCRIPTION and "promptglass" in " ".join(node.SEARCH_ALIASES), name


def test_every_input_says_what_it_is_for_and_begins_with_a_value_it_takes(pack: Any) -> None:
    for node_name, node in nodes_of(pack):
        for name, (kind, options) in inputs_of(node).items():
            assert options.get("tooltip"), (node_name, name)
            if isinstance(kind, list) and "default" in options:
                assert options["default"] in kind, (node_name, name)
            if is_widget(kind, options) and not isinstance(kind, list):
                assert "default" in options, (node_name, name)


def test_widgets_are_only_ever_appended(pack: Any) -> None:
    for name, node in nodes_of(pack):
        assert widgets_of(node) == WIDGETS[name], name


def test_no_widget_holds_a_secret_or_an_address(pack: Any) -> None:
    for node_name, node in nodes_of(pack):
        for name in inputs_of(node):
            assert not re.search("key|token|secret|password|url|host", name), (node_name, name)


def test_no_seed_is_drawn_anew_by_the_browser(pack: Any) -> None:
    """A language model would be asked, and paid for, at every run."""
    for node_name, node in nodes_of(pack):
        for name, (_, options) in inputs_of(node).items():
            if "seed" in name:
                assert options["control_after_generate"] is False, node_name


@pytest.mark.parametrize("locale", LOCALES, ids=lambda path: path.name)
def test_a_locale_names_what_there_is_and_nothing_else(pack: Any, locale: Path) -> None:
    told = json.loads((locale / "nodeDefs.json").read_text("utf-8"))
    assert told.keys() == pack.NODE_CLASS_MAPPINGS.keys()
    for name, node in nodes_of(pack):
        assert told[name]["display_name"], name
        assert told[name].get("inputs", {}).keys() <= inputs_of(node).keys(), name
        places = {str(place) for place in range(len(node.RETURN_TYPES))}
        assert told[name].get("outputs", {}).keys() <= places, name


def test_there_are_locales_and_help_for_every_node(pack: Any) -> None:
    assert {"en", "zh"} <= {path.name for path in LOCALES}
    for name, _ in nodes_of(pack):
        assert any(HELP.glob(f"{name}.md")) or any(HELP.glob(f"{name}/en.md")), name


_IMPORT = """
import sys, time
sys.path.insert(0, sys.argv[1])
from fakes.comfyui_host import Path, host_modules, imported
sys.modules.update(host_modules(Path(sys.argv[2])))
before, started = {*sys.modules}, time.process_time()
imported("/ComfyUI/custom_nodes/my promptglass 🔍")
print(time.process_time() - started, *{*sys.modules} - before, sep="\\n")
"""


def test_importing_the_pack_imports_nothing_but_the_standard_library(tmp_path: Path) -> None:
    """No torch, transformers, PIL, requests: ComfyUI starts no later for us."""
    arguments = [sys.executable, "-c", _IMPORT, str(ROOT / "tests"), str(tmp_path)]
    ran = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stderr
    took, *modules = ran.stdout.split("\n")
    print(f"\nimporting the pack took {float(took):.3f} s of CPU")
    installed = {name.partition(".")[0] for name in modules} & {*packages_distributions()}
    assert not installed
