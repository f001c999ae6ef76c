"""The encoder over a ComfyUI graph's objects, on the host's own classes at toy size.

    COMFYUI=/path/to/ComfyUI python -m pytest tests/test_graph_encoder.py

in an environment that has the host's requirements; elsewhere only what needs no host is tested.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from typing import Any

import pytest
import torch
from conftest import noise

from promptglass.clip.graph_encoder import GraphEncoder, projection_fault, text_towers
from promptglass.errors import ModelError

HOST = os.environ.get("COMFYUI", "")
needs_host = pytest.mark.skipif(
    not HOST or importlib.util.find_spec("torchsde") is None, reason="COMFYUI names no ComfyUI"
)

TEXT = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
VISION = {
    "hidden_act": "quick_gelu", "hidden_size": 64, "image_size": 224, "intermediate_size": 128,
    "model_type": "clip_vision_model", "num_attention_heads": 2, "num_channels": 3, "num_hidden_layers": 2,
    "patch_size": 32, "projection_dim": 32,
}  # fmt: skip


def test_what_no_trained_projection_looks_like() -> None:
    trained = torch.randn(32, 32, generator=torch.Generator().manual_seed(0))
    assert projection_fault(trained) == ""
    assert projection_fault(torch.eye(32)) == "it changes nothing"
    assert projection_fault(torch.zeros(32, 32)) == "it has empty rows or absurd values"
    assert projection_fault(trained * 1e6) == "it has empty rows or absurd values"
    trained[3, 4] = torch.nan
    assert projection_fault(trained) == "it holds no numbers"


@pytest.fixture(scope="module")
def host() -> Any:
    sys.path.insert(0, HOST)
    before, sys.argv = sys.argv, ["main.py", "--cpu"]
    try:
        import comfy.options

        comfy.options.enable_args_parsing()
        import comfy.clip_vision
        import comfy.model_management
        import comfy.sd
        import comfy.sd1_clip
    finally:
        sys.argv = before
    return comfy


@pytest.fixture(scope="module")
def reference() -> Any:
    """transformers' CLIPModel: the judge, on the same weights."""
    from transformers import CLIPConfig, CLIPModel

    config = CLIPConfig(
        text_config={**TEXT, "vocab_size": 49408, "eos_token_id": 49407, "bos_token_id": 49406},
        vision_config={name: value for name, value in VISION.items() if name != "model_type"},
        projection_dim=32,
    )
    torch.manual_seed(0)
    model = CLIPModel(config).eval()
    for name, weight in model.named_parameters():
        if "norm" not in name and weight.ndim == 2:
            torch.nn.init.normal_(weight, std=weight.shape[-1] ** -0.5)
        weight.data = weight.half().float()  # as the host keeps them
    return model


@pytest.fixture(scope="module")
def graph(host: Any, reference: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """CLIP and CLIP_VISION as loaders of the host would give them."""

    class Target:
        clip = host.sd1_clip.SD1ClipModel
        tokenizer = host.sd1_clip.SD1Tokenizer

    target = Target()
    target.params = {}
    clip = host.sd.CLIP(target, model_options={"clip_l_model_config": TEXT})
    weights = reference.state_dict()
    missing, _ = clip.cond_stage_model.clip_l.transformer.load_state_dict(weights, strict=False)
    assert not missing
    place = tmp_path_factory.mktemp("vision") / "config.json"
    place.write_text(json.dumps(VISION))
    vision = host.clip_vision.ClipVisionModel(str(place))
    renamed = {name.replace("position_ids", "unused"): weight for name, weight in weights.items()}
    missing, _ = vision.model.load_state_dict(renamed, strict=False)
    assert not missing
    return clip, vision


def encoder_of(host: Any, graph: tuple[Any, Any], **how: Any) -> GraphEncoder:
    clip, vision = graph

    def ready() -> torch.device:
        host.model_management.load_models_gpu([clip.patcher])
        return clip.patcher.load_device

    return GraphEncoder("graph", clip, "clip_l", vision, ready, how.get("projection"))


TEXTS = [
    "a cat",
    "a photo of two dogs, oil painting",
    "it's ART; café 🦊",
    "(a cat:1.2) embedding:x",
    "word " * 90,
]


@needs_host
def test_texts_as_the_host_and_as_transformers_encode_them(host, graph, reference) -> None:
    encoder = encoder_of(host, graph)
    assert [*text_towers(graph[0])] == ["clip_l"]
    found = encoder.encode_texts(TEXTS)
    assert found.shape == (5, 32)
    assert (found - encoder.plain(TEXTS)).abs().max() < 1e-5
    tokenizer = graph[0].tokenizer.clip_l.tokenizer
    padded = tokenizer(TEXTS, padding="max_length", truncation=True, max_length=77, return_tensors="pt")
    ids = padded["input_ids"]
    ids[ids == tokenizer.pad_token_id] = 49407
    with torch.no_grad():
        pooled = reference.text_model(input_ids=ids).pooler_output
        expected = torch.nn.functional.normalize(reference.text_projection(pooled), dim=-1)
    assert (found - expected).abs().max() < 1e-4
    continued = encoder.encode_continuations("a photo of", [" a cat", " two dogs, red", "ly"])
    whole = encoder.encode_texts(["a photo of a cat", "a photo of two dogs, red", "a photo ofly"])
    assert (continued - whole).abs().max() < 1e-5


@needs_host
def test_pictures_as_transformers_sees_them(host, graph, reference) -> None:
    encoder = encoder_of(host, graph)
    images = [noise(1, (300, 224)), noise(2, (224, 224))]
    found = encoder.encode_images(images)
    assert found.shape == (2, 32)
    pixels = torch.stack([torch.from_numpy(_as_array(images[1]))]).permute(0, 3, 1, 2)
    mean, std = (
        torch.tensor([0.48145466, 0.4578275, 0.40821073]),
        torch.tensor([0.26862954, 0.26130258, 0.27577711]),
    )
    with torch.no_grad():
        seen = reference.vision_model(
            pixel_values=(pixels - mean[:, None, None]) / std[:, None, None]
        ).pooler_output
        expected = torch.nn.functional.normalize(reference.visual_projection(seen), dim=-1)
    assert (found[1:] - expected).abs().max() < 1e-4


def _as_array(image: Any) -> Any:
    import numpy as np

    return np.asarray(image, dtype=np.float32) / 255


@needs_host
def test_a_projection_that_is_given_and_one_that_is_none(host, graph) -> None:
    clip, _ = graph
    own = clip.cond_stage_model.clip_l.transformer.text_projection.weight
    trained = own.detach().clone().float()
    expected = encoder_of(host, graph).encode_texts(TEXTS[:2])
    first = encoder_of(host, graph).fingerprint()
    try:
        own.data.copy_(torch.eye(32))
        with pytest.raises(ModelError, match="no usable projection: it changes nothing"):
            encoder_of(host, graph)
        given = encoder_of(host, graph, projection=trained)
        assert (given.encode_texts(TEXTS[:2]) - expected).abs().max() < 1e-5
        assert given.fingerprint() == first
    finally:
        own.data.copy_(trained)
    other = encoder_of(host, graph, projection=trained.flip(0))
    assert other.fingerprint() != first


@needs_host
def test_the_modes_run_on_it(host, graph) -> None:
    from promptglass import Interrogator, Vocabulary

    encoder = encoder_of(host, graph)
    tables = {"artists": ["by A", "by B"], "flavors": [f"flavor {n}" for n in range(40)]}
    interrogator = Interrogator(encoder, Vocabulary(tables, encoder))
    (fast,) = interrogator.fast([noise(1)], ["a cat"])
    (best,) = interrogator.best([noise(1)], ["a cat"])
    assert best.score >= fast.score - 1e-5
