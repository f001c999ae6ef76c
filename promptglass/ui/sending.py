"""Prompts on their way to txt2img and img2img: javascript/promptglass.js sets one box, and nothing else.

The host's own buttons read a prompt as its parameters: one without a negative prompt wipes the user's, and
"Steps: 99" in a caption sets the steps.
"""

from __future__ import annotations

from .gradio_versions import make

TABS = ("txt2img", "img2img")


class Sending:
    """what: "prompt" or "negative". The script knows the buttons by their ids."""

    def __init__(self, what: str) -> None:
        said = "" if what == "prompt" else " negative"
        with make("Row", elem_id=f"promptglass_send_{what}"):
            self.buttons = {
                tab: make(
                    "Button", value=f"→ {tab}{said}", size="sm", elem_id=f"promptglass_send_{what}_{tab}"
                )
                for tab in TABS
            }
