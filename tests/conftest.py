"""Builders the tests share: tiny models of the real classes, pictures of noise. Nothing is downloaded."""

from __future__ import annotations

import functools
import io
import os
import signal
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Shells start background jobs with Ctrl-C ignored, and the programs under test would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Toy models gain nothing from threads, and threads that wait for each other cost minutes on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

# A timing never fails a test: the machine may be busy.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


def tiny_open_clip(
    seed: int = 0, width: int = 64, layers: int = 3, quick_gelu: bool = False, **text_cfg: object
):
    """A real open_clip CLIP at toy size whose texts differ clearly, as a trained model's do."""
    import open_clip
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = open_clip.CLIP(
            embed_dim=48,
            vision_cfg={"image_size": 32, "layers": 2, "width": 64, "patch_size": 8, "head_width": 16},
            text_cfg={
                "context_length": 77,
                "vocab_size": 49408,
                "width": width,
                "heads": 4,
                "layers": layers,
                **text_cfg,
            },
            quick_gelu=quick_gelu,
        )
        for name, weight in model.named_parameters():
            # At their initial scale all texts nearly coincide and every ranking is decided by rounding.
            if "embedding" in name or "bias" in name:
                torch.nn.init.normal_(weight, std=0.3)
            elif weight.ndim == 2:
                weight.data *= 2.0
    return model.eval()


def tiny_preprocess(image: Image.Image):
    """PIL image to pixels [3, 32, 32], as CLIP does it, without torchvision."""
    import torch

    pixels = np.asarray(image.resize((32, 32), Image.Resampling.BICUBIC).convert("RGB"), np.float32) / 255
    return torch.from_numpy((pixels - 0.5) / 0.27).permute(2, 0, 1)


@functools.cache
def clip_tokenizer():
    """open_clip's own. Reading its word list takes longer than most tests that want it."""
    import open_clip

    return open_clip.get_tokenizer("ViT-L-14")


def tiny_encoder(seed: int = 0, name: str = "ViT-L-14/openai", **text_cfg: object):
    from promptglass import OpenClipEncoder

    return OpenClipEncoder(tiny_open_clip(seed, **text_cfg), tiny_preprocess, clip_tokenizer(), name)


def noise(seed: int, size: tuple[int, int] = (40, 30)) -> Image.Image:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def png(picture: Image.Image, prompt: str = "") -> bytes:
    """Its file, with a prompt as A1111 writes it."""
    texts = PngImagePlugin.PngInfo()
    if prompt:
        texts.add_text("parameters", f"{prompt}\nNegative prompt: blurry\nSteps: 20, Seed: 1, Size: 6x5")
    file = io.BytesIO()
    picture.save(file, "PNG", pnginfo=texts)
    return file.getvalue()


@pytest.fixture(scope="session")
def encoder():
    return tiny_encoder()


@pytest.fixture
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the settings, keys, models and caches of whoever runs this, and from real endpoints."""
    (tmp_path / "config.yaml").write_text("{}")
    monkeypatch.setenv("PROMPTGLASS_CONFIG", str(tmp_path / "config.yaml"))
    for name in ("XDG_CACHE_HOME", "XDG_DATA_HOME", "HF_HUB_CACHE"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")
    for name in ("PROMPTGLASS_API_KEY", "PROMPTGLASS_ORIGINS", "PROMPTGLASS_ROOTS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder for pictures."""
    place = tmp_path / "pictures"
    place.mkdir()
    return place
