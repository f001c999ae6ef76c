"""Which texts a picture is closest to. Ties go to the label that stands first in its table.

The two pools of candidates: `exact`, the true best of all labels; `reference`, clip-interrogator 0.6.0's
selection in two stages (LabelTable.rank), which keeps a fixed number of every 2,048 lines.
"""

from __future__ import annotations

import torch

# clip-interrogator's Config.chunk_size, the lines that its first stage ranks at a time.
REFERENCE_CHUNK = 2048


def cosines(text_features: torch.Tensor, image_features: torch.Tensor) -> torch.Tensor:
    """Cosines [n] of texts [n, d] with one picture [d]. Row by row, so that equal rows get equal scores: a
    matrix product rounds by where a row stands."""
    return (text_features * image_features).sum(-1)


def top(scores: torch.Tensor, count: int) -> torch.Tensor:
    """Indices of the `count` highest of scores [n], best first; equal scores in order of index."""
    count = min(count, len(scores))
    if count == 0:
        return torch.empty(0, dtype=torch.long, device=scores.device)
    # topk may return ties in any order and drop any of them, so only a threshold is taken from it; and from
    # a sample, which is five times faster. Where the sample promised too much, from all.
    sample = scores[::16]
    share = min(len(sample), count // 16 + count // 64 + 16)
    candidates = (scores >= sample.topk(share, sorted=False).values.min()).nonzero()[:, 0]
    if len(candidates) < count:
        candidates = (scores >= scores.topk(count, sorted=False).values.min()).nonzero()[:, 0]
    order = scores[candidates].sort(descending=True, stable=True).indices[:count]
    return candidates[order]


def top_of_chunks(scores: torch.Tensor, count: int, chunk: int = REFERENCE_CHUNK) -> torch.Tensor:
    """The reference's two-stage `top`: an equal share of every chunk, then the best of those."""
    chunks = -(-len(scores) // chunk)
    if chunks <= 1:
        return top(scores, count)
    share = chunk // chunks
    starts = range(0, len(scores), chunk)
    kept = torch.cat([start + top(scores[start : start + chunk], share) for start in starts])
    return kept[top(scores[kept], count)]
