"""Random swaps, thousands at once: how often does the loss fall when one weight takes another's place?

An event is a masked layer of 6 x 6 weights with random weights, scores, input and target, and one step of movement
pruning on it. All events are computed side by side: W, S, G and masks have the shape (events, 6, 6), x and y the shape
(events, 6, batch).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Generator, Tensor
from torch.nn import functional as F
from torch.optim import Optimizer

from mvp_lite.masks import top_v

__all__ = ["LOSSES", "Changes", "Swap", "draw", "sample", "step", "top"]

Select = Callable[[Tensor], Tensor]

_SIZE = 6  # of the layer's input and output


def _linear(a: Tensor, y: Tensor) -> Tensor:
    return (y * a).sum(1).mean(1)


def _squared(a: Tensor, y: Tensor) -> Tensor:
    return 0.5 * (a - y).square().sum(1).mean(1)


def _cross_entropy(a: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(a, y.argmax(1), reduction="none").mean(1)


#: name -> function of outputs and targets, both (events, 6, batch); gives the loss of each event, (events,)
LOSSES = {"linear": _linear, "squared": _squared, "cross-entropy": _cross_entropy}


class Changes(NamedTuple):
    """How the loss changed in the events whose mask changed: to first order and in truth, both (changed,)."""

    first: Tensor
    true: Tensor

    @property
    def share(self) -> float:
        """Share of these events in which the true loss does not rise."""
        return (self.true <= 0).double().mean().item()


class Swap(NamedTuple):
    """One step with one weight kept: which one left, which one entered, and the loss to first order and in truth."""

    leaves: tuple[int, ...]
    enters: tuple[int, ...]
    first: float
    true: float


def step(W: Tensor, S: Tensor, x: Tensor, y: Tensor, lr: float) -> Swap:
    """One step of movement pruning on the squared loss of one example; the one weight with the highest score is kept.

    Without a swap, `leaves` and `enters` are the same entry.

    Args:
        W, S: (out, in).
        x, y: (in,) and (out,).
        lr: learning rate of plain gradient descent, on W and on S.
    """
    M = top_v(S, 1 / S.numel())
    a = (W * M) @ x
    G = torch.outer(a - y, x)
    M_next = top_v(S - lr * G * W, 1 / S.numel())
    moved = (W - lr * G * M) * M_next - W * M
    a_next = a + moved @ x
    true = 0.5 * (a_next - y).square().sum() - 0.5 * (a - y).square().sum()
    leaves, enters = (tuple(mask.nonzero()[0].tolist()) for mask in (M, M_next))
    return Swap(leaves, enters, (G * moved).sum().item(), true.item())


def draw(
    scale: float = 1.0, batch: int = 1, events: int = 4000, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """W and S, (events, 6, 6), with standard deviation `scale`; x and y, (events, 6, batch), standard normal."""
    return _draw(scale, batch, events, Generator().manual_seed(seed))


def top(scores: Tensor, k: int) -> Tensor:
    """Mask of the k highest scores of each event; scores and mask are (events, 6, 6)."""
    return scores >= scores.flatten(1).topk(k).values[:, -1, None, None]


def sample(
    loss: str,
    scale: float = 1.0,
    *,
    batch: int = 1,
    lr_W: float = 0.01,
    lr_S: float = 0.3,
    select: Select = lambda scores: top(scores, 5),
    select_next: Select | None = None,
    penalty: float = 0.0,
    optimizer: Callable[[list[Tensor]], Optimizer] | None = None,
    other_example: bool = False,
    events: int = 4000,
    seed: int = 0,
) -> Changes:
    """One step of movement pruning in each event; what became of the loss where the mask changed.

    Args:
        loss: one of `LOSSES`.
        scale: standard deviation of weights and scores.
        lr_W, lr_S: learning rates of plain gradient descent on the weights and on the scores.
        select: scores -> mask; `select_next` (default: the same) makes the mask after the step.
        penalty: lambda of the penalty on the scores, lambda * sum of sigmoid(S).
        optimizer: makes an optimizer that steps the scores in place of plain descent; it first sees four other
            examples, with the weights held fixed.
        other_example: measure the loss on another example than the one that gave the gradient.

    Raises:
        ValueError: an unknown loss.
    """
    if loss not in LOSSES:
        raise ValueError(f"loss={loss!r}: must be one of {', '.join(LOSSES)}")
    value, generator = LOSSES[loss], Generator().manual_seed(seed)
    W, S, x, y = _draw(scale, batch, events, generator)
    S.requires_grad_()
    stepper = (optimizer or (lambda scores: torch.optim.SGD(scores, lr=lr_S)))([S])

    def step_scores(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The mask and G before the step."""
        M = select(S.detach())
        used = (W * M).requires_grad_()
        (G,) = torch.autograd.grad(value(used @ x, y).sum(), used)
        gate = S.detach().sigmoid()
        S.grad = G * W + penalty * gate * (1.0 - gate)
        stepper.step()
        return M, G

    if optimizer is not None:
        for _ in range(4):
            step_scores(*_draw(scale, batch, events, generator)[2:])
    M, G = step_scores(x, y)
    M_next = (select_next or select)(S.detach())
    before, after = W * M, (W - lr_W * G * M) * M_next
    if other_example:
        x, y = _draw(scale, batch, events, generator)[2:]
    changed = (M_next != M).flatten(1).any(1)
    first = (G * (after - before)).sum((1, 2))
    return Changes(first[changed], (value(after @ x, y) - value(before @ x, y))[changed])


def _draw(scale: float, batch: int, events: int, generator: Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    W, S = scale * torch.randn(2, events, _SIZE, _SIZE, generator=generator, dtype=torch.float64)
    x, y = torch.randn(2, events, _SIZE, batch, generator=generator, dtype=torch.float64)
    return W, S, x, y
