"""What a run tells about itself: how its masks changed, and whether the model still tells inputs apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mvp_lite.forward import evaluating, without_labels

__all__ = ["MaskChanges", "constant_share"]

#: entries of one mask that are looked at, evenly spaced: enough for a fraction, and much cheaper than all
_SAMPLE = 2**16


class MaskChanges:
    """Counts how many entries of the masks change from one step to the next, on a sample of each mask."""

    def __init__(self) -> None:
        self._counts: list[Tensor] = []
        self._last: list[Tensor] = []
        self._looked_at = 0

    def observe(self, masks: Sequence[Tensor]) -> None:
        """Compare with the masks of the call before; the first call only remembers them."""
        now = [mask.flatten()[:: max(1, mask.numel() // _SAMPLE)].bool() for mask in masks]
        if self._last:
            device = now[0].device
            changed = [torch.count_nonzero(a != b.to(a.device)).to(device) for a, b in zip(now, self._last, strict=True)]
            self._counts.append(torch.stack(changed).sum())
        self._last, self._looked_at = now, sum(mask.numel() for mask in now)

    def fractions(self) -> list[float]:
        """For each step, the fraction of all entries that changed."""
        if not self._counts:
            return []
        counts = torch.stack([count.cpu() for count in self._counts])
        return [float(count) / self._looked_at for count in counts]


def constant_share(model: nn.Module, batches: Iterable[Mapping[str, Tensor]]) -> float:
    r"""Share of the hidden state before the head that is the same for every input, between 0 and 1.

    $\lVert\bar h\rVert^2/\overline{\lVert h\rVert^2}$ with means over inputs, at each position of the sequence. The
    hidden state is what the last `nn.Linear` of the forward pass reads. At 1 all inputs look alike to the head: its
    answer is always the same.

    Args:
        model: its modes are restored.
        batches: arguments of the model; positions beyond the shortest batch are left out.

    Raises:
        ValueError: no batch, or no `nn.Linear` in the forward pass.
    """
    seen: list[Tensor] = []

    def remember(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        seen[:] = [inputs[0].detach().double()]

    states = []
    with evaluating(model) as handles, torch.no_grad():
        handles += [x.register_forward_pre_hook(remember) for x in model.modules() if isinstance(x, nn.Linear)]
        for batch in batches:
            model(**without_labels(batch))
            if not seen:
                raise ValueError("constant_share: the forward pass uses no nn.Linear")
            states.append(seen[0])
    if not states:
        raise ValueError("constant_share: no batch given")
    if states[0].dim() > 2:
        width = min(h.shape[1] for h in states)
        states = [h[:, :width] for h in states]
    h = torch.cat(states)
    return float(h.mean(0).square().sum() / h.square().mean(0).sum())
