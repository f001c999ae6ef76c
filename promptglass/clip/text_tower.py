"""CLIP's text tower, run over a host's own modules: no padding, and no shared prefix computed twice.

The tower is causal: a position sees only what stands before it. So (1) nothing after the end token
matters, and (2) texts that begin alike share those positions' activations. All rows of a call become one
tree of tokens; each node is computed once, and attends to the nodes on its path. The numbers are those of
the padded tower (Radford et al. 2021, https://arxiv.org/abs/2103.00020), for about a fifteenth of the work.

The weights stay where they lie: every product is done by the host's own layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from .memory import BatchLimit, is_out_of_memory

if TYPE_CHECKING:
    from .tokens import Row

# Nodes of the tree are laid out in blocks of this many, and a node may attend within its block only:
# large enough to hold any row, small enough that masked attention stays a few percent of the work.
_BLOCK = 128
# Nodes per forward pass. More than this only costs memory: the products are already large.
NODES_PER_PASS = 4096

Map = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Layer:
    """One residual block, as maps over the host's modules ([n, width] to [n, width] unless stated)."""

    norm_1: Map
    query: Map
    key_value: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
    out: Map
    norm_2: Map
    mlp: Map


@dataclass(frozen=True)
class TextTower:
    """A causal text transformer.

    embed: token ids [n] and positions [n] to activations [n, width].
    project: activations [n, width] at the end tokens to features [n, d] (final norm included).
    """

    embed: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    layers: Sequence[Layer]
    project: Map
    heads: int
    limit: BatchLimit

    @torch.no_grad()
    def features(self, rows: Sequence[Row], device: torch.device) -> torch.Tensor:
        """Features [n, d] of token rows (unpadded, end token last), not normalised."""
        order = sorted(range(len(rows)), key=rows.__getitem__)
        ordered = [rows[i] for i in order]
        found: list[torch.Tensor] = []
        start = 0
        while start < len(rows):
            tree = TokenTree(ordered[start:], self.limit.size)
            try:
                found.append(self._run(tree, device)[tree.leaf_of_row])
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                self.limit.halve(min(self.limit.size, tree.nodes) if len(tree.leaf_of_row) > 1 else 1, error)
                continue
            start += len(tree.leaf_of_row)
        back = torch.empty(len(rows), dtype=torch.long)
        back[order] = torch.arange(len(rows))
        return torch.cat(found)[back.to(device)]

    def _run(self, tree: TokenTree, device: torch.device) -> torch.Tensor:
        """Features [leaves, d]. The shared prefix and all blocks go through each product together."""
        P, B, L = tree.prefix_length, tree.blocks, tree.block_length
        x = self.embed(tree.ids.to(device), tree.positions.to(device))  # [P + B*L, width]
        blocked = torch.zeros(B, 1, L, P + L, dtype=x.dtype)
        blocked.masked_fill_(~tree.visible[:, None], float("-inf"))
        blocked = blocked.to(device)

        def heads(t: torch.Tensor, batch: int) -> torch.Tensor:
            return t.view(batch, -1, self.heads, t.shape[-1] // self.heads).transpose(1, 2)  # [b, H, n, w]

        def rows(t: torch.Tensor) -> torch.Tensor:
            return t.transpose(1, 2).flatten(0, 1).flatten(1)  # [b, H, n, w] -> [b*n, width]

        for layer in self.layers[:-1]:
            h = layer.norm_1(x)
            q = layer.query(h)
            k, v = layer.key_value(h)
            qp, kp, vp = heads(q[:P], 1), heads(k[:P], 1), heads(v[:P], 1)
            in_prefix = F.scaled_dot_product_attention(qp, kp, vp, is_causal=True)
            kb = torch.cat([kp.expand(B, -1, -1, -1), heads(k[P:], B)], 2)  # [B, H, P+L, w]
            vb = torch.cat([vp.expand(B, -1, -1, -1), heads(v[P:], B)], 2)
            in_blocks = F.scaled_dot_product_attention(heads(q[P:], B), kb, vb, attn_mask=blocked)
            x = x + layer.out(torch.cat([rows(in_prefix), rows(in_blocks)]))
            x = x + layer.mlp(layer.norm_2(x))

        # Of the last layer only the end tokens are read, so only they ask, mix and go through the MLP.
        layer = self.layers[-1]
        h = layer.norm_1(x)
        k, v = layer.key_value(h)
        kb = torch.cat([heads(k[:P], 1).expand(B, -1, -1, -1), heads(k[P:], B)], 2)
        vb = torch.cat([heads(v[:P], 1).expand(B, -1, -1, -1), heads(v[P:], B)], 2)
        leaves = tree.leaves.to(device)  # [B, R] within each block
        at = (leaves + P + L * torch.arange(B, device=device)[:, None]).flatten()  # [B*R] in x
        mask = blocked.gather(2, leaves[:, None, :, None].expand(-1, -1, -1, P + L))
        mixed = F.scaled_dot_product_attention(heads(layer.query(h[at]), B), kb, vb, attn_mask=mask)
        x = x[at] + layer.out(rows(mixed))
        x = x + layer.mlp(layer.norm_2(x))
        return self.project(x)  # [B*R, d]


class TokenTree:
    """Sorted token rows as one tree: a prefix they all share, then blocks of nodes.

    Takes as many rows as fit in `limit` nodes, at least one. A node's ancestors lie in its own block or in
    the prefix. Shapes: ids, positions [P + B*L]; visible [B, L, P + L]; leaves [B, R], the end tokens'
    places in their block (padded with 0); leaf_of_row: each taken row's place in leaves.flatten().
    """

    def __init__(self, rows: Sequence[Row], limit: int) -> None:
        # Sorted rows share what the first and the last share. The end token is always a node of its own.
        prefix = min(_common(rows[0], rows[-1]), len(rows[0]) - 1)
        self.block_length = L = max(_BLOCK, *map(len, rows[:limit]))
        blocks: list[list[tuple[int, int, list[int]]]] = [[]]  # per node: id, position, path in its block
        leaves: list[list[int]] = [[]]
        self._leaf: list[tuple[int, int]] = []  # per row: block, index in that block's leaves
        path: list[int] = []
        nodes, previous = 0, rows[0][:prefix]
        for row in rows:
            shared = max(_common(previous, row), prefix)
            if shared == len(row):  # the row before, once more
                self._leaf.append(self._leaf[-1])
                continue
            if self._leaf and nodes + len(row) - shared > limit:
                break
            if len(blocks[-1]) + len(row) - shared > L:
                blocks.append([])
                leaves.append([])
                shared, path = prefix, []
            path = path[: shared - prefix]
            for position in range(shared, len(row)):
                path = [*path, len(blocks[-1])]
                blocks[-1].append((row[position], position, path))
            nodes += len(row) - shared
            leaves[-1].append(path[-1])
            self._leaf.append((len(blocks) - 1, len(leaves[-1]) - 1))
            previous = row
        self.nodes = nodes
        self.blocks = len(blocks)
        self._lay_out(rows[0][:prefix], blocks, leaves)

    def _lay_out(
        self, prefix: Row, blocks: list[list[tuple[int, int, list[int]]]], leaves: list[list[int]]
    ) -> None:
        self.prefix_length = P = len(prefix)
        self.block_length = L = min(self.block_length, max(map(len, blocks)))
        padding = [[0] * (L - len(block)) for block in blocks]
        ids = [[*(node[0] for node in block), *rest] for block, rest in zip(blocks, padding, strict=True)]
        positions = [
            [*(node[1] for node in block), *rest] for block, rest in zip(blocks, padding, strict=True)
        ]
        self.ids = torch.tensor([*prefix, *chain.from_iterable(ids)])
        self.positions = torch.tensor([*range(P), *chain.from_iterable(positions)])
        sees = [
            (b * L + node) * (P + L) + P + ancestor
            for b, block in enumerate(blocks)
            for node, (_, _, path) in enumerate(block)
            for ancestor in path
        ]
        visible = torch.zeros(self.blocks * L * (P + L), dtype=torch.bool)
        visible[sees] = True
        self.visible = visible.view(self.blocks, L, P + L)
        self.visible[:, :, :P] = True  # also for padding, which must see something
        R = max(map(len, leaves))
        self.leaves = torch.tensor([block + [0] * (R - len(block)) for block in leaves])
        self.leaf_of_row = torch.tensor([block * R + leaf for block, leaf in self._leaf])


def _common(a: Row, b: Row) -> int:
    """How many leading tokens two rows share."""
    for i, (left, right) in enumerate(zip(a, b)):  # noqa: B905 - of unequal length on purpose
        if left != right:
            return i
    return min(len(a), len(b))
