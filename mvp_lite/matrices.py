"""The matrices of a model that are pruned: which they are, and how the model holds them between optimizer steps."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["PrunedMatrix", "find_matrices", "some_names"]


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
    """The linear modules of a model whose names match `target`.

    Args:
        model: any module.
        target: regular expression searched in module names; default: everything inside numbered blocks
            (`nn.ModuleList`), which in a transformer is the encoder without embeddings, pooler and head.

    Raises:
        ValueError: no match, a pattern that is no regular expression, a tied, sharded or parametrized weight.
    """
    linear = {name: module for name, module in model.named_modules() if _is_linear(module)}
    if target is None:
        blocks = [f"{name}." for name, module in model.named_modules() if isinstance(module, nn.ModuleList)]
        chosen = {name: m for name, m in linear.items() if any(name.startswith(block) for block in blocks)}
        hint = "no linear map inside numbered blocks (nn.ModuleList): pass target="
    else:
        try:
            pattern = re.compile(target)
        except re.error as error:
            raise ValueError(f"target={target!r} is not a regular expression: {error}") from None
        chosen = {name: m for name, m in linear.items() if pattern.search(name)}
        hint = f"target={target!r} matches no linear module"
    if not chosen:
        raise ValueError(f"{hint}; the model has {some_names(list(linear))}")
    owners: dict[int, list[str]] = {}
    for name, module in model.named_modules():  # each module once: one that is called in several places is fine
        for key, parameter in module.named_parameters(recurse=False):
            owners.setdefault(id(parameter), []).append(f"{name}.{key}")
    matrices = []
    for path, module in chosen.items():
        name = path.replace("_orig_mod.", "").removeprefix("module.")  # without a compiled or data-parallel wrapper
        weight = module.weight
        sharded = hasattr(weight, "ds_id") or type(weight).__name__ in ("DTensor", "FlatParameter")
        if sharded or not isinstance(weight, nn.Parameter):
            raise ValueError(f"{name}.weight is sharded (FSDP, DeepSpeed ZeRO) or parametrized: not supported")
        if len(owners[id(weight)]) > 1:
            names = ", ".join(owners[id(weight)])
            raise ValueError(f"{name}.weight is tied ({names}): prune an untied copy, or leave it out")
        mask = torch.ones_like(weight, dtype=torch.bool)
        matrices.append(PrunedMatrix(name, module, weight, weight.detach().clone(), mask))
    return matrices


def _is_linear(module: nn.Module) -> Any:
    # GPT-2's Conv1D is a linear map with weight (in, out); by name, so that transformers need not be imported.
    return isinstance(module, nn.Linear) or (type(module).__name__ == "Conv1D" and hasattr(module, "nf"))


def some_names(names: Sequence[str]) -> str:
    """The first names of a list, and how many there are, for a message."""
    if not names:
        return "none"
    return ", ".join(names[:6]) + (f" … ({len(names)} in all)" if len(names) > 6 else "")
