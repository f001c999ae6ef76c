"""Find the prompt that a picture file already holds, whichever program wrote it.

Reads text chunks and EXIF, never the pixels. What is not clearly a prompt is None: hostile, truncated or
foreign metadata neither raises nor comes back as text.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from PIL import Image

from .comfy_graph import GraphPrompt, read_graph
from .comfy_workflow import to_api
from .file_texts import json_object, text_sources

MAX_INFOTEXT_CHARS = 1_000_000  # prompts of two screens plus the longest list of resources: under 50,000
MAX_NESTING = 50
MAX_FAILED_JSON = 10  # per line of settings: each failure may have read all the rest of it

_PROMPT_LABEL = re.compile(r"^[ \t]*Negative prompt:")
_SETTING_NAME = re.compile(r"\s{0,20}(\w[\w \-/.()]{1,80}):[ \t]{0,20}")
_LATER_LINE = re.compile(r"\w[\w \-/]{1,60}: ")
_SETTING_PROOFS = {
    "Steps": re.compile(r"\d{1,6}"),
    "Seed": re.compile(r"-?\d{1,20}"),
    "CFG scale": re.compile(r"\d+(\.\d+)?"),
    "Size": re.compile(r"\d+x\d+"),
}
_SETTING_SIGNS = {*_SETTING_PROOFS, "Sampler", "Model", "Model hash", "Version"}
_NUMERIC_SETTINGS = {
    "Steps", "Seed", "CFG scale", "Distilled CFG Scale", "Clip skip", "Denoising strength", "ENSD", "Eta",
    "Variation seed", "Variation seed strength", "Hires upscale", "Hires steps", "Batch size", "Batch pos",
    "Image CFG scale", "Refiner switch at", "Mask blur", "Shift",
}  # fmt: skip
_JSON_START = re.compile(r'\s*(\{\s*["}]|\[\s*["\]]|\[\s*\{\s*")')  # "{{cat}}" and "[[cat]]" are emphasis
_JSON_VALUE = json.JSONDecoder(strict=False, parse_constant=lambda _: None)

# Where an infotext was seen; all but the first need its marks (settings or a negative) to count.
_INFOTEXT_KEYS = ("parameters", "UserComment", "comment", "Comment", "Description", "ImageDescription")
_FOOOCUS_SCHEMES = ("fooocus", "a1111", "simple")
_DREAM_FLAGS = re.compile(r"\s-s ?\d")
_DREAM_FLAG = re.compile(r"-(s|S|W|H|C|A) ?(\S+)")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")

Texts = Mapping[str, object]


@dataclass(frozen=True)
class Embedded:
    """A prompt as it was found. `settings` keep the names that `source` gave them; all is valid JSON."""

    source: str  # a1111, comfyui, invokeai, novelai, fooocus
    positive: str
    negative: str
    settings: dict[str, object]


def read_embedded(image: Image.Image) -> Embedded | None:
    """The prompt inside an opened picture, or None."""
    readers: tuple[Callable[[Texts], Embedded | None], ...] = (
        _read_fooocus, _read_infotext, _read_comfyui, _read_invokeai, _read_novelai, _read_bare,
    )  # fmt: skip
    for texts in text_sources(image):
        for reader in readers:
            found = reader(texts)
            if found is not None:
                return found
    return None


def parse_parameters(text: str) -> Embedded | None:
    """Read A1111 infotext. One without settings and negative is a bare prompt, so only pass what claims to
    be infotext."""
    if not isinstance(text, str) or len(text) > MAX_INFOTEXT_CHARS or _JSON_START.match(text):
        return None
    lines = text.replace("\r\n", "\n").strip("\0 \t\r\n").split("\n")
    settings_at, settings = _settings_line(lines)
    for name, value in _later_settings(lines[settings_at + 1 :]):
        settings[name] = value
    lines = lines[:settings_at]
    negative_at = next((i for i, line in enumerate(lines) if _PROMPT_LABEL.match(line)), len(lines))
    negative = [_PROMPT_LABEL.sub("", line, count=1) for line in lines[negative_at:]]
    return _embedded("a1111", "\n".join(lines[:negative_at]), "\n".join(negative), settings)


def _settings_line(lines: list[str]) -> tuple[int, dict[str, object]]:
    """Index and content of the last line that is clearly settings; past the end when there is none.

    It is the last line, or lines follow that extensions add ("Template: ..."): a prompt may itself say
    "Steps: 3, Size: 5x5" somewhere in the middle.
    """
    following = ""
    for i in range(len(lines) - 1, -1, -1):
        is_last = not following or (_LATER_LINE.match(following) and not _PROMPT_LABEL.match(following))
        if is_last and any(sign in lines[i] for sign in _SETTING_PROOFS):
            settings = _parse_settings(lines[i])
            if _are_settings(settings):
                return i, {name: _number(name, value) for name, value in settings.items()}
        following = lines[i].strip() or following
    return len(lines), {}


def _parse_settings(line: str) -> dict[str, object]:
    """`Name: value, Name: "quoted, value", Name: [{"json": 1}]`.

    What only begins like JSON is plain text, and after MAX_FAILED_JSON of those the rest of the line is, too.
    """
    settings: dict[str, object] = {}
    at, failed = 0, 0
    while at < len(line):
        name = _SETTING_NAME.match(line, at)
        start = at if name is None else name.end()
        found: tuple[object, int] | None = None
        if line[start : start + 1] in ('"', "[", "{") and failed < MAX_FAILED_JSON:
            found = _json_value(line, start)
            failed += found is None
        value, at = found or _text_value(line, start)
        if name is not None:
            settings[name[1].strip()] = value
    return settings


def _json_value(line: str, start: int) -> tuple[object, int] | None:
    """The value at `start`, and where the next name begins; None where it is not JSON up to a comma."""
    try:
        value, end = _JSON_VALUE.raw_decode(line, start)
    except (ValueError, RecursionError):
        return None
    rest = line[end : end + 20].lstrip()
    if rest and not rest.startswith(","):
        return None
    comma = line.find(",", end)
    return value, comma + 1 if comma >= 0 else len(line)


def _text_value(line: str, start: int) -> tuple[str, int]:
    comma = line.find(",", start)
    end = comma if comma >= 0 else len(line)
    return line[start:end].strip(), end + 1


def _are_settings(settings: dict[str, object]) -> bool:
    texts = {name: value for name, value in settings.items() if isinstance(value, str)}
    proven = any(proof.fullmatch(texts.get(name, "")) for name, proof in _SETTING_PROOFS.items())
    return proven and len(settings.keys() & _SETTING_SIGNS) >= 2


def _number(name: str, value: object) -> object:
    if name not in _NUMERIC_SETTINGS or not isinstance(value, str):
        return value
    if re.fullmatch(r"-?[0-9]{1,20}", value):
        return int(value)
    return float(value) if re.fullmatch(r"-?[0-9]{1,20}\.[0-9]{1,20}", value) else value


def _later_settings(lines: list[str]) -> Iterator[tuple[str, str]]:
    """The lines below the settings, one setting each; a line without a name continues the one before."""
    name, value = "", ""
    for line in lines:
        if _LATER_LINE.match(line):
            if name:
                yield name, value
            name, _, value = line.partition(": ")
        else:
            value += "\n" + line
    if name:
        yield name, value


def _read_infotext(texts: Texts) -> Embedded | None:
    """An infotext that shows what it is, wherever it stands."""
    for key in _INFOTEXT_KEYS:
        text = texts.get(key)
        if isinstance(text, str) and ("Negative prompt:" in text or "Steps" in text or "Seed" in text):
            found = parse_parameters(text)
            if found is not None and (found.settings or found.negative):
                return found
    return None


def _read_bare(texts: Texts) -> Embedded | None:
    text = texts.get("parameters")
    return parse_parameters(text) if isinstance(text, str) else None


def _read_comfyui(texts: Texts) -> Embedded | None:
    graph: GraphPrompt | None = read_graph(json_object(texts.get("prompt")))
    if graph is None:
        graph = read_graph(to_api(json_object(texts.get("workflow"))))
    return None if graph is None else _embedded("comfyui", *graph)


def _read_invokeai(texts: Texts) -> Embedded | None:
    current = json_object(texts.get("invokeai_metadata"))
    if "positive_prompt" in current:
        settings = _without(current, "positive_prompt", "negative_prompt")
        return _embedded("invokeai", current["positive_prompt"], current.get("negative_prompt"), settings)
    older = json_object(texts.get("sd-metadata"))
    made = older.get("image")
    if isinstance(made, dict):
        settings = {**_without(older, "image"), **_without(made, "prompt")}
        return _embedded("invokeai", *_split_brackets(_sd_metadata_prompt(made.get("prompt"))), settings)
    dream = texts.get("Dream")
    return _read_dream(dream) if isinstance(dream, str) and len(dream) <= MAX_INFOTEXT_CHARS else None


def _sd_metadata_prompt(prompt: object) -> str:
    """A text, or a list of weighted texts."""
    weighted = prompt if isinstance(prompt, list) else [prompt]
    texts = [each.get("prompt") if isinstance(each, dict) else each for each in weighted]
    return ", ".join(text for text in texts if isinstance(text, str))


def _split_brackets(prompt: str) -> tuple[str, str]:
    """InvokeAI 2 wrote the negative in [brackets] inside the prompt."""
    negatives = re.findall(r"\[([^\[\]]*)\]", prompt)
    return re.sub(r"\s{0,20}\[[^\[\]]*\]", "", prompt), ", ".join(negatives)


def _read_dream(dream: str) -> Embedded | None:
    """`"a cat [ugly]" -s 50 -S 123 -W 512 -H 512 -C 7.5 -A k_lms`"""
    flags_start = _DREAM_FLAGS.search(dream)
    flags_at = flags_start.start() if flags_start else len(dream)
    prompt = dream[:flags_at].strip().removeprefix('"').removesuffix('"')
    names = {"s": "steps", "S": "seed", "W": "width", "H": "height", "C": "cfg_scale", "A": "sampler"}
    settings = {names[flag]: value for flag, value in _DREAM_FLAG.findall(dream, flags_at)}
    return _embedded("invokeai", *_split_brackets(prompt), settings)


def _read_novelai(texts: Texts) -> Embedded | None:
    software = texts.get("Software")
    if not isinstance(software, str) or not software.startswith("NovelAI"):
        return None
    comment = json_object(texts.get("Comment"))
    positive = _v4_caption(comment.get("v4_prompt")) or comment.get("prompt") or texts.get("Description")
    negative = _v4_caption(comment.get("v4_negative_prompt")) or comment.get("uc")
    settings = _without(comment, "prompt", "uc", "v4_prompt", "v4_negative_prompt")
    return _embedded("novelai", positive, negative, {**settings, "Source": texts.get("Source")})


def _v4_caption(prompt: object) -> str:
    """The base caption, then one line for each character."""
    caption = prompt.get("caption") if isinstance(prompt, dict) else None
    if not isinstance(caption, dict):
        return ""
    characters = caption.get("char_captions")
    listed = characters if isinstance(characters, list) else []
    texts = [caption.get("base_caption"), *(c.get("char_caption") for c in listed if isinstance(c, dict))]
    return "\n".join(text for text in texts if isinstance(text, str) and text)


def _read_fooocus(texts: Texts) -> Embedded | None:
    is_named = texts.get("fooocus_scheme") in _FOOOCUS_SCHEMES
    for key in ("parameters", "UserComment", "Comment"):
        log = json_object(texts.get(key))
        if "metadata_scheme" in log or {"base_model", "performance"} <= log.keys() or (log and is_named):
            positive = log.get("prompt") or _listed_text(log.get("full_prompt"))
            negative = log.get("negative_prompt") or _listed_text(log.get("full_negative_prompt"))
            return _embedded("fooocus", positive, negative, _without(log, "prompt", "negative_prompt"))
    if is_named:
        found = _read_infotext(texts)
        return None if found is None else replace(found, source="fooocus")
    return None


def _listed_text(texts: object) -> str:
    listed = texts if isinstance(texts, list) else []
    return ", ".join(text for text in listed if isinstance(text, str) and text.strip())


def _embedded(source: str, positive: object, negative: object, settings: Texts) -> Embedded | None:
    """The one gate: clean text that a person could have written, or None."""
    positive, negative = (_clean(text) if isinstance(text, str) else "" for text in (positive, negative))
    both = positive + negative
    damaged = len(_CONTROL.findall(both)) + both.count("\ufffd")
    if not both or damaged * 20 > len(both):
        return None
    plain = {_clean(str(name)): _plain(value) for name, value in settings.items() if value is not None}
    return Embedded(source, _CONTROL.sub("", positive), _CONTROL.sub("", negative), plain)


def _clean(text: str) -> str:
    # JSON may escape half a surrogate pair; such a str cannot be written as UTF-8.
    text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text.replace("\r\n", "\n").strip("\0 \t\r\n")


def _plain(value: object, nesting: int = 0) -> object:
    if isinstance(value, str):
        return _clean(value)
    if nesting < MAX_NESTING and isinstance(value, dict):
        return {_clean(str(name)): _plain(each, nesting + 1) for name, each in value.items()}
    if nesting < MAX_NESTING and isinstance(value, list):
        return [_plain(each, nesting + 1) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, (bool, int, float)) else None


def _without(fields: Texts, *names: str) -> dict[str, object]:
    return {name: value for name, value in fields.items() if name not in names}
