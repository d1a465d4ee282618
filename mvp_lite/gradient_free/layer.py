"""The record that pruning keeps of each layer, from its units' scores to the scales they end with."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import torch
from torch import Tensor

from mvp_lite.structure.units import Slices, Units, find_units

__all__ = ["Layer", "find_layers", "of_type", "scale_units"]

_TWO_LENGTHS = ("t5", "mt5")


@dataclass(eq=False)
class Layer:
    """The n heads of one attention layer, or the n neurons of one FFN, and what is known about them.

    Attributes:
        units: which rows and columns of which matrices are theirs.
        number: 0, 1, ... among the layers of this type.
        activations: statistics of a neuron's activation, (n,) each, see `d2.observe_activations`; none of heads.
        operations: multiply-adds of one unit on one sequence, see `costs.unit_operations`.
        gradients: of the loss with respect to each unit's gate, (batches, n); no batches without labels.
        scores: (n,), the ranking.
        mask: (n,) boolean, True where a unit stays.
        scales: (n,), what a unit's output is multiplied by: 0 where it is pruned, 1 where it is left as it was.
        iterations: how many R2 took; 0 if it was not used.
    """

    units: Units
    number: int
    activations: dict[str, Tensor] = field(default_factory=dict)
    operations: float = 0.0
    gradients: Tensor = field(init=False)
    scores: Tensor = field(init=False)
    mask: Tensor = field(init=False)
    scales: Tensor = field(init=False)
    iterations: int = 0

    def __post_init__(self) -> None:
        n, device = self.units.count, self.units.columns.module.weight.device
        self.gradients = torch.zeros(0, n, device=device)
        self.scores = torch.zeros(n, device=device)
        self.mask = torch.ones(n, dtype=torch.bool, device=device)
        self.scales = torch.ones(n, device=device)

    @property
    def W(self) -> Tensor:
        """Outgoing weights: (n, d) of neurons, (n, size * d) of heads, a row for each unit."""
        return self.units.columns.by_unit(self.units.columns.module.weight.detach(), self.units.count)

    @property
    def kept(self) -> Tensor:
        """Indices of the units that stay, in rising order."""
        return self.mask.nonzero().reshape(-1)

    def apply(self) -> None:
        """Zero the weights of the pruned units in the model, and scale the outgoing ones of those that stay."""
        for rows in self.units.rows:
            scale_units(rows, self.mask)
        scale_units(self.units.columns, self.scales)


def find_layers(model: Any) -> list[Layer]:
    """A record for each attention layer and each FFN of a model, in the order of `find_units`.

    Raises:
        ValueError: a family whose units are not known, or that has an encoder and a decoder.
    """
    if (family := model.config.model_type) in _TWO_LENGTHS:
        raise ValueError(
            f"model type {family!r}: operations are counted for sequences of one length, and its encoder and decoder "
            "have two; Pruner(groups='neurons') and shrink work for it"
        )
    numbers = {"heads": count(), "neurons": count()}
    return [Layer(units, next(numbers[units.unit_type])) for units in find_units(model)]


def of_type(unit_type: str, layers: Iterable[Layer]) -> list[Layer]:
    """The attention layers ("heads") or the FFNs ("neurons") among the layers."""
    return [layer for layer in layers if layer.units.unit_type == unit_type]


def scale_units(part: Slices, scales: Tensor) -> None:
    """Multiply each unit's rows (or columns) of one matrix by its entry of `scales` (n,), in place."""
    W = part.module.weight.data
    W *= part.along_weight(scales.to(W))
