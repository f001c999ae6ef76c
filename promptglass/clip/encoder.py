"""JointEncoder: pictures and texts as vectors in one space, where a cosine says how well they match.

`OpenClipEncoder` and `TransformersEncoder` wrap a model that exists and leave its weights where they lie.
All features are L2-normalised float32 [n, d] on the model's device.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol

import torch
import torch.nn.functional as F
from torch import nn

from ..errors import ModelError
from .adapters import Plain, tower_of
from .memory import BatchLimit, in_batches
from .tokens import Tokens

if TYPE_CHECKING:
    from PIL import Image

# Pictures per forward pass: enough to fill a GPU at ViT-L, and 20 MB of pixels.
_PICTURES_PER_PASS = 32
# Texts per pass where the tower is not causal and every text is padded to the full context.
_PADDED_TEXTS_PER_PASS = 128


class JointEncoder(Protocol):
    """What the modes need of a model. `name` says model and weights: "ViT-L-14/openai"."""

    name: str

    def encode_images(self, images: Sequence[Image.Image]) -> torch.Tensor: ...

    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor: ...

    def encode_continuations(self, prefix: str, suffixes: Sequence[str]) -> torch.Tensor:
        """The same as encode_texts([prefix + s for s in suffixes]), for less work."""
        ...

    def fills_context(self, text: str) -> bool:
        """Whether a text uses up every token the model can read."""
        ...

    def fingerprint(self) -> str:
        """A name for these very text weights and this tokenizer, for caches."""
        ...


class TorchEncoder:
    """A JointEncoder made of a text side and an image side. `module`: the model, which a host may move."""

    def __init__(self, name: str, module: nn.Module, texts: _Texts, pictures: _Pictures) -> None:
        self.name = name
        self.module = module
        self._texts = texts
        self._pictures = pictures

    def encode_images(self, images: Sequence[Image.Image]) -> torch.Tensor:
        return self._pictures.encode(images)

    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        return self._texts.encode("", texts)

    def encode_continuations(self, prefix: str, suffixes: Sequence[str]) -> torch.Tensor:
        return self._texts.encode(prefix, suffixes)

    def fills_context(self, text: str) -> bool:
        return self._texts.fills_context(text)

    def fingerprint(self) -> str:
        return self._texts.fingerprint()


class OpenClipEncoder(TorchEncoder):
    """Over an open_clip model (or OpenAI's clip) with its image transform and tokenizer.

    preprocess: PIL image to pixels [3, h, w]. tokenizer: texts to ids [n, context_length], padded, and cut
    where a text is longer (OpenAI's own: `partial(clip.tokenize, truncate=True)`).
    """

    def __init__(
        self,
        model: nn.Module,
        preprocess: Callable[[Image.Image], torch.Tensor],
        tokenizer: Callable[[list[str]], torch.Tensor],
        name: str,
    ) -> None:
        clip: Any = model.eval()
        probe = tokenizer(["a"])
        tokens = Tokens(tokenizer, _end_token(tokenizer, probe), probe.shape[1], _splits_at_spaces(tokenizer))
        super().__init__(
            name,
            clip,
            _Texts(clip, clip.encode_text, tokens, image_side=("visual.",)),
            _Pictures(clip.visual, clip.encode_image, lambda images: _stacked(preprocess, images)),
        )


class TransformersEncoder(TorchEncoder):
    """Over a transformers CLIPModel or SiglipModel with its image processor and tokenizer."""

    def __init__(self, model: Any, image_processor: Any, tokenizer: Any, name: str) -> None:
        model.eval()
        context_length = model.config.text_config.max_position_embeddings

        def tokenize(texts: list[str]) -> torch.Tensor:
            return tokenizer(
                texts, padding="max_length", truncation=True, max_length=context_length, return_tensors="pt"
            )["input_ids"]

        def encode_text(ids: torch.Tensor) -> torch.Tensor:
            return _pooled(model.get_text_features(input_ids=ids))

        def encode_image(pixels: torch.Tensor) -> torch.Tensor:
            return _pooled(model.get_image_features(pixel_values=pixels))

        def preprocess(images: Sequence[Image.Image]) -> torch.Tensor:
            return image_processor(images=list(images), return_tensors="pt")["pixel_values"]

        tokens = Tokens(tokenize, tokenizer.eos_token_id, context_length, _splits_at_spaces(tokenizer))
        super().__init__(
            name,
            model,
            _Texts(model, encode_text, tokens, image_side=("vision_model.", "visual_projection.")),
            _Pictures(model.vision_model, encode_image, preprocess),
        )


class _Texts:
    """The text side of a model: its fast causal tower, or its plain path."""

    def __init__(self, model: nn.Module, plain: Plain, tokens: Tokens, image_side: tuple[str, ...]) -> None:
        self._model = model
        self._plain = plain
        self._tokens = tokens
        self._image_side = image_side
        self._tower = tower_of(model, plain, tokens, self._device)
        self._limit = BatchLimit(_PADDED_TEXTS_PER_PASS, "texts")

    @property
    def _device(self) -> torch.device:
        return next(self._model.parameters()).device  # a host may have moved it since

    def encode(self, prefix: str, suffixes: Sequence[str]) -> torch.Tensor:
        if self._tower is not None and suffixes:
            features = self._tower.features(self._tokens.continuations(prefix, suffixes), self._device)
        else:
            features = _features([prefix + suffix for suffix in suffixes], self._limit, self._encode_padded)
        return normalised(features)

    def _encode_padded(self, texts: Sequence[str]) -> torch.Tensor:
        return self._plain(self._tokens.padded(list(texts)).to(self._device))

    def fills_context(self, text: str) -> bool:
        return self._tokens.count(text) >= self._tokens.context_length

    def fingerprint(self) -> str:
        """Hash of a sample of every text-side weight; fp16 and fp32 copies of one model agree.

        Hashing all of ViT-L's text side takes a second; about 1,024 values spread over each tensor take
        milliseconds, and a fine-tune of the tower changes some of them. Activations and heads leave no trace
        in weights, so they are named, too.
        """
        digest = hashlib.sha256()
        for name, weight in sorted(self._model.named_parameters()):
            if name.startswith(self._image_side) or "logit_" in name:
                continue
            digest.update(sampled(name, weight))
        for name, module in self._model.named_modules():
            if not name.startswith(self._image_side):
                digest.update(f"{type(module).__name__} {getattr(module, 'num_heads', '')}".encode())
        digest.update(repr(self._tokens.rows(["a photo of 2 cats, it's ART; café &amp; \u2615"])).encode())
        return digest.hexdigest()


class _Pictures:
    """The image side of a model. preprocess: PIL images to pixels [n, 3, h, w]."""

    def __init__(
        self, tower: nn.Module, encode: Plain, preprocess: Callable[[Sequence[Image.Image]], torch.Tensor]
    ) -> None:
        self._encode = encode
        self._preprocess = preprocess
        # Norms and embeddings may be kept in float32; the first product says what the tower computes in.
        self._first = next(m for m in tower.modules() if isinstance(m, nn.Conv2d | nn.Linear))
        self._limit = BatchLimit(_PICTURES_PER_PASS, "pictures")

    def encode(self, images: Sequence[Image.Image]) -> torch.Tensor:
        def encode(batch: Sequence[Image.Image]) -> torch.Tensor:
            weight = self._first.weight
            return self._encode(self._preprocess(batch).to(weight.device, weight.dtype))

        return normalised(_features(images, self._limit, encode))


def _stacked(
    preprocess: Callable[[Image.Image], torch.Tensor], images: Sequence[Image.Image]
) -> torch.Tensor:
    """Pixels [n, 3, h, w]. Pillow resizes without Python's lock: many pictures go to many cores."""
    if len(images) == 1:
        return preprocess(images[0])[None]
    with ThreadPoolExecutor(min(len(images), os.cpu_count() or 1)) as threads:
        return torch.stack([*threads.map(preprocess, images)])


def sampled(name: str, weight: torch.Tensor) -> bytes:
    """A tensor for a fingerprint: its name, its shape, and about 1,024 values spread over it."""
    flat = weight.detach().flatten()
    # An odd step does not fall into the same few columns of a matrix.
    sample = flat[:: flat.numel() // 1024 | 1].to("cpu", torch.float16)
    return f"{name}{tuple(weight.shape)}".encode() + sample.numpy().tobytes()


def normalised(features: torch.Tensor) -> torch.Tensor:
    features = F.normalize(features.float(), dim=-1)
    if not features.isfinite().all():
        raise ModelError("the model gave no numbers (half precision that overflowed?): use --dtype fp32")
    return features


def _features(
    items: Sequence[Any], limit: BatchLimit, encode: Callable[[Sequence[Any]], torch.Tensor]
) -> torch.Tensor:
    """Features [n, d] of all items."""
    with torch.no_grad():
        batches = in_batches(items, limit, encode)
    return torch.cat(batches) if batches else torch.empty(0, 0)


def _end_token(tokenizer: Any, probe: torch.Tensor) -> int:
    of_transformers = getattr(getattr(tokenizer, "tokenizer", None), "eos_token_id", None)
    if of_transformers is not None:  # open_clip's HFTokenizer
        return of_transformers
    # In every CLIP vocabulary the end token has the highest id: CLIP itself finds it by argmax.
    return getattr(tokenizer, "eot_token_id", None) or int(probe.max())


def _splits_at_spaces(tokenizer: Any) -> bool:
    """Whether this is CLIP's own byte-pair tokenizer, which works word by word."""
    if type(tokenizer).__name__ in ("CLIPTokenizer", "CLIPTokenizerFast"):
        return True
    if type(tokenizer).__name__ == "SimpleTokenizer":
        return getattr(tokenizer, "reduction_fn", None) is None
    # open_clip up to 2.23 hands out a function instead, as OpenAI's clip does.
    function = getattr(tokenizer, "func", tokenizer)  # of a partial: clip.tokenize with truncate=True
    is_function = hasattr(function, "__name__")
    return is_function and getattr(function, "__module__", "") in ("open_clip.tokenizer", "clip.clip")


def _pooled(features: Any) -> torch.Tensor:
    """transformers 5 answers with an object, earlier versions with the tensor itself."""
    return features if isinstance(features, torch.Tensor) else features.pooler_output
