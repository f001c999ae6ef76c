"""The models promptglass knows, where their files lie, and how they get here.

Promises: `find`, `local_path` and `listing` never touch the network. `get` fetches what it announced and
nothing else, goes on where an interrupted run stopped, and puts a file under its final name only when it is
whole. Everything that can go wrong with a hub becomes one WeightsMissing that says what to do.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from . import hub
from .errors import ModelError, WeightsMissing
from .folders import cache_folder


@dataclass(frozen=True)
class Weights:
    """A model's files on the hub.

    An entry of `files` is a name or pattern at the top of the repository; `a|b` is the first of them that is
    there, and an empty last alternative (`a|`) makes it optional. The weights come first.
    """

    name: str  # what the user types
    kind: str  # "clip", "caption", "tags" or "projection"
    repo: str
    files: tuple[str, ...]
    size_bytes: int  # of what `get` fetches; 0 when not known before asking the hub
    licence: str


_OPEN_CLIP = ("open_clip_model.safetensors|open_clip_pytorch_model.bin",)
_TOKENIZER = (
    "tokenizer.json|vocab.json|vocab.txt",
    "tokenizer_config.json|",
    "special_tokens_map.json|",
    "added_tokens.json|",
    "vocab.json|vocab.txt|",
    "merges.txt|",
    "*.model|",  # sentencepiece
)
_TRANSFORMERS = (
    "model.safetensors|model-*-of-*.safetensors|pytorch_model.bin|pytorch_model-*-of-*.bin",
    "config.json",
    "preprocessor_config.json|processor_config.json",
    "model.safetensors.index.json|pytorch_model.bin.index.json|",
    "processor_config.json|",
    "generation_config.json|",
    *_TOKENIZER,
)
_SIGLIP = (*_OPEN_CLIP, *_TOKENIZER)
_FILE_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".onnx")
_WD14 = ("model.onnx", "selected_tags.csv")

_NEEDS_NO_HUB = "the modes embedded, palette and tags (with the starter extra) need no hub"

# Sizes: parameters times four bytes for CLIP, the hub's rounded figures for the rest; all within a few
# percent. `get` announces the exact number, which it asks the hub for.
KNOWN: tuple[Weights, ...] = (
    *(
        Weights(name, "clip", repo, files, size_bytes, licence)
        for name, repo, files, size_bytes, licence in (
            ("ViT-L-14/openai", "timm/vit_large_patch14_clip_224.openai", _OPEN_CLIP, 1_710_500_000, "MIT"),
            ("ViT-B-32/openai", "timm/vit_base_patch32_clip_224.openai", _OPEN_CLIP, 605_200_000, "MIT"),
            ("ViT-B-16/openai", "timm/vit_base_patch16_clip_224.openai", _OPEN_CLIP, 598_500_000, "MIT"),
            (
                "ViT-L-14-336/openai",
                "timm/vit_large_patch14_clip_336.openai",
                _OPEN_CLIP,
                1_711_800_000,
                "MIT",
            ),
            (
                "ViT-H-14/laion2b_s32b_b79k",
                "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
                _OPEN_CLIP,
                3_944_500_000,
                "MIT",
            ),
            (
                "ViT-bigG-14/laion2b_s39b_b160k",
                "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k",
                _OPEN_CLIP,
                10_158_300_000,
                "MIT",
            ),
            ("ViT-B-16-SigLIP/webli", "timm/ViT-B-16-SigLIP", _SIGLIP, 815_000_000, "Apache-2.0"),
        )
    ),
    *(
        Weights(repo, "clip", repo, _TRANSFORMERS, size_bytes, "MIT")
        for repo, size_bytes in (
            ("openai/clip-vit-base-patch32", 608_900_000),
            ("openai/clip-vit-base-patch16", 602_300_000),
            ("openai/clip-vit-large-patch14", 1_714_300_000),
            ("openai/clip-vit-large-patch14-336", 1_715_600_000),
        )
    ),
    *(
        Weights(name, "caption", repo, _TRANSFORMERS, size_bytes, licence)
        for name, repo, size_bytes, licence in (
            ("blip-base", "Salesforce/blip-image-captioning-base", 990_700_000, "BSD-3-Clause"),
            ("blip-large", "Salesforce/blip-image-captioning-large", 1_880_000_000, "BSD-3-Clause"),
            # Its language model, OPT, is under Meta's own research licence.
            ("blip2-2.7b", "Salesforce/blip2-opt-2.7b", 15_000_000_000, "MIT, OPT: research only"),
            ("blip2-flan-t5-xl", "Salesforce/blip2-flan-t5-xl", 15_800_000_000, "MIT"),
            ("git-large-coco", "microsoft/git-large-coco", 1_580_000_000, "MIT"),
        )
    ),
    *(
        Weights(repo, "tags", repo, _WD14, size_bytes, "Apache-2.0")
        for repo, size_bytes in (
            ("SmilingWolf/wd-vit-tagger-v3", 378_900_000),
            ("SmilingWolf/wd-swinv2-tagger-v3", 467_200_000),
            ("SmilingWolf/wd-eva02-large-tagger-v3", 1_260_800_000),
        )
    ),
)

# One tensor each, which `get` takes out of the model's file: the rest of a CLIP, its host may have.
PROJECTIONS: tuple[Weights, ...] = tuple(
    Weights(f"projection:{architecture}", "projection", repo, ("text_projection.safetensors",), size, "MIT")
    for architecture, repo, size in (
        ("ViT-L-14", "openai/clip-vit-large-patch14", 768 * 768 * 4),
        ("ViT-H-14", "laion/CLIP-ViT-H-14-laion2B-s32B-b79K", 1024 * 1024 * 4),
        ("ViT-bigG-14", "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k", 1280 * 1280 * 4),
    )
)


def find(name: str) -> Weights | None:
    """A known model by its name, its repository, or a short form that only one model answers to."""
    exact = [weights for weights in (*KNOWN, *PROJECTIONS) if weights.name == name]
    matches = exact or [weights for weights in (*KNOWN, *PROJECTIONS) if _plain(name) in _aliases(weights)]
    return matches[0] if len(matches) == 1 else None


def resolve(name: str) -> Weights:
    """Any model that can be fetched: a known one, an open_clip "ARCH/TAG", or a hub repository."""
    weights = find(name) or _from_open_clip(name)
    if weights:
        return weights
    is_repository = re.fullmatch(r"\w[\w.-]*/[\w.-]+", name) and Path(name).suffix not in _FILE_SUFFIXES
    if not is_repository:
        raise _unknown(name)
    is_tagger = name.lower().startswith("smilingwolf/")
    files = _WD14 if is_tagger else _TRANSFORMERS
    return Weights(name, "tags" if is_tagger else "clip", name, files, 0, "see its model card")


def listing() -> list[tuple[Weights, Path | None]]:
    """Every known model and where it lies."""
    return [(weights, local_path(weights)) for weights in (*KNOWN, *PROJECTIONS)]


def listing_as_json() -> list[dict[str, object]]:
    """The same for those who get it over a wire, each with the command that fetches it."""
    from .program import command

    return [
        {
            "name": known.name,
            "kind": known.kind,
            "here": folder is not None,
            "command": command(f"models get {known.name}"),
        }
        for known, folder in listing()
    ]


def local_path(name_or_weights: str | Weights) -> Path | None:
    """Where a model lies: the folder with its files, the path the user gave, or None."""
    if isinstance(name_or_weights, str):
        known = find(name_or_weights)
        given = None if known else _given_path(name_or_weights)
        if given:
            return given
        try:
            name_or_weights = known or resolve(name_or_weights)
        except WeightsMissing:
            return None
    folders = [drop_folder(name_or_weights), *hub.snapshots(name_or_weights.repo)]
    return next((folder for folder in folders if files_in(folder, name_or_weights)), None)


def files_in(folder: Path, weights: Weights) -> list[Path]:
    """The model's files in a folder, the weights first; empty when something is missing."""
    if not folder.is_dir():
        return []
    try:
        names = _choose(weights.files, [path.name for path in folder.iterdir() if path.is_file()])
    except FileNotFoundError:
        return []
    return [folder / name for name in names]


def drop_folder(weights: Weights) -> Path:
    """Where a person can put a model's files by hand, in no layout but their names."""
    models = os.environ.get("PROMPTGLASS_MODELS")
    return (Path(models).expanduser() if models else cache_folder("models")) / weights.repo.replace("/", "--")


def get(name: str, progress: bool = True) -> Path:
    """The folder with a model's files, fetched if they are not here yet.

    Interrupted, it leaves partial files in the cache that the next call continues.
    """
    here = local_path(name)
    if here:
        return here
    weights = resolve(name)
    if hub.is_offline():
        raise missing(weights, "HF_HUB_OFFLINE is set")

    def weights_last(names: list[str]) -> list[str]:
        # A killed download then never leaves a folder that has the weights but lacks, say, a tokenizer.
        return _choose(weights.files, names)[::-1]

    try:
        if weights.kind == "projection":
            from .clip import projections  # needs torch

            return projections.fetch(weights, progress)
        return hub.fetch(weights.repo, weights_last, weights.name, progress)
    except WeightsMissing:
        raise
    # What a broken network raises differs between huggingface_hub 0.x (requests) and 1.x and later (httpx).
    except Exception as error:
        raise missing(weights, hub.reason(error)) from error


def ready(name: str, kind: str) -> Path:
    """Where a model of a kind lies, fetched if it is not here yet.

    Raises ModelError for a known model of another kind, before anything is fetched.
    """
    known = find(name)
    if known is not None and known.kind != kind:
        fitting = ", ".join(weights.name for weights in KNOWN if weights.kind == kind)
        raise ModelError(f"{known.name} is for {known.kind}, not for {kind}: choose from {fitting}, …")
    return local_path(name) or get(name)


def missing(weights: Weights, reason: str) -> WeightsMissing:
    """The one message about weights that are not here: which, why, where we looked, three ways out."""
    required = [spec.partition("|")[0] for spec in weights.files if not spec.endswith("|")]
    point = {"clip": "`--model PATH`", "projection": whole_model(weights)}
    path = point.get(weights.kind, "a path in place of the name")
    here = [other.name for other, folder in listing() if folder and other.kind == weights.kind]
    others = f"{', '.join(here)} is here" if here else _NEEDS_NO_HUB
    instead = "" if weights.kind == "projection" else f" Use another: {others}."
    alike = "" if weights in (*KNOWN, *PROJECTIONS) else _did_you_mean(weights.name)
    return WeightsMissing(
        f"no weights for {weights.name}: {reason}.{alike} "
        f"Looked in {hub.cache_folder()}; its source is {hub.shown_endpoint()}/{weights.repo}. "
        f"Get them: `promptglass models get {weights.name}` when online, or set HF_ENDPOINT to a mirror. "
        f"Point to them: {path}, or copy {', '.join(required)} to {drop_folder(weights)}.{instead}"
    )


def whole_model(projection: Weights) -> str:
    """What to do where a projection alone cannot be had: ComfyUI loads the file that it is part of."""
    file = f"{projection.repo.partition('/')[2]}.safetensors"
    return f"put {file} (the whole of {projection.repo}) into ComfyUI's models/clip_vision"


def _plain(name: str) -> str:
    return re.sub(r"[/_ ]", "-", name.strip().lower())


def _aliases(weights: Weights) -> set[str]:
    if weights.kind == "projection":  # the repository's name means the model
        return {_plain(weights.name)}
    spellings = [weights.name, weights.repo, weights.repo.partition("/")[2]]
    if weights.name != weights.repo:
        spellings.append(weights.name.partition("/")[0])  # the architecture alone
    return {_plain(spelling) for spelling in spellings}


def _from_open_clip(name: str) -> Weights | None:
    arch, _, tag = name.partition("/")
    try:
        import open_clip
        from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model
    except ImportError:
        return None
    if not tag or arch not in open_clip.list_models():
        return None
    pretrained = get_pretrained_cfg(arch, tag)
    if not pretrained:
        raise _unknown(name, [f"{arch}/{tag}" for tag in list_pretrained_tags_by_model(arch)])
    if not pretrained.get("hf_hub"):
        raise WeightsMissing(
            f"no weights for {name}: this open_clip knows them only at {pretrained['url']}, not on a hub. "
            f"Download that file and use `--model {arch}/PATH`, or update open_clip."
        )
    repo, _, file = pretrained["hf_hub"].rpartition("/")
    tokenizer = open_clip.get_model_config(arch)["text_cfg"].get("hf_tokenizer_name")
    files = ((file,) if file else _OPEN_CLIP) + (_TOKENIZER if tokenizer == repo else ())
    return Weights(name, "clip", repo, files, 0, "see its model card")


def _unknown(name: str, tags: Iterable[str] = ()) -> WeightsMissing:
    shown = " ".join(name.split())[:60] or "(an empty name)"
    return WeightsMissing(
        f"no model and no file is called {shown}.{_did_you_mean(name, tags)} "
        "`promptglass models` lists the known ones; a hub repository ORG/NAME and a local path work too."
    )


def _did_you_mean(name: str, tags: Iterable[str] = ()) -> str:
    by_spelling = {alias: known.name for known in (*KNOWN, *PROJECTIONS) for alias in _aliases(known)}
    by_spelling = {_plain(tag): tag for tag in tags} or by_spelling
    near = difflib.get_close_matches(_plain(name), by_spelling, n=3, cutoff=0.55)
    names = dict.fromkeys(by_spelling[spelling] for spelling in near)
    return f" Did you mean {' or '.join(names)}?" if names else ""


def _given_path(name: str) -> Path | None:
    """A file or folder of the user's: PATH, or ARCH/PATH where the file does not say its architecture."""
    # Not Path.exists: it raises on a text that no file can be called, such as a prompt.
    path = os.path.expanduser(name)  # noqa: PTH111
    if name.strip() and os.path.exists(path):  # noqa: PTH110
        return Path(path)
    rest = os.path.expanduser(name.partition("/")[2])  # noqa: PTH111
    return Path(rest) if rest.endswith(_FILE_SUFFIXES) and os.path.isfile(rest) else None  # noqa: PTH113


def _choose(specs: tuple[str, ...], names: list[str]) -> list[str]:
    """The names that the entries of `Weights.files` mean, in their order, each once."""
    chosen: dict[str, None] = {}
    for spec in specs:
        found = next((match for pattern in spec.split("|") if (match := _matches(pattern, names))), [])
        if not found and not spec.endswith("|"):
            raise FileNotFoundError(f"it holds no {spec.replace('|', ' or ')}")
        chosen |= dict.fromkeys(found)
    return list(chosen)


def _matches(pattern: str, names: list[str]) -> list[str]:
    found = sorted(name for name in names if fnmatchcase(name, pattern) and "/" not in name)
    shards = re.search(r"-of-(\d+)\.", found[0]) if found and "-of-" in pattern else None
    return [] if shards and len(found) != int(shards[1]) else found
