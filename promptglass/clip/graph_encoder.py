"""JointEncoder over the CLIP and CLIP_VISION objects of a ComfyUI graph, used where the host has them.

Nothing of ComfyUI is imported: the objects are given, and so is the function that makes the host bring their
weights to where they compute. The text tower runs over the host's own modules, so its casts, offloading,
quantised layers and LoRA patches hold; see `text_tower.py` for how.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..errors import ModelError
from .adapters import transformers_layer
from .encoder import normalised, sampled
from .memory import BatchLimit
from .text_tower import NODES_PER_PASS, TextTower
from .tokens import Tokens

if TYPE_CHECKING:
    from PIL import Image

# The names under which ComfyUI keeps CLIP's text towers; T5 and language models beside them are none.
TOWERS = ("clip_l", "clip_h", "clip_g")

Ready = Callable[[], torch.device]  # brings the text tower's weights to the device
Check = Callable[[], None]  # called before every pass of a model; raises to interrupt


def text_towers(clip: Any) -> dict[str, Any]:
    """CLIP's text towers in a graph's CLIP, by the host's name for them."""
    found = {name: getattr(clip.cond_stage_model, name, None) for name in TOWERS}
    return {
        name: tower
        for name, tower in found.items()
        if hasattr(getattr(getattr(tower, "transformer", None), "text_model", None), "final_layer_norm")
    }


def is_patched(clip: Any) -> bool:
    """Whether this CLIP computes with other weights than its file has: LoRAs, hooks, merges."""
    kinds = ("patches", "object_patches", "weight_wrapper_patches", "hook_patches", "injections", "wrappers")
    changed = {name for kind in kinds for name in getattr(clip.patcher, kind, None) or ()}
    return bool(changed - {"manual_cast_dtype"})  # which the host puts on every CLIP


def width_of_pictures(clip_vision: Any) -> int | None:
    """The width of a CLIP_VISION's joint space; None where it has none, as DINOv2."""
    projection = getattr(clip_vision.model, "visual_projection", None)
    return int(projection.weight.shape[0]) if isinstance(projection, torch.nn.Linear) else None


def matching_tower(clip: Any, clip_vision: Any) -> str:
    """The text tower of a CLIP whose joint space is as wide as the one of a CLIP_VISION.

    Raises ModelError where there is none. The same width is necessary, and not enough: see self_test.py.
    """
    width = width_of_pictures(clip_vision)
    if width is None:
        raise ModelError(
            "this CLIP_VISION shares no space with texts, as DINOv2 or SigLIP's tower alone: "
            "load clip-vit-large-patch14.safetensors"
        )
    widths = {name: _width(tower) for name, tower in text_towers(clip).items()}
    if not widths:
        raise ModelError(
            "this CLIP has no tower of CLIP's (T5 and language models are none): load "
            "clip-vit-large-patch14.safetensors with a CLIPLoader"
        )
    fitting = [name for name, other in widths.items() if other == width]
    if not fitting:
        has = ", ".join(f"{name} ({other})" for name, other in widths.items())
        raise ModelError(
            f"CLIP and CLIP_VISION do not belong together: this CLIP has {has}, the CLIP_VISION {width}. "
            "clip_l (768) goes with clip-vit-large-patch14, clip_h (1024) with CLIP-ViT-H-14, "
            "clip_g (1280) with CLIP-ViT-bigG-14"
        )
    return fitting[0]


def _width(tower: Any) -> int:
    return int(tower.transformer.text_projection.weight.shape[0])


def projection_fault(weight: torch.Tensor) -> str:
    """Why a projection [d, width] cannot be a trained one; empty if it can.

    Most files hold none, and the host then leaves the layer as the memory was.
    """
    weight = weight.detach().float().cpu()
    if not weight.isfinite().all():
        return "it holds no numbers"
    if weight.shape[0] == weight.shape[1] and torch.equal(weight, torch.eye(len(weight))):
        return "it changes nothing"
    rows, columns = weight.norm(dim=1), weight.norm(dim=0)
    is_sane = min(rows.min(), columns.min()) > 1e-3 and rows.max() < 1e3
    return "" if is_sane else "it has empty rows or absurd values"


class GraphEncoder:
    """A JointEncoder. projection [d, width], as a Linear keeps it: where None, the tower's own is used.

    Features are on the CPU, as the host's own are: what they are compared with may be larger than what the
    host leaves free on its GPU. Raises ModelError where there is no usable projection.
    """

    def __init__(
        self,
        name: str,
        clip: Any,
        tower: str,
        clip_vision: Any,
        ready: Ready,
        projection: torch.Tensor | None,
        check: Check = lambda: None,
    ) -> None:
        self.name = name
        self.is_patched = is_patched(clip)
        self._vision = clip_vision
        self._ready = ready
        self._check = check
        self._model = text_towers(clip)[tower].transformer
        own = self._model.text_projection
        if projection is None and (fault := projection_fault(own.weight)):
            raise ModelError(f"{name}: this CLIP has no usable projection: {fault}")
        self._projection = projection
        self._tokens = _tokens(getattr(clip.tokenizer, tower), self._model)
        self._tower = self._text_tower()

    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        return self.encode_continuations("", texts)

    def encode_continuations(self, prefix: str, suffixes: Sequence[str]) -> torch.Tensor:
        """Features [n, d] of prefix + each suffix."""
        if not suffixes:
            return torch.empty(0, 0)
        features = self._tower.features(self._tokens.continuations(prefix, suffixes), self._ready())
        return normalised(features).cpu()

    def encode_images(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Features [n, d] of pictures of any size."""
        arrays = (np.asarray(image.convert("RGB"), dtype=np.float32) / 255 for image in images)
        found = [self.encode_tensor(torch.from_numpy(array)[None]) for array in arrays]
        return torch.cat(found) if found else torch.empty(0, 0)

    def encode_tensor(self, image: torch.Tensor) -> torch.Tensor:
        """Features [n, d] of the host's IMAGE [n, h, w, 3 or more], 0 to 1."""
        self._check()
        with torch.no_grad():  # the host's worker has its own, others have none
            return normalised(self._vision.encode_image(image[..., :3])["image_embeds"]).cpu()

    def fills_context(self, text: str) -> bool:
        return self._tokens.count(text) >= self._tokens.context_length

    def fingerprint(self) -> str:
        """A name for these text weights and this projection."""
        self._ready()  # or the patches of another graph's CLIP, which shares the weights, would be in them
        digest = hashlib.sha256()
        for name, weight in sorted(self._model.named_parameters()):
            if not name.startswith("text_projection"):
                digest.update(sampled(name, weight))
        own = self._model.text_projection.weight
        digest.update(sampled("projection", own if self._projection is None else self._projection))
        return digest.hexdigest()

    def plain(self, texts: Sequence[str]) -> torch.Tensor:
        """Features [n, d] as the host itself computes them, 77 positions for each text: to check ours."""
        ids = self._tokens.padded(list(texts)).to(self._ready())
        with torch.no_grad():
            return normalised(self._project(self._model(ids, dtype=torch.float32)[3])).cpu()

    def _project(self, pooled: torch.Tensor) -> torch.Tensor:
        if self._projection is None:
            return self._model.text_projection(pooled)
        return pooled.float() @ self._projection.to(pooled.device, torch.float32).T

    def _text_tower(self) -> TextTower:
        text = self._model.text_model
        tables = text.embeddings

        def embed(ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
            self._check()
            # As the host: in single precision, whatever the weights are kept in.
            embedded = tables.token_embedding(ids, out_dtype=torch.float32)
            return embedded + tables.position_embedding(positions, out_dtype=torch.float32)

        return TextTower(
            embed=embed,
            layers=[transformers_layer(block) for block in text.encoder.layers],
            project=lambda x: self._project(text.final_layer_norm(x)),
            heads=text.encoder.layers[0].self_attn.heads,
            limit=BatchLimit(NODES_PER_PASS, "text tokens"),
        )


def _tokens(host_tokenizer: Any, model: Any) -> Tokens:
    """Literal texts: the host's own way reads (weights:1.2) and embedding:names, and cuts into chunks."""
    tokenizer = host_tokenizer.tokenizer
    end = host_tokenizer.end_token
    length = model.text_model.embeddings.position_embedding.weight.shape[0]

    def tokenize(texts: list[str]) -> torch.Tensor:
        rows = tokenizer(texts, truncation=True, max_length=length)["input_ids"]
        return torch.tensor([[*row, *[end] * (length - len(row))] for row in rows])

    return Tokens(
        tokenize, end, length, splits_at_spaces=type(tokenizer).__name__.startswith("CLIPTokenizer")
    )
