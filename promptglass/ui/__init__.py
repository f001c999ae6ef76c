"""The page in a browser: a tab of A1111, Forge and reForge, or a window of its own (`promptglass ui`).

The same modules run on gradio 3.41 to 6. Importing this package imports no gradio: build() does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..service import Service


def build(
    service: Service, defaults: Mapping[str, Any] | None = None, send_to: bool = False
) -> tuple[Any, dict[str, Any]]:
    """gr.Blocks with everything on it, and what launch() or mount_gradio_app() is to be given.

    defaults: what is chosen at first: modes, profile, prompt_id. send_to: there are txt2img and img2img on
    the same page to send prompts to. Raises DependencyMissing without gradio.
    """
    try:
        from .tab import build_tab
    except ModuleNotFoundError as error:
        from ..errors import DependencyMissing

        if error.name != "gradio":
            raise
        raise DependencyMissing("the page", "gradio") from error
    return build_tab(service, defaults or {}, send_to)
