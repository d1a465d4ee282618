r"""R2: which neurons' outgoing weights represent the others' (Nova, Dai, Schuurmans, ICML 2023, Algorithm 2)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["STOPS", "r2_coefficients", "r2_scores"]

#: rule -> how far C' is from C; the iteration ends when that is at most alpha
STOPS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "printed": lambda new, C: (new.sum() - C.sum()) / C.sum(),
    "absolute": lambda new, C: (new.sum() - C.sum()).abs() / C.sum(),
    "entrywise": lambda new, C: (new - C).abs().sum() / C.sum(),
}


def r2_scores(
    W: Tensor, *, sigma: float | None = 1.0, alpha: float = 0.01, stop: str = "absolute", half: bool = True,
    max_iterations: int = 100,
) -> tuple[Tensor, int]:  # fmt: skip
    r"""R2 (Nova et al. 2023, Algorithm 2): how well each neuron's outgoing weights represent the others'.

    From $C_0=1/N$ the multiplicative rule $C\leftarrow C\circ\sqrt{K/(KC)}$ (Eq. 7) with a Gaussian kernel K; the score
    is the diagonal of C when the rule is stopped. In the limit $C=I$ and all scores are 1: the ranking is that of an
    early stop, so `stop` and `alpha` are part of the method.

    Args:
        W: (N, d), a row for each neuron: the columns of the FFN's second map.
        sigma: width of the kernel; the default is the paper's. None: the median distance between two rows.
        alpha: stop when the change is at most this; the default is the paper's.
        stop: "absolute": $|\sum C'-\sum C|/\sum C$, the printed rule with bars, which its "less than 20 iterations"
            takes for granted; "printed": without them, so that it ends after one step for any W; "entrywise":
            $\sum|C'-C|/\sum C$ (ours), which looks at where C moves and takes 30 to 70 iterations.
        half: True for $K=\exp(-d^2/(2\sigma^2))$, False for $\exp(-d^2/\sigma^2)$.
        max_iterations: stop there in any case.

    Returns:
        Scores (N,) in W's dtype (at least float32), and the number of iterations. Memory holds up to six N x N
        matrices.

    Raises:
        ValueError: W not a matrix of at least 2 rows, NaN, or an argument outside its range.
    """
    C, iterations = r2_coefficients(W, sigma=sigma, alpha=alpha, stop=stop, half=half, max_iterations=max_iterations)
    return C.diagonal().clone(), iterations


def r2_coefficients(
    W: Tensor, *, sigma: float | None = 1.0, alpha: float = 0.01, stop: str = "absolute", half: bool = True,
    max_iterations: int = 100,
) -> tuple[Tensor, int]:  # fmt: skip
    """All coefficients C, (N, N), whose diagonal is `r2_scores`, and the number of iterations; arguments as there.

    Column j says with which weights the neurons represent neuron j.
    """
    if W.ndim != 2 or len(W) < 2 or not bool(W.isfinite().all()):
        raise ValueError(f"W of shape {tuple(W.shape)}: expected a finite matrix of at least 2 rows")
    if stop not in STOPS:
        raise ValueError(f"stop={stop!r}: must be one of {', '.join(STOPS)}")
    if sigma is not None and not sigma > 0.0:
        raise ValueError(f"sigma={sigma!r}: a positive width, or None for the median distance")
    K = _gaussian(W.detach().to(torch.promote_types(W.dtype, torch.float32)), sigma, half)
    C = torch.full_like(K, 1.0 / len(K))
    tiny = torch.finfo(K.dtype).tiny  # where K underflows, KC is 0, and 0 / 0 would be NaN
    for iteration in range(1, max_iterations + 1):
        KC = K.mean(1, keepdim=True) if iteration == 1 else K @ C  # C_0 is constant: no product is needed
        new = C * (K / KC.clamp_(min=tiny)).sqrt_()
        change, C = float(STOPS[stop](new, C)), new
        if change <= alpha:
            return C, iteration
    return C, max_iterations


def _gaussian(W: Tensor, sigma: float | None, half: bool) -> Tensor:
    """The kernel, (N, N) in W's dtype, from distances in float64."""
    distances = torch.cdist(W.double(), W.double())
    if sigma is None:
        others = ~torch.eye(len(W), dtype=torch.bool, device=W.device)
        sigma = float(distances[others].median()) or 1.0
    exponent = distances.div_(sigma).square_().mul_(-0.5 if half else -1.0)
    return exponent.to(W.dtype).exp_()
