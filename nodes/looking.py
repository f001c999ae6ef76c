"""Nodes that look at pictures, and compare them with no texts: caption, tags, colours, the file's prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..promptglass.analyzers import Answer
from ..promptglass.errors import InputError
from . import host, schema
from .cards import Card, as_json, bars, shown
from .clip_models import must_be_here, own_models
from .lists import image_of, pictures_of

if TYPE_CHECKING:
    from PIL import Image

    from ..promptglass.tagger import Tagger

_TOGETHER = 8  # pictures between two looks at the user's wish to stop
_STARTER = "starter"


# -- captions ------------------------------------------------------------------------------------------------


class Caption(schema.Node):
    """A sentence about each picture."""

    DESCRIPTION = "Writes a sentence about each picture (BLIP, BLIP-2 or GIT)."
    SEARCH_ALIASES = ("blip", "caption", "describe image", "promptglass")
    RETURN_TYPES = ("STRING", schema.ANSWERS)
    RETURN_NAMES = ("caption", "answers")
    OUTPUT_IS_LIST = (True, True)
    OUTPUT_TOOLTIPS = ("One sentence for each picture.", "For Save sidecar.")

    @classmethod
    def INPUT_TYPES(cls) -> schema.Inputs:
        who = schema.choice(captioners(), "blip-large", "Who writes. Fetch it with promptglass models get.")
        return {"required": {"image": schema.image(), "captioner": who}}

    def run(self, image: Sequence[Any], captioner: Sequence[str]) -> schema.Result:
        writer = captioner_of(captioner[0])
        captions = _in_groups("captions", pictures_of(image), writer.caption)
        answers = [Answer("caption", caption, writer.name) for caption in captions]
        cards = [{"title": "caption", "text": caption, "model": writer.name} for caption in captions]
        return {"ui": shown(cards), "result": (captions, [[answer] for answer in answers])}


class HostedCaptioner:
    """A captioner of the engine whose model lies where the host wants it."""

    def __init__(self, name: str) -> None:
        from ..promptglass.caption import load_captioner

        must_be_here(name, "choose another captioner, or connect captions of other nodes")
        self._captioner: Any = load_captioner(name, "cpu", host.precision())
        self._bring: Callable[[], object] | None = None
        self.name = self._captioner.name

    def caption(self, images: Sequence[Image.Image]) -> list[str]:
        if self._bring is None:
            self._bring = host.managed(self._captioner.module)
        self._bring()
        host.check()
        return self._captioner.caption(images)


def captioners() -> list[str]:
    return own_models("caption")


@lru_cache(maxsize=1)
def captioner_of(name: str) -> HostedCaptioner:
    """Raises ModelError where it is not here."""
    return HostedCaptioner(name)


def _in_groups(
    what: str, pictures: Sequence[Image.Image], work: Callable[[Sequence[Image.Image]], list[Any]]
) -> list[Any]:
    found: list[Any] = []
    for start in range(0, len(pictures), _TOGETHER):
        host.progress(what, start, len(pictures))
        found += work(pictures[start : start + _TOGETHER])
    host.progress(what, len(pictures), len(pictures))
    return found


# -- tags ----------------------------------------------------------------------------------------------------


class Tags(schema.Node):
    """What is in each picture."""

    DESCRIPTION = "What is in each picture, by a tagger: the small starter, or a WD14 tagger."
    SEARCH_ALIASES = ("wd14", "tagger", "danbooru", "booru", "tags", "promptglass")
    RETURN_TYPES = ("STRING", "STRING", schema.ANSWERS)
    RETURN_NAMES = ("tags", "scores", "answers")
    OUTPUT_IS_LIST = (True,) * 3
    OUTPUT_TOOLTIPS = ("Tags with commas between, the surest first.", "JSON: every tag.", "For Save sidecar.")

    @classmethod
    def INPUT_TYPES(cls) -> schema.Inputs:
        threshold = {"default": 0.35, "min": 0.0, "max": 1.0, "step": 0.05}
        return {
            "required": {
                "image": schema.image(),
                "tagger": schema.choice(
                    [_STARTER, *own_models("tags")],
                    _STARTER,
                    "starter knows 1,000 everyday things and needs its extra package; WD14 taggers know "
                    "thousands of tags and need onnxruntime.",
                ),
                "threshold": ("FLOAT", {**threshold, "tooltip": "How sure a tag must be. Characters: 0.85."}),
            }
        }

    def run(self, image: Sequence[Any], tagger: Sequence[str], threshold: Sequence[float]) -> schema.Result:
        one = _tagger(tagger[0])
        _set_threshold(one, threshold[0])
        found = _in_groups("tags", pictures_of(image), one.tag)
        texts = [", ".join(tag.label for tag in tags if tag.category != "rating") for tags in found]
        cards = [
            {
                "title": "tags",
                "text": text,
                "model": one.name,
                "bars": bars({t.label: t.confidence for t in tags}),
            }
            for text, tags in zip(texts, found, strict=True)
        ]
        answers = [
            [Answer("tags", text, one.name, settings={"threshold": threshold[0]}, details={"tags": entries})]
            for text, entries in zip(texts, ([asdict(tag) for tag in tags] for tags in found), strict=True)
        ]
        return {
            "ui": shown(cards),
            "result": (texts, [as_json([asdict(tag) for tag in tags]) for tags in found], answers),
        }


@lru_cache(maxsize=1)
def _tagger(name: str) -> Tagger:
    from ..promptglass.tagger import load_tagger

    if name != _STARTER:
        must_be_here(name, "choose starter")
    return load_tagger(name)


def _set_threshold(tagger: Tagger, threshold: float) -> None:
    """Of one that is loaded: WD14's takes seconds to load again."""
    from ..promptglass.tagger import OnnxTagger, StarterTagger

    if isinstance(tagger, StarterTagger):
        tagger.min_confidence = threshold
    elif isinstance(tagger, OnnxTagger):
        tagger.thresholds["general"] = threshold


# -- colours -------------------------------------------------------------------------------------------------


class Palette(schema.Node):
    """The dominant colours."""

    DESCRIPTION = "The dominant colours of each picture, by name."
    SEARCH_ALIASES = ("colors", "colours", "palette", "dominant color", "promptglass")
    RETURN_TYPES = ("STRING", "STRING", schema.ANSWERS)
    RETURN_NAMES = ("names", "colours", "answers")
    OUTPUT_IS_LIST = (True,) * 3
    OUTPUT_TOOLTIPS = (
        "Names with commas between.",
        "JSON: name, hex and share of the area.",
        "For Save sidecar.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> schema.Inputs:
        count = schema.number(6, 1, 16, "How many colours at most; alike ones are one.")
        return {"required": {"image": schema.image(), "colours": count}}

    def run(self, image: Sequence[Any], colours: Sequence[int]) -> schema.Result:
        from ..promptglass.colours import palette

        def palettes(pictures: Sequence[Image.Image]) -> list[Any]:
            return [palette(picture, colours[0]) for picture in pictures]

        found = _in_groups("palettes", pictures_of(image), palettes)
        names = [", ".join(colour.name for colour in colours_of) for colours_of in found]
        details = [[asdict(colour) for colour in colours_of] for colours_of in found]
        cards = [
            {"title": "palette", "text": text, "colours": chips}
            for text, chips in zip(names, details, strict=True)
        ]
        answers = [
            [Answer("palette", text, details={"colours": chips})]
            for text, chips in zip(names, details, strict=True)
        ]
        return {"ui": shown(cards), "result": (names, [as_json(chips) for chips in details], answers)}


# -- what the file says --------------------------------------------------------------------------------------


class EmbeddedPrompt(schema.Node):
    """The prompt that is already in a file."""

    DESCRIPTION = "The prompt that is already in a file: A1111, ComfyUI, InvokeAI, NovelAI, Fooocus."
    SEARCH_ALIASES = ("metadata", "png info", "read prompt", "exif", "embedded", "promptglass")
    RETURN_TYPES = ("STRING", "STRING", "STRING", "STRING", "IMAGE", schema.ANSWERS)
    RETURN_NAMES = ("prompt", "negative", "details", "file", "image", "answers")
    OUTPUT_IS_LIST = (True,) * 6
    OUTPUT_TOOLTIPS = (
        "Empty where the file holds none.",
        "The negative prompt.",
        "JSON: program and settings.",
        "The picture's path, for Save sidecar.",
        "The picture.",
        "For Save sidecar.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> schema.Inputs:
        upload = {"image_upload": True, "tooltip": "A picture as its file is: drop it here, or choose one."}
        return {
            "required": {"image": (host.input_pictures(), upload)},
            "optional": {"file": schema.linked_text("Paths instead: from Load images from folder.")},
        }

    @classmethod
    def VALIDATE_INPUTS(cls, image: Any) -> bool:
        return True  # an upload may be newer than the list; run() looks

    @classmethod
    def IS_CHANGED(cls, image: Any, file: Any = None) -> list[Any]:
        """The files as they are now."""
        return [_state(path) for path in _files(image, file)]

    def run(self, image: Sequence[str], file: Sequence[str] | None = None) -> schema.Result:
        from ..promptglass.images import open_picture

        files = _files(image, file)
        found = []
        for done, path in enumerate(files):
            host.progress("files", done, len(files))
            found.append(open_picture(path))
        embedded = [picture.embedded for picture in found]
        prompts = [one.positive if one else "" for one in embedded]
        cards = [
            _embedded_card(one) if one else {"title": "embedded", "note": "this file holds no prompt"}
            for one in embedded
        ]
        answers = [
            [Answer("embedded", one.positive, one.source, details=asdict(one))] if one else []
            for one in embedded
        ]
        return {
            "ui": shown(cards),
            "result": (
                prompts,
                [one.negative if one else "" for one in embedded],
                [as_json(asdict(one) if one else {}) for one in embedded],
                [str(path) for path in files],
                [image_of(picture.image) for picture in found],
                answers,
            ),
        }


def _embedded_card(embedded: Any) -> Card:
    short = {name: value for name, value in embedded.settings.items() if len(str(value)) < 60}
    lines = [f"{name}: {value}" for name, value in [*short.items()][:8]]
    return {
        "title": embedded.source,
        "text": embedded.positive,
        "negative": embedded.negative,
        "lines": lines,
    }


def _files(names: Any, files: Any) -> list[Path]:
    """The files that are connected, or the one of the host's input folder."""
    if files and None not in files:  # None: what is linked is not known yet when the host asks what changed
        if "" in files:
            raise InputError("one of the files is an empty path: connect `file` of Load images from folder")
        return [Path(path) for path in files]
    folder = host.folder_of("input").resolve()
    found = [(folder / name.removesuffix(" [input]")).resolve() for name in names or ()]
    for path in found:
        # The host's own function follows "../" out of its folder.
        if not path.is_relative_to(folder):
            raise InputError(f"{path.name} is not in ComfyUI's input folder: upload it")
    return found


def _state(path: Path) -> object:
    try:
        status = path.stat()
    except OSError:
        return None
    return [str(path), status.st_size, status.st_mtime_ns]
