"""Colours as words: the names match what the eye says, and the shares what the picture holds."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from promptglass.colours import NAMES, Colour, palette

SAMPLES = Path(__file__).parent.parent / "samples"


def stripes(*colours: tuple[str, int], height: int = 64) -> Image.Image:
    """Vertical stripes: (hex, width) each."""
    picture = Image.new("RGB", (sum(width for _, width in colours), height))
    left = 0
    for code, width in colours:
        picture.paste(code, (left, 0, left + width, height))
        left += width
    return picture


def names(found: list[Colour]) -> list[str]:
    return [colour.name for colour in found]


def test_one_colour_is_one_name_with_all_of_the_area() -> None:
    assert palette(Image.new("RGB", (50, 30), "#167478")) == [Colour("teal", "#167478", 1.0)]
    assert palette(Image.new("RGB", (1, 1), "#000000"))[0].name == "black"


@pytest.mark.parametrize(("name", "code"), NAMES.items())
def test_every_name_is_what_its_own_colour_is_called(name: str, code: str) -> None:
    assert palette(Image.new("RGB", (4, 4), code)) == [Colour(name, code, 1.0)]


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("#ff0000", "red"),
        ("#0000ff", "blue"),
        ("#00ffff", "cyan"),
        ("#ffff00", "yellow"),
        ("#ff8c00", "orange"),
        ("#ff00ff", "magenta"),
        ("#000080", "navy blue"),
        ("#008080", "teal"),
        ("#228b22", "green"),
        ("#87ceeb", "sky blue"),
        ("#ffc0cb", "pink"),
        ("#f5f5dc", "cream"),
        ("#1d1d1d", "black"),
        ("#757575", "grey"),
        ("#dfdfdf", "off-white"),
    ],
)
def test_well_known_colours_get_their_everyday_name(code: str, name: str) -> None:
    assert names(palette(Image.new("RGB", (4, 4), code))) == [name]


def test_grey_pictures_hold_only_names_without_hue() -> None:
    ramp = np.tile(np.arange(256, dtype=np.uint8), (64, 1))
    neutral = {"black", "charcoal", "dark grey", "grey", "light grey", "off-white", "white"}
    assert set(names(palette(Image.fromarray(ramp), 10))) <= neutral


def test_shares_are_areas_and_fall() -> None:
    found = palette(stripes(("#14301d", 20), ("#f6d92c", 70), ("#d5201f", 10)))
    assert names(found) == ["yellow", "dark green", "red"]
    assert [colour.share for colour in found] == pytest.approx([0.7, 0.2, 0.1], abs=0.001)
    assert [colour.hex for colour in found] == ["#f6d92c", "#14301d", "#d5201f"]


def test_shades_of_one_name_become_one_entry_with_a_hex_between_them() -> None:
    found = palette(stripes(("#147074", 60), ("#187c80", 40)))
    assert names(found) == ["teal"]
    assert found[0].share == 1.0
    assert "#147074" < found[0].hex < "#187c80"


def test_specks_are_left_out() -> None:
    assert names(palette(stripes(("#ffffff", 990), ("#d5201f", 10)))) == ["white"]


def test_small_vivid_colour_keeps_its_place_among_greys() -> None:
    greys = [("#333538", 19), ("#5a5b5d", 19), ("#8a8b8c", 19), ("#c0c1c2", 19), ("#704a2e", 16)]
    found = palette(stripes(*greys, ("#d5201f", 8)), colours=5)
    assert "red" in names(found)
    assert [colour.share for colour in found] == sorted((colour.share for colour in found), reverse=True)


def test_photographs_keep_the_promises_and_answer_the_same_twice() -> None:
    rng = np.random.default_rng(7)
    noise = Image.fromarray(rng.integers(0, 256, (90, 120, 3), dtype=np.uint8))
    for picture in [noise, *(Image.open(path).convert("RGB") for path in sorted(SAMPLES.glob("*.jpg")))]:
        found = palette(picture, 5)
        assert 1 <= len(found) <= 5
        assert sum(colour.share for colour in found) <= 1.0
        assert len(set(names(found))) == len(found)
        assert [colour.share for colour in found] == sorted((colour.share for colour in found), reverse=True)
        assert palette(picture, 5) == found


@pytest.mark.parametrize(
    ("name", "seen"),
    [
        ("cat", {"tan", "brown"}),
        ("coffee", {"rust", "caramel"}),
        ("rocket", {"navy blue", "denim blue"}),
        ("astronaut", {"burnt orange", "black"}),
    ],
)
def test_sample_photos_are_called_what_the_eye_says(name: str, seen: set[str]) -> None:
    assert seen <= set(names(palette(Image.open(SAMPLES / f"{name}.jpg"))))


def test_transparency_counts_as_white() -> None:
    assert names(palette(Image.new("RGBA", (8, 8), (255, 0, 0, 0)))) == ["white"]


def test_a_large_picture_takes_a_moment() -> None:
    picture = Image.effect_noise((4000, 3000), 80).convert("RGB")
    palette(picture)
    start = time.perf_counter()
    palette(picture)
    assert time.perf_counter() - start < 0.5  # about 0.02 s; a busy machine may be slower
