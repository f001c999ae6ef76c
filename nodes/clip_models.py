"""CLIP for the nodes: the pair that the graph has loaded, or a model of ours by its name.

A pair is checked once: that its widths agree, that there is a trained projection, and that pictures and
texts meet. What was checked, and embedded, is kept on the host's own CLIP object and goes with it.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ..promptglass.clip.loaded import LoadedClip
from ..promptglass.errors import InputError, ModelError
from . import host

if TYPE_CHECKING:
    import torch

    from ..promptglass.progress import Progress
    from ..promptglass.weights import Weights

log = logging.getLogger("promptglass")

OWN_CLIP = "openai/clip-vit-large-patch14"  # by transformers, which every host has
AUTO, BUILT_IN = "auto", "built-in"  # projections that are no file


def clip_for(
    encoder: Sequence[LoadedClip] | None,
    clip: Sequence[Any] | None,
    clip_vision: Sequence[Any] | None,
    model: str,
) -> LoadedClip:
    """What is connected to a node, or else the model of that name."""
    if encoder:
        return encoder[0]
    if clip and clip_vision:
        return from_host(clip[0], clip_vision[0])
    if clip or clip_vision:
        missing = "CLIP_VISION" if clip else "CLIP"
        raise InputError(f"connect a {missing}, too: it takes both to compare pictures with texts")
    return _own(model)


def own_models(kind: str) -> list[str]:
    """The names of models that the engine loads itself: "clip", "caption" or "tags"."""
    from ..promptglass.weights import KNOWN

    return [weights.name for weights in KNOWN if weights.kind == kind]


def is_own_clip(weights: Weights) -> bool:
    """Whether it is a CLIP that the engine can load here: most need open_clip, which ComfyUI lacks."""
    is_for_transformers = weights.name == weights.repo
    return weights.kind == "clip" and (is_for_transformers or find_spec("open_clip") is not None)


def must_be_here(name: str, instead: str) -> None:
    """Raises ModelError for a model that is not: a node fetches nothing behind the user's back."""
    from ..promptglass.program import command
    from ..promptglass.weights import local_path, resolve

    if local_path(name) is None:
        get = command(f"models get {resolve(name).name}")
        raise ModelError(f"{name} is not here: {instead}, or get it: `{get}`")


@lru_cache(maxsize=1)
def _own(model: str) -> LoadedClip:
    from ..promptglass.clip.hosted import HostedEncoder
    from ..promptglass.clip.loading import load_encoder

    must_be_here(model, "connect a CLIP and a CLIP_VISION")
    encoder = load_encoder(model, "cpu", host.precision())  # the host moves it
    bring = host.managed(encoder.module)
    hosted = HostedEncoder(encoder.name, lambda: encoder, lambda: _brought(bring), host.check)
    return LoadedClip(hosted, host.progress)


@contextlib.contextmanager
def _brought(bring: Callable[[], None]) -> Iterator[None]:
    bring()
    yield


# -- the host's pair -----------------------------------------------------------------------------------------


def from_host(
    clip: Any,
    clip_vision: Any,
    projection: str = AUTO,
    progress: Progress = host.progress,
    check: Callable[[], None] = host.check,
) -> LoadedClip:
    """A graph's CLIP and CLIP_VISION, checked. projection: auto, built-in, or a file as its loaders name it.

    progress, check: told and asked while it works. Raises ModelError, which names the file to get.
    """
    known: dict[Any, LoadedClip] = vars(clip).setdefault("_promptglass", {})
    # The CLIP_VISION of an id that stands here lives on in its encoder.
    key = (id(clip_vision), str(clip.patcher.patches_uuid), projection)
    if key not in known:
        known.clear()  # or every CLIP_VISION that was ever connected would stay in memory
        known[key] = _checked(clip, clip_vision, projection, progress, check)
    return known[key]


def _checked(
    clip: Any, clip_vision: Any, projection: str, progress: Progress, check: Callable[[], None]
) -> LoadedClip:
    from ..promptglass.clip.graph_encoder import GraphEncoder, is_patched, matching_tower
    from ..promptglass.clip.projections import how_to_get
    from ..promptglass.clip.self_test import check as test

    def ready() -> torch.device:
        return host.loaded(clip.patcher)

    tower = matching_tower(clip, clip_vision)
    faults: list[str] = []
    for weight, source in _projections(clip, tower, projection):
        try:
            encoder = GraphEncoder(tower, clip, tower, clip_vision, ready, weight, check)
            test(encoder)
        except ModelError as error:
            faults.append(f"{source}: {error}")
            continue
        encoder.name = f"comfyui/{tower}-{encoder.fingerprint()[:8]}"
        origin = f"{encoder.name}, projection: {source}"
        log.info("%s%s", origin, ", patched: its embeddings are not kept" if is_patched(clip) else "")
        return LoadedClip(encoder, progress, not is_patched(clip), origin)
    raise ModelError(
        f"this CLIP and CLIP_VISION do not work together: {'; '.join(faults)}. {how_to_get(tower)}"
    )


def _projections(clip: Any, tower: str, choice: str) -> Iterator[tuple[torch.Tensor | None, str]]:
    """What may be the tower's projection, the likeliest first; None is its own."""
    from ..promptglass.clip.graph_encoder import text_towers
    from ..promptglass.clip.projections import find_projections, projection_in

    width = text_towers(clip)[tower].transformer.text_projection.weight.shape[0]
    files = host.model_files()
    if choice == AUTO:
        for found in find_projections(width, files.values()):
            yield found.weight, found.path.name
    elif choice in files:
        chosen = projection_in(files[choice], width)
        if chosen is None:
            raise ModelError(f"{choice} holds no trained text projection {width} wide: choose auto")
        yield chosen.weight, choice
    elif choice != BUILT_IN:
        raise InputError(f"there is no file {choice} any more: choose another projection")
    if choice in (AUTO, BUILT_IN):
        yield None, "the CLIP's own"
