"""Which labels a picture is closest to. Ties go to the label that stands first in its table.

The two pools of candidates: `exact`, the true best of all labels; `reference`, clip-interrogator 0.6.0's
selection in two stages (LabelTable.rank), which keeps a fixed number of every 2,048 lines.
"""

from __future__ import annotations

import torch

# clip-interrogator's Config.chunk_size, the lines that its first stage ranks at a time.
REFERENCE_CHUNK = 2048


def top(scores: torch.Tensor, count: int) -> list[int]:
    """Indices of the `count` highest of scores [n], best first; equal scores in order of index."""
    count = min(count, len(scores))
    if count == 0:
        return []
    # topk may return ties in any order and drop any of them, so only its threshold is used.
    threshold = scores.topk(count).values[-1]
    candidates = (scores >= threshold).nonzero()[:, 0]
    order = scores[candidates].sort(descending=True, stable=True).indices[:count]
    return candidates[order].tolist()


def top_of_chunks(scores: torch.Tensor, count: int, chunk: int = REFERENCE_CHUNK) -> list[int]:
    """The reference's two-stage `top`: an equal share of every chunk, then the best of those."""
    chunks = -(-len(scores) // chunk)
    if chunks <= 1:
        return top(scores, count)
    share = chunk // chunks
    kept = [
        start + index
        for start in range(0, len(scores), chunk)
        for index in top(scores[start : start + chunk], share)
    ]
    return [kept[index] for index in top(scores[kept], count)]
