"""Ranking: the true best, in a stable order."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from promptglass.clip.ranking import top, top_of_chunks

few_values = st.lists(st.integers(-3, 3).map(float), max_size=80)


@given(scores=few_values, count=st.integers(0, 90))
def test_top_is_the_stable_sort(scores: list[float], count: int) -> None:
    expected = sorted(range(len(scores)), key=lambda i: -scores[i])[:count]
    assert top(torch.tensor(scores), count).tolist() == expected


@given(scores=st.lists(st.floats(-1, 1, width=32), min_size=200, max_size=600), count=st.integers(1, 300))
def test_top_of_many_is_the_stable_sort(scores: list[float], count: int) -> None:
    expected = sorted(range(len(scores)), key=lambda i: -scores[i])[:count]
    assert top(torch.tensor(scores), count).tolist() == expected


def test_top_where_every_sixteenth_score_is_high() -> None:
    """The sample that guesses the threshold sees nothing but the best."""
    scores = torch.zeros(4096)
    scores[::16] = torch.linspace(1, 2, 256)
    assert top(scores, 300).tolist() == [*range(4080, -1, -16), *[i for i in range(48) if i % 16][:44]]


@given(scores=few_values, count=st.integers(0, 90), chunk=st.integers(4, 30))
def test_chunks_keep_their_share(scores: list[float], count: int, chunk: int) -> None:
    chunks = -(-len(scores) // chunk)
    if chunks <= 1:
        expected = sorted(range(len(scores)), key=lambda i: -scores[i])[:count]
    else:
        kept: list[int] = []
        for start in range(0, len(scores), chunk):
            within = range(start, min(start + chunk, len(scores)))
            kept += sorted(within, key=lambda i: -scores[i])[: chunk // chunks]
        expected = sorted(kept, key=lambda i: -scores[i])[:count]
    assert top_of_chunks(torch.tensor(scores), count, chunk).tolist() == expected
