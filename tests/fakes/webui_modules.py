"""As much of a WebUI's `modules` as promptglass looks at: A1111 1.10, and Forge where that differs.

Honest: ATTRIBUTES lists all that is here, and tests/test_webui_hosts.py finds each in the real hosts. CLIP is
tiny, of its real class; BLIP is a stand-in that writes what it was asked.
"""

from __future__ import annotations

import contextlib
import threading
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# module: what promptglass uses of it. A leading ~: not in every host, and asked for with care.
ATTRIBUTES = {
    "modules.shared": (
        "opts",
        "cmd_opts",
        "state",
        "interrogator",
        "OptionInfo",
        "OptionHTML",
        "opts.add_option",
        "opts.data",
        "state.begin",
        "state.end",
        "state.interrupted",
        "state.skipped",
        "state.stopping_generation",
        "state.textinfo",
        "state.job",
        "state.job_count",
        "state.job_no",
        "opts.interrogate_keep_models_in_memory",
        "opts.interrogate_clip_min_length",
        "opts.interrogate_clip_max_length",
        "cmd_opts.api_auth",
        "cmd_opts.server_name",
        "cmd_opts.lowvram",
        "cmd_opts.medvram",
        "interrogator.generate_caption",
        "interrogator.load",
        "interrogator.unload",
        "interrogator.clip_model",
        "interrogator.clip_preprocess",
        "interrogator.blip_model",
        "~interrogator.load_device",
    ),
    "modules.call_queue": ("queue_lock",),
    "modules.devices": ("autocast", "torch_gc", "device", "~device_interrogate"),
    "modules.interrogate": ("clip_model_name", "blip_image_eval_size"),
    "modules.paths_internal": ("data_path", "default_output_dir"),
    "modules.extensions": ("active",),
    "modules.initialize_util": ("get_gradio_auth_creds",),
    "modules.launch_utils": ("git_tag",),
    "modules.script_callbacks": ("on_ui_tabs", "on_ui_settings", "on_app_started"),
    "~modules.lowvram": ("send_everything_to_cpu",),
}


class QueueLock:
    """Like the host's FIFOLock it is not re-entrant; where that would wait for ever, this one complains."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.holder: int | None = None
        self.turns = 0

    def __enter__(self) -> bool:
        assert self.holder != threading.get_ident(), "the queue lock is taken twice in one thread"
        self._lock.acquire()
        self.holder = threading.get_ident()
        self.turns += 1
        return True

    def __exit__(self, *_: object) -> None:
        self.holder = None
        self._lock.release()


@dataclass
class State:
    job: str = ""
    job_count: int = 0
    job_no: int = 0
    textinfo: str | None = None
    interrupted: bool = False
    skipped: bool = False
    stopping_generation: bool = False
    log: list[str] = field(default_factory=list)

    def begin(self, job: str = "(unknown)") -> None:
        self.job, self.job_count, self.job_no, self.textinfo = job, -1, 0, None
        self.interrupted = self.skipped = self.stopping_generation = False
        self.log.append("begin")

    def end(self) -> None:
        self.job, self.job_count = "", 0
        self.log.append("end")


class Options:
    def __init__(self, **data: Any) -> None:
        self.data = data
        self.added: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["data"][name]
        except KeyError:
            raise AttributeError(name) from None

    def add_option(self, name: str, info: Any) -> None:
        self.added[name] = info
        self.data.setdefault(name, info.default)


class OptionInfo:
    def __init__(
        self, default: Any = None, label: str = "", component: Any = None, component_args: Any = None
    ) -> None:
        self.default = default
        self.label = label
        self.component = component
        self.component_args = component_args
        self.section: Any = None
        self.comment_after = ""

    def info(self, text: str) -> OptionInfo:
        self.comment_after += text
        return self


class OptionHTML(OptionInfo):
    def __init__(self, text: str) -> None:
        super().__init__(text)


class Blip:
    """Stands in for BLIP: a caption tells how it was asked for, and how bright the picture is."""

    def __init__(self) -> None:
        import torch

        self.asked: list[dict[str, Any]] = []
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def parameters(self) -> Iterator[Any]:
        yield self.weight

    def generate(self, pixels: Any, **how: Any) -> list[str]:
        if how["num_beams"] > 1:
            raise RuntimeError("The size of tensor a (4) must match the size of tensor b (16)")
        self.asked.append({"pixels": pixels, **how})
        return [f"a picture  as bright as {one.mean():.2f}" for one in pixels]


class Interrogator:
    """A1111's InterrogateModels. make: gives CLIP and its preprocessing, as load_clip_model does."""

    def __init__(self, make: Callable[[], tuple[Any, Any]], lock: QueueLock) -> None:
        self.blip_model: Any = None
        self.clip_model: Any = None
        self.clip_preprocess: Any = None
        self.log: list[str] = []
        self.error: Exception | None = None  # what load() raises
        self._make = make
        self._lock = lock

    def load(self) -> None:
        assert self._lock.holder == threading.get_ident(), "models are loaded outside of the queue lock"
        if self.error is not None:
            raise self.error
        if self.clip_model is None:
            self.blip_model = Blip()
            self.clip_model, self.clip_preprocess = self._make()
        self.log.append("load")

    def unload(self) -> None:
        self.log.append("unload")

    def generate_caption(self, image: Any) -> str:
        raise AssertionError("it goes by the host's setting of beams, with which it may fail")


class ForgeInterrogator(Interrogator):
    """Forge's knows its device, and its unload() does nothing: the host moves models by itself."""

    def __init__(self, make: Callable[[], tuple[Any, Any]], lock: QueueLock) -> None:
        import torch

        super().__init__(make, lock)
        self.load_device = self.offload_device = torch.device("cpu")


class Host:
    """modules: for sys.modules. `lock`, `state`, `log`: what it saw."""

    def __init__(
        self,
        base: Path,
        make: Callable[[], tuple[Any, Any]] | None,
        is_forge: bool = False,
        **flags: Any,
    ) -> None:
        self.base = base
        self.lock, self.state, self.log = QueueLock(), State(), []
        kind = ForgeInterrogator if is_forge else Interrogator
        self.interrogator = kind(make, self.lock) if make else None
        self.options = Options(
            interrogate_keep_models_in_memory=False,
            interrogate_clip_min_length=24,
            interrogate_clip_max_length=48,
            interrogate_clip_num_beams=4,  # with which the host itself fails
        )
        known = {"api_auth": None, "server_name": None, "lowvram": False, "medvram": False}
        self.flags = types.SimpleNamespace(**known, **flags)
        self.gradio_credentials: list[tuple[str, str]] = []
        self.extensions: list[Any] = []
        self.callbacks: dict[str, list[Callable[..., Any]]] = {}
        self.casts: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext
        self.modules = self._modules(is_forge)

    def add_extension(self, name: str, *folders: str) -> Path:
        path = self.base / "extensions" / name
        for folder in folders:
            (path / folder).mkdir(parents=True)
        self.extensions.append(types.SimpleNamespace(name=name, path=str(path)))
        return path

    def _modules(self, is_forge: bool) -> dict[str, types.ModuleType]:
        import torch

        def casts() -> contextlib.AbstractContextManager[Any]:
            return self.casts()  # as it is then

        cpu = torch.device("cpu")
        parts: dict[str, dict[str, Any]] = {
            "modules": {},
            "modules.shared": {
                "opts": self.options,
                "cmd_opts": self.flags,
                "state": self.state,
                "interrogator": self.interrogator,
                "OptionInfo": OptionInfo,
                "OptionHTML": OptionHTML,
            },
            "modules.call_queue": {"queue_lock": self.lock},
            "modules.devices": {
                "autocast": casts,
                "torch_gc": lambda: self.log.append("torch_gc"),
                "device": cpu,
                **({} if is_forge else {"device_interrogate": cpu}),
            },
            "modules.interrogate": {"clip_model_name": "ViT-L/14", "blip_image_eval_size": 384},
            "modules.paths_internal": {
                "data_path": str(self.base),
                "default_output_dir": str(self.base / "outputs"),
            },
            "modules.extensions": {"active": lambda: self.extensions},
            "modules.initialize_util": {"get_gradio_auth_creds": lambda: iter(self.gradio_credentials)},
            "modules.launch_utils": {"git_tag": lambda: "v1.10.1"},
            "modules.script_callbacks": {
                name: lambda callback, name=name: self.callbacks.setdefault(name, []).append(callback)
                for name in ("on_ui_tabs", "on_ui_settings", "on_app_started")
            },
        }
        if not is_forge:
            room = lambda: self.log.append("send_everything_to_cpu")  # noqa: E731
            parts["modules.lowvram"] = {"send_everything_to_cpu": room}
        found: dict[str, types.ModuleType] = {}
        for name, content in parts.items():
            module = types.ModuleType(name)
            vars(module).update(content)
            found[name] = module
            if "." in name:
                setattr(found["modules"], name.rpartition(".")[2], module)
        found["modules"].__path__ = []  # a package
        return found
