r"""What shares one score: single weights, rows, columns, blocks, attention heads, FFN neurons; and n:m patterns.

Where a group of weights shares one score S and one mask entry M, the chain rule sums over the group:
$\partial\mathcal L/\partial M=\sum_{(i,j)\in\text{group}}G_{ij}W_{ij}$, exact for a continuous mask as in the
element-wise case. Functions here make the `WeightGroups` of a model, for `Pruner(groups=…)`. Groups compete only with
groups of equally many weights, see `mvp_lite.budgets`; a fraction of them is then the same fraction of the weights.
"""

from __future__ import annotations

import ast
import functools
import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec

import torch
from torch import Tensor, nn

from mvp_lite.matrices import PrunedMatrix
from mvp_lite.scores import magnitude, movement_gradient
from mvp_lite.structure.units import Slices, Units, find_units

__all__ = [
    "GROUPS",
    "GroupMaker",
    "Part",
    "Pattern",
    "WeightGroups",
    "blocks",
    "columns",
    "describe",
    "find_described",
    "find_maker",
    "heads",
    "mixed",
    "n_of_m",
    "neurons",
    "rows",
    "weights",
]


@dataclass(frozen=True)
class Part:
    """One matrix's share of `WeightGroups`: how its entries add up to groups, and how a mask of groups expands to it.

    `total`: weight-shaped to group-shaped, a sum over each group. `expand`: the way back, a copy to each weight.
    """

    matrix: PrunedMatrix
    total: Callable[[Tensor], Tensor]
    expand: Callable[[Tensor], Tensor]


class WeightGroups:
    """Groups of weights in one or more matrices. `scores` and `mask` have one entry for each group, in any shape.

    `scores` is None where the magnitude of the weights is ranked.
    """

    #: only a selection by rank makes sense of these scores
    needs_top_v = False

    def __init__(self, name: str, parts: Sequence[Part]) -> None:
        self.name, self.parts = name, list(parts)
        self.mask = torch.ones_like(self._total([magnitude(part.matrix.master) for part in self.parts])).bool()
        self.scores: Tensor | None = None

    @property
    def matrices(self) -> list[PrunedMatrix]:
        """The matrices that the groups are in."""
        return [part.matrix for part in self.parts]

    @property
    def weights_each(self) -> float:
        """How many weights a group has (where groups differ, on average)."""
        return sum(matrix.weight.numel() for matrix in self.matrices) / self.mask.numel()

    def check_density(self, density: float) -> None:
        """Raise ValueError if such a fraction of the groups cannot be kept."""

    def to_device(self) -> None:
        """Move scores and mask, and the matrices' own, to the device that the model has been moved to."""
        for matrix in self.matrices:
            matrix.to_device()
        device = self.matrices[0].weight.device
        self.mask = self.mask.to(device)
        if self.scores is not None:
            self.scores.data = self.scores.data.to(device)

    def magnitude(self) -> Tensor:
        """$|W|$ of the dense weights, summed over each group."""
        return self._total([magnitude(part.matrix.master) for part in self.parts])

    def importance(self) -> Tensor:
        """What a method ranks: the scores, or without scores the magnitude."""
        return self.magnitude() if self.scores is None else self.scores.detach()

    def mask_gradient(self) -> Tensor | None:
        r"""$\partial\mathcal L/\partial M$, the sum of $G\odot W$ over each group; None if there is no new gradient."""
        assert self.scores is not None
        dtype = self.scores.dtype
        terms = []
        for part in self.parts:
            G = part.matrix.new_gradient()
            if G is not None:
                terms.append(part.total(movement_gradient(G.to(dtype), part.matrix.master.to(dtype))))
        return _sum(terms) if terms else None

    def expand(self, mask: Tensor) -> list[tuple[PrunedMatrix, Tensor]]:
        """What a mask of the groups means for each matrix, in the shape of its weight."""
        return [(part.matrix, part.expand(mask)) for part in self.parts]

    def set_mask(self, mask: Tensor) -> None:
        """Take over a mask of the groups, and write W * M into the model."""
        self.mask = mask
        for matrix, expanded in self.expand(mask):
            matrix.mask = expanded if expanded.dtype == torch.bool else expanded.to(matrix.weight.dtype)
            matrix.write_masked()

    def _total(self, values: Sequence[Tensor]) -> Tensor:
        return _sum([part.total(x) for part, x in zip(self.parts, values, strict=True)])


class Pattern(WeightGroups):
    """n:m: a score for each weight, ranked among its m neighbors along the input of the map."""

    needs_top_v = True

    def __init__(self, matrix: PrunedMatrix, m: int) -> None:
        super().__init__(matrix.name, [_each_weight(matrix)])
        self.m = m

    def check_density(self, density: float) -> None:
        n = density * self.m
        if not math.isclose(n, round(n), rel_tol=0.0, abs_tol=1e-6) or round(n) < 1:
            near = [k for k in (math.floor(n), math.ceil(n)) if 1 <= k <= self.m]
            raise ValueError(
                f"density={density!r}: n_of_m({self.m}) keeps the same number of every {self.m} weights; the nearest "
                f"densities are {' and '.join(f'{k / self.m:.6g}' for k in near)}"
            )

    def importance(self) -> Tensor:
        """0 for the best of its m neighbors, -1 for the second, …: top-v at density n / m keeps n of each m."""
        S = _out_in(self.matrices[0], super().importance())
        order = S.reshape(-1, self.m).argsort(dim=1, descending=True, stable=True)
        place = order.argsort(dim=1).neg().to(S.dtype).view(S.shape)
        return _out_in(self.matrices[0], place).contiguous()


#: makes groups from a model and those of its matrices that may be used
GroupMaker = Callable[[nn.Module, Sequence[PrunedMatrix]], Sequence[WeightGroups]]
P = ParamSpec("P")


@dataclass(frozen=True)
class DescribedMaker:
    """A maker of groups whose text is the call that made it: `blocks(32, 32)`."""

    text: str
    make: GroupMaker

    def __call__(self, model: nn.Module, matrices: Sequence[PrunedMatrix]) -> Sequence[WeightGroups]:
        return self.make(model, matrices)

    def __repr__(self) -> str:
        return self.text


def _described(function: Callable[P, GroupMaker]) -> Callable[P, GroupMaker]:
    """The function itself, whose makers know how they were made."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> GroupMaker:
        made = function(*args, **kwargs)
        given = inspect.signature(function).bind(*args, **kwargs).arguments
        known = {name: describe(value) if callable(value) else value for name, value in given.items()}
        if any(callable(value) and known[name] is None for name, value in given.items()):
            return made  # of a maker of the user's own
        texts = {name: text if isinstance(given[name], DescribedMaker) else repr(text) for name, text in known.items()}
        return DescribedMaker(f"{function.__name__}({', '.join(f'{k}={v}' for k, v in texts.items())})", made)

    return call


def weights(model: nn.Module, matrices: Sequence[PrunedMatrix]) -> list[WeightGroups]:
    """One score for each weight: unstructured pruning."""
    return [WeightGroups(matrix.name, [_each_weight(matrix)]) for matrix in matrices]


def rows(model: nn.Module, matrices: Sequence[PrunedMatrix]) -> list[WeightGroups]:
    """One score for each output of a matrix."""
    return [_along_one_side(matrix, out=True) for matrix in matrices]


def columns(model: nn.Module, matrices: Sequence[PrunedMatrix]) -> list[WeightGroups]:
    """One score for each input of a matrix."""
    return [_along_one_side(matrix, out=False) for matrix in matrices]


@_described
def blocks(height: int, width: int) -> GroupMaker:
    """One score for each block of `height` outputs by `width` inputs (Lagunas et al. 2021).

    Raises:
        ValueError: a size below 1; a matrix that such blocks do not tile, when the pruner is made.
    """
    _check_size("height", height)
    _check_size("width", width)

    def make(model: nn.Module, matrices: Sequence[PrunedMatrix]) -> list[WeightGroups]:
        return [_blocks(matrix, height, width) for matrix in matrices]

    return make


@_described
def n_of_m(m: int) -> GroupMaker:
    """Of every m neighbors along the input the best `density` * m stay: density 0.5 with m = 4 is the 2:4 pattern.

    For top-v methods (magnitude, movement, random). While the density falls, every neighborhood first loses its
    lowest-ranked weight, then the next.

    Raises:
        ValueError: m below 1; when the pruner is made, `density` * m not an integer, or a matrix whose number of inputs
            m does not divide.
    """
    _check_size("m", m)

    def make(model: nn.Module, matrices: Sequence[PrunedMatrix]) -> list[WeightGroups]:
        for matrix in matrices:
            _check_tiles(matrix, 1, m)
        return [Pattern(matrix, m) for matrix in matrices]

    return make


def heads(model: nn.Module, matrices: Sequence[PrunedMatrix]) -> list[WeightGroups]:
    """One score for each attention head: its rows of query, key and value, its columns of the output map.

    With grouped-query attention, heads that share a key and a value share one score. FFN matrices stay dense, and are
    not counted in the density.

    Raises:
        ValueError: a model family that `mvp_lite.structure.units` does not know; a head of which only a part may be
            pruned.
    """
    return _by_units(model, matrices, "heads")


def neurons(model: nn.Module, matrices: Sequence[PrunedMatrix]) -> list[WeightGroups]:
    """One score for each FFN neuron: its row of the first map (and gate), its column of the second.

    Its bias has no score, and no effect once the column is 0. Attention matrices stay dense, and are not
    counted in the density. Raises as `heads`.
    """
    return _by_units(model, matrices, "neurons")


@_described
def mixed(attention: str | GroupMaker | None = None, ffn: str | GroupMaker | None = None) -> GroupMaker:
    """Different groups in attention and FFN layers, for instance `mixed(blocks(32, 32), "neurons")`.

    None leaves a side dense. With local scope each matrix or layer keeps `density` of its own groups. With global
    scope, and for soft movement and L0, groups of equally many weights share a budget: with heads and neurons that is
    one for all heads and one for all neurons.

    Raises:
        ValueError: neither side has groups.
    """
    if attention is None and ffn is None:
        raise ValueError("mixed(): give groups for attention, ffn or both")

    def make(model: nn.Module, matrices: Sequence[PrunedMatrix]) -> list[WeightGroups]:
        found: list[WeightGroups] = []
        units = find_units(model)
        for unit_type, chosen in (("heads", attention), ("neurons", ffn)):
            if chosen is not None:
                names = {part.name for one in units if one.unit_type == unit_type for part in one.parts}
                found += find_maker(chosen)(model, [matrix for matrix in matrices if matrix.name in names])
        return found

    return make


GROUPS: dict[str, GroupMaker] = {
    "weights": weights,
    "rows": rows,
    "columns": columns,
    "heads": heads,
    "neurons": neurons,
}


def find_maker(groups: str | GroupMaker) -> GroupMaker:
    """The maker of groups, by its name or as it is.

    Raises:
        ValueError: an unknown name.
        TypeError: neither a name nor a function.
    """
    message = f"groups={groups!r}: must be one of {', '.join(GROUPS)}, or what mvp_lite.groups makes"
    if isinstance(groups, str):
        if groups not in GROUPS:
            raise ValueError(message)
        return GROUPS[groups]
    if not callable(groups):
        raise TypeError(message)
    return groups


def describe(groups: str | GroupMaker) -> str | None:
    """A text from which `find_described` makes the same groups again; None for a function of the user's own."""
    if isinstance(groups, str | DescribedMaker):
        return str(groups)
    return next((name for name, maker in GROUPS.items() if maker is groups), None)


def find_described(text: str) -> str | GroupMaker:
    """What `describe` described: a name, or a call like "mixed(attention=blocks(height=4, width=4))".

    Raises:
        ValueError: anything else; nothing is evaluated.
    """
    makers: dict[str, Callable[..., GroupMaker]] = {"blocks": blocks, "n_of_m": n_of_m, "mixed": mixed}

    def value(node: ast.expr) -> Any:
        if isinstance(node, ast.Constant):
            return node.value
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in makers):
            raise TypeError(f"not a call of {', '.join(makers)}")
        named = {keyword.arg: value(keyword.value) for keyword in node.keywords if keyword.arg}
        return makers[node.func.id](*map(value, node.args), **named)

    try:
        made: Any = text if text in GROUPS else value(ast.parse(text, mode="eval").body)
    except (SyntaxError, TypeError):
        made = None
    if not isinstance(made, str | DescribedMaker):
        allowed = f"one of {', '.join(GROUPS)}, or a call of {', '.join(makers)}"
        raise ValueError(f"groups={text!r}: must be {allowed}")
    return made


def _sum(terms: Sequence[Tensor]) -> Tensor:
    return terms[0] if len(terms) == 1 else torch.stack(list(terms)).sum(0)


def _same(x: Tensor) -> Tensor:
    return x


def _each_weight(matrix: PrunedMatrix) -> Part:
    return Part(matrix, _same, _same)


def _along_one_side(matrix: PrunedMatrix, out: bool) -> WeightGroups:
    part = Slices(matrix.name, matrix.module, out, 1)
    return WeightGroups(matrix.name, [_of_units(matrix, part, matrix.weight.shape[part.dim])])


def _by_units(model: nn.Module, matrices: Sequence[PrunedMatrix], unit_type: str) -> list[WeightGroups]:
    by_name = {matrix.name: matrix for matrix in matrices}
    found = []
    for units in find_units(model):
        names = [part.name for part in units.parts]
        if units.unit_type == unit_type and any(name in by_name for name in names):
            _check_whole(units, names, by_name)
            parts = [_of_units(by_name[part.name], part, units.count) for part in units.parts]
            found.append(WeightGroups(f"{units.name} ({unit_type})", parts))
    if not found:
        raise ValueError(f"groups={unit_type!r}: target={[matrix.name for matrix in matrices]} has no {unit_type}")
    return found


def _check_whole(units: Units, names: Sequence[str], by_name: dict[str, PrunedMatrix]) -> None:
    if missing := [name for name in names if name not in by_name]:
        raise ValueError(
            f"groups={units.unit_type!r}: {units.name} is pruned whole or not at all; target leaves out "
            f"{', '.join(missing)}"
        )


def _of_units(matrix: PrunedMatrix, part: Slices, count: int) -> Part:
    def total(x: Tensor) -> Tensor:
        return part.by_unit(x, count).sum(1)

    def expand(mask: Tensor) -> Tensor:
        return part.along_weight(mask).expand_as(matrix.weight).contiguous()

    return Part(matrix, total, expand)


def _blocks(matrix: PrunedMatrix, height: int, width: int) -> WeightGroups:
    _check_tiles(matrix, height, width)
    out, into = _out_in(matrix, matrix.weight).shape

    def total(x: Tensor) -> Tensor:
        return _out_in(matrix, x).reshape(out // height, height, into // width, width).sum((1, 3))

    def expand(mask: Tensor) -> Tensor:
        return _out_in(matrix, mask.repeat_interleave(height, 0).repeat_interleave(width, 1)).contiguous()

    return WeightGroups(matrix.name, [Part(matrix, total, expand)])


def _check_size(name: str, size: int) -> None:
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ValueError(f"{name}={size!r}: must be an integer of at least 1")


def _check_tiles(matrix: PrunedMatrix, height: int, width: int) -> None:
    shape = tuple(_out_in(matrix, matrix.weight).shape)
    if shape[0] % height or shape[1] % width:
        raise ValueError(f"{matrix.name} of shape {shape} (out, in) cannot be tiled by blocks of {height} x {width}")


def _out_in(matrix: PrunedMatrix, x: Tensor) -> Tensor:
    """x with (out, in) for the weight's own layout, and back again: GPT-2's `Conv1D` has (in, out)."""
    return x.t() if Slices.transposed(matrix.module) else x
