"""What the nodes say in ComfyUI's frontend: their texts in English and Chinese, and their help pages.

    python tests/test_comfyui_texts.py --write

makes locales/en/nodeDefs.json of the nodes, and says whose Chinese is to be revised. Needs no ComfyUI.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes.comfyui_host import ROOT, host_modules, imported

WRITE = "python tests/test_comfyui_texts.py --write"
ENGLISH, CHINESE = (ROOT / "locales" / language / "nodeDefs.json" for language in ("en", "zh"))
# The frontend asks for docs/NODE/LANGUAGE.md, then for docs/NODE.md, which so serves every other language.
HELP = ROOT / "javascript" / "comfyui" / "docs"

# Of each node, the English (texts and help page) that its Chinese was made from: see `digest`.
TRANSLATED = {
    "PromptglassEncoder": "17d55a38",
    "PromptglassInterrogate": "22a4b44f",
    "PromptglassCaption": "3b3d03dd",
    "PromptglassTags": "88f227c6",
    "PromptglassClassify": "61023730",
    "PromptglassPalette": "fe4f8900",
    "PromptglassEmbedded": "fbaad06c",
    "PromptglassScore": "bfbe23dc",
    "PromptglassRefine": "65ae840e",
    "PromptglassDescribe": "145d9ca8",
    "PromptglassLoadFolder": "4c853f97",
    "PromptglassSaveSidecar": "30fc0667",
    "PromptglassAppendCaption": "235eb61d",
    "PromptglassWriteWildcards": "80f86a9a",
    "PromptglassPreviewWildcard": "eb015059",
}

OURS = "https://github.com/promptglass/promptglass/blob/main/"
OTHERS = {
    "https://huggingface.co/openai/clip-vit-large-patch14/resolve/main/model.safetensors",
    "https://huggingface.co/h94/IP-Adapter/resolve/main/models/image_encoder/model.safetensors",
    "https://huggingface.co/h94/IP-Adapter/resolve/main/sdxl_models/image_encoder/model.safetensors",
    "https://ollama.com",
}

Texts = dict[str, dict[str, Any]]  # a node to its entry in nodeDefs.json


def said_by_nodes() -> Texts:
    """What locales/en/nodeDefs.json should hold, in the frontend's layout."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as base:
        for name, module in host_modules(Path(base)).items():
            patch.setitem(sys.modules, name, module)
        pack = imported(f"{base}/custom_nodes/promptglass, whose texts are read")
        titles = pack.NODE_DISPLAY_NAME_MAPPINGS
        return {name: _entry(titles[name], node) for name, node in pack.NODE_CLASS_MAPPINGS.items()}


def _entry(title: str, node: Any) -> dict[str, Any]:
    declared = node.INPUT_TYPES()
    inputs = {**declared.get("required", {}), **declared.get("optional", {})}
    outputs = zip(node.RETURN_NAMES, node.OUTPUT_TOOLTIPS, strict=True)
    return {
        "display_name": _message(title),
        "description": _message(node.DESCRIPTION),
        "inputs": {
            name: {"name": name, "tooltip": options["tooltip"]} for name, (_, options) in inputs.items()
        },
        "outputs": {
            str(place): {"name": name, "tooltip": tooltip} for place, (name, tooltip) in enumerate(outputs)
        },
    }


_SYNTAX = "[{}@|]"  # vue-i18n's, which compiles names and descriptions


def _message(text: str) -> str:
    return re.sub(_SYNTAX, r"{'\g<0>'}", text)


def digest(node: str) -> str:
    """Changes with everything English that is said of a node."""
    told = json.dumps(read(ENGLISH)[node], sort_keys=True) + help_page(node, "en").read_text("utf-8")
    return hashlib.sha256(told.encode()).hexdigest()[:8]


def read(locale: Path) -> Texts:
    return json.loads(locale.read_text("utf-8"))


def help_page(node: str, language: str) -> Path:
    return HELP / f"{node}.md" if language == "en" else HELP / node / f"{language}.md"


def texts_in(entry: Any, place: str = "") -> Iterator[tuple[str, str]]:
    """(inputs.image.tooltip, text)"""
    if isinstance(entry, str):
        yield place, entry
        return
    for key, below in entry.items():
        yield from texts_in(below, f"{place}.{key}".strip("."))


NODES = [*read(ENGLISH)] if ENGLISH.is_file() else []
every_node = pytest.mark.parametrize("node", NODES)
every_language = pytest.mark.parametrize("language", ["en", "zh"])


def test_the_english_is_what_the_nodes_say() -> None:
    assert read(ENGLISH) == said_by_nodes(), f"run {WRITE}"


def test_there_is_chinese_for_every_text() -> None:
    english, chinese = ({place for place, _ in texts_in(read(locale))} for locale in (ENGLISH, CHINESE))
    assert english == chinese


@every_node
def test_the_chinese_was_made_from_todays_english(node: str) -> None:
    stale = f"revise {node} in {CHINESE} and {help_page(node, 'zh')}, then note {digest(node)} above"
    assert TRANSLATED.get(node) == digest(node), stale


@every_node
def test_the_chinese_is_chinese(node: str) -> None:
    for place, text in texts_in(read(CHINESE)[node]):
        assert _is_chinese(text) or place == "inputs.clip.name", (place, text)
    for paragraph in help_page(node, "zh").read_text("utf-8").split("\n\n"):
        assert _is_chinese(paragraph), paragraph


def _is_chinese(text: str) -> bool:
    prose = re.sub(r"`[^`]*`|\]\([^)]*\)", "", text)
    has_english_sentence = re.search(r"([A-Za-z][a-z']*[ ,]+){4}", prose)
    return bool(re.search("[一-鿿]", prose)) and not has_english_sentence


@pytest.mark.parametrize("locale", [ENGLISH, CHINESE], ids=["en", "zh"])
def test_no_text_is_syntax_to_the_frontend(locale: Path) -> None:
    """Frontends of 2025 compile all of these, today's leaves tooltips as they are."""
    for place, text in texts_in(read(locale)):
        is_tooltip = place.endswith(".tooltip")
        plain = text if is_tooltip else re.sub(rf"\{{'{_SYNTAX}'\}}", "", text)
        assert not re.search(_SYNTAX, plain), (place, text)


@every_language
@every_node
def test_a_help_page_explains_every_input_and_output_by_the_name_it_has_there(
    node: str, language: str
) -> None:
    texts = read(CHINESE if language == "zh" else ENGLISH)[node]
    page = help_page(node, language).read_text("utf-8")
    title = texts["display_name"].removesuffix(" · promptglass")
    assert page.startswith(f"# {title}\n")
    for kind in ("inputs", "outputs"):
        missing = [one["name"] for one in texts[kind].values() if f"`{one['name']}`" not in page]
        assert not missing, kind


@every_node
def test_both_help_pages_have_the_same_sections_and_items(node: str) -> None:
    pages = (help_page(node, language).read_text("utf-8") for language in ("en", "zh"))
    english, chinese = (re.findall(r"^(?:#+|-) ", page, re.MULTILINE) for page in pages)
    assert english == chinese


@every_language
@every_node
def test_links_in_help_pages_lead_somewhere(node: str, language: str) -> None:
    """And are whole: the frontend would take a relative one for a page of its own."""
    for link in re.findall(r"\]\(([^)]*)\)", help_page(node, language).read_text("utf-8")):
        if link in OTHERS:
            continue
        assert link.startswith(OURS), link
        path, _, heading = link.removeprefix(OURS).partition("#")
        assert (ROOT / path).is_file(), link
        headings = re.findall(r"^#+ (.*)$", (ROOT / path).read_text("utf-8"), re.MULTILINE)
        assert not heading or heading in {_anchor(one) for one in headings}, link


def _anchor(heading: str) -> str:
    """As GitHub makes it."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def test_there_is_no_help_for_nodes_that_are_gone() -> None:
    pages = {help_page(node, language) for node in NODES for language in ("en", "zh")}
    assert {*HELP.rglob("*.md")} == pages


def write() -> None:
    ENGLISH.parent.mkdir(parents=True, exist_ok=True)
    said = json.dumps(said_by_nodes(), ensure_ascii=False, indent=2)
    ENGLISH.write_text(f"{said}\n", encoding="utf-8")
    for node in read(ENGLISH):
        if help_page(node, "en").is_file() and TRANSLATED.get(node) != (now := digest(node)):
            print(f'revise the Chinese of {node}, then note    "{node}": "{now}",')


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit(f"usage: {WRITE}")
    write()
