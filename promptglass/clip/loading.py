"""A model by its name: from open_clip, from transformers, or from a place on this disk."""

from __future__ import annotations

import importlib.util
import inspect
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DependencyMissing, InputError, ModelError, PromptglassError, one_line
from ..hub import snapshots
from ..weights import files_in, find, ready, resolve

if TYPE_CHECKING:
    import torch

    from .encoder import TorchEncoder

DTYPES = ("auto", "fp32", "fp16", "bf16")
# open_clip's names; its fp16 and bf16 keep the norms in single precision.
_PRECISIONS = {"torch.float32": "fp32", "torch.float16": "fp16", "torch.bfloat16": "bf16"}


def load_encoder(name: str, device: str = "auto", dtype: str = "auto") -> TorchEncoder:
    """The encoder of a model.

    name: an open_clip name ("ViT-L-14/openai"), a hub repository ("openai/clip-vit-base-patch32"), a folder
    that holds a transformers or open_clip model, or "ARCH/PATH" for a weights file that does not say its own
    architecture. Weights that are not here are fetched and announced first.
    dtype: auto is fp16 on CUDA and MPS, fp32 on the CPU.
    Raises WeightsMissing, ModelError for files that are not such a model, InputError for a wrong option.
    """
    target = pick_device(device)
    precision = pick_dtype(dtype, target)
    path = ready(name, "clip")
    known = find(name)
    name = known.name if known else name  # "ViT-L-14" is short for the weights that it finds
    try:
        return _loader(name, path)(target, precision)
    except PromptglassError:
        raise
    # What a damaged or foreign checkpoint raises is up to pickle, zipfile, safetensors, json and torch.
    except Exception as error:
        raise ModelError(f"cannot load {name} from {path}: {one_line(error)}") from error


def pick_device(device: str) -> torch.device:
    """The torch device; auto is CUDA, then MPS, then the CPU."""
    import torch

    if device == "auto":
        has_mps = torch.backends.mps.is_available()
        device = "cuda" if torch.cuda.is_available() else "mps" if has_mps else "cpu"
    try:
        picked = torch.device(device)
        torch.empty(0, device=picked)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"cannot use the device {device!r} (try --device cpu): {one_line(error)}") from error
    return picked


def pick_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """The torch dtype; auto is half precision where a GPU computes it well, single elsewhere."""
    import torch

    dtypes = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
    dtypes["auto"] = torch.float16 if device.type in ("cuda", "mps") else torch.float32
    if dtype not in dtypes:
        raise InputError(f"there is no dtype {dtype!r}: choose {', '.join(DTYPES)}")
    return dtypes[dtype]


Loader = Callable[["torch.device", "torch.dtype"], "TorchEncoder"]


def _loader(name: str, path: Path) -> Loader:
    """How what lies at the path is loaded."""
    folder = path if path.is_dir() else path.parent
    arch = _architecture(name)
    if path.is_file() and _is_torchscript(path):
        return lambda device, dtype: _openai_archive(path, name, device, dtype)
    if path.is_file() and arch:
        return lambda device, dtype: _open_clip(arch, {}, path, name, device, dtype)
    if arch:  # before the folder's own files: a hub repository may hold the same model for transformers, too
        weights = files_in(folder, resolve(name))[0]
        return lambda device, dtype: _open_clip(arch, _pretrained(name), weights, name, device, dtype)
    if _json(folder / "config.json").get("model_type") in ("clip", "siglip"):
        return lambda device, dtype: _transformers(folder, name, device, dtype)
    if not _has_open_clip():
        raise DependencyMissing(f"the model {name}", "open_clip_torch")
    if (folder / "open_clip_config.json").is_file():
        return lambda device, dtype: _open_clip_folder(folder, name, device, dtype)
    if path.is_file():
        raise ModelError(
            f"{path} does not say its architecture: write ARCH/PATH, for instance ViT-L-14-quickgelu/{path}"
        )
    raise ModelError(
        f"{folder} holds no CLIP model: it needs transformers' config.json or an open_clip_config.json"
    )


def _architecture(name: str) -> str | None:
    if not _has_open_clip():
        return None
    import open_clip

    arch = name.partition("/")[0]
    return arch if arch in open_clip.list_models() else None


def _has_open_clip() -> bool:
    """ComfyUI does without; transformers' models need none."""
    return importlib.util.find_spec("open_clip") is not None


def _pretrained(name: str) -> dict[str, Any]:
    """What open_clip knows of these weights: activation, mean and deviation of the pixels."""
    import open_clip

    arch, _, tag = name.partition("/")
    known = dict(open_clip.pretrained.get_pretrained_cfg(arch, tag) or {})
    # Weights trained by OpenAI need QuickGELU, whatever the architecture's own setting says.
    known["quick_gelu"] = known.get("quick_gelu", False) or tag == "openai"
    return known


def _open_clip(
    arch: str, known: dict[str, Any], weights: Path, name: str, device: torch.device, dtype: torch.dtype
) -> TorchEncoder:
    import open_clip

    from .encoder import OpenClipEncoder

    options = {
        "pretrained": str(weights),
        "image_mean": known.get("mean"),
        "image_std": known.get("std"),
        "image_interpolation": known.get("interpolation"),
        "image_resize_mode": known.get("resize_mode"),
        "weights_only": True,
    }
    # open_clip before 2.24 reads no safetensors, and unpickles whatever a checkpoint holds.
    load_here = not hasattr(open_clip.factory, "convert_state_dict")
    if load_here:
        del options["pretrained"]
    create = open_clip.create_model_and_transforms
    accepted = inspect.signature(create).parameters
    model, _, preprocess = create(
        arch,
        precision=_PRECISIONS[str(dtype)],
        device=device,
        force_quick_gelu=bool(known.get("quick_gelu")),
        **{key: value for key, value in options.items() if key in accepted and value is not None},
    )
    if load_here:
        model.load_state_dict(_state_dict(weights))
    return OpenClipEncoder(model, preprocess, _tokenizer(arch, weights.parent), name)


def _state_dict(path: Path) -> dict[str, torch.Tensor]:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    import torch

    content = torch.load(path, map_location="cpu", weights_only=True)
    state = content.get("state_dict", content)
    return {key.removeprefix("module."): weight for key, weight in state.items()}


def _tokenizer(arch: str, folder: Path) -> Any:
    """The architecture's tokenizer; one that open_clip would fetch must lie here."""
    import open_clip

    text = open_clip.get_model_config(arch)["text_cfg"]
    repo = text.get("hf_tokenizer_name")
    if not repo:
        return open_clip.get_tokenizer(arch)
    here = [place for place in (folder, *snapshots(repo)) if (place / "tokenizer_config.json").is_file()]
    if not here:
        raise ModelError(f"{arch} reads texts with the tokenizer {repo}: put its files into {folder}")
    accepted = inspect.signature(open_clip.tokenizer.HFTokenizer).parameters
    options = {
        "context_length": text.get("context_length", 77),
        "tokenizer_mode": text.get("tokenizer_mode"),
        **text.get("tokenizer_kwargs", {}),
    }
    options = {key: value for key, value in options.items() if key in accepted}
    return open_clip.tokenizer.HFTokenizer(str(here[0]), **options)


def _openai_archive(path: Path, name: str, device: torch.device, dtype: torch.dtype) -> TorchEncoder:
    """One of OpenAI's own .pt files: TorchScript, which open_clip turns back into a model."""
    import open_clip
    from open_clip.openai import load_openai_model
    from open_clip.transform import image_transform

    from .encoder import OpenClipEncoder

    model = load_openai_model(str(path), precision=_PRECISIONS[str(dtype)], device=device)
    preprocess = image_transform(model.visual.image_size, is_train=False)
    return OpenClipEncoder(model, preprocess, open_clip.get_tokenizer("ViT-B-32"), name)


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(member.endswith("/constants.pkl") for member in archive.namelist())


def _open_clip_folder(folder: Path, name: str, device: torch.device, dtype: torch.dtype) -> TorchEncoder:
    import open_clip

    from .encoder import OpenClipEncoder

    if not hasattr(open_clip.factory, "parse_model_name"):
        raise ModelError(
            f"{folder} holds an open_clip model, which needs open_clip 3: pip install -U open_clip_torch"
        )
    place = f"local-dir:{folder}"
    model, _, preprocess = open_clip.create_model_and_transforms(
        place, precision=_PRECISIONS[str(dtype)], device=device
    )
    return OpenClipEncoder(model, preprocess, open_clip.get_tokenizer(place), name)


def _transformers(folder: Path, name: str, device: torch.device, dtype: torch.dtype) -> TorchEncoder:
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    from .encoder import TransformersEncoder

    model = AutoModel.from_pretrained(folder, local_files_only=True).to(device, dtype)
    image_processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return TransformersEncoder(model, image_processor, tokenizer, name)


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
