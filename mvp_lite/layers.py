"""The teaching layer: the paper's masked linear map with a straight-through gradient, to be read in class."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mvp_lite.masks import Threshold, TopV
from mvp_lite.scores import magnitude

__all__ = ["MaskedLinear"]


class MaskedLinear(nn.Module):
    r"""$a=(W\odot M)x+b$ with $M=\mathrm{Top}_v(S)$ or $\mathbb 1(\sigma(S)>\tau)$ (Sanh et al. 2020, Eq. 1 and 2).

    Wraps an `nn.Linear`; `scores` is a parameter of the weight's shape (out, in). `method` is "magnitude" (S is |W| and
    gets no gradient), "movement" or "soft_movement". `level` is the density v, or the threshold of soft movement; the
    training loop sets it. A mask in `fixed_mask` replaces the layer's own selection (global scope).

    Raises:
        ValueError: another method.
    """

    def __init__(self, linear: nn.Linear, method: str = "movement") -> None:
        super().__init__()
        if method not in ("magnitude", "movement", "soft_movement"):
            raise ValueError(f"method={method!r}: must be 'magnitude', 'movement' or 'soft_movement'")
        self.weight, self.bias = linear.weight, linear.bias
        self.scores = nn.Parameter(torch.zeros_like(linear.weight), requires_grad=method != "magnitude")
        self.method = method
        self.level = 0.0 if method == "soft_movement" else 1.0
        self.fixed_mask: Tensor | None = None

    def mask(self) -> Tensor:
        """M, shape (out, in), in the weight's dtype; its gradient goes straight through to the scores."""
        S = magnitude(self.weight.detach()) if self.method == "magnitude" else self.scores
        if self.fixed_mask is not None:
            return self.fixed_mask.to(S.dtype) + (S - S.detach())
        select = Threshold if self.method == "soft_movement" else TopV
        return select.apply(S, self.level)  # type: ignore[no-any-return, no-untyped-call]

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., in) -> (..., out)."""
        return nn.functional.linear(x, self.weight * self.mask(), self.bias)
