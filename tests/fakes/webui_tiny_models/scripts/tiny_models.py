"""An extension for tests: a real WebUI interrogates with tiny models, and answers questions about itself.

The host's own load() runs, with its own classes; only what would be fetched is made here. POST
/promptglass-test/… has what no public route of a host tells.
"""

import importlib
import os
import sys

from modules import interrogate, script_callbacks, shared


def tiny_clip(self):
    """OpenAI's CLIP by its own builder, as clip.load() would leave it on the CPU."""
    import clip.model
    import torch
    from torchvision import transforms

    if hasattr(self, "load_device"):
        clip.model.LayerNorm = torch.nn.LayerNorm  # as Forge has it
    with torch.random.fork_rng():
        torch.manual_seed(11)
        model = clip.model.CLIP(48, 32, 2, 64, 8, 77, 49408, 64, 1, 3)
        torch.nn.init.normal_(model.token_embedding.weight, std=0.3)
    if place := os.environ.get("PROMPTGLASS_TEST_WEIGHTS"):
        torch.save(model.state_dict(), place)
    means, deviations = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    steps = [
        transforms.Resize(32, interpolation=transforms.InterpolationMode.BICUBIC),
        transforms.CenterCrop(32),
        lambda image: image.convert("RGB"),
        transforms.ToTensor(),
        transforms.Normalize(means, deviations),
    ]
    return model.float().eval(), transforms.Compose(steps)


def tiny_blip(self):
    import torch

    class Blip(torch.nn.Module):
        """A caption tells how bright the picture is, and that it was asked as BLIP allows."""

        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def generate(self, image, sample, num_beams, min_length, max_length):
            if num_beams > 1:
                raise RuntimeError("The size of tensor a (4) must match the size of tensor b (16)")
            return [f"a picture as bright as {one.float().mean():.3f}" for one in image]

    return Blip().eval()


def missing(attributes):
    """Which of {module: [name, …]} this host lacks."""
    found = []
    for module_name, names in attributes.items():
        try:
            module = importlib.import_module(module_name.lstrip("~"))
        except ImportError:
            found += [] if module_name.startswith("~") else [module_name]
            continue
        for name in names:
            owner = module
            for part in name.lstrip("~").split("."):
                owner = getattr(owner, part, missing)
            if owner is missing and not name.startswith("~"):
                found.append(f"{module_name}.{name}")
    return found


def started(_, app):
    from fastapi import Body

    if os.environ.get("PROMPTGLASS_TEST_BARE"):  # not before: this host's settings ask for it
        shared.interrogator = None

    @app.post("/promptglass-test/missing")
    def missing_attributes(attributes: dict = Body(..., embed=True)):
        return missing(attributes)

    @app.post("/promptglass-test/draw")
    def draw(template: str = Body(...), count: int = Body(...)):
        """By the Wildcards Manager of sd-dynamic-prompts, as it is in this process."""
        from dynamicprompts.generators import RandomPromptGenerator

        manager = sys.modules["sd_dynamic_prompts.wildcards_tab"].wildcard_manager
        return [str(prompt) for prompt in RandomPromptGenerator(manager, seed=1).generate(template, count)]

    @app.post("/promptglass-test/reload")
    def reload_page():
        """What the button Reload UI does."""
        shared.state.request_restart()
        return True

    @app.post("/promptglass-test/options")
    def set_options(options: dict = Body(..., embed=True)):
        shared.opts.data.update(options)
        return sorted(options)


interrogate.InterrogateModels.load_clip_model = tiny_clip
interrogate.InterrogateModels.load_blip_model = tiny_blip
script_callbacks.on_app_started(started)
