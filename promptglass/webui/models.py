"""The CLIP and the BLIP that a WebUI interrogates with, as the engine's encoder and captioner."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..clip.encoder import OpenClipEncoder
from ..clip.hosted import HostedEncoder
from ..clip.memory import BatchLimit, in_batches
from ..turns import Turns
from . import running

if TYPE_CHECKING:
    from PIL import Image

CAPTIONER = "webui/blip-base"  # in sidecars: BLIP base, as the host's settings have it write

# As OpenAI's CLIP and BLIP normalise pixels (clip.py, and demo.ipynb of salesforce/BLIP).
_MEAN = np.array((0.48145466, 0.4578275, 0.40821073), np.float32)
_DEVIATION = np.array((0.26862954, 0.26130258, 0.27577711), np.float32)
_CAPTIONS_TOGETHER = 4  # between two looks at the host's Interrupt


Models = Callable[[], Any]  # the host's InterrogateModels, loaded; to be asked for within a turn


def host_encoder(turns: Turns, models: Models) -> HostedEncoder:
    """A JointEncoder over the host's CLIP, which is loaded when it is first used."""

    def make() -> OpenClipEncoder:
        import clip

        loaded = models()
        tokenizer = partial(clip.tokenize, truncate=True)
        return OpenClipEncoder(loaded.clip_model, loaded.clip_preprocess, tokenizer, running.clip_name())

    @contextlib.contextmanager
    def turn() -> Iterator[None]:
        with turns.turn():
            models()
            with running.autocast():
                yield

    return HostedEncoder(running.clip_name(), make, turn, running.check)


class HostCaptioner:
    """Captions by the host's BLIP, several pictures at a time."""

    name = CAPTIONER

    def __init__(self, turns: Turns, models: Models) -> None:
        self._turns = turns
        self._models = models
        self._limit = BatchLimit(_CAPTIONS_TOGETHER, "pictures")

    def caption(self, images: Sequence[Image.Image]) -> list[str]:
        with self._turns.turn(), torch.no_grad():
            batches = in_batches(images, self._limit, self._write)
        return [" ".join(caption.split()) for batch in batches for caption in batch]

    def _write(self, images: Sequence[Image.Image]) -> list[str]:
        running.check()
        blip = self._models().blip_model
        weight = next(blip.parameters())
        pixels = torch.stack([_pixels(image, running.caption_size()) for image in images])
        # One beam, whatever the setting says: more of them fail in every WebUI, as BLIP's code does not fit
        # the transformers that they pin (AUTOMATIC1111/stable-diffusion-webui#13450).
        return blip.generate(
            pixels.to(weight.device, weight.dtype),
            sample=False,
            num_beams=1,
            min_length=int(running.option("interrogate_clip_min_length", 24)),
            max_length=int(running.option("interrogate_clip_max_length", 48)),
        )


def _pixels(image: Image.Image, side: int) -> torch.Tensor:
    """[3, side, side], as the host prepares a picture for BLIP."""
    from PIL.Image import Resampling

    square = np.asarray(image.convert("RGB").resize((side, side), Resampling.BICUBIC), np.float32) / 255
    return torch.from_numpy((square - _MEAN) / _DEVIATION).permute(2, 0, 1)
