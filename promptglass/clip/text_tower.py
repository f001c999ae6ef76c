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
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from .memory import BatchLimit, attempt

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
            outcome = attempt(lambda tree: self._run(tree, device), tree)
            if isinstance(outcome, RuntimeError):
                self.limit.halve(tree.nodes if len(tree.leaf_of_row) > 1 else 1, outcome)
                continue
            found.append(outcome[tree.leaf_of_row])
            start += len(tree.leaf_of_row)
        back = torch.empty(len(rows), dtype=torch.long)
        back[order] = torch.arange(len(rows))
        return torch.cat(found)[back.to(device)]

    def _run(self, tree: TokenTree, device: torch.device) -> torch.Tensor:
        """Features [leaves, d]. Prefix and nodes go through every product together, without padding."""
        x = self.embed(tree.ids.to(device), tree.positions.to(device))  # [P + N, width]
        attention = _TreeAttention(tree, self.heads, x)
        for layer in self.layers[:-1]:
            h = layer.norm_1(x)
            x = x + layer.out(attention.of_all(layer.query(h), *layer.key_value(h)))
            x = x + layer.mlp(layer.norm_2(x))
        # Of the last layer only the end tokens are read, so only they ask, mix and go through the MLP.
        layer, ends = self.layers[-1], attention.ends
        h = layer.norm_1(x)
        x = x[ends] + layer.out(attention.of_ends(layer.query(h[ends]), *layer.key_value(h)))
        x = x + layer.mlp(layer.norm_2(x))
        return self.project(x)


class _TreeAttention:
    """Attention along the paths of a tree: activations lie packed, [P + N, width], and are spread over
    blocks [B, heads, L, width per head] for attention alone."""

    def __init__(self, tree: TokenTree, heads: int, x: torch.Tensor) -> None:
        self._prefix = tree.prefix_length
        self._blocks = tree.blocks
        self._heads = heads
        self._slots = tree.slots.to(x.device)
        mask = torch.zeros(tree.visible.shape, dtype=x.dtype).masked_fill_(~tree.visible, float("-inf"))
        mask = mask.to(x.device)  # [B*L, P + L]
        self._mask = mask.view(tree.blocks, 1, tree.block_length, -1)
        leaves = tree.leaves.to(x.device)
        self.ends = tree.prefix_length + leaves  # where the end tokens lie in x
        self._end_slots = tree.leaf_slots.to(x.device)
        of_ends = mask.new_zeros(tree.blocks * tree.block_leaves, mask.shape[1])
        of_ends.index_copy_(0, self._end_slots, mask[self._slots[leaves]])
        self._end_mask = of_ends.view(tree.blocks, 1, tree.block_leaves, -1)

    def of_all(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Attention [P + N, width] of everything to what it may see."""
        P = self._prefix
        q_prefix, k_prefix, v_prefix = (self._split(t[:P], 1) for t in (q, k, v))
        of_prefix = F.scaled_dot_product_attention(q_prefix, k_prefix, v_prefix, is_causal=True)
        q_nodes = self._spread(q[P:], self._slots, self._mask.shape[2])
        of_nodes = F.scaled_dot_product_attention(q_nodes, self._seen(k), self._seen(v), attn_mask=self._mask)
        return torch.cat([_join(of_prefix), _join(of_nodes)[self._slots]])

    def of_ends(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Attention [leaves, width] of the end tokens alone; q [leaves, width], k and v [P + N, width]."""
        q_ends = self._spread(q, self._end_slots, self._end_mask.shape[2])
        mixed = F.scaled_dot_product_attention(q_ends, self._seen(k), self._seen(v), attn_mask=self._end_mask)
        return _join(mixed)[self._end_slots]

    def _seen(self, t: torch.Tensor) -> torch.Tensor:
        """Keys or values of the prefix and of a block, for each block: [B, heads, P + L, width per head]."""
        prefix = self._split(t[: self._prefix], 1).expand(self._blocks, -1, -1, -1)
        return torch.cat([prefix, self._spread(t[self._prefix :], self._slots, self._mask.shape[2])], 2)

    def _spread(self, t: torch.Tensor, slots: torch.Tensor, size: int) -> torch.Tensor:
        return self._split(
            t.new_zeros(self._blocks * size, t.shape[1]).index_copy_(0, slots, t), self._blocks
        )

    def _split(self, t: torch.Tensor, batch: int) -> torch.Tensor:
        return t.view(batch, -1, self._heads, t.shape[1] // self._heads).transpose(1, 2)


def _join(t: torch.Tensor) -> torch.Tensor:
    """[batch, heads, n, width per head] back to [batch * n, width]."""
    return t.transpose(1, 2).flatten(2).flatten(0, 1)


class TokenTree:
    """Sorted token rows as one tree: a prefix they all share, then nodes in blocks.

    Takes as many rows as fit in `limit` nodes, at least one. A node's ancestors lie in its own block or in
    the prefix. Shapes, for P tokens of prefix, N nodes, and B blocks of up to L nodes and R leaves:
    ids, positions [P + N]; slots [N], each node's place in [B*L]; visible [B*L, P + L], what it may see;
    leaves, the nodes that are end tokens, and leaf_slots, their places in [B*R]; leaf_of_row, each taken
    row's index in leaves.
    """

    def __init__(self, rows: Sequence[Row], limit: int) -> None:
        # Sorted rows share what the first and the last share. The end token is always a node of its own.
        prefix = min(_common(rows[0], rows[-1]), len(rows[0]) - 1)
        largest = max(_BLOCK, *map(len, rows[:limit]))
        ids, positions = list(rows[0][:prefix]), list(range(prefix))
        places: list[tuple[int, int]] = []  # per node: block, place in it
        paths: list[list[int]] = []  # per node: the places of its ancestors and itself
        leaves: list[int] = []
        self.leaf_of_row: list[int] = []
        path: list[int] = []
        block, used, previous = 0, 0, rows[0][:prefix]
        for row in rows:
            shared = max(_common(previous, row), prefix)
            if shared == len(row):  # the row before, once more
                self.leaf_of_row.append(len(leaves) - 1)
                continue
            if used + len(row) - shared > largest:
                block, used, shared, path = block + 1, 0, prefix, []
            if leaves and len(places) + len(row) - shared > limit:
                break
            path = path[: shared - prefix]
            for position in range(shared, len(row)):
                path = [*path, used]
                ids.append(row[position])
                positions.append(position)
                places.append((block, used))
                paths.append(path)
                used += 1
            self.leaf_of_row.append(len(leaves))
            leaves.append(len(places) - 1)
            previous = row
        self.prefix_length, self.nodes, self.blocks = prefix, len(places), places[-1][0] + 1
        self.ids, self.positions = torch.tensor(ids), torch.tensor(positions)
        self._lay_out(places, paths, leaves)

    def _lay_out(self, places: list[tuple[int, int]], paths: list[list[int]], leaves: list[int]) -> None:
        P = self.prefix_length
        self.block_length = L = 1 + max(place for _, place in places)
        slots = [block * L + place for block, place in places]
        self.slots = torch.tensor(slots)
        sees = [slot * (P + L) + P + seen for slot, path in zip(slots, paths, strict=True) for seen in path]
        visible = torch.zeros(self.blocks * L * (P + L), dtype=torch.bool)
        visible[sees] = True
        self.visible = visible.view(-1, P + L)
        self.visible[:, :P] = True  # empty slots, too, must see something
        self.leaves = torch.tensor(leaves)
        in_block = [0] * self.blocks
        of_block: list[tuple[int, int]] = []
        for leaf in leaves:
            block = places[leaf][0]
            of_block.append((block, in_block[block]))
            in_block[block] += 1
        self.block_leaves = R = max(in_block)
        self.leaf_slots = torch.tensor([block * R + place for block, place in of_block])


def _common(a: Row, b: Row) -> int:
    """How many leading tokens two rows share."""
    for i, (left, right) in enumerate(zip(a, b)):  # noqa: B905 - of unequal length on purpose
        if left != right:
            return i
    return min(len(a), len(b))
