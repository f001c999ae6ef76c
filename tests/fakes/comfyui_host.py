"""As much of ComfyUI as the pack looks at while it is imported and declares its nodes. It runs nothing.

Imports no more than the pack may, so that the cost of an import can be measured beside it.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent


def imported(place: str) -> Any:
    """The pack as ComfyUI imports it from a folder: under a name that no dotted import could spell."""
    name = place.replace(".", "_x_")
    init = ROOT / "__init__.py"
    spec = importlib.util.spec_from_file_location(name, init, submodule_search_locations=[str(ROOT)])
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def host_modules(base: Path) -> dict[str, types.ModuleType]:
    """For sys.modules, with `base` as the host's folder."""
    (base / "input").mkdir(parents=True)

    def route(path: str) -> Any:
        return lambda handler: handler

    routes = types.SimpleNamespace(get=route, post=route, route=lambda method, path: route(path))
    server = types.SimpleNamespace(routes=routes, app=types.SimpleNamespace(on_response_prepare=[]))
    server_module: Any = types.ModuleType("server")
    server_module.PromptServer = types.SimpleNamespace(instance=server)
    folders: Any = types.ModuleType("folder_paths")
    folders.base_path = str(base)
    folders.folder_names_and_paths = {"text_encoders": ([], set()), "clip_vision": ([], set())}
    folders.get_filename_list = lambda kind: []
    folders.get_full_path = lambda kind, name: None
    folders.get_input_directory = lambda: str(base / "input")
    folders.get_directory_by_type = lambda kind: str(base / kind)
    folders.filter_files_content_types = lambda names, kinds: names
    return {"server": server_module, "folder_paths": folders}
