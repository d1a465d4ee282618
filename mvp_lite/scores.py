r"""What a weight is worth. W: weight, G: gradient of the loss with respect to the masked weight $W\odot M$, same shape.

Zeroth order looks at W alone; first order at the gradient too, once (SNIP, Taylor, Fisher) or summed along the
trajectory (movement, whose sum the optimizer makes: see `pruner`).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

__all__ = ["fisher", "magnitude", "movement_gradient", "snip", "soft_penalty_gradient", "taylor"]


def magnitude(W: Tensor) -> Tensor:
    """$|W|$ (zeroth order), same shape."""
    return W.abs()


def movement_gradient(G: Tensor, W: Tensor) -> Tensor:
    r"""$\partial\mathcal L/\partial S=G\odot W$ (Sanh et al. 2020, Eq. 2), for masked and kept entries alike.

    Exact for a continuous mask; straight-through for a step function. Gradient descent on it from S = 0 accumulates
    $S=-\alpha_S\sum_t G^{(t)}\odot W^{(t)}$ (Eq. 3).
    """
    return G * W


def snip(G: Tensor, W: Tensor) -> Tensor:
    r"""$|G\odot W|$: size of the first-order loss change on removal (Lee et al. 2019, without their normalisation)."""
    return (G * W).abs()


def taylor(G: Tensor, W: Tensor) -> Tensor:
    r"""$-G\odot W$: first-order loss change on removal, signed; removing a high score raises the loss."""
    return -(G * W)


def fisher(per_example_gradients: Iterable[Tensor], W: Tensor) -> Tensor:
    r"""$\frac12 W^2\,\frac1n\sum_n g_n^2$: second-order loss change under the empirical Fisher diagonal.

    Args:
        per_example_gradients: gradients of single examples' losses, each of W's shape.
    """
    total, count = torch.zeros_like(W), 0
    for g in per_example_gradients:
        total += g.square()
        count += 1
    if count == 0:
        raise ValueError("per_example_gradients is empty: the Fisher diagonal needs at least one gradient")
    return 0.5 * W.square() * total / count


def soft_penalty_gradient(S: Tensor, matrices: int) -> Tensor:
    r"""Gradient of $R(S)=\frac1{\text{matrices}}\sum\operatorname{mean}\sigma(S)$ for one matrix, as the code averages.

    $\frac{\sigma(S)(1-\sigma(S))}{\text{matrices}\cdot\text{numel}}$; multiply by $\lambda$.
    """
    gate = torch.sigmoid(S)
    return gate * (1.0 - gate) / (matrices * S.numel())
