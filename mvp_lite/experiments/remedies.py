"""Changes to hard movement pruning that may help in short runs, made from outside the engine for a comparison.

A method is a subclass, and what needs the inputs of a layer is a kind of `WeightGroups`: what a user would write too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mvp_lite import groups
from mvp_lite.matrices import PrunedMatrix
from mvp_lite.methods import Method, Movement

__all__ = ["GROUPS", "REMEDIES", "Centered", "Compensated", "Frozen", "Leaking", "Seldom", "Sensitivity"]


class Frozen(Movement):
    """The masks stay as they are when the cool-down begins."""

    name = "frozen"

    def masks(self, scores: Sequence[Tensor], step: int) -> list[Tensor]:
        if not (self.settings.schedule.done(step - 1) and hasattr(self, "_last")):
            self._last = super().masks(scores, step)
        return self._last


class Seldom(Movement):
    """The masks are renewed every ten steps only."""

    name = "seldom"

    def masks(self, scores: Sequence[Tensor], step: int) -> list[Tensor]:
        if step % 10 == 0 or self.settings.schedule.done(step) or not hasattr(self, "_last"):
            self._last = super().masks(scores, step)
        return self._last


class Leaking(Movement):
    """The scores forget: over the run they decay by a factor of $e^{-3}$."""

    name = "leaking"

    def after_step(self, step: int, scores: Sequence[Tensor], mean_gradient: float | None) -> None:
        for S in scores:
            S.mul_(math.exp(-3.0 / self.settings.schedule.total_steps))


class Sensitivity(Movement):
    r"""The scores sum up $|G\odot W|$, whatever its sign."""

    name = "sensitivity"

    def score_gradient(self, mask_gradient: Tensor, S: Tensor, M: Tensor) -> Tensor:
        return mask_gradient.abs_().neg_()


class _WithInputs(groups.WeightGroups):
    """Knows the mean input of its matrix in the last forward pass of training."""

    def __init__(self, matrix: PrunedMatrix) -> None:
        super().__init__(matrix.name, groups.weights(matrix.module, [matrix])[0].parts)
        self.mean: Tensor | None = None
        matrix.module.register_forward_pre_hook(self._remember)

    def _remember(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if module.training:
            self.mean = inputs[0].detach().flatten(0, -2).to(self.matrices[0].master.dtype).mean(0)


class Centered(_WithInputs):
    r"""The scores get the gradient of the centered inputs, $(G-g_b\bar a^\top)\odot W$, for `nn.Linear` with a bias."""

    def mask_gradient(self) -> Tensor | None:
        matrix = self.matrices[0]
        bias: Any = matrix.module.bias
        if matrix.new_gradient() is None or self.mean is None:
            return None
        found = super().mask_gradient()
        assert found is not None
        return found - torch.outer(bias.grad, self.mean) * matrix.master


class Compensated(_WithInputs):
    """The bias takes over what weights contributed on the mean input when they are pruned, and gives it back."""

    def set_mask(self, mask: Tensor) -> None:
        matrix, before = self.matrices[0], self.mask
        super().set_mask(mask)
        if self.mean is not None:
            change = before.to(matrix.master.dtype) - mask.to(matrix.master.dtype)
            bias: Any = matrix.module.bias
            bias.data += (change * matrix.master) @ self.mean


def centered(model: nn.Module, matrices: Sequence[PrunedMatrix]) -> list[groups.WeightGroups]:
    return [Centered(matrix) for matrix in matrices]


def compensated(model: nn.Module, matrices: Sequence[PrunedMatrix]) -> list[groups.WeightGroups]:
    return [Compensated(matrix) for matrix in matrices]


REMEDIES: dict[str, type[Method]] = {cls.name: cls for cls in (Frozen, Seldom, Leaking, Sensitivity)}
GROUPS: dict[str, groups.GroupMaker] = {"centered": centered, "compensated": compensated}
