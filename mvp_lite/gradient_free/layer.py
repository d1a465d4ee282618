"""The record that pruning keeps of each layer, from its units' scores to the scales they end with."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from mvp_lite.structure.units import Slices, Units

__all__ = ["Layer", "scale_units"]


@dataclass(eq=False)
class Layer:
    """The n heads of one attention layer, or the n neurons of one FFN, and what is known about them.

    Attributes:
        units: which rows and columns of which matrices are theirs.
        number: 0, 1, ... among the layers of this type.
        operations: multiply-adds of one unit on one sequence.
        activations: statistics of a neuron's activation, (n,) each, see `d2.activation_statistics`; none of heads.
        gradients: of the loss with respect to each unit's gate, (batches, n); no batches without labels.
        scores: (n,), the ranking.
        mask: (n,) boolean, True where a unit stays.
        scales: (n,), what a unit's output is multiplied by: 0 where it is pruned, 1 where it is left as it was.
        iterations: how many R2 took; 0 if it was not used.
    """

    units: Units
    number: int
    operations: float
    activations: dict[str, Tensor] = field(default_factory=dict)
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


def scale_units(part: Slices, scales: Tensor) -> None:
    """Multiply each unit's rows (or columns) of one matrix by its entry of `scales` (n,), in place."""
    W = part.module.weight.data
    along = scales.to(W).repeat_interleave(part.size).repeat(part.parts)
    W *= along[:, None] if part.dim == 0 else along
