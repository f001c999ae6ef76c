"""Which language models may be asked, and what they can write."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..errors import PromptglassError
from .gradio_versions import chosen, make

if TYPE_CHECKING:
    from ..service import Service


class LanguageModels:
    """profiles: the endpoints' names. tasks: titles of prompts by their ids. problem: why there are none."""

    def __init__(self, service: Service) -> None:
        from ..prompts import load_prompts

        try:
            self.profiles = [profile.name for profile in service.profiles()]
            self.tasks = {id_: prompt.title for id_, prompt in load_prompts().items()}
            self.problem = ""
        except PromptglassError as error:
            self.profiles, self.tasks, self.problem = [], {}, str(error)

    def fields(self, name: str, defaults: Mapping[str, Any]) -> tuple[Any, Any]:
        """Who is asked: an endpoint, and a model of it."""
        profile = make(
            "Dropdown",
            label="Endpoint",
            **chosen(defaults.get("profile", "ollama"), self.profiles),
            elem_id=f"promptglass_{name}_profile",
        )
        model = make(
            "Textbox",
            label="Model",
            placeholder="the endpoint's own",
            elem_id=f"promptglass_{name}_model",
        )
        return profile, model
