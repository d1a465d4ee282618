"""D2: how large a neuron's activation is on unlabeled text (Nova et al. 2023, Algorithm 1, lines 5 to 8)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mvp_lite.forward import evaluating
from mvp_lite.gradient_free.batches import Batch, checked, model_inputs, real_tokens
from mvp_lite.gradient_free.layer import Layer, find_layers, of_type

__all__ = ["NORMALIZATIONS", "STATISTICS", "d2_scores", "observe_activations"]

STATISTICS = ("mean", "abs", "rms")
#: of D2, within one layer, before it multiplies R2; "zscore" divides by the standard deviation with N - 1
NORMALIZATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "minmax": lambda x: (x - x.min()) / _positive(x.max() - x.min()),
    "max": lambda x: x / _positive(x.abs().max()),
    "zscore": lambda x: (x - x.mean()) / _positive(x.std()),
    "none": lambda x: x,
}


def _positive(x: Tensor) -> Tensor:
    return x.clamp(min=torch.finfo(x.dtype).tiny)


def d2_scores(model: Any, inputs: Iterable[Batch], *, statistic: str = "mean") -> list[Tensor]:
    r"""D2: for each FFN a score (N,) for each neuron, its average activation over all tokens that are not padding.

    `statistic`: "mean" is the paper's average of $H$; "abs" and "rms" average $|H|$ and $H^2$ (then the root).
    """
    if statistic not in STATISTICS:
        raise ValueError(f"statistic={statistic!r}: must be one of {', '.join(STATISTICS)}")
    ffns, device = of_type("neurons", find_layers(model)), next(model.parameters()).device
    observe_activations(model, ffns, [model_inputs(batch, device) for batch in checked("inputs", inputs)])
    return [ffn.activations[statistic] for ffn in ffns]


def observe_activations(model: Any, ffns: Sequence[Layer], batches: Iterable[Batch]) -> float:
    """Run the model once over unlabeled batches, and set each FFN's `activations`: what enters its second map.

    They hold each of `STATISTICS`, (N,), over all tokens that are not padding.

    Returns:
        The mean number of such tokens in a sequence.
    """
    sums: list[Any] = [0.0] * len(ffns)
    tokens = sequences = 0
    batch: Batch = {}  # the one that is running, for the hooks

    def observe(n: int) -> Any:
        def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            nonlocal tokens, sequences
            real = real_tokens(args[0], batch)
            H = args[0][real].to(torch.promote_types(args[0].dtype, torch.float32))  # (tokens, N)
            sums[n] = sums[n] + torch.stack([H.sum(0), H.abs().sum(0), H.square().sum(0)])
            if n == 0:
                tokens, sequences = tokens + len(H), sequences + len(real)

        return hook

    with evaluating(model) as handles, torch.no_grad():
        for n, ffn in enumerate(ffns):
            handles.append(ffn.units.columns.module.register_forward_pre_hook(observe(n)))
        for batch in batches:
            model(**batch)
    for ffn, total in zip(ffns, sums, strict=True):
        mean, absolute, square = total / tokens
        ffn.activations = {"mean": mean, "abs": absolute, "rms": square.sqrt()}
    return tokens / sequences
