"""The text in a picture, read without a language model.

The models lie in rapidocr's wheel: PP-OCRv6, for Chinese, Japanese and the Latin alphabet. rapidocr would
fetch what it does not find there; it is told which files to use, and so never looks.
"""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from threading import Lock
from typing import TYPE_CHECKING, Any

from .errors import DependencyMissing, ModelError, one_line

if TYPE_CHECKING:
    from PIL import Image

PACKAGES = ("rapidocr", "onnxruntime")

MIN_CONFIDENCE = 0.5  # below it are mostly textures, and alphabets that the models do not know

# rapidocr's own limits let 1 x 2000 pixels grow until memory is full, and fail on 6000 x 40. In larger
# pictures its detector overlooks lone lines: of 60 on 2400 x 1600 it finds 49 at this size, 37 at the full
# one. Each million pixels takes 250 MB.
MAX_PIXELS = 1_500_000
MAX_ASPECT = 200  # a line goes through the model as a whole, however long


@dataclass(frozen=True)
class Line:
    text: str
    confidence: float
    box: tuple[int, int, int, int]  # x, y, width and height, in pixels of the picture


def load_reader() -> Reader:
    missing = [package for package in PACKAGES if importlib.util.find_spec(package) is None]
    if missing:
        raise DependencyMissing("reading text without a language model", *missing)
    return Reader()


def reader_name() -> str:
    """What the reader calls itself, known without loading it; without a version where it is not installed."""
    try:
        return f"rapidocr {metadata.version('rapidocr')}"
    except metadata.PackageNotFoundError:
        return "rapidocr"


class Reader:
    """rapidocr on the CPU. Any thread may call it: one picture at a time is read, with all cores."""

    def __init__(self) -> None:
        self.name = reader_name()
        self._lock = Lock()
        self._engine = self._tried(_load_engine)

    def read(self, image: Image.Image) -> list[Line]:
        """The lines of an RGB picture, from top to bottom, those of a row from left to right."""
        from PIL import Image

        size = _fitting(*image.size)
        seen = image if size == image.size else image.resize(size, Image.Resampling.BICUBIC)
        with self._lock:
            found = self._tried(self._engine, seen)
        texts = getattr(found, "txts", None)
        if not texts:
            return []
        scale = (image.width / size[0], image.height / size[1])
        read = zip(texts, found.scores, found.boxes, strict=True)
        return _in_reading_order(
            [Line(text.strip(), float(score), _box(corners * scale)) for text, score, corners in read]
        )

    def _tried(self, call: Callable[..., Any], *arguments: object) -> Any:
        try:
            return call(*arguments)
        except Exception as error:  # a damaged model, a library that does not fit this computer
            why = one_line(error.__cause__ or error)
            raise ModelError(f"{self.name} failed: {why}. If it always does, install it again.") from error


def _load_engine() -> Any:
    library_path = os.environ.get("LD_LIBRARY_PATH")
    from rapidocr import RapidOCR

    if library_path is None:  # OpenCV changes it for all programs that are started from here
        os.environ.pop("LD_LIBRARY_PATH", None)
    else:
        os.environ["LD_LIBRARY_PATH"] = library_path
    no_limit = 10**9
    return RapidOCR(
        params={
            **_models(),
            "Global.log_level": "error",
            "Global.text_score": MIN_CONFIDENCE,
            "Global.min_side_len": 1,
            "Global.max_side_len": no_limit,
            "Global.width_height_ratio": -1,
            "Det.limit_type": "max",
            "Det.limit_side_len": no_limit,
        }
    )


def _models() -> dict[str, str]:
    """The models that came with the package: others may lie beside them."""
    models = {
        f"{part}.model_path": str(file.locate())
        for part in ("Det", "Cls", "Rec")
        for file in metadata.files("rapidocr") or ()
        if file.suffix == ".onnx" and f"_{part.lower()}_" in file.name
    }
    if len(models) < 3:
        raise FileNotFoundError("it came without its models")
    return models


def _fitting(width: int, height: int) -> tuple[int, int]:
    scale = min(1.0, math.sqrt(MAX_PIXELS / (width * height)))
    width, height = max(1, int(width * scale)), max(1, int(height * scale))
    return min(width, MAX_ASPECT * height), min(height, MAX_ASPECT * width)


def _box(corners: Any) -> tuple[int, int, int, int]:
    """The upright box around four corners."""
    (left, top), (right, bottom) = corners.min(axis=0), corners.max(axis=0)
    return round(left), round(top), round(right - left), round(bottom - top)


def _in_reading_order(lines: list[Line]) -> list[Line]:
    rows: list[list[Line]] = []
    for line in sorted(lines, key=_middle):
        if rows and _beside(line, rows[-1][0]):
            rows[-1].append(line)
        else:
            rows.append([line])
    return [line for row in rows for line in sorted(row, key=lambda line: line.box[0])]


def _beside(line: Line, other: Line) -> bool:
    """The middle of each is at the height of the other: small print beside a headline makes its own rows."""
    return abs(_middle(line) - _middle(other)) < min(line.box[3], other.box[3]) / 2


def _middle(line: Line) -> float:
    return line.box[1] + line.box[3] / 2
