"""One tiny model of every family that encoders wrap, with the model's own answer for texts."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import clip_tokenizer, tiny_open_clip, tiny_preprocess

from promptglass import OpenClipEncoder, TransformersEncoder

FAMILIES = (
    "open_clip",
    "open_clip quick_gelu",
    "open_clip layer scale",
    "open_clip custom text",
    "open_clip bidirectional",
    "openai clip",
    "transformers",
    "siglip",
)


@functools.cache
def build(family: str) -> tuple[Any, Any]:
    """An encoder and a function from texts to the model's own features, not normalised."""
    if family in ("transformers", "siglip"):
        return _transformers(family)
    tokenizer: Any = clip_tokenizer()
    if family == "openai clip":
        model, tokenizer = openai_clip()
    elif family == "open_clip custom text":
        model = _custom_text()
    else:
        options: dict[str, Any] = {
            "open_clip": {},
            "open_clip quick_gelu": {"quick_gelu": True},
            "open_clip layer scale": {"ls_init_value": 0.5},
            "open_clip bidirectional": {"no_causal_mask": True},
        }[family]
        try:
            model = tiny_open_clip(11, **options)
        except TypeError:
            pytest.skip("this open_clip has no such text tower")
    encoder = OpenClipEncoder(model, tiny_preprocess, tokenizer, family)
    return encoder, torch.no_grad()(lambda texts: model.encode_text(tokenizer(texts)))


def openai_clip(heads: int = 4) -> tuple[Any, Any]:
    import sys
    import types

    import packaging.version

    # clip still imports pkg_resources, which setuptools has dropped, for this one name.
    sys.modules.setdefault("pkg_resources", types.SimpleNamespace(packaging=packaging))  # type: ignore[arg-type]
    clip = pytest.importorskip("clip", reason="pip install clip-anytorch")
    from clip.model import CLIP

    torch.manual_seed(11)
    model = CLIP(48, 32, 2, 64, 8, 77, 49408, 64, heads, 3)
    torch.nn.init.normal_(model.token_embedding.weight, std=0.3)
    return model.float().eval(), lambda texts: clip.tokenize(texts, truncate=True)


def _custom_text() -> Any:
    import open_clip

    torch.manual_seed(11)
    return open_clip.CustomTextCLIP(
        embed_dim=48,
        vision_cfg={"image_size": 32, "layers": 2, "width": 64, "patch_size": 8, "head_width": 16},
        text_cfg={"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 4, "layers": 3},
    ).eval()


def _transformers(family: str) -> tuple[Any, Any]:
    folder = Path(_folder()) / family
    write_transformers_model(folder, family)
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    encoder = TransformersEncoder(model, AutoImageProcessor.from_pretrained(folder), tokenizer, family)
    length = model.config.text_config.max_position_embeddings

    @torch.no_grad()
    def own_answer(texts: list[str]) -> torch.Tensor:
        ids = tokenizer(texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
        features = model.get_text_features(input_ids=ids["input_ids"])
        return features if isinstance(features, torch.Tensor) else features.pooler_output

    return encoder, own_answer


@functools.cache
def _folder() -> str:
    import tempfile

    return tempfile.mkdtemp(prefix="promptglass-models-")


def write_transformers_model(folder: Path, family: str) -> None:
    """A tiny CLIP or SigLIP as transformers saves it: config, weights, image processor, tokenizer."""
    import transformers

    text = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4}
    vision = {**text, "image_size": 32, "patch_size": 8}
    torch.manual_seed(11)
    tokenizer = write_clip_tokenizer(folder)
    text |= {
        "vocab_size": len(tokenizer),
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": tokenizer.bos_token_id,
    }
    if family == "siglip":
        if not hasattr(transformers, "SiglipModel"):
            pytest.skip("this transformers has no SigLIP")
        text |= {"max_position_embeddings": 64, "projection_size": 64, "pad_token_id": tokenizer.eos_token_id}
        config = transformers.SiglipConfig(text_config=text, vision_config=vision)
        model: Any = transformers.SiglipModel(config)
        processor: Any = transformers.SiglipImageProcessor(size={"height": 32, "width": 32})
    else:
        config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=48)
        model = transformers.CLIPModel(config)
        processor = transformers.CLIPImageProcessor(
            size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}
        )
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "embedding" in name:
                weight.normal_(std=0.3)
            elif weight.ndim == 2:
                weight.normal_(std=2 * weight.shape[-1] ** -0.5)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)


def write_clip_tokenizer(folder: Path) -> Any:
    """CLIP's real byte-pair vocabulary, taken from open_clip, in transformers' format."""
    import json

    import open_clip
    import transformers

    folder.mkdir(parents=True, exist_ok=True)
    ours = open_clip.tokenizer.SimpleTokenizer()
    renamed = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {renamed.get(token, token): i for token, i in ours.encoder.items()}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    merges = sorted(ours.bpe_ranks, key=ours.bpe_ranks.__getitem__)
    (folder / "merges.txt").write_text(
        "#version: 0.2\n" + "\n".join(map(" ".join, merges)) + "\n", encoding="utf-8"
    )
    tokenizer = transformers.CLIPTokenizerFast.from_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return tokenizer
