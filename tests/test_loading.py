"""The real loading code, on tiny models that the tests save."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from conftest import noise
from families import write_transformers_model
from test_encoder import computes

from promptglass import OpenClipEncoder, load_encoder
from promptglass.clip import loading
from promptglass.errors import DependencyMissing, InputError, ModelError, WeightsMissing

TINY = {
    "embed_dim": 48,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8, "head_width": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 4, "layers": 3},
}


@pytest.fixture(scope="module")
def tiny_arch(tmp_path_factory) -> str:
    """An architecture that open_clip knows by name."""
    import open_clip

    config = tmp_path_factory.mktemp("configs") / "promptglass-tiny.json"
    config.write_text(json.dumps(TINY))
    open_clip.add_model_config(config)
    return "promptglass-tiny"


def save_weights(arch: str, path: Path, quick_gelu: bool = False) -> OpenClipEncoder:
    """Random weights of an architecture, on disk, and the encoder that holds them."""
    import open_clip
    from safetensors.torch import save_file

    torch.manual_seed(3)
    model, _, preprocess = open_clip.create_model_and_transforms(arch, force_quick_gelu=quick_gelu)
    state = {name: weight.contiguous() for name, weight in model.state_dict().items()}
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return OpenClipEncoder(model, preprocess, open_clip.get_tokenizer(arch), "expected")


def same(one, other) -> bool:
    images, texts = [noise(1), noise(2)], ["a cat", "two dogs, oil painting"]
    return torch.allclose(
        one.encode_images(images), other.encode_images(images), atol=1e-5
    ) and torch.allclose(one.encode_texts(texts), other.encode_texts(texts), atol=1e-5)


def test_without_open_clip_transformers_models_load_and_others_say_so(tmp_path: Path, monkeypatch) -> None:
    write_transformers_model(tmp_path / "model", "clip")
    monkeypatch.setattr(loading, "_has_open_clip", lambda: False)
    assert load_encoder(str(tmp_path / "model")).encode_texts(["a cat"]).shape[0] == 1
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "open_clip_model.safetensors").write_bytes(b"weights")
    with pytest.raises(DependencyMissing, match="pip install open_clip_torch"):
        load_encoder(str(tmp_path / "other"))


@pytest.mark.parametrize("file", ["weights.safetensors", "weights.pt", "with space and 🐈.safetensors"])
def test_a_weights_file_with_its_architecture(tiny_arch: str, tmp_path: Path, file: str) -> None:
    expected = save_weights(tiny_arch, tmp_path / file)
    name = f"{tiny_arch}/{tmp_path / file}"
    loaded = load_encoder(name, device="cpu")
    assert loaded.name == name
    assert same(loaded, expected)


def test_weights_by_open_clip_name(tiny_arch: str, tmp_path: Path, monkeypatch) -> None:
    """As after `models get`: the files lie in a folder that weights.local_path finds."""
    from promptglass import weights

    expected = save_weights(tiny_arch, tmp_path / "open_clip_model.safetensors", quick_gelu=True)
    entry = weights.Weights(f"{tiny_arch}/openai", "clip", "x/y", ("open_clip_model.safetensors",), 1, "MIT")
    monkeypatch.setattr(weights, "KNOWN", (*weights.KNOWN, entry))
    monkeypatch.setenv("PROMPTGLASS_MODELS", str(tmp_path / "models"))
    folder = weights.drop_folder(entry)
    folder.mkdir(parents=True, exist_ok=True)
    (tmp_path / "open_clip_model.safetensors").rename(folder / "open_clip_model.safetensors")
    assert same(load_encoder(f"{tiny_arch}/openai", device="cpu"), expected)
    short = load_encoder(tiny_arch, device="cpu")  # one of these weights: the tag is understood
    assert short.name == f"{tiny_arch}/openai"
    assert same(short, expected)


@pytest.mark.filterwarnings("ignore")
def test_openais_own_archive_needs_no_architecture(tmp_path: Path) -> None:
    """As in ~/.cache/clip: TorchScript, QuickGELU, heads of 64."""
    from families import openai_clip

    model, tokenize = openai_clip(heads=1)
    with torch.no_grad():
        pixels, ids = torch.zeros(1, 3, 32, 32), tokenize(["a cat"])
        traced = torch.jit.trace_module(model, {"encode_image": pixels, "encode_text": ids})
    traced.save(str(tmp_path / "ViT-tiny.pt"))
    encoder = load_encoder(str(tmp_path / "ViT-tiny.pt"), device="cpu")
    texts = ["a cat", "two dogs, oil painting"]
    with torch.no_grad():
        expected = torch.nn.functional.normalize(model.encode_text(tokenize(texts)), dim=-1)
    assert torch.allclose(encoder.encode_texts(texts), expected, atol=1e-3)  # open_clip goes by way of fp16
    assert encoder.encode_images([noise(1)]).shape == (1, 48)


@pytest.mark.parametrize("family", ["clip", "siglip"])
def test_a_transformers_folder(tmp_path: Path, family: str) -> None:
    write_transformers_model(tmp_path / "my model", family)
    encoder = load_encoder(str(tmp_path / "my model"), device="cpu")
    assert encoder.encode_images([noise(1)]).shape == encoder.encode_texts(["a cat"]).shape
    assert (encoder._texts._tower is not None) == (family == "clip")


def test_an_open_clip_folder(tmp_path: Path) -> None:
    import open_clip
    from safetensors.torch import save_file

    model = open_clip.CLIP(**TINY)
    state = {name: weight.contiguous() for name, weight in model.state_dict().items()}
    save_file(state, tmp_path / "open_clip_model.safetensors")
    config = {"model_cfg": TINY, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.25] * 3, "size": 32}}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(config))
    if not hasattr(open_clip.factory, "parse_model_name"):
        with pytest.raises(ModelError, match="open_clip 3"):
            load_encoder(str(tmp_path), device="cpu")
        return
    tokenizer = open_clip.get_tokenizer("ViT-L-14")
    _, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{tmp_path}")
    assert same(load_encoder(str(tmp_path), device="cpu"), OpenClipEncoder(model, preprocess, tokenizer, "x"))


@pytest.mark.parametrize(
    ("dtype", "expected"), [("auto", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_precision(tiny_arch: str, tmp_path: Path, dtype: str, expected: torch.dtype) -> None:
    if not computes(expected):
        pytest.skip("no half precision on this CPU")
    save_weights(tiny_arch, tmp_path / "w.safetensors")
    encoder = load_encoder(f"{tiny_arch}/{tmp_path / 'w.safetensors'}", device="cpu", dtype=dtype)
    assert encoder._pictures._first.weight.dtype == expected
    assert encoder.encode_images([noise(1)]).dtype == torch.float32
    assert encoder.encode_texts(["a cat"]).dtype == torch.float32


def test_a_file_without_architecture_says_how_to_name_it(tmp_path: Path) -> None:
    path = tmp_path / "mystery.safetensors"
    path.write_bytes(b"x")
    with pytest.raises(ModelError, match="write ARCH/PATH"):
        load_encoder(str(path), device="cpu")


def test_broken_weights_are_one_line(tiny_arch: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.safetensors"
    path.write_bytes(b"this is not a safetensors file at all")
    with pytest.raises(ModelError, match="cannot load") as caught:
        load_encoder(f"{tiny_arch}/{path}", device="cpu")
    assert "\n" not in str(caught.value)


def test_weights_of_another_architecture_are_refused(tiny_arch: str, tmp_path: Path) -> None:
    save_weights(tiny_arch, tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match="cannot load"):
        load_encoder(f"RN50/{tmp_path / 'w.safetensors'}", device="cpu")


def test_wrong_options_and_names() -> None:
    with pytest.raises(InputError, match="device"):
        load_encoder("ViT-L-14/openai", device="toaster")
    with pytest.raises(InputError, match="fp16"):
        load_encoder("ViT-L-14/openai", device="cpu", dtype="fp7")
    with pytest.raises(WeightsMissing):
        load_encoder("no-such-model-anywhere", device="cpu")
