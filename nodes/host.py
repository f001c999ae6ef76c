"""The running ComfyUI: all that the nodes ask of it.

Only this module and routes.py import the host, and only inside functions: everything else runs without one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

FOLDERS = ("text_encoders", "clip", "clip_vision")  # where CLIP's files lie; `clip` on hosts before 2025


def check() -> None:
    """Raises where the user wants to stop."""
    from comfy.model_management import throw_exception_if_processing_interrupted

    throw_exception_if_processing_interrupted()


def is_interrupted() -> bool:
    """Whether the user wants to stop; check() still raises afterwards."""
    from comfy.model_management import processing_interrupted

    return processing_interrupted()


def interruption() -> type[BaseException]:
    """What check() raises."""
    from comfy.model_management import InterruptProcessingException

    return InterruptProcessingException


def progress(what: str, done: int, total: int) -> None:
    """A Progress: the bar of the node that runs, and its interrupt."""
    from comfy.utils import ProgressBar

    check()
    ProgressBar(max(total, 1)).update_absolute(done)


def show(node_id: str | None, text: str) -> None:
    """Text on a node while it works; older hosts show none."""
    from server import PromptServer

    server = PromptServer.instance
    if node_id and hasattr(server, "send_progress_text"):
        server.send_progress_text(text, node_id, server.client_id)


def loaded(patcher: Any) -> torch.device:
    """The device where a model's weights are now, patched as its graph wants them."""
    from comfy.model_management import load_models_gpu

    load_models_gpu([patcher])
    return patcher.load_device


def managed(module: torch.nn.Module) -> Callable[[], None]:
    """A model of ours under the host's memory management; calling brings it to the host's device.

    It moves as a whole: its layers, unlike the host's own, cannot compute with weights that lie elsewhere.
    """
    import torch
    from comfy.model_management import get_torch_device, load_models_gpu, unet_offload_device
    from comfy.model_patcher import ModelPatcher

    class Whole(ModelPatcher):
        def partially_unload(self, *_: Any, **__: Any) -> int:
            return 0  # the host then takes all of it

    # The host notes its device on the module, which transformers' models do not allow.
    held = torch.nn.ModuleDict({"model": module})
    patcher = Whole(held, load_device=get_torch_device(), offload_device=unet_offload_device())

    def bring() -> None:
        load_models_gpu([patcher], force_full_load=True)
        if len({weight.device for weight in module.parameters()}) > 1:
            held.to(patcher.offload_device)  # there was no room for all of it

    return bring


def device() -> torch.device:
    """Where the host computes."""
    from comfy.model_management import get_torch_device

    return get_torch_device()


def make_room_for(module: torch.nn.Module) -> None:
    """On the host's device, for a model that is not under its management, and for what it computes."""
    from comfy.model_management import free_memory, minimum_inference_memory, module_size

    free_memory(module_size(module) + minimum_inference_memory(), device())


def add_node(name: str, node: type) -> None:
    """One that is queued by a program, and is in no pack's list."""
    from nodes import NODE_CLASS_MAPPINGS

    NODE_CLASS_MAPPINGS[name] = node


def load_pair(clip: str, clip_vision: str) -> tuple[Any, Any]:
    """CLIP and CLIP_VISION by the names of their files, by the host's own loaders."""
    import nodes

    text, vision = nodes.CLIPLoader(), nodes.CLIPVisionLoader()
    (loaded,) = getattr(text, text.FUNCTION)(clip_name=clip, type="stable_diffusion")
    (loaded_vision,) = getattr(vision, vision.FUNCTION)(clip_name=clip_vision)
    return loaded, loaded_vision


def precision() -> str:
    """How models of ours are kept: "fp16" where the host's device computes it well."""
    from comfy.model_management import get_torch_device, should_use_fp16

    return "fp16" if should_use_fp16(get_torch_device()) else "fp32"


def model_files() -> dict[str, Path]:
    """The files that may hold a text projection: "clip_vision/NAME" to where it lies."""
    import folder_paths

    found: dict[str, Path] = {}
    for kind in FOLDERS:
        if kind not in folder_paths.folder_names_and_paths:
            continue
        for name in folder_paths.get_filename_list(kind):
            path = folder_paths.get_full_path(kind, name)
            if path and name.endswith(".safetensors") and Path(path) not in found.values():
                found[f"{kind}/{name}"] = Path(path)
    return found


def input_pictures() -> list[str]:
    """The pictures in the host's input folder."""
    import folder_paths

    folder = Path(folder_paths.get_input_directory())
    names = sorted(path.name for path in folder.iterdir() if path.is_file())
    return folder_paths.filter_files_content_types(names, ["image"])


def folder_of(kind: str) -> Path:
    """The host's folder `input`, `output` or `temp`."""
    import folder_paths

    return Path(folder_paths.get_directory_by_type(kind))


def base_folder() -> Path:
    import folder_paths

    return Path(folder_paths.base_path)


def registered_wildcard_folders() -> Iterator[Path]:
    """Those that packs have told the host of."""
    import folder_paths

    for path in folder_paths.folder_names_and_paths.get("wildcards", ([], set()))[0]:
        yield Path(path)


@lru_cache(maxsize=1)
def _clip_tokenizer() -> Any:
    from comfy.sd1_clip import SDTokenizer

    return SDTokenizer().tokenizer


def count_clip_tokens(text: str) -> int:
    """How many tokens CLIP reads, with start and end."""
    return len(_clip_tokenizer()(text)["input_ids"])
