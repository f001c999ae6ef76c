"""The self-test: sides that belong together pass it, unrelated ones do not, whatever their geometry."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from conftest import tiny_open_clip, tiny_preprocess

from promptglass.clip.self_test import LEAST_MARGIN, PAIRS, check, self_test
from promptglass.errors import ModelError


class Features:
    """An encoder that knows the features of the test's drawings and captions, and nothing else."""

    name = "clip_l"

    def __init__(self, of_pictures: torch.Tensor, of_texts: torch.Tensor) -> None:
        self._of_pictures, self._of_texts = of_pictures, of_texts

    def encode_images(self, images: Any) -> torch.Tensor:
        assert len(images) == len(PAIRS)
        return torch.nn.functional.normalize(self._of_pictures, dim=-1)

    def encode_texts(self, texts: Any) -> torch.Tensor:
        assert list(texts) == [pair.caption for pair in PAIRS]
        return torch.nn.functional.normalize(self._of_texts, dim=-1)


@pytest.fixture(scope="module")
def sides() -> tuple[torch.Tensor, torch.Tensor]:
    """What 40 models of random weights make of drawings and captions: [40, n, d] each."""
    import open_clip

    ids = open_clip.get_tokenizer("ViT-L-14")([pair.caption for pair in PAIRS])
    pixels = torch.stack([tiny_preprocess(pair.draw()) for pair in PAIRS])
    seen, read = [], []
    with torch.no_grad():
        for seed in range(40):
            model = tiny_open_clip(seed)
            seen.append(model.encode_image(pixels))
            read.append(model.encode_text(ids))
    return torch.stack(seen), torch.stack(read)


def noisy(features: torch.Tensor, noise: float, seed: int) -> torch.Tensor:
    """Features that still say what others do, under so many times as much that they say alone."""
    centred = features - features.mean(0)
    drawn = torch.randn(features.shape, generator=torch.Generator().manual_seed(seed))
    return centred + drawn * (noise * centred.square().mean()) ** 0.5 + 5 * drawn[0]


def test_drawings_and_captions_differ_from_each_other() -> None:
    pictures = {np.asarray(pair.draw()).tobytes() for pair in PAIRS}
    assert len(pictures) == len({pair.caption for pair in PAIRS}) == len(PAIRS) == 16
    assert all(pair.draw().mode == "RGB" and pair.draw().size == (224, 224) for pair in PAIRS)


def test_drawings_show_what_the_captions_say() -> None:
    def dark_share(caption: str) -> float:
        (pair,) = (pair for pair in PAIRS if caption in pair.caption)
        return float((np.asarray(pair.draw().convert("L")) < 128).mean())

    red = next(pair for pair in PAIRS if pair.caption == "a plain red image").draw()
    assert red.getcolors() == [(224 * 224, (255, 0, 0))]
    assert dark_share("stripes") == dark_share("checkerboard") == 0.5
    assert dark_share("circle") == pytest.approx(math.pi * 80**2 / 224**2, rel=0.03)
    assert 0.1 < dark_share("dots") < 0.3 and 0.1 < dark_share("star") < dark_share("square")


@pytest.mark.long
def test_unrelated_sides_hardly_ever_pass(sides) -> None:
    """All 1,600 pairs of 40 picture sides and 40 text sides: half have a positive mean margin."""
    seen, read = sides
    margins = torch.tensor([self_test(Features(a, b)) for a in seen for b in read])
    assert abs(margins.mean()) < 0.5 and 0.8 < margins.std() < 1.4
    assert (margins > 0).float().mean() > 0.3
    assert (margins >= LEAST_MARGIN).float().mean() < 0.02


@pytest.mark.long
def test_a_geometry_that_both_sides_share_does_not_help_unrelated_ones(sides) -> None:
    """Coloured or not outweighs all else on both sides: chance has to get one sign right, and no more.

    Without evening out the directions, one in seven of these passes.
    """
    is_coloured = torch.tensor([1.0 if pair.caption.startswith("a plain") else -1.0 for pair in PAIRS])
    seen = sides[0][0] - sides[0][0].mean(0)
    seen = torch.cat(
        [seen / seen.norm(), 1.5 * torch.nn.functional.normalize(is_coloured, dim=0)[:, None]], 1
    )
    seen = torch.nn.functional.pad(seen, (0, 200))
    generator = torch.Generator().manual_seed(0)
    margins = []
    for _ in range(400):
        turn, signs = torch.linalg.qr(torch.randn(len(seen.T), len(seen.T), generator=generator))
        margins.append(self_test(Features(seen, seen @ (turn * signs.diagonal().sign()))))
    assert (torch.tensor(margins) >= LEAST_MARGIN).float().mean() < 0.02


@pytest.mark.parametrize("noise", [0.0, 1.0, 4.0])
def test_sides_that_belong_together_pass_clearly(sides, noise: float) -> None:
    margins = [self_test(Features(seen, noisy(seen, noise, seed))) for seed, seen in enumerate(sides[0])]
    assert min(margins) > LEAST_MARGIN and np.mean(margins) > 1.5 * LEAST_MARGIN


def test_captions_of_other_drawings_and_a_mirrored_space_do_not_pass(sides) -> None:
    seen = sides[0][0]
    assert self_test(Features(seen, seen)) > LEAST_MARGIN
    assert self_test(Features(seen, seen.roll(5, 0))) < 1
    assert self_test(Features(seen, seen.mean(0) * 3 - seen)) < -LEAST_MARGIN


def test_a_fitted_projection_passes_by_far_more_than_the_same_transposed(sides) -> None:
    seen, read = sides[0][0], sides[1][1]
    wanted = torch.nn.functional.normalize(seen, dim=-1) - torch.nn.functional.normalize(seen, dim=-1).mean(0)
    projection = torch.linalg.lstsq(read, wanted, driver="gelsd").solution
    check(Features(seen, read @ projection))
    assert self_test(Features(seen, read @ projection)) > 3 * self_test(Features(seen, read @ projection.T))


def test_a_real_encoder_of_random_weights_is_refused(encoder) -> None:
    with pytest.raises(ModelError, match="pictures and texts do not belong together: ") as caught:
        check(encoder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("value", [0.0, 1.0, math.nan, math.inf])
def test_features_that_say_nothing_are_refused(sides, value: float) -> None:
    seen = sides[0][0]
    blank = torch.full_like(seen, value)
    for pair in ((seen, blank), (blank, seen), (blank, blank)):
        with pytest.raises(ModelError, match="do not belong together"):
            check(Features(*pair))


def test_other_widths_are_refused(sides) -> None:
    with pytest.raises(ModelError, match="48 numbers for a picture, 32 for a text"):
        check(Features(sides[0][0], sides[1][0][:, :32]))
