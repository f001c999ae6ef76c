"""The page put together, on whichever gradio is there."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .folder import Folder
from .gradio_versions import blocks, make
from .labels import Labels
from .single import Single
from .status import Status
from .wildcards import Wildcards

if TYPE_CHECKING:
    from ..service import Service


def build_tab(service: Service, defaults: Mapping[str, Any], send_to: bool) -> tuple[Any, dict[str, Any]]:
    page, launching = blocks("promptglass")
    with page, make("Column", elem_id="promptglass"):
        # Within the page, so that it is the same in every host and touches nothing but ours.
        make("HTML", value=f"<style>{_style()}</style>", elem_id="promptglass_style")
        with make("Tabs", elem_id="promptglass_tabs"):
            with make("Tab", label="Single", elem_id="promptglass_tab_single"):
                single = Single(service, defaults, send_to)
            with make("Tab", label="Folder", elem_id="promptglass_tab_folder") as folder_tab:
                folder = Folder(service, defaults)
            with make("Tab", label="Labels", elem_id="promptglass_tab_labels"):
                labels = Labels(service)
            with make("Tab", label="Wildcards", elem_id="promptglass_tab_wildcards") as wildcards_tab:
                wildcards = Wildcards(service)
            with make("Tab", label="Status", elem_id="promptglass_tab_status") as status_tab:
                status = Status(service)
        # Not when the page is loaded: in a host, that is long before anybody opens the tab.
        folder.wire_attaching(folder_tab.select)
        wildcards.wire_listing(wildcards_tab.select)
        status.wire_looking(status_tab.select)
    page.promptglass = {  # for tests
        "single": single,
        "folder": folder,
        "labels": labels,
        "wildcards": wildcards,
        "status": status,
    }
    return page, launching


@lru_cache
def _style() -> str:
    return Path(__file__).with_name("tab.css").read_text("utf-8")
