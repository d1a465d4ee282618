"""Further training of a pruned model: `hold_zeros` keeps its zeros, and a guard warns where nothing does."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from mvp_lite.targets import find_targets, some_names

__all__ = ["Hold", "guard_zeros", "hold_zeros", "remove_guard"]


class Hold:
    """Keeps the zeros of some weights zero while an optimizer trains the rest; made by `hold_zeros`."""

    def __init__(self, modules: dict[str, Any], optimizer: Optimizer) -> None:
        self._modules = modules
        self._weights: dict[str, nn.Parameter] = {name: module.weight for name, module in modules.items()}
        self._zeros = {name: weight.detach().eq(0) for name, weight in self._weights.items()}
        self._versions = {name: weight._version for name, weight in self._weights.items()}
        # On the way to `.grad`, so that clipping, accumulation and data-parallel averages see no gradient of zeros.
        self._handles: list[Any] = [
            weight.register_hook(_MaskGradient(self, name))  # type: ignore[no-untyped-call]
            for name, weight in self._weights.items()
            if weight.requires_grad
        ]
        self._handles += [
            optimizer.register_step_pre_hook(self._before_step),
            optimizer.register_step_post_hook(self._after_step),
        ]

    def __repr__(self) -> str:
        held, total = (sum(int(z.sum()) for z in self._zeros.values()), sum(z.numel() for z in self._zeros.values()))
        state = "" if self._handles else "; released"
        return f"Hold({held:,} zeros among {total:,} weights of {len(self._zeros)} matrices{state})"

    def release(self) -> None:
        """Remove every hook: from now on the optimizer moves zeros too. May be called twice."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def zeros(self, name: str) -> Tensor:
        """Boolean, True where the weight of this matrix is held; on the weight's device."""
        if self._zeros[name].device != self._weights[name].device:
            self._zeros[name] = self._zeros[name].to(self._weights[name].device)
        return self._zeros[name]

    def _before_step(self, *_: Any) -> None:
        """Refuse weights that were replaced, or loaded with other zeros, since the last step."""
        for name, weight in self._weights.items():
            if getattr(self._modules[name], "weight", None) is not weight:
                raise ValueError(f"{name}.weight was replaced (by fully_shard?) after hold_zeros(): not supported")
            if weight._version != self._versions[name] and bool(weight.detach()[self.zeros(name)].any()):
                raise ValueError(
                    f"{name}.weight was changed from outside: zeros that are held are not zero any more. After loading "
                    "other weights call release() on what hold_zeros returned, then hold_zeros again"
                )

    def _after_step(self, *_: Any) -> None:
        for name, weight in self._weights.items():  # momentum from before, or decoupled noise, may move them
            with torch.no_grad():
                weight.masked_fill_(self.zeros(name), 0)
            self._versions[name] = weight._version


class _MaskGradient:
    """The hook on one weight."""

    def __init__(self, hold: Hold, name: str) -> None:
        self._hold, self._name = hold, name

    def __call__(self, G: Tensor) -> Tensor:
        return G.masked_fill(self._hold.zeros(self._name), 0)


def hold_zeros(model: nn.Module, optimizer: Any, target: str | None = None) -> Hold:
    """Keep the zeros of a pruned model zero during further training.

    The entries that are zero now get no gradient, and are zero after every `optimizer.step()`. Call it after
    `Pruner.finalize()`, or after loading a pruned model, before training goes on. The Trainer and accelerate work with
    such an optimizer as with any other. Nothing has to be saved: after a restart load the weights, then call it again.

    Args:
        model: pruned, with zeros in its matrices.
        optimizer: the one that trains it; accelerate's wrapper is fine too.
        target: the regular expression that was given to the `Pruner`, if any.

    Returns:
        a `Hold`; its `release()` ends it. It need not be kept.

    Raises:
        TypeError: no torch optimizer.
        ValueError: no zeros in the matrices, a pruner still attached to the optimizer, an optimizer that holds none of
            the matrices, or what `find_targets` raises. From a later step: the weights were replaced, or changed so
            that zeros are lost.
    """
    optimizer = getattr(optimizer, "optimizer", optimizer)  # accelerate's wrapper
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer={type(optimizer).__name__}: hold_zeros takes a torch.optim.Optimizer")
    if getattr(optimizer, "_mvp_lite_pruner", None) is not None:
        raise ValueError("a pruner is attached to this optimizer and keeps its zeros: call its finalize() first")
    targets = find_targets(model, target)
    pruned = {name: module for name, module in targets.items() if bool(module.weight.detach().eq(0).any())}
    if not pruned:
        raise ValueError(
            f"no zeros in the weights of {some_names(list(targets))}: load the pruned weights first, and give the "
            "target= that the Pruner had"
        )
    in_optimizer = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if not any(id(module.weight) in in_optimizer for module in pruned.values()):
        raise ValueError(f"the optimizer does not hold the weights of {some_names(list(pruned))}")
    remove_guard(optimizer)
    return Hold(pruned, optimizer)


class _Guard:
    """Warns once, when a step has made pruned entries nonzero that nothing holds; then it is gone."""

    def __init__(self, weights: Sequence[nn.Parameter]) -> None:
        self._weights = list(weights)
        self._versions = [weight._version for weight in self._weights]
        self._kept = self._count()
        self.handle: Any = None

    def _count(self) -> int:
        return sum(int(torch.count_nonzero(weight.detach())) for weight in self._weights)

    def __call__(self, optimizer: Optimizer, *_: Any) -> None:
        versions = [weight._version for weight in self._weights]
        if versions == self._versions:
            return
        self._versions, now, total = versions, self._count(), sum(weight.numel() for weight in self._weights)
        if now <= self._kept:
            return
        remove_guard(optimizer)
        warnings.warn(
            f"this optimizer step after finalize() made pruned weights nonzero: the density went from "
            f"{self._kept / total:.3g} to {now / total:.3g}. To train on with the zeros held, call "
            "mvp_lite.hold_zeros(model, optimizer) right after finalize()",
            UserWarning,
            stacklevel=3,  # the line that called step()
        )


def guard_zeros(optimizer: Optimizer, weights: Sequence[nn.Parameter]) -> None:
    """Warn when a step of this optimizer makes zeros of these weights nonzero; `hold_zeros` and `attach` end it."""
    remove_guard(optimizer)
    guard = _Guard(weights)
    guard.handle = optimizer.register_step_post_hook(guard)
    optimizer._mvp_lite_guard = guard  # type: ignore[attr-defined]


def remove_guard(optimizer: Optimizer) -> None:
    """Remove the hook of `guard_zeros`, if there is one."""
    guard = getattr(optimizer, "_mvp_lite_guard", None)
    if guard is not None:
        guard.handle.remove()
        optimizer._mvp_lite_guard = None  # type: ignore[attr-defined]
