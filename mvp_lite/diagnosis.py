"""Did a run work? What happened to its loss and its masks, and does the model still tell inputs apart?

`Diagnosis` holds the evidence and says in words what it shows. `fine_prune` returns one as `result.diagnosis`; in a
loop of your own `pruner.diagnosis(...)` makes one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from mvp_lite.forward import evaluating

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Diagnosis", "MaskChanges", "constant_share"]

#: a score up to so many standard errors above that of a constant answer is at chance level
_ERRORS = 3.0
#: hidden states of which this share is the same for every input leave the head nothing to tell inputs apart
_ALIKE = 0.99

#: entries of one mask that are looked at, evenly spaced: enough for a fraction, and much cheaper than all
_SAMPLE = 2**12


class MaskChanges:
    """Counts, step by step, the entries of the masks that are kept and that change, on a sample of each mask."""

    def __init__(self) -> None:
        self._kept: list[Tensor | float] = []
        self._changed: list[Tensor | float] = []
        self._last: Tensor | None = None

    def observe(self, masks: Sequence[Tensor]) -> None:
        """Compare with the masks of the call before; the first call only counts what is kept."""
        device = masks[0].device
        # An odd stride reaches all columns of a matrix whose width is a power of two.
        sampled = [mask.flatten()[:: mask.numel() // _SAMPLE | 1].bool().to(device) for mask in masks]
        now = torch.cat(sampled)
        self._kept.append(torch.count_nonzero(now) / now.numel())  # not read here: that would wait for the device
        if self._last is not None:
            self._changed.append(torch.count_nonzero(now != self._last.to(device)) / now.numel())
        self._last = now

    @property
    def densities(self) -> list[float]:
        """Fraction of the entries kept in each step: by the mask that the step's forward pass used."""
        return _read(self._kept)[: len(self._changed)]

    @property
    def changed(self) -> list[float]:
        """Fraction of the entries that changed after each step."""
        return _read(self._changed)

    def state_dict(self) -> dict[str, list[float]]:
        return {"densities": self.densities, "changed": self.changed}

    def load_state_dict(self, state: Mapping[str, Sequence[float]], masks: Sequence[Tensor]) -> None:
        """Go on after the steps of `state`, with the masks as they are now."""
        self._kept, self._changed, self._last = list(state["densities"]), [], None
        self.observe(masks)
        self._changed = list(state["changed"])


def _read(counts: list[Tensor | float]) -> list[float]:
    """The numbers; a tensor is read once."""
    counts[:] = [float(value) for value in counts]
    return [float(value) for value in counts]


def constant_share(model: nn.Module, batches: Iterable[Mapping[str, Tensor]]) -> float:
    r"""Share of the hidden state before the head that is the same for every input, at most 1.

    $\overline{h_i\cdot h_j}\,/\,\overline{\lVert h_i\rVert^2}$: the mean over pairs of different inputs i, j, at each
    position of the sequence, against the mean over inputs. The hidden state is what the last `nn.Linear` of the forward
    pass reads. At 1 all inputs look alike to the head, and its answer is always the same.

    Args:
        model: its modes are restored.
        batches: arguments of the model, at least two inputs in all; positions past the shortest batch are left out.

    Raises:
        ValueError: fewer than two inputs, or no `nn.Linear` in the forward pass.
    """
    seen: list[Tensor] = []

    def remember(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if inputs:
            seen[:] = [inputs[0].detach().double()]

    states = []
    with evaluating(model) as handles, torch.no_grad():
        handles += [x.register_forward_pre_hook(remember) for x in model.modules() if isinstance(x, nn.Linear)]
        for batch in batches:
            model(**batch)
            if not seen:
                raise ValueError("constant_share: the forward pass uses no nn.Linear")
            states.append(seen[0])
    count = sum(len(h) for h in states)
    if count < 2:
        raise ValueError(f"constant_share: needs at least two inputs, got {count}")
    if states[0].dim() > 2:
        width = min(h.shape[1] for h in states)
        states = [h[:, :width] for h in states]
    h = torch.cat(states)
    all_pairs = float(h.mean(0).square().sum() / h.square().mean(0).sum())
    return (count * all_pairs - 1.0) / (count - 1.0)


@dataclass(frozen=True)
class Diagnosis:
    """The evidence on one run. Lists have one entry for each step (or each of several parts of the run, in order).

    Attributes:
        losses: training loss; empty if not known.
        densities: fraction of the weights kept in that step; empty without pruning.
        changed: fraction of the mask's entries that changed after that step; empty without pruning.
        score, baseline: score on held-out examples, and that of the best answer that is the same for every input (for
            classification the most frequent class), in per cent; None if not known.
        examples: number of held-out examples; None if not known.
        constant_share: see `constant_share`; None if not known.
        advice: what to try where the run has failed.
    """

    losses: Sequence[float] = ()
    densities: Sequence[float] = ()
    changed: Sequence[float] = ()
    score: float | None = None
    baseline: float | None = None
    examples: int | None = None
    constant_share: float | None = None
    advice: Sequence[str] = field(default=("train longer",))

    @property
    def standard_error(self) -> float | None:
        r"""Of the score, from the number of examples alone, in points.

        Exact for accuracy, an upper bound for F1; for a correlation r, whose baseline is 0, $(1-r^2)/\sqrt{n-1}$.
        """
        if self.score is None or not self.examples:
            return None
        share = min(max(self.score / 100.0, 0.0), 1.0)
        if self.baseline == 0.0:
            return 100.0 * (1.0 - share**2) / math.sqrt(self.examples - 1) if self.examples > 1 else None
        return 100.0 * math.sqrt(share * (1.0 - share) / self.examples)

    @property
    def at_chance(self) -> bool:
        r"""Is the model no better than an answer that is the same for every input?

        By the score, where it and the baseline are known: at most three standard errors above the baseline (for a
        correlation on Fisher's scale, $\operatorname{artanh} r$). Otherwise by the hidden state before the head: 99 %
        of it or more is the same for every input.
        """
        if self.score is not None and self.baseline is not None:
            if self.baseline == 0.0 and self.examples:  # of a correlation alone
                above = math.atanh(min(max(self.score / 100.0, 0.0), 1.0 - 1e-12))
                return self.examples <= 3 or above <= _ERRORS / math.sqrt(self.examples - 3)
            share = self.baseline / 100.0
            error = 100.0 * math.sqrt(share * (1.0 - share) / self.examples) if self.examples else 0.0
            return self.score <= self.baseline + _ERRORS * error
        return self.constant_share is not None and self.constant_share >= _ALIKE

    @property
    def rise(self) -> tuple[int, float, float] | None:
        """Where the loss rose most: the step, and the mean losses of a twentieth of the run before and after it.

        None if losses are not known, or nowhere rise.
        """
        losses = np.asarray(self.losses, dtype=float)
        window = max(1, len(losses) // 20)
        if len(losses) < 2 * window + 1:
            return None
        sums = np.concatenate([[0.0], np.cumsum(losses)])
        means = (sums[window:] - sums[:-window]) / window
        rises = means[window:] - means[:-window]
        at = int(np.argmax(rises))
        return (at + window, float(means[at]), float(means[at + window])) if rises[at] > 0 else None

    @property
    def verdict(self) -> str:
        """One sentence on whether the run worked, and if not, when it failed and what to try."""
        text = self._standing()
        if not self.at_chance:
            return text
        if self.rise is not None and len(self.densities) == len(self.losses):
            at, before, after = self.rise
            window = max(1, len(self.losses) // 20)
            first, last = self.densities[max(0, at - window)], self.densities[min(at + window, len(self.losses)) - 1]
            if last < first:
                text += f": the loss rose from {before:.2f} to {after:.2f} while the density fell "
                text += f"from {first:.2g} to {last:.2g}"
        return text + "; " + _listed(self.advice)

    def _standing(self) -> str:
        if self.score is None:
            if self.constant_share is None:
                return "no score and no hidden states to judge by"
            share = f"{100 * self.constant_share:.0f} % of the hidden state before the head is the same for every input"
            return f"at chance level, it seems: {share}" if self.at_chance else f"inputs are told apart: {share}"
        error = "" if self.standard_error is None else f" ± {self.standard_error:.1f}"
        score = f"score {self.score:.1f}{error}"
        if self.baseline is None:
            return score
        against = f"a constant answer scores {self.baseline:.1f}"
        return f"at chance level, {score} where {against}" if self.at_chance else f"{score}; {against}"

    def __str__(self) -> str:
        return self.verdict

    def plot(self, axes: Sequence[Axes] | None = None) -> Sequence[Axes]:
        """Draw the loss with the density, and below it how many entries of the mask changed; returns the two axes."""
        import matplotlib.pyplot as plt

        if axes is None:
            _, axes = plt.subplots(2, 1, sharex=True, figsize=(7.0, 4.5), height_ratios=(2, 1), layout="constrained")
        top, bottom = axes
        top.plot(self.losses, color="#000000", linewidth=1)
        top.set_ylabel("training loss")
        top.set_title(self.verdict, fontsize="small", loc="left", wrap=True)
        if len(self.densities):
            right = top.twinx()
            right.plot(self.densities, color="#0072B2", linestyle="--")
            right.set_ylim(0, 1.05)
            right.set_ylabel("density (dashed)")
        bottom.plot([100 * value for value in self.changed], color="#D55E00")
        bottom.set_ylabel("mask entries\nchanged, %")
        bottom.set_xlabel("step")
        return axes


def _listed(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])}, or {items[-1]}"
