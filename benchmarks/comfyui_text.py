"""What texts cost on ComfyUI's own CLIP: by the host's public way, and by ours over the same modules.

    COMFYUI=/path/to/ComfyUI /path/to/its/python benchmarks/comfyui_text.py [--texts 256]

CLIP-L at full size with random weights, on the CPU. CPU seconds, as ratios to the host's way in the same run;
and how far the numbers are apart. Also one picture by ViT-L/14.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path[:0] = [os.environ["COMFYUI"], str(Path(__file__).parent.parent)]

WORDS = [
    "red",
    "cat",
    "oil",
    "painting",
    "of",
    "trending",
    "light",
    "mountain",
    "portrait",
    "by",
    "soft",
    "sky",
]
START = "a portrait of a cat, oil painting"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    options.add_argument("--texts", type=int, default=256)
    count = options.parse_args().texts
    sys.argv = ["main.py", "--cpu"]
    import comfy.options

    comfy.options.enable_args_parsing()
    import torch

    from promptglass.clip.graph_encoder import GraphEncoder

    torch.manual_seed(0)
    clip, vision = full_size_pair()
    encoder = GraphEncoder("clip_l", clip, "clip_l", vision, lambda: ready(clip), None)
    rng = random.Random(0)
    texts = [" ".join(rng.choices(WORDS, k=rng.randint(8, 16))) for _ in range(count)]
    labels = [f", {' '.join(rng.choices(WORDS, k=3))}" for _ in range(count)]

    few = texts[: max(count // 8, 1)]  # the host's way is slow, and linear
    pooled, host_s = timed(lambda: by_host(clip, few))
    host_s *= len(texts) / len(few)
    _, buckets_s = timed(lambda: by_length(clip, texts))
    found, ours_s = timed(lambda: encoder.encode_texts(texts))
    _, chain_s = timed(lambda: encoder.encode_continuations(START, labels))
    projected = clip.cond_stage_model.clip_l.transformer.text_projection(pooled)
    expected = torch.nn.functional.normalize(projected.float(), dim=-1)
    print(f"{count} texts of 10 to 18 tokens, CPU s")
    for what, seconds in (
        ("encode_from_tokens, one by one", host_s),
        ("the host's layers, in batches of one length", buckets_s),
        ("ours", ours_s),
        ("ours, 3 words each after one beginning", chain_s),
    ):
        print(f"  {what:45}{seconds:6.1f}   {host_s / seconds:5.1f}")
    print(f"  largest difference of a feature to the host's {(found[: len(few)] - expected).abs().max():.1e}")
    _, picture_s = timed(lambda: encoder.encode_tensor(torch.rand(1, 512, 512, 3)))
    print(f"one picture by ViT-L/14{picture_s:30.1f}")


def by_host(clip: Any, texts: list[str]) -> Any:
    import torch

    with torch.no_grad():
        return torch.cat([clip.encode_from_tokens(clip.tokenize(t), return_pooled=True)[1] for t in texts])


def by_length(clip: Any, texts: list[str]) -> None:
    """The same layers without padding, which is as far as one gets without sharing anything."""
    import torch

    tower = clip.cond_stage_model.clip_l.transformer.text_model
    ids = clip.tokenizer.clip_l.tokenizer(texts)["input_ids"]
    for length in sorted({len(row) for row in ids}):
        rows = torch.tensor([row + [49407] * (77 - length) for row in ids if len(row) == length])
        mask = torch.full((length, length), -torch.finfo(torch.float32).max).triu_(1)
        with torch.no_grad():
            tower.encoder(tower.embeddings(rows, dtype=torch.float32)[:, :length], mask=mask)


def full_size_pair() -> tuple[Any, Any]:
    import comfy.clip_vision
    import comfy.sd
    import comfy.sd1_clip
    import torch

    class Target:
        params: dict[str, Any] = {}  # noqa: RUF012 - as the host has it
        clip = comfy.sd1_clip.SD1ClipModel
        tokenizer = comfy.sd1_clip.SD1Tokenizer

    clip = comfy.sd.CLIP(Target())
    folder = Path(comfy.clip_vision.__file__).parent
    vision = comfy.clip_vision.ClipVisionModel(str(folder / "clip_vision_config_vitl.json"))
    for module in (clip.cond_stage_model, vision.model):
        for name, weight in module.named_parameters():
            is_norm = "norm" in name and weight.ndim == 1 and name.endswith("weight")
            weight.data = torch.ones_like(weight) if is_norm else torch.randn_like(weight) * 0.02
    return clip, vision


def ready(clip: Any) -> Any:
    import comfy.model_management

    comfy.model_management.load_models_gpu([clip.patcher])
    return clip.patcher.load_device


def timed(work: Callable[[], Any]) -> tuple[Any, float]:
    started = time.process_time()
    found = work()
    return found, time.process_time() - started


if __name__ == "__main__":
    main()
