"""Find the prompt in a ComfyUI graph: the texts that feed the sampler which made the picture.

Walks the links of the API form (node id -> class_type, inputs) by what inputs are called, so that nodes of
packs nobody here knows work as well. Any JSON is a legal graph: cycles, dangling links and junk give less,
never an exception, never an endless walk.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

# What one graph may cost. Shared workflows have up to a thousand nodes of a dozen inputs each; what lies
# beyond these limits is not looked at.
MAX_SAMPLERS = 50  # tried before a graph counts as one without a prompt
MAX_INPUTS = 1_000  # of a node
MAX_NAME_CHARS = 200  # of an input's name
MAX_GUIDER_REACH = 10  # nodes between a sampler and its guider
MAX_TEXT_WORK = 20_000  # inputs read, and hundreds of characters copied, to find the texts of one role
MAX_DEPTH = 100
MAX_CHARS = 100_000  # nobody's prompt is longer

_SAMPLER_MARKS = {"seed", "noise_seed", "steps", "cfg", "sampler_name", "sigmas"}
_ROLE_NAMES = {
    "positive": ("positive", "positive_prompt", "text_positive", "prompt_positive", "conditioning_positive"),
    "negative": ("negative", "negative_prompt", "text_negative", "prompt_negative", "conditioning_negative"),
}
# Only for what a sampler itself calls its positive: elsewhere these names carry either role.
_SAMPLER_POSITIVE = (*_ROLE_NAMES["positive"], "conditioning", "cond1", "prompt")
_BUNDLE = re.compile(r"pipe|ctx|context|text_embeds", re.IGNORECASE)  # one link that carries both roles
_TEXT_NAME = re.compile(
    r"text|prompt|string|caption|^(value|str|input\d*|any_?\d*|[a-d]|clip_[lgh]|t5xxl|llama|bert|mt5xl)$",
    re.IGNORECASE,
)
_NOT_TEXT = re.compile(
    r"encoder|model|file|path|format|mode|type|weight|token|norm|system|delim|separ|exclude|language",
    re.IGNORECASE,
)
_NO_CONDITIONING = {
    "audio", "clip", "clip_vision", "clip_vision_output", "control_net", "guider", "image", "images",
    "latent", "latent_image", "mask", "model", "noise", "pixels", "sampler", "samples", "sigmas",
    "style_model", "vae",
}  # fmt: skip
_SEPARATORS = {"\\n": "\n", "newline": "\n", "comma": ", ", "space": " ", "none": ""}

_OPTION_LINK = re.compile(r"^(guider|sampler|sigmas|noise|.*pipe|.*ctx|.*context|any|\*|)$")
_MODEL_LINK = re.compile(r"model|unet|pipe|ctx|context|lora|guider|^(any|value|\*|)$", re.IGNORECASE)
_LATENT_LINK = re.compile(r"latent|samples|pipe|ctx|context|^(any|value|\*|)$", re.IGNORECASE)
_OPTIONS = (
    "seed", "noise_seed", "steps", "cfg", "sampler_name", "scheduler", "denoise",
    "add_noise", "start_at_step", "end_at_step", "max_shift", "base_shift",
)  # fmt: skip
_MODEL_NAMES = ("ckpt_name", "unet_name", "base_ckpt_name", "gguf_name", "model_name", "vae_name")
_LITERAL_NAMES = ("value", "Value", "seed", "int", "float", "number", "string", "text")
_SIZES = (("width", "height"), ("empty_latent_width", "empty_latent_height"))


class GraphPrompt(NamedTuple):
    positive: str
    negative: str
    settings: dict[str, object]


@dataclass(frozen=True)
class Node:
    kind: str
    inputs: dict[str, object]
    handed_on: object  # what it gives where it is a primitive or a reroute: its value, or its only link


Nodes = dict[str, Node]


def read_graph(graph: dict[str, object]) -> GraphPrompt | None:
    """The prompt of the first sampler that has one; samplers that lead to a saved picture come first."""
    nodes = _nodes(graph)
    positives, negatives = _TextSearch(nodes, "positive"), _TextSearch(nodes, "negative")
    for sampler_id in islice(_samplers(nodes), MAX_SAMPLERS):
        inputs = _sampler_inputs(nodes, sampler_id)
        positive, negative = positives.of_sampler(inputs), negatives.of_sampler(inputs)
        if positive.strip() or negative.strip():
            return GraphPrompt(positive, negative, _settings(nodes, sampler_id))
    return None


def _nodes(graph: dict[str, object]) -> Nodes:
    found = {
        str(node_id): node
        for node_id, node in sorted(graph.items(), key=lambda item: (len(str(item[0])), str(item[0])))
        if isinstance(node, dict) and isinstance(node.get("class_type"), str)
    }
    return {node_id: _node(found, node) for node_id, node in found.items()}


def _node(ids: Container[str], node: dict[str, object]) -> Node:
    named = node.get("inputs")
    items = islice(named.items(), MAX_INPUTS) if isinstance(named, dict) else ()
    inputs = {str(name): value for name, value in items if len(str(name)) <= MAX_NAME_CHARS}
    values = [inputs[name] for name in _LITERAL_NAMES if name in inputs]
    links = [] if values else [each for each in inputs.values() if _link(ids, each)]
    handed_on = values[0] if values else links[0] if len(links) == 1 else None
    return Node(str(node["class_type"]), inputs, handed_on)


def _link(nodes: Container[str], value: object) -> str | None:
    """The id of the node that a link [id, output] comes from, if there is such a node."""
    if not isinstance(value, list) or len(value) != 2 or not isinstance(value[0], (str, int)):
        return None
    source = str(value[0])
    return source if source in nodes else None


def _samplers(nodes: Nodes) -> Iterator[str]:
    linked = {_link(nodes, value) for node in nodes.values() for value in node.inputs.values()}
    saves = [i for i, node in nodes.items() if "save" in node.kind.lower()]
    previews = [i for i, node in nodes.items() if "preview" in node.kind.lower()]
    sinks = [i for i in nodes if i not in linked]
    given = set()
    for ends in (saves, previews, sinks, list(nodes)):
        for node_id in _upstream_first(nodes, ends):
            if node_id not in given and _is_sampler(nodes[node_id]):
                given.add(node_id)
                yield node_id


def _upstream_first(nodes: Nodes, ends: list[str]) -> Iterator[str]:
    """Ids in depth-first postorder: the first pass of a picture comes before its upscale or face pass."""
    seen: set[str] = set()
    for end in ends:
        if end in seen:
            continue
        seen.add(end)
        stack = [(end, _picture_sources(nodes, end))]
        while stack:
            node_id, sources = stack[-1]
            source = next((s for s in sources if s not in seen), None)
            if source is None:
                stack.pop()
                yield node_id
            else:
                seen.add(source)
                stack.append((source, _picture_sources(nodes, source)))


def _picture_sources(nodes: Nodes, node_id: str) -> Iterator[str]:
    """Where the picture or latent of a node comes from.

    A sampler's other inputs are not followed: a sampler behind its conditioning or model made a reference
    picture (ControlNet, IPAdapter), not this one.
    """
    node = nodes[node_id]
    is_sampler = _is_sampler(node)
    for name, value in node.inputs.items():
        source = _link(nodes, value)
        if source is not None and not (is_sampler and not re.search("latent|image|samples|pixels", name)):
            yield source


def _is_sampler(node: Node) -> bool:
    names = node.inputs.keys()
    if "guider" in names:
        return True
    if "temperature" in names or not names & _SAMPLER_MARKS:
        return False
    return any(name in _SAMPLER_POSITIVE or _BUNDLE.search(name) for name in names)


def _sampler_inputs(nodes: Nodes, sampler_id: str) -> dict[str, object]:
    """A sampler's inputs, over those of its guider (SamplerCustomAdvanced)."""
    behind = _reach(nodes, sampler_id, re.compile("^(guider|any|value|)$"))
    guiders = islice(behind, 1, 1 + MAX_GUIDER_REACH)
    guider = next((g for g in guiders if g.inputs.keys() & set(_SAMPLER_POSITIVE)), None)
    return {**(guider.inputs if guider else {}), **nodes[sampler_id].inputs}


class _TextSearch:
    """Collects the text behind a link, for one role: "positive" or "negative". Enters each node once."""

    def __init__(self, nodes: Nodes, role: str) -> None:
        self.nodes = nodes
        self.role = role
        self.opposite = "negative" if role == "positive" else "positive"
        self.work_left = MAX_TEXT_WORK
        self.found: dict[str, str] = {}  # by node; "" while we are in it, so that cycles end

    def of_sampler(self, inputs: dict[str, object]) -> str:
        names = _SAMPLER_POSITIVE if self.role == "positive" else _ROLE_NAMES["negative"]
        own = [inputs[name] for name in names if name in inputs]
        bundles = [value for name, value in inputs.items() if _BUNDLE.search(name)]
        texts = (self.find(value) for value in (own[:1] or bundles))
        return next((text for text in texts if text.strip()), "")

    def find(self, value: object, depth: int = 0) -> str:
        if self.work_left <= 0:
            return ""
        text = value if isinstance(value, str) else self._behind(_link(self.nodes, value), depth)
        text = text if len(text) <= MAX_CHARS else ""
        self.work_left -= 1 + len(text) // 100
        return text

    def _behind(self, node_id: str | None, depth: int) -> str:
        if node_id is None or depth >= MAX_DEPTH:
            return ""
        if node_id not in self.found:
            self.found[node_id] = ""
            self.work_left -= len(self.nodes[node_id].inputs)
            self.found[node_id] = self._in_node(self.nodes[node_id], depth + 1)
        return self.found[node_id]

    def _in_node(self, node: Node, depth: int) -> str:
        inputs = node.inputs
        if self.role == "negative" and "zeroout" in node.kind.lower():
            return ""  # the usual "no negative" of Flux and SD3: its text is the positive's
        own = [inputs[name] for name in _ROLE_NAMES[self.role] if name in inputs]
        if own:
            return self.find(own[0], depth)
        conditionings = [value for name, value in inputs.items() if name.lower().startswith("cond")]
        if any(_link(self.nodes, value) for value in conditionings):
            return self._together(conditionings, depth)
        is_encoder = "clip" in inputs
        if not is_encoder and _is_written_by_a_model(self.nodes, node):
            return ""
        texts = self._text_values(inputs)
        if re.search("switch|show|display", node.kind, re.IGNORECASE):
            return next((text for text in (self.find(value, depth) for value in texts) if text.strip()), "")
        if texts:
            return self._together(texts, depth) if is_encoder else self._joined(inputs, texts, depth)
        links = [value for name, value in inputs.items() if name.lower() not in _NO_CONDITIONING]
        return self._together([value for value in links if _link(self.nodes, value)], depth)

    def _text_values(self, inputs: dict[str, object]) -> list[object]:
        """Inputs that hold or link a text, in the node's order."""
        if inputs.get("populated_text"):  # Impact-Pack: the wildcard text as it was filled in
            return [inputs["populated_text"]]
        candidates = {
            name: value
            for name, value in inputs.items()
            if _TEXT_NAME.search(name)
            and not _NOT_TEXT.search(name)
            and self.opposite not in name.lower()
            and (isinstance(value, str) or _link(self.nodes, value))
        }
        choices = [_literal(self.nodes, inputs.get(name)) for name in ("select", "Input", "index")]
        numbers = [str(choice) for choice in choices if isinstance(choice, int)]
        chosen = [value for name, value in candidates.items() if re.sub(r"\D", "", name) in numbers]
        return chosen[:1] or list(candidates.values())

    def _together(self, values: Iterable[object], depth: int) -> str:
        """Texts that act at once (combined conditionings, the encoders of SDXL, SD3 or Flux), each once."""
        texts = dict.fromkeys(self.find(value, depth).strip() for value in values)
        return _fitting("\n", [text for text in texts if text])

    def _joined(self, inputs: dict[str, object], values: list[object], depth: int) -> str:
        """What a string node gives: its only text, or its texts with its delimiter between them."""
        texts = [self.find(value, depth) for value in values]
        between = next((inputs[name] for name in ("delimiter", "separator") if name in inputs), " ")
        separator = self.find(between, depth)
        return _fitting(_SEPARATORS.get(separator, separator), [text for text in texts if text])


def _fitting(separator: str, texts: list[str]) -> str:
    size = sum(map(len, texts)) + len(separator) * (len(texts) - 1)
    return separator.join(texts) if size <= MAX_CHARS else ""


def _is_written_by_a_model(nodes: Nodes, node: Node) -> bool:
    """A captioner or LLM: its inputs are instructions, its output is not in the file."""
    return "temperature" in node.inputs or any(
        _link(nodes, node.inputs.get(name)) for name in ("image", "images")
    )


def _settings(nodes: Nodes, sampler_id: str) -> dict[str, object]:
    settings: dict[str, object] = {}
    for node in _reach(nodes, sampler_id, _OPTION_LINK):
        for name in _OPTIONS:
            value = _literal(nodes, node.inputs.get(name))
            if value is not None:
                settings.setdefault(name, value)
    guidance = _first_literal(nodes, _reach(nodes, sampler_id, re.compile("^(guider|positive|cond.*)$")))
    return {**settings, **guidance, **_models(nodes, sampler_id), **_size(nodes, sampler_id)}


def _first_literal(nodes: Nodes, reached: Iterator[Node]) -> dict[str, object]:
    found = (_literal(nodes, node.inputs.get("guidance")) for node in reached)
    return next(({"guidance": value} for value in found if value is not None), {})


def _models(nodes: Nodes, sampler_id: str) -> dict[str, object]:
    found: dict[str, object] = {}
    loras: list[dict[str, object]] = []
    for node in _reach(nodes, sampler_id, _MODEL_LINK):
        for name in _MODEL_NAMES:
            value = _literal(nodes, node.inputs.get(name))
            if isinstance(value, str):
                found.setdefault(name, value)
        loras += _loras(nodes, node)
    return {**found, "loras": loras} if loras else found


def _loras(nodes: Nodes, node: Node) -> Iterator[dict[str, object]]:
    for name, value in node.inputs.items():
        if isinstance(value, dict) and isinstance(value.get("lora"), str):  # rgthree's Power Lora Loader
            if value.get("on", True):
                yield {"lora_name": value["lora"], "strength_model": value.get("strength")}
        elif name.startswith("lora_name"):
            lora_name, end = _literal(nodes, value), name.removeprefix("lora_name")
            weights = ("strength_model", f"lora_wt{end}", f"model_str{end}", "lora_model_strength")
            strengths = (_literal(nodes, node.inputs.get(weight)) for weight in weights)
            if isinstance(lora_name, str) and lora_name != "None":
                strength = next((s for s in strengths if s is not None), None)
                yield {"lora_name": lora_name, "strength_model": strength}


def _size(nodes: Nodes, sampler_id: str) -> dict[str, object]:
    for node in _reach(nodes, sampler_id, _LATENT_LINK):
        for names in _SIZES:
            width, height = (_literal(nodes, node.inputs.get(name)) for name in names)
            if isinstance(width, int) and isinstance(height, int):
                return {"width": width, "height": height}
    return {}


def _reach(nodes: Nodes, start: str, link_name: re.Pattern[str]) -> Iterator[Node]:
    """`start` and every node behind it over links with such names, nearest first."""
    seen = {start}
    queue = deque([start])
    while queue:
        node = nodes[queue.popleft()]
        yield node
        for name, value in node.inputs.items():
            source = _link(nodes, value)
            if source is not None and source not in seen and link_name.search(name):
                seen.add(source)
                queue.append(source)


def _literal(nodes: Nodes, value: object) -> str | int | float | None:
    """A number or short string, also when it stands in a primitive node behind a link."""
    for _ in range(20):
        if isinstance(value, (int, float, str)):
            return value
        source = _link(nodes, value)
        if source is None:
            return None
        value = nodes[source].handed_on
    return None
