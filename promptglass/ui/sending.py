"""Prompts on their way to txt2img and img2img: javascript alone, which sets one box and nothing else.

The host's own buttons read a prompt as its parameters: one without a negative prompt wipes the user's, and
"Steps: 99" in a caption sets the steps.
"""

from __future__ import annotations

from typing import Any

from .gradio_versions import make, on

TABS = ("txt2img", "img2img")


class Sending:
    """what: "prompt" or "negative". The function is in javascript/promptglass.js."""

    def __init__(self, what: str, box: Any) -> None:
        said = "" if what == "prompt" else " negative"
        with make("Row", elem_id=f"promptglass_send_{what}"):
            self.buttons = {
                tab: make(
                    "Button", value=f"→ {tab}{said}", size="sm", elem_id=f"promptglass_send_{what}_{tab}"
                )
                for tab in TABS
            }
        for tab, button in self.buttons.items():
            send = f"(text) => {{ promptglassSend('{tab}', '{what}', text); return []; }}"
            on(button.click, None, [box], js=send)
