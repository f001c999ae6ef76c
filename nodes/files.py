"""Nodes for folders of pictures and what stands beside them: sidecars, captions for training."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..promptglass.errors import ImageError, InputError, cause_of, one_line, visible
from . import host, schema
from .cards import shown
from .lists import first, for_each, image_of

if TYPE_CHECKING:
    from ..promptglass.analyzers import Answer
    from ..promptglass.scan import Found


class LoadFolder(schema.Node):
    """A folder's pictures as a list, each in its own size."""

    DESCRIPTION = "Loads the pictures of a folder as a list, each in its own size, with its path and name."
    SEARCH_ALIASES = ("batch", "directory", "load images", "folder", "promptglass")
    RETURN_TYPES = ("IMAGE", "STRING", "STRING")
    RETURN_NAMES = ("image", "file", "name")
    OUTPUT_IS_LIST = (True,) * 3
    OUTPUT_TOOLTIPS = ("The pictures.", "Their paths, for Save sidecar.", "Their names, without ending.")
    OUTPUT_NODE = False

    @classmethod
    def INPUT_TYPES(cls) -> schema.Inputs:
        return {
            "required": {
                "folder": schema.text(
                    "A folder on the machine that runs ComfyUI; one without a path is looked for in its "
                    "input folder. Empty: the input folder itself.",
                    placeholder="ComfyUI's input folder",
                ),
                "recursive": schema.switch(False, "Folders within it, too."),
                "skip": schema.number(0, 0, 10_000_000, "How many to pass over, by name."),
                "count": schema.number(100, 0, 10_000_000, "How many at most; 0: all. They lie in memory."),
            }
        }

    @classmethod
    def IS_CHANGED(cls, folder: Any, recursive: Any, **_: Any) -> Any:
        if folder is None or folder[0] is None:  # linked: not known yet, so look every time
            return float("nan")
        found = _pictures_in(folder[0], bool(recursive[0]))[0]
        state = [(one.path, one.size_bytes, one.modified_ns) for one in found]
        return hashlib.sha256(repr(state).encode("utf-8", "surrogatepass")).hexdigest()

    def run(
        self, folder: Sequence[str], recursive: Sequence[bool], skip: Sequence[int], count: Sequence[int]
    ) -> schema.Result:
        from ..promptglass.images import open_picture

        found, faults = _pictures_in(folder[0], recursive[0])
        chosen = found[skip[0] : skip[0] + count[0] if count[0] else None]
        images, files = [], []
        for done, one in enumerate(chosen):
            host.progress("pictures", done, len(chosen))
            try:
                images.append(image_of(open_picture(one.path).image))
                files.append(one.path)
            except ImageError as error:
                faults.append(str(error))
        host.progress("pictures", len(chosen), len(chosen))
        if not images:
            why = (
                faults[0] if faults else f"{visible(folder[0]) or 'the input folder'} holds no pictures there"
            )
            raise InputError(f"no picture to load: {why}")
        card = {"title": "folder", "text": f"{len(images):,} of {len(found):,} pictures", "lines": faults[:8]}
        return {"ui": shown([card]), "result": (images, files, [Path(file).stem for file in files])}


def _pictures_in(folder: str, recursive: bool) -> tuple[list[Found], list[str]]:
    """The pictures, and what could not be looked at."""
    from ..promptglass.scan import find_pictures

    faults: list[str] = []
    try:
        place = host.folder_of("input") / Path(folder.strip()).expanduser()
        found = [*find_pictures(place, recursive, lambda error: faults.append(str(error)))]
    except (OSError, RuntimeError, ValueError) as error:  # a name that is none, a user who is not there
        raise InputError(
            f"cannot read the folder {visible(folder)[:100]}: {one_line(error)[:200]}"
        ) from error
    return found, faults


class SaveSidecar(schema.Node):
    """What the nodes found out, beside the picture."""

    DESCRIPTION = (
        "Writes what was found out about pictures into their sidecars (photo.png.promptglass.json), merging "
        "with what is there. Nothing of the picture is changed."
    )
    SEARCH_ALIASES = ("save json", "metadata", "sidecar", "promptglass")
    RETURN_TYPES = ("STRING",)
    RETURN_NAMES = ("sidecar",)
    OUTPUT_IS_LIST = (True,)
    OUTPUT_TOOLTIPS = ("The sidecars' paths.",)

    @classmethod
    def INPUT_TYPES(cls) -> schema.Inputs:
        answers = (schema.ANSWERS, {"tooltip": "From the nodes that looked at the same pictures."})
        return {
            "required": {
                "file": schema.linked_text("The pictures' paths, from Load images from folder."),
                "answers": answers,
            },
            "optional": {f"answers_{number}": answers for number in (2, 3, 4)},
        }

    def run(
        self,
        file: Sequence[str],
        answers: Sequence[list[Answer]],
        answers_2: Sequence[list[Answer]] | None = None,
        answers_3: Sequence[list[Answer]] | None = None,
        answers_4: Sequence[list[Answer]] | None = None,
    ) -> schema.Result:
        columns = [for_each(column, len(file), "answers", []) for column in
                   (answers, answers_2, answers_3, answers_4)]  # fmt: skip
        written = []
        for done, (path, *found) in enumerate(zip(file, *columns, strict=True)):
            host.progress("sidecars", done, len(file))
            written.append(_write_sidecar(path, [answer for column in found for answer in column]))
        host.progress("sidecars", len(file), len(file))
        lines = [Path(path).name for path in written]
        card = {"title": "sidecars", "text": f"{len(written):,} written", "lines": lines[:8]}
        return {"ui": shown([card]), "result": (written,)}


def _write_sidecar(path: str, answers: Sequence[Answer]) -> str:
    from ..promptglass.analyzers import Recipe
    from ..promptglass.intake import facts_of
    from ..promptglass.sidecar import path_of, update

    _check_picture(path)
    recipes = {answer.mode: Recipe(answer.model, answer.settings) for answer in answers}
    try:
        update(path, facts_of(path), recipes, answers)
    except OSError as error:
        raise InputError(f"cannot write beside {visible(path)}: {cause_of(error)}") from error
    return str(path_of(path))


def _check_picture(path: str) -> None:
    """A workflow writes beside pictures, and nowhere else: it may be somebody else's."""
    from ..promptglass.scan import EXTENSIONS

    place = Path(path)
    if not (place.is_absolute() and place.suffix.lower() in EXTENSIONS and place.is_file()):
        raise InputError(f"there is no picture {visible(path)}: connect `file` of Load images from folder")


class AppendCaption(schema.Node):
    """photo.txt beside photo.png."""

    DESCRIPTION = "Writes captions for training: photo.txt beside photo.png, as kohya's scripts read them."
    SEARCH_ALIASES = ("lora", "training", "caption file", "kohya", "txt", "promptglass")
    RETURN_TYPES = ("STRING",)
    RETURN_NAMES = ("caption_file",)
    OUTPUT_IS_LIST = (True,)
    OUTPUT_TOOLTIPS = ("The caption files' paths.",)

    @classmethod
    def INPUT_TYPES(cls) -> schema.Inputs:
        from ..promptglass.training import EXISTING

        return {
            "required": {
                "file": schema.linked_text("The pictures' paths, from Load images from folder."),
                "text": schema.linked_text("One text for each picture, or one for all."),
                "existing": schema.choice(
                    ["append", *(way for way in EXISTING if way != "append")],
                    "append",
                    "What happens where a caption is there already.",
                ),
                "prefix": schema.text("Every caption begins with this.", placeholder="a trigger word"),
                "suffix": schema.text("Every caption ends with this."),
            }
        }

    def run(
        self,
        file: Sequence[str],
        text: Sequence[str],
        existing: Sequence[str],
        prefix: Sequence[str],
        suffix: Sequence[str],
    ) -> schema.Result:
        from ..promptglass.atomic import locked
        from ..promptglass.training import CaptionFiles, caption_path, colliding

        writer = CaptionFiles(existing[0], first(prefix, ""), first(suffix, ""))
        texts = for_each(text, len(file), "texts", "")
        for shared, pictures in colliding(map(Path, file)).items():
            names = " and ".join(visible(picture.name) for picture in pictures)
            raise InputError(f"{names} would share {visible(shared.name)}: rename one")
        changed = 0
        for done, (path, caption) in enumerate(zip(file, texts, strict=True)):
            host.progress("captions", done, len(file))
            _check_picture(path)
            try:
                with locked(caption_path(Path(path))):
                    changed += writer.write(Path(path), [caption])
            except OSError as error:
                raise InputError(f"cannot write beside {visible(path)}: {cause_of(error)}") from error
        host.progress("captions", len(file), len(file))
        card = {"title": "captions", "text": f"{changed:,} of {len(file):,} files changed"}
        return {"ui": shown([card]), "result": ([str(caption_path(Path(path))) for path in file],)}
