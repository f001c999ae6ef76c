"""Finds the causal text tower inside a model that exists: open_clip, OpenAI's clip, transformers.

`tower_of(model)` gives maps over the model's own modules, or None where the tower is not causal (SigLIP)
or not built the way we know; then texts take the model's plain path. Shapes of modules are read here and
nowhere else, so another host's layers (ComfyUI's) need one more function of this kind.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from .memory import BatchLimit, is_out_of_memory
from .text_tower import NODES_PER_PASS, Layer, TextTower
from .tokens import Tokens

log = logging.getLogger("promptglass")

Plain = Callable[[torch.Tensor], torch.Tensor]


def tower_of(model: nn.Module, plain: Plain, tokens: Tokens, device: torch.device) -> TextTower | None:
    """The model's causal text tower, checked against `plain` (padded ids [n, context] to features [n, d])."""
    try:
        tower = _open_clip_tower(model) or _transformers_tower(model)
        if tower is not None and _agrees(tower, plain, tokens, device):
            return tower
    except (AttributeError, TypeError, RuntimeError) as error:  # modules built in a way that we do not know
        if is_out_of_memory(error):
            raise
    log.debug("%s: texts take the plain path, which is right, only slower", type(model).__name__)
    return None


def _open_clip_tower(model: Any) -> TextTower | None:
    """open_clip's CLIP and CustomTextCLIP and OpenAI's clip: nn.MultiheadAttention blocks."""
    text: Any = model if hasattr(model, "token_embedding") else getattr(model, "text", None)
    blocks = getattr(getattr(text, "transformer", None), "resblocks", None)
    if (
        text is None
        or blocks is None
        or not all(isinstance(block.attn, nn.MultiheadAttention) for block in blocks)
    ):
        return None
    # OpenAI's clip keeps its mask in the blocks; open_clip has none where attention goes both ways.
    masks = [getattr(text, "attn_mask", None), getattr(blocks[0], "attn_mask", None)]
    if all(mask is None for mask in masks) or getattr(text, "cls_emb", None) is not None:
        return None
    pool = getattr(text, "text_pool_type", None) or getattr(text, "pool_type", "argmax")
    if pool not in ("argmax", "eos"):
        return None

    def embed(ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        dtype = blocks[0].mlp.c_fc.weight.dtype
        return text.token_embedding(ids).to(dtype) + text.positional_embedding.to(dtype)[positions]

    def project(x: torch.Tensor) -> torch.Tensor:
        x = text.ln_final(x)
        if text.text_projection is None:
            return x
        if isinstance(text.text_projection, nn.Module):
            return text.text_projection(x)
        return x @ text.text_projection.to(x.dtype)

    return TextTower(
        embed=embed,
        layers=[_open_clip_layer(block) for block in blocks],
        project=project,
        heads=blocks[0].attn.num_heads,
        limit=BatchLimit(NODES_PER_PASS, "text tokens"),
    )


def _open_clip_layer(block: Any) -> Layer:
    attention = block.attn
    width = attention.embed_dim
    scale_1, scale_2 = getattr(block, "ls_1", nn.Identity()), getattr(block, "ls_2", nn.Identity())

    def query(h: torch.Tensor) -> torch.Tensor:
        return F.linear(h, attention.in_proj_weight[:width], attention.in_proj_bias[:width])

    def key_value(h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        both = F.linear(h, attention.in_proj_weight[width:], attention.in_proj_bias[width:])
        return both[:, :width], both[:, width:]

    return Layer(
        norm_1=block.ln_1,
        query=query,
        key_value=key_value,
        out=lambda x: scale_1(attention.out_proj(x)),
        norm_2=block.ln_2,
        mlp=lambda x: scale_2(block.mlp(x)),
    )


def _transformers_tower(model: Any) -> TextTower | None:
    """transformers' CLIPModel (4.30 to 5)."""
    text: Any = getattr(model, "text_model", None)
    text = getattr(text, "text_model", text)
    blocks = getattr(getattr(text, "encoder", None), "layers", None)
    # SigLIP is built the same way but attends both ways; only CLIP's own config promises causality.
    if blocks is None or getattr(model.config, "model_type", "") != "clip":
        return None
    projection = model.text_projection

    def embed(ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        # Not the embeddings module itself, which refuses more tokens than one text may have.
        tables = text.embeddings
        embedded = tables.token_embedding(ids) + tables.position_embedding(positions)
        return embedded.to(blocks[0].mlp.fc1.weight.dtype)

    return TextTower(
        embed=embed,
        layers=[transformers_layer(block) for block in blocks],
        project=lambda x: projection(text.final_layer_norm(x)),
        heads=model.config.text_config.num_attention_heads,
        limit=BatchLimit(NODES_PER_PASS, "text tokens"),
    )


def transformers_layer(block: Any) -> Layer:
    """A layer of transformers' CLIP; ComfyUI's is built alike."""
    attention = block.self_attn
    return Layer(
        norm_1=block.layer_norm1,
        query=attention.q_proj,
        key_value=lambda h: (attention.k_proj(h), attention.v_proj(h)),
        out=attention.out_proj,
        norm_2=block.layer_norm2,
        mlp=block.mlp,
    )


@torch.no_grad()
def _agrees(tower: TextTower, plain: Plain, tokens: Tokens, device: torch.device) -> bool:
    """Whether the tower gives the model's own answer on two short texts: a wrong answer must never pass."""
    texts = ["a photo of a cat", "a photo of two dogs, oil painting"]
    expected = plain(tokens.padded(texts).to(device))
    found = tower.features(tokens.rows(texts), device)
    # Half precision rounds at every layer; another architecture is off by far more than this.
    tolerance = 1e-4 if expected.dtype == torch.float32 else 2e-2
    difference = F.normalize(found.float(), dim=-1) - F.normalize(expected.float(), dim=-1)
    return bool(difference.abs().max() < tolerance)
