"""The matrices of a model that are pruned: how the model holds them between optimizer steps."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mvp_lite.targets import find_targets

__all__ = ["PrunedMatrix", "find_matrices"]


@dataclass(eq=False)
class PrunedMatrix:
    """One pruned weight. Between steps `weight`, which the model computes with, holds `master * mask`.

    Attributes:
        name: path of its module in the model.
        module: `nn.Linear`, weight (out, in), or GPT-2's `Conv1D`, weight (in, out).
        weight: the parameter that the model computes with, W * M.
        master: W, the dense weight, pruned entries included.
        mask: M, of the same shape; boolean, or in the weight's dtype for gates in [0, 1].
    """

    name: str
    module: nn.Module
    weight: nn.Parameter
    master: Tensor
    mask: Tensor
    # The storage that `weight` gets back after an optimizer step; set only during one.
    _masked: Tensor | None = None
    _version: int = -1
    # The gradient that was already turned into those of W and S. Held, so that no other tensor gets its id.
    _processed: tuple[Tensor, int] | None = None

    @property
    def multiplier(self) -> Tensor:
        """The mask as numbers; multiplying by bytes is three times faster than by booleans."""
        return self.mask.view(torch.uint8) if self.mask.dtype == torch.bool else self.mask

    def write_masked(self) -> None:
        """Put W * M into the model, and remember the tensor's version, to notice writes by others."""
        torch.mul(self.master, self.multiplier, out=self.weight.data)
        self._version = self.weight._version

    def lend_master(self) -> None:
        """Let the optimizer update W: for the time of its step `weight` holds the dense matrix."""
        self._masked, self.weight.data = self.weight.data, self.master

    def take_back_master(self) -> None:
        """Read W as the optimizer left it; `restore_masked` must follow."""
        self.master = self.weight.data
        self._processed = None

    def restore_masked(self) -> None:
        """Give the model its masked storage back; also after an optimizer step that raised half-way."""
        if self._masked is not None:
            self.weight.data, self._masked = self._masked, None
            self._version = self.weight._version

    def replace_master(self, W: Tensor) -> None:
        """Go on with a copy of W, as loaded from a checkpoint."""
        self.master = W.to(self.weight.device, self.weight.dtype, copy=True)
        self._processed = None

    def to_device(self) -> None:
        """Move master and mask to the device that the model has been moved to."""
        device = self.weight.device
        if device != self.master.device:
            self.master, self.mask = self.master.to(device), self.mask.to(device)

    def new_gradient(self) -> Tensor | None:
        """G, unless there is none or it was processed already."""
        G = self.weight.grad
        if G is None or (self._processed and self._processed[0] is G and self._processed[1] == G._version):
            return None
        return G

    def mark_processed(self) -> None:
        """Remember the gradient as it is now, so that it is not processed a second time."""
        G = self.weight.grad
        self._processed = None if G is None else (G, G._version)

    def changed_outside(self) -> bool:
        """Has somebody else written other values into `weight` since the last `write_masked`?"""
        if self.weight._version == self._version:
            return False
        return not torch.equal(self.weight.data, self.master * self.multiplier)

    def accept_external_weights(self) -> None:
        """Copy into the master the kept entries that someone else loaded into the model; pruned ones stay as they were.

        Raises:
            ValueError: the parameter was replaced, changed its dtype, or has pruned entries that are not zero.
        """
        weight = self.weight
        if getattr(self.module, "weight", None) is not weight or weight.dtype != self.master.dtype:
            raise ValueError(
                f"{self.name}.weight was replaced (by fully_shard?) or changed its dtype after attach(): not supported"
            )
        if self.changed_outside():
            if bool((weight.data.ne(0) & self.mask.eq(0)).any()):
                raise ValueError(
                    f"{self.name}.weight was changed from outside: pruned entries are not zero any more. After "
                    "attach(), load weights only with the optimizer state saved with them, between two optimizer steps"
                )
            kept = self.mask.ne(0)
            factor = torch.where(kept, self.mask, 1).to(weight.dtype)
            self.master = torch.where(kept, weight.data / factor, self.master)
            self._version = weight._version


def find_matrices(model: nn.Module, target: str | None = None) -> list[PrunedMatrix]:
    """The matrices of the modules that `find_targets` finds, nothing pruned yet; raises what it raises."""
    matrices = []
    for name, module in find_targets(model, target).items():
        mask = torch.ones_like(module.weight, dtype=torch.bool)
        matrices.append(PrunedMatrix(name, module, module.weight, module.weight.detach().clone(), mask))
    return matrices
