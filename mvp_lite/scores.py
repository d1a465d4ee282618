r"""Importance scores of weights. W: weight, G: gradient of the loss with respect to the masked weight $W\odot M$.

Zeroth order looks at W alone. First order looks at the gradient too: once (SNIP, Taylor, Fisher), or summed over the
training run (movement, where the optimizer computes the sum).
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from mvp_lite.masks import HARD_CONCRETE

__all__ = [
    "fisher",
    "l0_penalty_gradient",
    "magnitude",
    "magnitude_start",
    "movement_gradient",
    "snip",
    "soft_penalty_gradient",
    "taylor",
]


def magnitude(W: Tensor) -> Tensor:
    """$|W|$ (zeroth order), same shape."""
    return W.abs()


def magnitude_start(magnitude: Tensor, length: float) -> Tensor:
    r"""$\ell\,(|W|/\overline{|W|}-1)$: scores to start from, ordered as the magnitude, with mean 0; same shape.

    Training moves the scores from there. The course derives why magnitude belongs at the start: under SGD from W = 0
    the movement score of a weight begins with $W^2$, which pretraining has left behind and S = 0 forgets.

    Args:
        magnitude: $|W|$ of one matrix, or its sums over groups; where all are 0 the scores are too.
        length: $\ell$, in the unit of the scores: a weight of average magnitude starts this far above one of 0.
    """
    mean = magnitude.mean()
    return length * (magnitude / mean - 1.0) if mean > 0 else torch.zeros_like(magnitude)


def movement_gradient(G: Tensor, W: Tensor) -> Tensor:
    r"""$\partial\mathcal L/\partial M=G\odot W$ (Sanh et al. 2020, Eq. 2), for pruned and kept entries alike.

    Exact for a continuous mask M. The straight-through estimator uses it as $\partial\mathcal L/\partial S$ as well.
    Gradient descent on it from S = 0 accumulates $S=-\alpha_S\sum_t G^{(t)}\odot W^{(t)}$ (Eq. 3).
    """
    return G * W


def snip(G: Tensor, W: Tensor) -> Tensor:
    r"""$|G\odot W|$: absolute first-order change of the loss on removal (Lee et al. 2019, not normalized)."""
    return movement_gradient(G, W).abs()


def taylor(G: Tensor, W: Tensor) -> Tensor:
    r"""$-G\odot W$: first-order change of the loss on removal, with its sign: a high score means that it rises."""
    return -movement_gradient(G, W)


def fisher(per_example_gradients: Iterable[Tensor], W: Tensor) -> Tensor:
    r"""$\frac12 W^2\,\frac1n\sum_n g_n^2$: second-order change of the loss under the empirical Fisher diagonal.

    Args:
        per_example_gradients: gradients of single examples' losses, each of W's shape.
        W: the weight.

    Raises:
        ValueError: no gradient.
    """
    total, count = torch.zeros_like(W), 0
    for g in per_example_gradients:
        total += g.square()
        count += 1
    if count == 0:
        raise ValueError("per_example_gradients is empty: the Fisher diagonal needs at least one gradient")
    return 0.5 * W.square() * total / count


def soft_penalty_gradient(S: Tensor, matrices: int) -> Tensor:
    r"""Gradient of $R(S)=\frac1{\text{matrices}}\sum\operatorname{mean}\sigma(S)$ for one of so many matrices.

    R is averaged as in the published code: over each matrix, then over matrices.
    $\frac{\sigma(S)(1-\sigma(S))}{\text{matrices}\cdot\text{numel}}$, to be multiplied by $\lambda$.
    """
    gate = torch.sigmoid(S)
    return (1.0 - gate).mul_(gate).div_(matrices * S.numel())


def l0_penalty_gradient(S: Tensor, matrices: int) -> Tensor:
    r"""The same for L0, whose penalty averages $P(M\neq0)=\sigma(S-b\log(-l/r))$, `masks.expected_l0`."""
    low, high, temperature = HARD_CONCRETE
    return soft_penalty_gradient(S - temperature * math.log(-low / high), matrices)
