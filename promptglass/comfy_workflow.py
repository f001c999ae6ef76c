"""Turn ComfyUI's UI graph (`workflow`: nodes, links, widgets_values) into the API form that runs.

Widget values carry no names there: they are named for the nodes everybody uses, and for any node whose
frontend listed its widgets as inputs. Subgraphs are left as the opaque nodes they look like.
"""

from __future__ import annotations

_SKIP = ""  # a widget of the frontend alone: control_after_generate
_NEVER, _BYPASS = 2, 4  # values of a node's mode

_WIDGETS: dict[str, tuple[str, ...]] = {
    "KSampler": ("seed", _SKIP, "steps", "cfg", "sampler_name", "scheduler", "denoise"),
    "KSamplerAdvanced": (
        "add_noise", "noise_seed", _SKIP, "steps", "cfg", "sampler_name", "scheduler",
        "start_at_step", "end_at_step",
    ),
    "SamplerCustom": ("add_noise", "noise_seed", _SKIP, "cfg"),
    "RandomNoise": ("noise_seed", _SKIP),
    "BasicScheduler": ("scheduler", "steps", "denoise"),
    "KSamplerSelect": ("sampler_name",),
    "CFGGuider": ("cfg",),
    "FluxGuidance": ("guidance",),
    "CLIPTextEncode": ("text",),
    "CLIPTextEncodeSDXL": (
        "width", "height", "crop_w", "crop_h", "target_width", "target_height", "text_g", "text_l",
    ),
    "CLIPTextEncodeSDXLRefiner": ("ascore", "width", "height", "text"),
    "CLIPTextEncodeSD3": ("clip_l", "clip_g", "t5xxl"),
    "CLIPTextEncodeFlux": ("clip_l", "t5xxl", "guidance"),
    "CheckpointLoaderSimple": ("ckpt_name",),
    "UNETLoader": ("unet_name",),
    "UnetLoaderGGUF": ("unet_name",),
    "LoraLoader": ("lora_name", "strength_model", "strength_clip"),
    "LoraLoaderModelOnly": ("lora_name", "strength_model"),
    "EmptyLatentImage": ("width", "height"),
    "EmptySD3LatentImage": ("width", "height"),
    "PrimitiveNode": ("value",),
    "PrimitiveString": ("value",),
    "PrimitiveStringMultiline": ("value",),
    "PrimitiveInt": ("value",),
    "PrimitiveFloat": ("value",),
    "StringConcatenate": ("string_a", "string_b", "delimiter"),
    "Text Multiline": ("text",),
    "ShowText|pysssss": (),
    "Efficient Loader": (
        "ckpt_name", "vae_name", "clip_skip", "lora_name", "lora_model_strength", "lora_clip_strength",
        "positive", "negative", "token_normalization", "weight_interpretation",
        "empty_latent_width", "empty_latent_height",
    ),
    "KSampler (Efficient)": ("seed", _SKIP, "steps", "cfg", "sampler_name", "scheduler", "denoise"),
}  # fmt: skip
_NOTES = {"Note", "MarkdownNote"}


def to_api(workflow: dict[str, object]) -> dict[str, object]:
    """Node id -> class_type and inputs, for every node that would have run."""
    listed = workflow.get("nodes")
    nodes = [node for node in listed if isinstance(node, dict)] if isinstance(listed, list) else []
    links = _links(workflow.get("links"))
    setters = {_first_widget(node): _name(node.get("id")) for node in nodes if node.get("type") == "SetNode"}
    graph: dict[str, object] = {}
    for node in nodes:
        kind = node.get("type")
        if not isinstance(kind, str) or kind in _NOTES or node.get("mode") == _NEVER:
            continue
        # A bypassed node hands its links on, and does nothing itself.
        inputs = {} if node.get("mode") == _BYPASS else _named_widgets(kind, node)
        inputs.update(_linked_inputs(node, links))
        if kind == "GetNode":
            inputs = {"any": [setters.get(_first_widget(node), ""), 0]}
        graph[_name(node.get("id"))] = {"class_type": kind, "inputs": inputs}
    return graph


def _links(listed: object) -> dict[str, list[object]]:
    """Link id -> [node id, output], from both spellings: a list of six, or an object (schema 1.0)."""
    found: dict[str, list[object]] = {}
    for link in listed if isinstance(listed, list) else ():
        if isinstance(link, list) and len(link) >= 5:
            found[_name(link[0])] = [_name(link[1]), link[2]]
        elif isinstance(link, dict):
            found[_name(link.get("id"))] = [_name(link.get("origin_id")), link.get("origin_slot")]
    return found


def _linked_inputs(node: dict[str, object], links: dict[str, list[object]]) -> dict[str, object]:
    return {
        _name(slot.get("name", "")): links[_name(slot.get("link"))]
        for slot in _slots(node)
        if _name(slot.get("link")) in links
    }


def _named_widgets(kind: str, node: dict[str, object]) -> dict[str, object]:
    values = node.get("widgets_values")
    if isinstance(values, dict):
        return {str(name): value for name, value in values.items() if not isinstance(value, list)}
    if not isinstance(values, list):
        return {}
    names = _WIDGETS.get(kind)
    if names is None:
        names = _listed_widgets(node, len(values))
    if names is None:
        text = next((value for value in values if isinstance(value, str)), None)
        return {} if text is None or kind == "SetNode" else {"text": text}
    # A list would read as a link.
    named = zip(names, values, strict=False)
    return {name: value for name, value in named if name != _SKIP and not isinstance(value, list)}


def _listed_widgets(node: dict[str, object], count: int) -> tuple[str, ...] | None:
    """Names from inputs that say they are widgets; None unless they account for every value."""
    names: list[str] = []
    for slot in _slots(node):
        widget = slot.get("widget")
        if isinstance(widget, dict) and isinstance(widget.get("name"), str):
            names.append(widget["name"])
            if widget["name"] in ("seed", "noise_seed"):
                names.append(_SKIP)
    return tuple(names) if names and len(names) == count else None


def _slots(node: dict[str, object]) -> list[dict[str, object]]:
    inputs = node.get("inputs")
    return [slot for slot in inputs if isinstance(slot, dict)] if isinstance(inputs, list) else []


def _first_widget(node: dict[str, object]) -> str:
    values = node.get("widgets_values")
    return _name(values[0]) if isinstance(values, list) and values else ""


def _name(value: object) -> str:
    return str(value) if isinstance(value, (str, int)) else ""
