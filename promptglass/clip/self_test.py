"""Whether a picture side and a text side belong together: sixteen drawings, and a caption for each.

Equal widths prove nothing: with another model's projection, a transposed one, or one that the memory held,
features have the right shape and mean nothing. `self_test` says how far the drawings stand by their own
captions, in standard deviations of what chance gives; below LEAST_MARGIN the two do not belong together.

Measured: of 20,000 unrelated pairs (300 tiny CLIPs of random weights, picture sides crossed with text
sides) 50 % have own captions closer than the others on average, 0.7 % reach LEAST_MARGIN; of
pairs made up to be hard (both sides have one geometry, in which one direction outweighs all others;
only the rotation between them is random) up to 1.4 %. A pair that agrees about one thing alone, as
coloured or not, may pass. Not measured: the margin of real CLIP weights, which the machines that build this
do not have. With a trained classifier's features for the pictures, and the same under up to eight times as
much noise for the texts, it was 5 to 12.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from PIL import Image, ImageDraw

from ..errors import ModelError
from .encoder import JointEncoder

# A wrong refusal would shut every way through the host's models, so less is asked than could be.
LEAST_MARGIN = 2.5
_SIDE = 224  # pixels
_ROUNDING = 1e-9  # what single precision leaves of a direction in which features do not differ, squared


@dataclass(frozen=True)
class Pair:
    caption: str
    draw: Callable[[], Image.Image]


def check(encoder: JointEncoder) -> None:
    """Raises ModelError where pictures and texts do not belong together."""
    margin = self_test(encoder)
    if not margin >= LEAST_MARGIN:  # nor where it is no number
        raise ModelError(
            "pictures and texts do not belong together: test drawings are no closer to their own captions "
            f"than chance has it (margin {margin:.1f} of {LEAST_MARGIN})"
        )


def self_test(encoder: JointEncoder) -> float:
    """The margin: about 0 +- 1 for sides that are unrelated.

    Costs sixteen pictures and texts: half a minute with ViT-L on one CPU core. NaN where features are.
    """
    image_features = encoder.encode_images([pair.draw() for pair in PAIRS]).double().cpu()
    text_features = encoder.encode_texts([pair.caption for pair in PAIRS]).double().cpu()
    if image_features.shape != text_features.shape:
        widths = f"{image_features.shape[-1]} numbers for a picture, {text_features.shape[-1]} for a text"
        raise ModelError(f"{encoder.name}: pictures and texts do not belong together: {widths}")
    if not (image_features.isfinite().all() and text_features.isfinite().all()):
        return math.nan
    return _margin(image_features, text_features)


def _margin(image_features: torch.Tensor, text_features: torch.Tensor) -> float:
    """The centred cosines of own captions, summed, in standard deviations of that sum for captions at random.

    Its variance is sum(cosines**2) / (n - 1) (Hoeffding 1951), whatever a model's cosines are like. Centring
    by row and by column does not change what tells right from wrong: it gives this scale.
    """
    cosines = _evened(image_features) @ _evened(text_features).T  # [n, n], rows and columns have mean 0
    deviation = (cosines.square().sum() / (len(cosines) - 1)).sqrt()
    return float(cosines.trace() / deviation) if deviation > 0 else 0.0


def _evened(features: torch.Tensor) -> torch.Tensor:
    """What tells the items apart [n, d]: centred, and no direction stronger than 1.

    "Is it coloured?" may be most of what separates the drawings, and the captions too. As it is, an unrelated
    pair would then pass by getting one sign right.
    """
    left, strengths, directions = torch.linalg.svd(features - features.mean(0), full_matrices=False)
    power = strengths.square()
    # What is weaker than most, hence noise, stays weak. The median: one direction may outweigh all others.
    ridge = power.median().clamp_min(_ROUNDING)
    return (left * (power / (power + ridge)).sqrt()) @ directions


def _plain(name: str, colour: str) -> Pair:
    return Pair(f"a plain {name} image", partial(Image.new, "RGB", (_SIDE, _SIDE), colour))


def _black_on_white(caption: str, paint: Callable[[ImageDraw.ImageDraw], object]) -> Pair:
    def draw() -> Image.Image:
        picture = Image.new("RGB", (_SIDE, _SIDE), "white")
        paint(ImageDraw.Draw(picture))
        return picture

    return Pair(caption, draw)


def _stripes(canvas: ImageDraw.ImageDraw) -> None:
    for top in range(0, _SIDE, 32):
        canvas.rectangle((0, top, _SIDE, top + 15), fill="black")


def _checkerboard(canvas: ImageDraw.ImageDraw) -> None:
    for top in range(0, _SIDE, 28):
        for left in range(top % 56, _SIDE, 56):
            canvas.rectangle((left, top, left + 27, top + 27), fill="black")


def _dots(canvas: ImageDraw.ImageDraw) -> None:
    for top in range(14, _SIDE, 56):
        for left in range(14, _SIDE, 56):
            canvas.ellipse((left, top, left + 28, top + 28), fill="black")


def _star(canvas: ImageDraw.ImageDraw) -> None:
    tips = ((90 if k % 2 == 0 else 36, k * math.pi / 5) for k in range(10))
    canvas.polygon([(112 + r * math.sin(turn), 112 - r * math.cos(turn)) for r, turn in tips], fill="black")


def _cross(canvas: ImageDraw.ImageDraw) -> None:
    canvas.rectangle((92, 24, 132, 200), fill="black")
    canvas.rectangle((24, 92, 200, 132), fill="black")


# What any CLIP tells apart: colours, patterns, shapes.
PAIRS: tuple[Pair, ...] = (
    _plain("red", "red"),
    _plain("green", "green"),
    _plain("blue", "blue"),
    _plain("yellow", "yellow"),
    _plain("orange", "orange"),
    _plain("purple", "purple"),
    _plain("pink", "pink"),
    _plain("brown", "saddlebrown"),
    _black_on_white("black and white stripes", _stripes),
    _black_on_white("a black and white checkerboard", _checkerboard),
    _black_on_white("black polka dots on white", _dots),
    _black_on_white("a black circle on white", lambda c: c.ellipse((32, 32, 192, 192), fill="black")),
    _black_on_white("a black square on white", lambda c: c.rectangle((42, 42, 182, 182), fill="black")),
    _black_on_white(
        "a black triangle on white", lambda c: c.polygon(((112, 30), (200, 186), (24, 186)), fill="black")
    ),
    _black_on_white("a black star on white", _star),
    _black_on_white("a black cross on white", _cross),
)
