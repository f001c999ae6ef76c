"""promptglass on the host's settings page.

No secrets, no addresses and no roots: whoever can open the WebUI reads these settings, and may change them.
"""

from __future__ import annotations

import html
from typing import Any

from ..analyzers import MODES
from ..errors import PromptglassError
from . import running

_SECTION = ("promptglass", "promptglass")
MODES_OPTION = "promptglass_modes"
PROFILE_OPTION = "promptglass_profile"
PROMPT_OPTION = "promptglass_prompt"
WILDCARDS_OPTION = "promptglass_wildcard_folder"
_DEFAULT_MODES = ["embedded", "fast", "negative", "palette"]


def register(roots: list[str]) -> None:
    """Adds them. Called at every start of the page, once per start."""
    import gradio as gr
    from modules import shared

    info = shared.OptionInfo
    added = {
        MODES_OPTION: info(
            _DEFAULT_MODES, "Modes that are ticked at first", gr.CheckboxGroup, {"choices": [*MODES]}
        ),
        PROFILE_OPTION: info(
            "ollama", "Language model: the endpoint that is chosen at first", gr.Dropdown, _choices(_profiles)
        ).info("its key stays in the environment: see docs/refine.md"),
        PROMPT_OPTION: info(
            "refine", "Language model: what it is asked at first", gr.Dropdown, _choices(_prompts)
        ),
        WILDCARDS_OPTION: info("", "Folder for wildcards").info(
            "empty: where sd-dynamic-prompts reads. Another must lie in an allowed folder"
        ),
    }
    if hasattr(shared, "OptionHTML"):
        added["promptglass_roots_shown"] = shared.OptionHTML(_about(roots))
    for name, option in added.items():
        option.section = _SECTION
        shared.opts.add_option(name, option)


def defaults() -> dict[str, Any]:
    """What the tab begins with. Whatever the settings say is checked: they may be of another version."""
    modes = running.option(MODES_OPTION) or _DEFAULT_MODES
    known = [mode for mode in modes if mode in MODES] if isinstance(modes, list) else _DEFAULT_MODES
    return {
        "modes": known or _DEFAULT_MODES,
        "profile": str(running.option(PROFILE_OPTION) or ""),
        "prompt_id": str(running.option(PROMPT_OPTION) or ""),
    }


def wildcard_folder() -> str:
    return str(running.option(WILDCARDS_OPTION) or "").strip()


def _choices(names: Any) -> Any:
    """Asked when the page is made: a profile may have been added since the start."""
    return lambda: {"choices": names()}


def _profiles() -> list[str]:
    from ..llm.profiles import profiles

    try:
        return [*profiles()]
    except PromptglassError:  # the tab says what is wrong with the file
        return ["ollama"]


def _prompts() -> list[str]:
    from ..prompts import built_in_prompts, load_prompts

    try:
        return [*load_prompts()]
    except PromptglassError:
        return [*built_in_prompts()]


def _about(roots: list[str]) -> str:
    shown = "".join(f"<li><code>{html.escape(root)}</code></li>" for root in roots)
    return (
        "<p>Folders in which promptglass may read pictures and write sidecars:</p>"
        f"<ul>{shown}</ul><p>More by <code>--promptglass-root DIR</code> on the command line, or the "
        "variable <code>PROMPTGLASS_ROOTS</code>.</p>"
    )
