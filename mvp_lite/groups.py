r"""One score for many weights: rows, columns, blocks, attention heads, FFN neurons; and n:m patterns.

Where a group of weights shares one score S and one mask entry M, the chain rule sums over the group:
$\partial\mathcal L/\partial S=\sum_{(i,j)\in\text{group}}G_{ij}W_{ij}$, exact for a continuous mask as in the
element-wise case. Each function here makes cuts for `Pruner(groups=…)`: objects that hold scores and a mask of their
own shape and say what they mean for matrices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mvp_lite.masks import top_v
from mvp_lite.pruner import GROUPS
from mvp_lite.structure.units import Slices, find_units

__all__ = ["Cut", "Maker", "Pattern", "blocks", "columns", "heads", "mixed", "n_of_m", "neurons", "rows"]

#: makes cuts out of a model and the matrices (of `Pruner`) that it may use
Maker = Callable[[nn.Module, list[Any]], list[Any]]
#: a matrix, the sum over its groups (weight-shaped to group-shaped), and the way back
Part = tuple[Any, Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]


class Cut:
    """Groups of weights in one or more matrices; `scores`, `mask`: one entry a group."""

    def __init__(self, name: str, parts: Sequence[Part]) -> None:
        self.name, self.parts = name, parts
        layer, total, _ = parts[0]
        self.mask = torch.ones_like(total(layer.master), dtype=torch.bool)
        self.scores: Tensor | None = None

    def follow(self) -> None:
        """Move to the device that the model has been moved to."""
        for layer, *_ in self.parts:
            layer.follow()
        device = self.parts[0][0].weight.device
        self.mask = self.mask.to(device)
        if self.scores is not None:
            self.scores.data = self.scores.data.to(device)

    def ranking(self) -> Tensor:
        """The scores, or for magnitude the sum of |W| over the group, of the dense weights."""
        if self.scores is not None:
            return self.scores.detach()
        return torch.stack([total(layer.master.abs()) for layer, total, _ in self.parts]).sum(0)

    def cut(self, density: float) -> Tensor:
        """The mask of a local cut: the fraction of these groups that is kept."""
        return top_v(self.ranking(), density)

    def spread(self, mask: Tensor) -> list[tuple[Any, Tensor]]:
        """What a mask of the groups means for each matrix."""
        return [(layer, back(mask)) for layer, _, back in self.parts]

    def gradient(self) -> Tensor | None:
        """Of the loss with respect to the scores: the sum of G * W over each group; None without a new G."""
        assert self.scores is not None
        kind, fresh = self.scores.dtype, [(layer, total, layer.fresh()) for layer, total, _ in self.parts]
        terms = [total(G.to(kind) * layer.master.to(kind)) for layer, total, G in fresh if G is not None]
        return torch.stack(terms).sum(0) if terms else None


class Pattern:
    """n:m: a score for each weight, as without groups, but ranked among its m neighbours along the input."""

    ranks_only = True  # no threshold makes a pattern of them

    def __init__(self, layer: Any, m: int) -> None:
        self.layer, self.m, self.name = layer, m, layer.name

    @property
    def scores(self) -> Tensor | None:
        scores: Tensor | None = self.layer.scores
        return scores

    @scores.setter
    def scores(self, value: Tensor | None) -> None:
        self.layer.scores = value

    @property
    def mask(self) -> Tensor:
        mask: Tensor = self.layer.mask
        return mask

    @mask.setter
    def mask(self, value: Tensor) -> None:
        self.layer.mask = value

    def follow(self) -> None:
        self.layer.follow()

    def ranking(self) -> Tensor:
        """0 for the best of its m neighbours, -1 for the second, …: a cut at n / m keeps n of each."""
        S = _as_linear(self.layer, self.layer.ranking())
        order = S.reshape(-1, self.m).argsort(dim=1, descending=True, stable=True)
        place = order.argsort(dim=1).neg().to(S.dtype).view(S.shape)
        return _as_linear(self.layer, place).contiguous()

    def cut(self, density: float) -> Tensor:
        return top_v(self.ranking(), density)

    def spread(self, mask: Tensor) -> list[tuple[Any, Tensor]]:
        return [(self.layer, mask)]

    def gradient(self) -> Tensor | None:
        gradient: Tensor | None = self.layer.gradient()
        return gradient


def rows(model: nn.Module, layers: list[Any]) -> list[Cut]:
    """One score for each output of a matrix."""
    return [_along(layer, layer.name, out=True) for layer in layers]


def columns(model: nn.Module, layers: list[Any]) -> list[Cut]:
    """One score for each input of a matrix."""
    return [_along(layer, layer.name, out=False) for layer in layers]


def blocks(height: int, width: int) -> Maker:
    """One score for each block of `height` outputs by `width` inputs (Lagunas et al. 2021).

    Raises:
        ValueError: a matrix that such blocks do not tile, when the pruner is made.
    """

    def make(model: nn.Module, layers: list[Any]) -> list[Cut]:
        return [_blocks(layer, height, width) for layer in layers]

    return make


def n_of_m(m: int) -> Maker:
    """Of every m neighbours along the input the best `density` * m stay: density 0.5 with m = 4 is the 2:4 pattern.

    For top-v cuts (magnitude, movement, random) with local scope. While the density falls the cut goes from m of m
    to n of m, the weakest place of all neighbourhoods first.

    Raises:
        ValueError: a matrix whose inputs m does not divide, when the pruner is made.
    """

    def make(model: nn.Module, layers: list[Any]) -> list[Pattern]:
        for layer in layers:
            _tiles(layer, 1, m)
        return [Pattern(layer, m) for layer in layers]

    return make


def heads(model: nn.Module, layers: list[Any]) -> list[Cut]:
    """One score for each attention head: its rows of query, key and value, its columns of the output map.

    With grouped-query attention, for the heads that share a key and a value. FFN matrices stay dense.

    Raises:
        ValueError: a model family that `mvp_lite.structure.units` does not know; a head of which only a part may be pruned.
    """
    return _units(model, layers, "heads")


def neurons(model: nn.Module, layers: list[Any]) -> list[Cut]:
    """One score for each FFN neuron: its row of the first map (and gate), its column of the second.

    Its bias has no score, and no effect either once the column is 0. Attention matrices stay dense. Raises as `heads`.
    """
    return _units(model, layers, "neurons")


def mixed(attention: str | Maker | None = None, ffn: str | Maker | None = None) -> Maker:
    """Other groups in the attention than in the FFN, for instance `mixed(blocks(32, 32), "neurons")`.

    A kind without groups stays dense. With local scope each cut keeps `density` of its own groups; with global scope
    all groups are pooled, and compared as they are: the score of a group is a sum over it, so large ones lead.
    """

    def make(model: nn.Module, layers: list[Any]) -> list[Any]:
        names = {
            kind: {part.name for units in find_units(model) if units.unit_type == kind for part in units.parts}
            for kind in ("heads", "neurons")
        }
        cuts: list[Any] = []
        for kind, chosen in (("heads", attention), ("neurons", ffn)):
            if chosen is not None:
                maker = GROUPS[chosen] if isinstance(chosen, str) else chosen
                cuts += maker(model, [layer for layer in layers if layer.name in names[kind]])
        return cuts

    return make


def _units(model: nn.Module, layers: list[Any], kind: str) -> list[Cut]:
    by_name = {layer.name: layer for layer in layers}
    cuts = []
    for units in find_units(model):
        names = [part.name for part in units.parts]
        there = [name for name in names if name in by_name]
        if units.unit_type != kind or not there:
            continue
        if len(there) < len(names):
            missing = ", ".join(name for name in names if name not in by_name)
            raise ValueError(
                f"groups={kind!r}: {units.name} is pruned whole or not at all; target leaves out {missing}"
            )
        cuts.append(Cut(f"{units.name} ({kind})", [_of_units(by_name[p.name], p, units.count) for p in units.parts]))
    if not cuts:
        raise ValueError(f"groups={kind!r}: target={[layer.name for layer in layers]} holds no {kind}")
    return cuts


def _of_units(
    layer: Any, part: Slices, count: int
) -> tuple[Any, Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
    def total(x: Tensor) -> Tensor:
        return part.by_unit(x, count).sum(1)

    def back(mask: Tensor) -> Tensor:
        along = mask.repeat_interleave(part.size).repeat(part.parts)
        return (along[:, None] if part.dim == 0 else along).expand_as(layer.weight).contiguous()

    return layer, total, back


def _along(layer: Any, name: str, out: bool) -> Cut:
    part = Slices(name, layer.module, out, 1)
    return Cut(name, [_of_units(layer, part, layer.weight.shape[part.dim])])


def _blocks(layer: Any, height: int, width: int) -> Cut:
    _tiles(layer, height, width)
    out, into = _as_linear(layer, layer.weight).shape

    def total(x: Tensor) -> Tensor:
        return _as_linear(layer, x).reshape(out // height, height, into // width, width).sum((1, 3))

    def back(mask: Tensor) -> Tensor:
        return _as_linear(layer, mask.repeat_interleave(height, 0).repeat_interleave(width, 1)).contiguous()

    return Cut(layer.name, [(layer, total, back)])


def _tiles(layer: Any, height: int, width: int) -> None:
    for what, size in (("height", height), ("width", width)):
        if isinstance(size, bool) or not isinstance(size, int) or size < 1:
            raise ValueError(f"a block of {what} {size!r}: a whole number of at least 1")
    shape = tuple(_as_linear(layer, layer.weight).shape)
    if shape[0] % height or shape[1] % width:
        raise ValueError(f"{layer.name} of shape {shape} (out, in) cannot be tiled by blocks of {height} x {width}")


def _as_linear(layer: Any, x: Tensor) -> Tensor:
    """x with (out, in) for (in, out), and the other way round, where the module is GPT-2's `Conv1D`."""
    return x.t() if hasattr(layer.module, "nf") else x


GROUPS.update(rows=rows, columns=columns, heads=heads, neurons=neurons)
