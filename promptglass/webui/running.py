"""The running WebUI: all that is asked of A1111, Forge and reForge, told apart by what they have."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InputError, ModelError, Stopped, one_line
from ..hosts import WildcardFolder

if TYPE_CHECKING:
    import torch

_JOB = "promptglass"


def option(name: str, default: Any = None) -> Any:
    """A setting of the host's page."""
    from modules import shared

    return getattr(shared.opts, name, default)


def flag(name: str, default: Any = None) -> Any:
    """An option of the host's command line."""
    from modules import shared

    return getattr(shared.cmd_opts, name, default)


@lru_cache(maxsize=1)
def name() -> str:
    """As people know it: "A1111 v1.10.1". Nothing is decided by it."""
    known = (("ldm_patched", "reForge"), ("modules_forge", "Forge"))
    kind = next((kind for module, kind in known if importlib.util.find_spec(module)), "A1111")
    try:
        from modules import launch_utils

        return f"{kind} {launch_utils.git_tag()}".replace("<none>", "").strip()
    except (ImportError, AttributeError):
        return kind


# -- models --------------------------------------------------------------------------------------------------


def interrogator() -> Any | None:
    """The host's InterrogateModels; Forge Neo and Forge Classic have none."""
    from modules import shared

    found = getattr(shared, "interrogator", None)
    return found if hasattr(found, "generate_caption") else None


def queue_lock() -> Any:
    """Held by whoever uses the GPU. It is not re-entrant: a second time in one thread never comes back."""
    from modules.call_queue import queue_lock

    return queue_lock


@contextlib.contextmanager
def job() -> Iterator[None]:
    """Within the lock: the host shows a job. Afterwards it has its models as its settings say."""
    from modules import shared

    shared.state.begin(job=_JOB)
    try:
        _make_room()
        yield
    finally:
        try:
            if (models := interrogator()) is not None:
                models.unload()
        finally:
            shared.state.end()


def _make_room() -> None:
    """With --lowvram and --medvram, A1111 keeps a part of its model on the GPU; Forge does this by itself."""
    if _manages_memory():
        return
    with contextlib.suppress(ImportError):
        from modules import devices, lowvram

        lowvram.send_everything_to_cpu()
        devices.torch_gc()


def _manages_memory() -> bool:
    """Whether the host itself moves models in and out, as Forge does."""
    models = interrogator()
    return hasattr(models, "load_device") or (models is None and _has("backend"))


def _has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def make_room_for(module: torch.nn.Module) -> None:
    """On the GPU, for a model that the host does not know: Forge frees what its own models take."""
    import importlib

    memory_modules = ("backend.memory_management", "ldm_patched.modules.model_management")
    name = next((name for name in memory_modules if _has(name.partition(".")[0])), None)
    if name is None or device().type == "cpu":
        return
    memory = importlib.import_module(name)
    size_bytes = sum(weight.numel() * weight.element_size() for weight in module.parameters())
    memory.free_memory(size_bytes + memory.minimum_inference_memory(), device())


def load() -> Any:
    """The interrogation models, where they compute. Raises ModelError where the host cannot load them."""
    from ..clip.memory import is_out_of_memory

    models = interrogator()
    assert models is not None
    try:
        models.load()
    # What is wrong with a download, a checkpoint or a GPU is up to urllib, torch, pickle and the host.
    except Exception as error:
        if is_out_of_memory(error):
            _collect()
            raise ModelError(
                f"{name()} has no memory left for its interrogation models: close other programs, unload the "
                "checkpoint, or start it with --use-cpu interrogate"
            ) from error
        raise ModelError(
            f"{name()} cannot load its interrogation models: {one_line(error)}. It fetches them when they "
            "are first used (BLIP 0.9 GB into models/BLIP, CLIP 0.9 GB): is it online?"
        ) from error
    return models


def _collect() -> None:
    from modules import devices

    devices.torch_gc()


def autocast() -> contextlib.AbstractContextManager[Any]:
    """As the host computes with CLIP: A1111 keeps norms in half precision, and casts around them."""
    from modules import devices

    return devices.autocast()


def device() -> torch.device:
    """Where interrogation runs."""
    from modules import devices

    models = interrogator()
    found = getattr(models, "load_device", None) or getattr(devices, "device_interrogate", None)
    return found if found is not None else devices.device


def clip_name() -> str:
    """The host's CLIP as sidecars name it: the same weights as open_clip's "ViT-L-14/openai"."""
    from modules import interrogate

    known = str(interrogate.clip_model_name)
    return f"{known.replace('/', '-')}/openai" if known[:3] in ("ViT", "RN5", "RN1") else Path(known).stem


def caption_size() -> int:
    """The side of the square pictures that the host's BLIP sees."""
    from modules import interrogate

    return int(interrogate.blip_image_eval_size)


def keeps_models() -> bool:
    return bool(option("interrogate_keep_models_in_memory", False))


# -- progress ------------------------------------------------------------------------------------------------


def check() -> None:
    """Raises Stopped where the user has pressed Interrupt or Skip.

    At first the button only asks to end after the current picture, where a job says that it has several.
    """
    from modules import shared

    state = shared.state
    if state.interrupted or state.skipped or getattr(state, "stopping_generation", False):
        raise Stopped(f"interrupted in {name()}")


def progress(what: str, done: int, total: int) -> None:
    """A Progress: the host's bar, and its interrupt."""
    from modules import shared

    check()
    shared.state.textinfo = what
    shared.state.job_count, shared.state.job_no = max(total, 1), done


# -- folders -------------------------------------------------------------------------------------------------


def output_folder() -> Path:
    """Where the host saves pictures if nothing else is set. Not what is set: anybody may set that."""
    from modules import paths_internal

    folder = getattr(paths_internal, "default_output_dir", None)
    return Path(folder or Path(paths_internal.data_path, "outputs")).resolve()


def wildcard_folder() -> WildcardFolder | None:
    """Where sd-dynamic-prompts reads, whatever its own folder is called.

    To be asked when it is needed: that extension may load after ours.
    """
    from modules import extensions

    paths = sys.modules.get("sd_dynamic_prompts.paths")
    if paths is not None and hasattr(paths, "get_wildcard_dir"):
        return WildcardFolder("sd-dynamic-prompts", Path(paths.get_wildcard_dir()))
    for extension in extensions.active():
        if Path(extension.path, "sd_dynamic_prompts").is_dir():
            chosen = option("wildcard_dir")
            return WildcardFolder("sd-dynamic-prompts", Path(chosen or Path(extension.path, "wildcards")))
    return None


def wildcards_changed() -> str:
    """Has sd-dynamic-prompts look again: by itself it sees no new file. What the user has to do, or ""."""
    tab = sys.modules.get("sd_dynamic_prompts.wildcards_tab")
    manager: Any = getattr(tab, "wildcard_manager", None)
    if not hasattr(manager, "clear_cache"):
        return "press Refresh wildcards in the Wildcards Manager, or start the WebUI again"
    manager.clear_cache()
    return ""


def has_extension(folder: str) -> bool:
    """Whether another extension is there and on, by what its folder is called."""
    from modules import extensions

    return any(extension.name == folder for extension in extensions.active())


# -- who may ask ---------------------------------------------------------------------------------------------


def credentials() -> Mapping[str, str]:
    """Names with passwords: those of --api-auth, else those of --gradio-auth; none where the host is open.

    Raises InputError for what is no such pair.
    """
    if given := flag("api_auth"):
        pairs = [pair.strip().partition(":") for pair in given.split(",") if pair.strip()]
        if not all(colon for _, colon, _ in pairs):
            raise InputError("--api-auth is not NAME:PASSWORD: nobody is answered until it is put right")
        return {user: password for user, _, password in pairs}
    try:
        from modules.initialize_util import get_gradio_auth_creds
    except ImportError:  # elsewhere in this host: a password that was set must not be forgotten
        if flag("gradio_auth") or flag("gradio_auth_path"):
            raise
        return {}
    return dict(get_gradio_auth_creds())


def listens() -> list[str]:
    """Names under which the host says that it can be reached."""
    return [str(flag("server_name") or ""), os.environ.get("GRADIO_SERVER_NAME", "")]
