"""Eyes of random weights for llama.cpp's server: it decodes pictures, counts their tokens, sees nothing."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np


def write_eyes(path: Path, width: int) -> None:
    """A LLaVA-style projector, 1.9 MB, for a language model of that width."""
    random = np.random.default_rng(0)
    hidden, inner, blocks, heads, side, patch = 64, 128, 2, 4, 112, 14
    writer = gguf.GGUFWriter(str(path), "clip")
    writer.add_string("general.type", "mmproj")
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string("clip.projector_type", "mlp")
    writer.add_bool("clip.use_gelu", True)
    writer.add_uint32("general.file_type", 0)
    sizes = {
        "image_size": side,
        "patch_size": patch,
        "embedding_length": hidden,
        "feed_forward_length": inner,
        "block_count": blocks,
        "attention.head_count": heads,
        "projection_dim": width,
    }
    for name, size in sizes.items():
        writer.add_uint32(f"clip.vision.{name}", size)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-5)
    writer.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
    writer.add_array("clip.vision.image_std", [0.25, 0.25, 0.25])

    def add(name: str, *shape: int) -> None:
        writer.add_tensor(name, (random.standard_normal(shape) * 0.02).astype(np.float32))

    def add_norm(name: str) -> None:
        writer.add_tensor(f"{name}.weight", np.ones(hidden, np.float32))
        add(f"{name}.bias", hidden)

    add("v.class_embd", hidden)
    add("v.patch_embd.weight", hidden, 3, patch, patch)
    add("v.position_embd.weight", (side // patch) ** 2 + 1, hidden)
    add_norm("v.pre_ln")
    for block in range(blocks):
        for part in ("attn_q", "attn_k", "attn_v", "attn_out"):
            add(f"v.blk.{block}.{part}.weight", hidden, hidden)
            add(f"v.blk.{block}.{part}.bias", hidden)
        for part, rows, columns in (("ffn_up", inner, hidden), ("ffn_down", hidden, inner)):
            add(f"v.blk.{block}.{part}.weight", rows, columns)
            add(f"v.blk.{block}.{part}.bias", rows)
        add_norm(f"v.blk.{block}.ln1")
        add_norm(f"v.blk.{block}.ln2")
    for layer, columns in (("mm.0", hidden), ("mm.2", width)):
        add(f"{layer}.weight", width, columns)
        add(f"{layer}.bias", width)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
