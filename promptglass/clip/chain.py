"""Prompts that grow label by label, each the one that brings them closest to their picture.

The chains of several pictures grow in step, each exactly as it would alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from ..progress import Progress
from .ranking import cosines

if TYPE_CHECKING:
    from .encoder import JointEncoder


class Chain:
    """One prompt that grows towards its picture (the reference's `chain`), or away from it.

    image_features [d]; score: the cosine of the prompt it starts from; least: grow away.
    `best` is the closest prompt so far and `best_score` its cosine.
    """

    def __init__(
        self,
        image_features: torch.Tensor,
        pool: Sequence[str],
        prompt: str,
        score: float,
        least: bool = False,
    ) -> None:
        self.prompt = self.best = prompt
        self.best_score = score
        self.labels = list(dict.fromkeys(pool))  # those it may still take
        self._image_features = image_features
        self._least = least
        self._score = score

    def take_best(self, features: torch.Tensor) -> bool:
        """Grow by one label, by the features [labels, d] of the prompt with each. Whether that helped."""
        scores = cosines(features, self._image_features)
        winner = int(scores.argmin() if self._least else scores.argmax())  # of equal scores the first
        score = scores[winner].item()
        self.prompt = f"{self.prompt}, {self.labels.pop(winner)}"
        if self._is_better(score, self.best_score):
            self.best, self.best_score = self.prompt, score
        helped = self._is_better(score, self._score)
        self._score = score
        return helped

    def _is_better(self, score: float, than: float) -> bool:
        return score < than if self._least else score > than


def grow(
    chains: Sequence[Chain], encoder: JointEncoder, min_count: int, max_count: int, progress: Progress
) -> None:
    """Grow all chains, by one label at a time.

    The first `min_count` labels are taken even where they do not help: a later one may. A chain stops at a
    label that does not help, at `max_count`, when its pool is exhausted, and when the model can read no more.
    """
    what = "growing the prompt" if len(chains) == 1 else f"growing {len(chains)} prompts"
    growing = list(chains)
    for step in range(max_count):
        # In a full context the model would read none of what is added.
        growing = [chain for chain in growing if chain.labels and not encoder.fills_context(chain.prompt)]
        if not growing:
            break
        still_growing: list[Chain] = []
        for chain in growing:
            progress(what, step, max_count)  # at every chain: a step of many takes minutes on a CPU
            # Not one pass for all: from 128 candidates on it is no faster (ViT-L/14 on a CPU), only larger.
            features = encoder.encode_continuations(f"{chain.prompt}, ", chain.labels)
            if chain.take_best(features) or step < min_count:
                still_growing.append(chain)
        growing = still_growing
    progress(what, max_count, max_count)
