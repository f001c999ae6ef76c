"""The text projections of published CLIPs: most text encoders that hosts load come without theirs.

`find_projection` looks into files that are here and reads nothing of them but the header and one tensor.
`fetch` brings that tensor alone from the hub, 2.4 MB of a file of 1.7 GB. What cannot be a trained projection
is passed over. That it is the one of this tower no file can say: see self_test.py.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from .. import hub, weights
from ..atomic import locked, replace_file
from ..program import command
from ..tensor_file import TensorFile, reader
from .graph_encoder import projection_fault

if TYPE_CHECKING:
    import torch

log = logging.getLogger("promptglass")

# By ComfyUI's name of the tower: its width, and what `promptglass models get` calls its projection.
PUBLISHED = {
    "clip_l": (768, "projection:ViT-L-14"),
    "clip_h": (1024, "projection:ViT-H-14"),
    "clip_g": (1280, "projection:ViT-bigG-14"),
}
# Under which names files keep a CLIP's text side.
_PREFIXES = (
    "",  # transformers, open_clip, OpenAI, and what ComfyUI's CLIPSave writes
    "text_model.",  # transformers' text tower inside other models
    "text.",  # open_clip where the text tower is a module of its own
    "clip_l.transformer.",  # text encoders saved as ComfyUI holds them
    "clip_h.transformer.",
    "clip_g.transformer.",
    "cond_stage_model.model.",  # SD 2.x
    "conditioner.embedders.0.model.",  # the SDXL refiner
    "conditioner.embedders.1.model.",  # SDXL
)
_KEYS = tuple(f"{prefix}text_projection{end}" for prefix in _PREFIXES for end in (".weight", ""))
_STORED_KEY = "text_projection.weight"


@dataclass(frozen=True)
class Found:
    """A trained projection [width, width], as a Linear keeps it.

    is_named: the file is our own, or called as the published model is; else only the width speaks for it.
    """

    weight: torch.Tensor
    path: Path
    is_named: bool


def find_projection(width: int, folders_or_files: Iterable[Path]) -> Found | None:
    """The likeliest trained text projection of that width."""
    return next(find_projections(width, folders_or_files), None)


def find_projections(width: int, folders_or_files: Iterable[Path]) -> Iterator[Found]:
    """Every trained text projection of that width, the likeliest first.

    The one that was fetched comes first, then files called as the published model of that width, then all
    others, as a fine-tune may have that width, too: which of those was taken is logged.
    """
    own = (_fetched_file(name) for known, name in PUBLISHED.values() if known == width)
    files = sorted(_files(folders_or_files), key=lambda path: not _is_named(path, width))
    found = (projection_in(path, width) for path in (*own, *files))
    yield from (projection for projection in found if projection)


def projection_in(path: Path, width: int) -> Found | None:
    """The projection of that width in one file; what is there and cannot be used is logged, once."""
    try:
        version = path.stat()
    except OSError:
        return None
    found = _read(path, version.st_size, version.st_mtime_ns, width)
    if found and not found.is_named:
        log.info(
            "the text projection is taken from %s, as it is %d wide: nothing else vouches for it", path, width
        )
    return found


def how_to_get(tower: str) -> str:
    """What to do where a tower has no projection that fits: a sentence with the command and the file."""
    _, name = PUBLISHED[tower]
    published = weights.resolve(name)
    get = command(f"models get {name}")
    size = hub.human(published.size_bytes)
    return f"Get the text projection of {tower} ({size}): `{get}`, or {weights.whole_model(published)}."


def fetch(wanted: weights.Weights, progress: bool) -> Path:
    """The folder with a published projection, after fetching that tensor alone.

    A file is there once it is whole. Raises what the network raises, and ValueError.
    """
    width = next(known for known, name in PUBLISHED.values() if name == wanted.name)
    commit, names = hub.contents(wanted.repo)
    source, file, key = _remote(wanted.repo, commit, names, width)
    place = _fetched_file(wanted.name)
    hub.announce(
        f"fetching {wanted.name}: {hub.human(file.size_bytes(key))} of {source} from "
        f"{hub.shown_endpoint()}/{wanted.repo} to {place}",
        progress,
    )
    weight = _as_linear(file, key)
    if fault := projection_fault(weight):
        raise ValueError(f"{key} in {source} is no trained projection: {fault}")
    _store(place, weight, {"source": wanted.repo, "commit": commit, "file": source, "tensor": key})
    return place.parent


def _files(folders_or_files: Iterable[Path]) -> Iterator[Path]:
    for place in folders_or_files:
        if place.is_dir():
            yield from sorted(place.rglob("*.safetensors"))
        elif place.suffix == ".safetensors":
            yield place


def _fetched_file(name: str) -> Path:
    published = weights.resolve(name)
    return weights.drop_folder(published) / published.files[0]


def _is_named(path: Path, width: int) -> bool:
    """Whether a file, or the folder of a model.safetensors, is called as a published model of that width.

    The whole name counts: clip-vit-large-patch14-336 is another model, ViT-L-14-TEXT-improved a fine-tune.
    """
    stem = path.parent.name if path.stem in ("model", "open_clip_model", "text_projection") else path.stem
    plain = re.sub(r"[^a-z0-9]+", "-", stem.lower())
    plain = re.sub(r"^(openai|laion)-|-(fp16|fp32|bf16)$", "", plain)
    return plain in _published_names(width)


def _published_names(width: int) -> set[str]:
    names: set[str] = set()
    for known, name in PUBLISHED.values():
        if known == width:
            architecture = name.partition(":")[2].lower()
            repo = weights.resolve(name).repo.partition("/")[2].lower()
            names |= {architecture, f"clip-{architecture}", repo}
    return names


# A few hundred files and one or two projections are what a host has.
@lru_cache(maxsize=1024)
def _read(path: Path, size_bytes: int, mtime_ns: int, width: int) -> Found | None:
    """By size and time, so that a file that was replaced is read again."""
    try:
        file = TensorFile(reader(path))
        key = _key(file, width)
        if key is None:
            return None
        weight = _as_linear(file, key)
    except (OSError, ValueError) as error:
        log.warning("%s is passed over: %s", path, error)
        return None
    if fault := projection_fault(weight):
        log.warning("the text projection in %s is passed over: %s", path, fault)
        return None
    return Found(weight, path, _is_named(path, width))


def _key(file: TensorFile, width: int) -> str | None:
    names = {*file}
    return next((key for key in _KEYS if key in names and file.shape(key) == (width, width)), None)


def _as_linear(file: TensorFile, key: str) -> torch.Tensor:
    """float32 [width, width]. A bare parameter is used as `x @ p`, a Linear's weight as `x @ w.T`."""
    weight = file.tensor(key)
    return (weight if key.endswith(".weight") else weight.T).float().contiguous()


def _remote(repo: str, commit: str, names: list[str], width: int) -> tuple[str, TensorFile, str]:
    """The file of a repository that holds a projection of that width, and the projection's key."""
    looked_in = []
    for source in _sources(repo, commit, names):
        file = TensorFile(hub.remote_reader(repo, source, commit))
        if key := _key(file, width):
            return source, file, key
        looked_in.append(source)
    raise ValueError(f"no text projection {width} wide in {', '.join(looked_in) or 'any safetensors file'}")


def _sources(repo: str, commit: str, names: list[str]) -> Iterator[str]:
    """The files that may hold it, the likeliest first."""
    if "model.safetensors" in names:
        yield "model.safetensors"
    elif (index := "model.safetensors.index.json") in names:
        try:
            shards = dict(json.loads(hub.small_file(repo, index, commit))["weight_map"])
        except (KeyError, TypeError, ValueError):
            raise ValueError(f"{index} is no index of tensors") from None
        yield from (shards[key] for key in _KEYS if shards.get(key) in names)
    if "open_clip_model.safetensors" in names:
        yield "open_clip_model.safetensors"


def _store(place: Path, weight: torch.Tensor, origin: dict[str, str]) -> None:
    from safetensors.torch import save

    place.parent.mkdir(parents=True, exist_ok=True)
    with locked(place):
        replace_file(place, save({_STORED_KEY: weight}, metadata={"format": "pt", **origin}))
