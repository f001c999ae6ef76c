"""A custom-node pack for tests: lets ComfyUI's stock loaders read CLIP models of toy size.

The host fixes the shapes of CLIP's towers in its own files. A weights file that has its shapes beside it
(`NAME.text.json`, `NAME.vision.json`) is loaded with those instead, by the host's own loaders into the
host's own classes. One node patches a CLIP as a LoRA would.
"""

import json
from pathlib import Path

import comfy.clip_vision
import comfy.sd
import comfy.utils
import torch

host_load_clip, host_load_vision = comfy.sd.load_clip, comfy.clip_vision.load


def load_clip(ckpt_paths, *arguments, **options):
    shapes = shapes_beside(ckpt_paths[0], "text")
    if shapes:
        config = json.loads(shapes.read_text(encoding="utf-8"))
        options["model_options"] = {**options.get("model_options", {}), "model_config": config}
    return host_load_clip(ckpt_paths, *arguments, **options)


def load_vision(ckpt_path):
    shapes = shapes_beside(ckpt_path, "vision")
    if not shapes:
        return host_load_vision(ckpt_path)
    tower = comfy.clip_vision.ClipVisionModel(str(shapes))
    missing, _ = tower.load_sd(comfy.utils.load_torch_file(ckpt_path))
    assert not missing, missing
    return tower


def shapes_beside(path, tower):
    shapes = Path(path).with_suffix(f".{tower}.json")
    return shapes if shapes.is_file() else None


comfy.sd.load_clip, comfy.clip_vision.load = load_clip, load_vision


class TinyLora:
    """The same CLIP with a patch on its text tower, made as LoraLoader makes one."""

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"clip": ("CLIP",), "strength": ("FLOAT", {"default": 1.0})}}

    RETURN_TYPES = ("CLIP",)
    FUNCTION = "patch"
    CATEGORY = "tiny models (tests)"

    def patch(self, clip, strength):
        name = "clip_l.transformer.text_model.encoder.layers.0.mlp.fc1.weight"
        weight = clip.patcher.model_state_dict()[name]
        change = torch.randn(weight.shape, generator=torch.Generator().manual_seed(5)).to(weight.dtype)
        patched = clip.clone()
        taken = patched.add_patches({name: (change,)}, strength)
        assert list(taken) == [name], taken
        return (patched,)


NODE_CLASS_MAPPINGS = {"TinyLora": TinyLora}
NODE_DISPLAY_NAME_MAPPINGS = {"TinyLora": "Tiny LoRA"}
