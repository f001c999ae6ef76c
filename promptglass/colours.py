"""The colours of a picture as words for a prompt: a name, a hex and a share for each.

Promises: the same picture gives the same answer; shares fall and never sum to more than one; each name
occurs once. Distances are taken in OKLab (Björn Ottosson, "A perceptual color space for image
processing", 2020, https://bottosson.github.io/posts/oklab/).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image


@dataclass(frozen=True)
class Colour:
    name: str
    hex: str
    share: float  # of the picture's area, 0..1


# Everyday names only, spread so that a step to the next one is a step the eye sees.
NAMES = {
    "black": "#0a0a0b",
    "charcoal": "#333538",
    "dark grey": "#5a5b5d",
    "grey": "#8a8b8c",
    "light grey": "#c0c1c2",
    "off-white": "#e9e7e2",
    "white": "#fdfdfd",
    "cream": "#f6ecd2",
    "beige": "#dccab0",
    "sand": "#c9ac7f",
    "tan": "#b08a62",
    "khaki": "#9d9468",
    "stone grey": "#b7a69c",
    "taupe": "#8b7a6c",
    "brown": "#704a2e",
    "chocolate brown": "#4a2c1c",
    "dark brown": "#291a13",
    "rust": "#9c4221",
    "terracotta": "#b5614a",
    "light brown": "#946b4a",
    "caramel": "#c07c42",
    "maroon": "#651722",
    "dark red": "#8a1418",
    "crimson": "#b3153a",
    "red": "#dd2b2b",
    "orange red": "#dc4e2a",
    "burnt orange": "#dc6d40",
    "coral": "#f67d70",
    "apricot": "#fbae74",
    "peach": "#f8ccb0",
    "blush pink": "#efd2cd",
    "dusty rose": "#b77f80",
    "pink": "#f8afc3",
    "hot pink": "#e83c8e",
    "magenta": "#c21fa0",
    "orange": "#f0831c",
    "amber": "#e5a526",
    "gold": "#c4962f",
    "ochre": "#a0752a",
    "yellow": "#f6d92c",
    "pale yellow": "#f5eb9c",
    "olive": "#6d6a2c",
    "dark olive": "#3a3a1e",
    "lime green": "#98d030",
    "light green": "#98e08e",
    "green": "#319a3d",
    "forest green": "#215c31",
    "dark green": "#14301d",
    "moss green": "#6f8346",
    "sage green": "#9caf8c",
    "mint green": "#b2e4c8",
    "emerald green": "#149766",
    "sea green": "#4f9f88",
    "teal": "#167478",
    "dark teal": "#0d4547",
    "turquoise": "#3ec4bf",
    "cyan": "#27d0ee",
    "sky blue": "#84c1ea",
    "pale blue": "#cfe1ef",
    "powder blue": "#a3bccd",
    "steel blue": "#5382aa",
    "slate grey": "#62717f",
    "blue": "#2459d3",
    "denim blue": "#33507e",
    "navy blue": "#18264f",
    "midnight blue": "#0d1429",
    "indigo": "#4b2c99",
    "violet": "#7d42c4",
    "purple": "#74297f",
    "plum": "#4c2145",
    "lavender": "#b9a8df",
    "lilac": "#d3b4da",
    "mauve": "#94718f",
}

SIDE = 128  # pixels of the longer side after shrinking, at least; more only repeats them
CLUSTERS = 16  # more than anyone asks for: the small ones merge by name
ROUNDS = 12  # of k-means; on photographs the centres stand still by then
LEAST_SHARE = 0.015

# The eye calls a shade by its hue first, so that lightness counts less than the other two axes.
LIGHTNESS_WEIGHT = 0.6

NEUTRALS = ("black", "charcoal", "dark grey", "grey", "light grey", "off-white", "white")
NEUTRAL_CHROMA = 0.014  # in OKLab; the primaries reach 0.25 to 0.32

# A small red motorcycle is what a grey garage is remembered by: where places are few, a vivid colour
# (chroma 0.2) counts three times its area.
ACCENT = 10.0


def palette(image: Image.Image, colours: int = 6) -> list[Colour]:
    """The dominant colours, largest share first, at most `colours` of them."""
    import numpy as np

    oklab, counts = _histogram(image)
    nearest = _cluster(oklab, counts)
    found: dict[str, tuple[float, np.ndarray]] = {}  # name -> pixels, sum of their OKLab
    for cluster in np.unique(nearest):
        members = nearest == cluster
        pixels, total = float(counts[members].sum()), counts[members] @ oklab[members]
        name = _name(total / pixels)
        if name in found:
            pixels, total = found[name][0] + pixels, found[name][1] + total
        found[name] = pixels, total
    # Rounded down, so that the shares never sum to more than one.
    shares = {name: int(10_000 * pixels / counts.sum()) / 10_000 for name, (pixels, _) in found.items()}
    kept = [name for name in found if shares[name] >= LEAST_SHARE]
    means = {name: found[name][1] / found[name][0] for name in kept}
    kept.sort(key=lambda name: (-shares[name] * (1 + ACCENT * _chroma(means[name])), name))
    kept = sorted(kept[:colours], key=lambda name: (-shares[name], name))
    return [Colour(name, _hex(means[name]), shares[name]) for name in kept]


def _histogram(image: Image.Image) -> tuple[np.ndarray, np.ndarray]:
    """The picture's colours at 5 bits a channel: mean OKLab [n, 3] and pixels [n] of each."""
    import numpy as np

    from .images import to_rgb

    upright = image if image.mode == "RGB" else to_rgb(image)
    # reduce() averages whole blocks: no ringing, so no colour that is not there.
    rgb = np.asarray(upright.reduce(max(1, max(upright.size) // SIDE))).reshape(-1, 3)
    cells = (rgb >> 3).astype(np.int64) @ np.array([1024, 32, 1])
    sums = np.stack([np.bincount(cells, rgb[:, channel], 32768) for channel in range(3)], axis=1)
    counts = np.bincount(cells, minlength=32768).astype(np.float64)
    used = counts > 0
    return _oklab(sums[used] / counts[used, None]), counts[used]


def _cluster(oklab: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Weighted k-means without chance: the cluster [n] of each colour [n, 3]."""
    import numpy as np

    # k-means++ with its most likely draw: the next centre is where most weight lies farthest away.
    centres = oklab[[counts.argmax()]]
    distances = _squared_distances(oklab, centres)[:, 0]
    while len(centres) < CLUSTERS and distances.max() > 1e-4:
        centres = np.vstack([centres, oklab[(distances * counts).argmax()]])
        distances = np.minimum(distances, _squared_distances(oklab, centres[-1:])[:, 0])
    for _ in range(ROUNDS):
        nearest = _squared_distances(oklab, centres).argmin(axis=1)
        weights = np.bincount(nearest, counts, len(centres))
        sums = np.stack([np.bincount(nearest, counts * axis, len(centres)) for axis in oklab.T], axis=1)
        centres = np.where(weights[:, None] > 0, sums / np.maximum(weights, 1)[:, None], centres)
    return nearest


def _squared_distances(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    differences = left[:, None, :] - right[None, :, :]  # [n, m, 3]
    return (differences**2).sum(axis=2)


def _name(oklab: np.ndarray) -> str:
    import numpy as np

    names = list(NAMES)
    weights = np.array([LIGHTNESS_WEIGHT, 1.0, 1.0])
    distances = _squared_distances(oklab[None] * weights, _named_oklab() * weights)[0]
    if _chroma(oklab) < NEUTRAL_CHROMA:  # what has no hue must not be called by one
        distances[[name not in NEUTRALS for name in names]] = np.inf
    return names[int(distances.argmin())]


def _chroma(oklab: np.ndarray) -> float:
    return float((oklab[1] ** 2 + oklab[2] ** 2) ** 0.5)


@functools.lru_cache(maxsize=1)
def _named_oklab() -> np.ndarray:
    import numpy as np

    return _oklab(np.array([list(bytes.fromhex(code[1:])) for code in NAMES.values()], dtype=float))


def _oklab(rgb: np.ndarray) -> np.ndarray:
    """sRGB 0..255 [n, 3] to OKLab [n, 3]; matrices from Ottosson 2020."""
    import numpy as np

    encoded = rgb / 255.0
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    return np.cbrt(linear @ np.array(_RGB_TO_LMS).T) @ np.array(_LMS_TO_LAB).T


def _hex(oklab: np.ndarray) -> str:
    import numpy as np

    lms = np.linalg.solve(np.array(_LMS_TO_LAB), oklab) ** 3
    linear = np.clip(np.linalg.solve(np.array(_RGB_TO_LMS), lms), 0, 1)
    encoded = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return "#{:02x}{:02x}{:02x}".format(*np.rint(encoded * 255).astype(int))


_RGB_TO_LMS = (
    (0.4122214708, 0.5363325363, 0.0514459929),
    (0.2119034982, 0.6806995451, 0.1073969566),
    (0.0883024619, 0.2817188376, 0.6299787005),
)
_LMS_TO_LAB = (
    (0.2104542553, 0.7936177850, -0.0040720468),
    (1.9779984951, -2.4285922050, 0.4505937099),
    (0.0259040371, 0.7827717662, -0.8086757660),
)
