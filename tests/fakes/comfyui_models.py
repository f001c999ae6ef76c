"""Models of toy size under the names that workflows use, with which a real ComfyUI runs them unmodified.

One CLIP with random weights, whose projection is fitted so that the captions of our self-test find their
pictures: in the host's own model folders (one file without that projection, as clip_l.safetensors is), and
once more as transformers saves it, for the engine's own encoder. A captioner besides, and short word lists.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from test_caption import write_captioner

from promptglass.clip.self_test import PAIRS

TEXT = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
VISION = {**TEXT, "hidden_size": 64, "intermediate_size": 128, "image_size": 224, "patch_size": 32}
WIDTH = 32  # of the joint space
WHOLE = "clip-vit-large-patch14"  # the usual name of the file with both towers and the projection

ENCODER = "openai/clip-vit-large-patch14"  # the engine's own, by the name that workflows choose
OWN_MODELS = "promptglass-models"  # PROMPTGLASS_MODELS, below the base directory

LISTS = {
    "artists": ["Claude Monet", "Greg Rutkowski", "Hokusai", "Frida Kahlo", "Ansel Adams"],
    "flavors": [f"{a} {b}" for a in ("soft", "hard", "golden", "dim") for b in ("light", "grain", "focus")],
    "mediums": ["an oil painting", "a photo", "a pencil sketch", "a watercolor", "pixel art", "a render"],
    "movements": ["impressionism", "cubism", "art deco", "baroque", "pop art", "realism"],
    "negative": ["blurry", "cropped", "jpeg artifacts", "out of frame", "watermark", "3d"],
}  # fmt: skip


def write_models(host: Path, base: Path) -> None:
    """Everything below the host's base directory `base`; `host` is ComfyUI's own folder."""
    own = base / OWN_MODELS
    model = write_clip(own / ENCODER.replace("/", "--"), host / "comfy" / "sd1_tokenizer")
    write_host_files(model, base / "models")
    write_captioner(own / "Salesforce--blip-image-captioning-large", "blip")
    write_word_lists(base / "python")


def write_clip(folder: Path, tokenizer_files: Path) -> Any:
    """A CLIP as transformers saves it, with the host's own tokenizer."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizerFast

    config = CLIPConfig(
        text_config={**TEXT, "vocab_size": 49408, "eos_token_id": 49407, "bos_token_id": 49406},
        vision_config=VISION,
        projection_dim=WIDTH,
    )
    torch.manual_seed(0)
    model = CLIPModel(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1 and "norm" not in name:
                weight.normal_(std=0.3 if "embedding" in name else 1.5 * weight[0].numel() ** -0.5)
            weight.copy_(weight.half())  # as the host keeps them: both then compute the same
    processor = CLIPImageProcessor()
    tokenizer = CLIPTokenizerFast.from_pretrained(tokenizer_files)
    fit_projection(model, processor, tokenizer)
    for part in (model, processor, tokenizer):
        part.save_pretrained(folder)
    return model


def fit_projection(model: Any, processor: Any, tokenizer: Any) -> None:
    """Makes the captions of our self-test land near their pictures, by least squares with a small ridge."""
    pixels = processor(images=[pair.draw() for pair in PAIRS], return_tensors="pt")["pixel_values"]
    captions = [pair.caption for pair in PAIRS]
    ids = tokenizer(captions, padding="max_length", max_length=77, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        seen = torch.nn.functional.normalize(_features(model.get_image_features(pixel_values=pixels)), dim=-1)
        model.text_projection.weight.copy_(torch.eye(WIDTH))
        read = _features(model.get_text_features(input_ids=ids)).double()  # [n, width], unprojected
        # What all pictures have in common tells none of them apart.
        wanted = (seen - seen.mean(0)).double()
        ridge = 1e-3 * torch.eye(WIDTH, dtype=torch.float64)
        fitted = torch.linalg.solve(read.T @ read + ridge, read.T @ wanted).T
        model.text_projection.weight.copy_((fitted / fitted.norm() * WIDTH**0.5).half())


def _features(answer: Any) -> torch.Tensor:
    """transformers 5 wraps what earlier ones gave as it is."""
    return answer if isinstance(answer, torch.Tensor) else answer.pooler_output


def write_host_files(model: Any, models: Path) -> None:
    """The host's files: the whole CLIP for both loaders, and its text tower alone without a projection."""
    weights = {name: weight.contiguous() for name, weight in model.state_dict().items()}
    text = {name: weight for name, weight in weights.items() if name.startswith("text_model.")}
    vision_shapes = {
        **VISION,
        "hidden_act": "quick_gelu",
        "model_type": "clip_vision_model",
        "num_channels": 3,
        "projection_dim": WIDTH,
    }
    _write_file(models / "clip_vision" / WHOLE, weights, "vision", vision_shapes)
    _write_file(models / "text_encoders" / WHOLE, weights, "text", TEXT)
    _write_file(models / "text_encoders" / "clip_l", text, "text", TEXT)


def _write_file(stem: Path, weights: dict[str, torch.Tensor], tower: str, shapes: dict[str, Any]) -> None:
    from safetensors.torch import save_file

    stem.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights, f"{stem}.safetensors")
    Path(f"{stem}.{tower}.json").write_text(json.dumps(shapes))


def write_word_lists(place: Path) -> None:
    """clip-interrogator's lists, cut down, where the engine looks for them: in a package of that name."""
    package = place / "clip_interrogator"
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").touch()
    for name, labels in LISTS.items():
        (package / "data" / f"{name}.txt").write_text("\n".join(labels) + "\n")
