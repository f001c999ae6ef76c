"""A ComfyUI at work, as far as nodes ask it: progress, interrupts, texts on nodes; and who runs the nodes.

    def test_it(nodes: Nodes) -> None:
        ran = nodes.run("Palette", image=a_tensor, colours=3)
        assert ran["names"] == ["red"]

The pack is imported anew for each test, so nothing that it keeps outlives one.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fakes.comfyui_host import host_modules, imported


class RunningHost:
    def __init__(self, base: Path) -> None:
        self.texts: list[tuple[str, str]] = []  # (node, text) as they were sent to the browser
        self.bars: list[tuple[int, int]] = []
        self.interrupt: BaseException | None = None  # raised where a node looks whether to stop
        self.base = base
        self.modules = {**host_modules(base), **self._comfy()}
        server: Any = self.modules["server"]
        server.PromptServer.instance.client_id = "browser"
        server.PromptServer.instance.send_progress_text = self._send
        self.folders: Any = self.modules["folder_paths"]

    def _send(self, text: str, node_id: str, client_id: str) -> None:
        assert client_id == "browser"
        self.texts.append((node_id, text))

    def _look(self) -> None:
        if self.interrupt is not None:
            raise self.interrupt

    def _comfy(self) -> dict[str, types.ModuleType]:
        host = self

        class ProgressBar:
            def __init__(self, total: int) -> None:
                self.total = total

            def update_absolute(self, done: int) -> None:
                host.bars.append((done, self.total))

        class ModelPatcher:
            def __init__(self, model: Any, load_device: Any, offload_device: Any) -> None:
                self.model, self.load_device, self.offload_device = model, load_device, offload_device

        class SDTokenizer:
            def tokenizer(self, text: str) -> dict[str, list[str]]:
                return {"input_ids": ["start", *text.split(), "end"]}

        content: dict[str, dict[str, Any]] = {
            "comfy": {},
            "comfy.model_management": {
                "throw_exception_if_processing_interrupted": self._look,
                "load_models_gpu": lambda models, **_: None,
                "get_torch_device": lambda: torch.device("cpu"),
                "unet_offload_device": lambda: torch.device("cpu"),
                "should_use_fp16": lambda device: False,
            },
            "comfy.utils": {"ProgressBar": ProgressBar},
            "comfy.model_patcher": {"ModelPatcher": ModelPatcher},
            "comfy.sd1_clip": {"SDTokenizer": SDTokenizer},
        }
        modules = {name: types.ModuleType(name) for name in content}
        for name, module in modules.items():
            vars(module).update(content[name])
        return modules


class Ran:
    """What a node gave: outputs by name, cards and texts as the browser gets them."""

    def __init__(self, node: Any, given: Any) -> None:
        result = given["result"] if isinstance(given, dict) else given
        self.outputs = dict(zip(node.RETURN_NAMES, result, strict=True))
        ui = given["ui"] if isinstance(given, dict) else {}
        self.cards: list[dict[str, Any]] = ui.get("promptglass", [])
        self.text: list[str] = ui.get("text", [])
        self.everything = repr(given)

    def __getitem__(self, name: str) -> Any:
        return self.outputs[name]


class Nodes:
    def __init__(self, pack: Any, host: RunningHost) -> None:
        self.pack, self.host = pack, host

    def module(self, name: str) -> Any:
        """A module of the pack: "promptglass.weights", "nodes.looking"."""
        return importlib.import_module(f"{self.pack.__name__}.{name}")

    def run(self, node_name: str, **given: Any) -> Ran:
        """As the host: widgets that are not named have their defaults, and every input comes as a list."""
        node = self.pack.NODE_CLASS_MAPPINGS[f"Promptglass{node_name}"]
        inputs = {**self._widgets(node), **given}
        if getattr(node, "INPUT_IS_LIST", False):
            inputs = {name: value if isinstance(value, list) else [value] for name, value in inputs.items()}
        return Ran(node, getattr(node(), node.FUNCTION)(**inputs))

    def state(self, node_name: str, **given: Any) -> str:
        """What the host compares to know whether a node has to run again."""
        node = self.pack.NODE_CLASS_MAPPINGS[f"Promptglass{node_name}"]
        inputs = {**self._widgets(node), **given}
        state = node.IS_CHANGED(**{name: value if isinstance(value, list) else [value]
                                   for name, value in inputs.items()})  # fmt: skip
        return repr(state)

    def _widgets(self, node: Any) -> dict[str, Any]:
        declared = node.INPUT_TYPES()["required"]
        combos = {
            name: options[0].get("default", kind[0]) if options else kind[0]
            for name, (kind, *options) in declared.items()
            if isinstance(kind, list) and kind
        }
        others = {
            name: options[0]["default"]
            for name, (kind, *options) in declared.items()
            if not isinstance(kind, list) and options and "default" in options[0]
        }
        return combos | others

    @contextlib.contextmanager
    def refused(self, match: str) -> Iterator[pytest.ExceptionInfo[Exception]]:
        """An error of ours, in one line."""
        error = self.module("promptglass.errors").PromptglassError
        with pytest.raises(error, match=match) as caught:
            yield caught
        assert "\n" not in str(caught.value)

    def clip(self, encoder: Any, keeps: bool = False) -> Any:
        """What the node CLIP Encoder gives, over any encoder."""
        return self.module("nodes.clip_models").LoadedClip(encoder, self.module("nodes.host").progress, keeps)


@pytest.fixture
def nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nodes]:
    """Apart from the models, settings and caches of whoever runs this, and from the network."""
    for variable, place in {
        "PROMPTGLASS_MODELS": "models",
        "XDG_CACHE_HOME": "cache",
        "PROMPTGLASS_CONFIG": "config.yaml",
        "HF_HUB_CACHE": "hub",
    }.items():
        monkeypatch.setenv(variable, str(tmp_path / place))
    (tmp_path / "config.yaml").write_text("{}")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")
    host = RunningHost(tmp_path / "ComfyUI")
    for name, module in host.modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    pack = imported(f"{tmp_path}/custom_nodes/my promptglass 🔍")
    yield Nodes(pack, host)
    for name in [name for name in sys.modules if name.partition(".")[0] == pack.__name__]:
        del sys.modules[name]
