"""A sentence about a picture: BLIP, BLIP-2 and GIT through transformers' own classes (4.30 to 5).

No remote code, no model loaded before the first caption. Anything with a name and `caption(images)` can
take their place.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from .errors import ModelError, one_line
from .weights import ready

if TYPE_CHECKING:
    import torch
    from PIL import Image

# As clip-interrogator's Config.caption_max_length.
_MAX_NEW_TOKENS = 32
_PICTURES_PER_PASS = 8
_CLASSES = {
    "blip": "BlipForConditionalGeneration",
    "blip-2": "Blip2ForConditionalGeneration",
    "git": "GitForCausalLM",
}


class Captioner(Protocol):
    """Writes one caption for each RGB picture. `name` says which model does."""

    name: str

    def caption(self, images: Sequence[Image.Image]) -> list[str]: ...


def load_captioner(
    name: str = "blip-large", device: str = "auto", dtype: str = "auto"
) -> TransformersCaptioner:
    """The captioner of a model: a known name, a hub repository, or a folder transformers saved.

    Weights that are not here are fetched and announced first; they are read at the first caption.
    Raises WeightsMissing, ModelError for another kind of model, InputError for a wrong option.
    """
    from .clip.loading import pick_device, pick_dtype

    target = pick_device(device)
    folder = ready(name, "caption")
    return TransformersCaptioner(folder, name, target, pick_dtype(dtype, target))


class TransformersCaptioner:
    """A captioning model in a folder as transformers saves it."""

    def __init__(self, folder: Path, name: str, device: torch.device, dtype: torch.dtype) -> None:
        from .clip.memory import BatchLimit

        self.name = name
        self._folder = folder
        self._device = device
        self._dtype = dtype
        self._kind = _kind(folder)
        self._limit = BatchLimit(_PICTURES_PER_PASS, "pictures")

    def caption(self, images: Sequence[Image.Image]) -> list[str]:
        import torch

        from .clip.memory import in_batches

        with torch.no_grad():
            return [caption for batch in in_batches(images, self._limit, self._write) for caption in batch]

    def _write(self, images: Sequence[Image.Image]) -> list[str]:
        pixels = self._processor(images=list(images), return_tensors="pt")["pixel_values"]
        # Where the model is now: a host may have moved it.
        pixels = pixels.to(self.module.device, self._dtype)
        tokens = self.module.generate(pixel_values=pixels, max_new_tokens=_MAX_NEW_TOKENS)
        texts = self._processor.batch_decode(tokens, skip_special_tokens=True)
        return [" ".join(text.split()) for text in texts]

    @property
    def is_loaded(self) -> bool:
        return "module" in vars(self)

    @cached_property
    def module(self) -> Any:
        """The model itself, loaded at first use."""
        import transformers

        # `torch_dtype` became `dtype` in transformers 4.56.
        version = tuple(int(part) for part in transformers.__version__.split(".")[:2])
        dtype_option = "dtype" if version >= (4, 56) else "torch_dtype"
        model_class = getattr(transformers, _CLASSES[self._kind])
        options = {"local_files_only": True, dtype_option: self._dtype}
        return self._loaded(model_class, **options).eval().to(self._device)

    @cached_property
    def _processor(self) -> Any:
        from transformers import AutoProcessor

        return self._loaded(AutoProcessor, local_files_only=True)

    def _loaded(self, kind: Any, **options: Any) -> Any:
        try:
            return kind.from_pretrained(self._folder, **options)
        # What a damaged checkpoint raises is up to pickle, safetensors, json and torch.
        except Exception as error:
            raise ModelError(f"cannot load {self.name} from {self._folder}: {one_line(error)}") from error


def _kind(folder: Path) -> str:
    try:
        kind = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{folder} holds no captioning model: no config.json names one") from error
    if kind not in _CLASSES:
        raise ModelError(f"{folder} holds a {kind} model; captions come from {', '.join(_CLASSES)}")
    return kind
