r"""Pruning FFN neurons without labels and without gradients (Nova, Dai, Schuurmans, ICML 2023): R2, D2, KCM.

R2 looks at the weights alone: which neurons' outgoing weights represent the others? D2 looks at the data: how large is
a neuron's activation on unlabeled text? Their product ranks the neurons of all layers in one pool, a budget of
operations says how many stay, and least squares, layer by layer, scales those that do. The paper leaves several choices
open; here each is an argument, and its default is ours.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mvp_lite.masks import top_v_global
from mvp_lite.units import Units, find_units

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["METHODS", "NeuronPruning", "d2_scores", "operations", "prune_neurons", "r2_scores", "solve_scales"]

METHODS = ("kcm", "r2d2", "r2", "d2", "weight_magnitude", "output_magnitude", "random")
STOPS = ("printed", "absolute", "entrywise")
NORMALISATIONS = ("minmax", "max", "zscore", "none")
STATISTICS = ("mean", "abs", "rms")
#: families whose FFN adds to the stream after its own normalisation, so that the block's output holds the sum
_PRE_NORM = ("gpt2", "vit", "llama", "mistral", "qwen2")

Batch = Mapping[str, Tensor]


def r2_scores(
    W: Tensor, *, sigma: float | None = None, alpha: float = 0.01, stop: str = "entrywise", half: bool = True,
    max_iterations: int = 100, block: int = 512,
) -> tuple[Tensor, int]:  # fmt: skip
    r"""R2 (Nova et al. 2023, Algorithm 2): how well each neuron's outgoing weights stand for the others'.

    From $C_0=1/N$ the multiplicative rule $C\leftarrow C\circ\sqrt{K/(KC)}$ with a Gaussian kernel K; the score is the
    diagonal of C when the rule is stopped. Run to its end it gives $C=I$, all scores 1: the ranking is that of an early
    stop, so `stop` and `alpha` are part of the method.

    Args:
        W: (N, d), a row for each neuron: the columns of the FFN's second map.
        sigma: width of the kernel (the paper's: 1.0); default: the median distance between two rows.
        alpha: stop when the change is at most this.
        stop: "entrywise": $\sum|C'-C|/\sum C$ (ours); "absolute": $|\sum C'-\sum C|/\sum C$; "printed": the same
            without the bars, which ends after one step for any W.
        half: $K=\exp(-d^2/2\sigma^2)$; otherwise without the 2.
        max_iterations: stop there in any case.
        block: columns of C worked on at once; besides two N x N matrices memory holds some N x block ones.

    Returns:
        Scores (N,) in W's dtype (at least float32), and the number of iterations.

    Raises:
        ValueError: W not a matrix of at least 2 rows, NaN, or an argument outside its range.
    """
    if W.ndim != 2 or len(W) < 2 or not bool(W.isfinite().all()):
        raise ValueError(f"W of shape {tuple(W.shape)}: a finite matrix of at least 2 rows is wanted")
    if stop not in STOPS:
        raise ValueError(f"stop={stop!r}: one of {', '.join(STOPS)}")
    if sigma is not None and not sigma > 0.0:
        raise ValueError(f"sigma={sigma!r}: a positive width, or None for the median distance")
    W = W.detach().to(torch.promote_types(W.dtype, torch.float32))
    N = len(W)
    K = torch.cdist(W, W, compute_mode="donot_use_mm_for_euclid_dist")
    if sigma is None:
        sigma = float(K[~torch.eye(N, dtype=torch.bool, device=K.device)].median()) or 1.0
    K = K.square_().mul_(-(0.5 if half else 1.0) / sigma**2).exp_()
    C = torch.full_like(K, 1.0 / N)
    total, tiny = float(N), torch.finfo(K.dtype).tiny
    for iteration in range(1, max_iterations + 1):
        new_total = moved = 0.0
        for begin in range(0, N, block):
            columns = slice(begin, begin + block)
            old = C[:, columns]
            new = old * (K[:, columns] / (K @ old).clamp_(min=tiny)).sqrt_()
            new_total += float(new.sum())
            moved += float((new - old).abs_().sum())
            C[:, columns] = new
        change = {"printed": new_total - total, "absolute": abs(new_total - total), "entrywise": moved}[stop] / total
        total = new_total
        if change <= alpha:
            return C.diagonal().clone(), iteration
    return C.diagonal().clone(), max_iterations


def d2_scores(model: Any, inputs: Iterable[Batch], *, statistic: str = "mean") -> list[Tensor]:
    r"""D2: for each FFN a score (N,) for each neuron, its average activation over all tokens that are not padding.

    `statistic`: "mean" is the paper's average of $H$; "abs" and "rms" average $|H|$ and $H^2$ (then the root).
    """
    if statistic not in STATISTICS:
        raise ValueError(f"statistic={statistic!r}: one of {', '.join(STATISTICS)}")
    ffns = [units for units in find_units(model) if units.kind == "neurons"]
    device = next(model.parameters()).device
    stats, _ = _activations(model, ffns, [_unlabeled(batch, device) for batch in inputs])
    return [stat[statistic] for stat in stats]


def operations(model: Any, length: float) -> dict[str, Any]:
    """Multiply-adds of the encoder on one sequence of `length` tokens: {"heads", "neurons", "per_neuron": […]}.

    Matrix products and attention's two products; embeddings, biases, normalisation and the task's head are left out.
    """
    found: dict[str, Any] = {"heads": 0.0, "neurons": 0.0, "per_neuron": []}
    for units in find_units(model):
        weights = sum(part.module.weight.numel() for part in units.parts)
        if units.kind == "heads":
            found["heads"] += length * weights + 2 * length**2 * units.count * units.columns.size
        else:
            found["neurons"] += length * weights
            found["per_neuron"].append(length * weights / units.count)
    return found


def solve_scales(AtA: Tensor, Atb: Tensor, ridge: float = 1e-3) -> Tensor:
    r"""The m that minimises $\lVert Am-b\rVert^2+\rho\lVert m-1\rVert^2$, $\rho$ = `ridge` times the mean diagonal.

    AtA: (n, n), Atb: (n,), in float64 inside; returns (n,) in their dtype.
    """
    AtA64, Atb64 = AtA.double(), Atb.double()
    rho = ridge * float(AtA64.diagonal().mean()) or 1.0
    eye = torch.eye(len(AtA), dtype=torch.float64, device=AtA.device)
    ones = torch.ones_like(Atb64)
    m: Tensor = ones + torch.linalg.solve(AtA64 + rho * eye, Atb64 - AtA64 @ ones)
    return m.to(AtA.dtype)


@dataclass(frozen=True)
class NeuronPruning:
    """What `prune_neurons` gives.

    `model`: a copy with the pruned neurons' weights 0 and the others' outgoing ones scaled; `mvp.shrink(model)` cuts
    them out. `scores`, `masks`, `scales`: for each FFN, (N,). `report`: a row for each FFN. `flops`: the fraction of
    the encoder's operations that is left, on sequences of `length` tokens.
    """

    model: Any
    scores: list[Tensor]
    masks: list[Tensor]
    scales: list[Tensor]
    report: pd.DataFrame
    flops: float
    length: float


def prune_neurons(
    model: Any,
    inputs: Iterable[Batch],
    flops: float = 0.6,
    method: str = "kcm",
    *,
    scale: bool | None = None,
    min_density: float = 0.0,
    sigma: float | None = None,
    alpha: float = 0.01,
    stop: str = "entrywise",
    half: bool = True,
    statistic: str = "mean",
    normalisation: str = "minmax",
    ridge: float = 1e-3,
    seed: int = 0,
) -> NeuronPruning:
    r"""Prune FFN neurons of a fine-tuned model with unlabeled inputs; no labels, no gradients, no training.

    Args:
        model: a transformers model of a family in `mvp_lite.units.FAMILIES`; it is left as it is.
        inputs: batches as the model takes them (labels in them are ignored); padding is told by `attention_mask`.
        flops: fraction of the encoder's operations that stays, for sequences of the inputs' mean length.
        method: "kcm" (R2 x D2, scaled), "r2d2" (not scaled), "r2", "d2", "weight_magnitude" (norm of the outgoing
            weights), "output_magnitude" (mean size of what a neuron adds) or "random". All rank all layers in one pool.
        scale: fit the neurons that stay, layer by layer, to the dense model's stream; default: for "kcm" only.
        min_density: fraction of each layer's neurons that stays at least.
        sigma, alpha, stop, half: see `r2_scores`.
        statistic: see `d2_scores`.
        normalisation: of D2 before the product, in each layer: "minmax", "max", "zscore" or "none".
        ridge: see `solve_scales`.
        seed: of "random".

    Raises:
        ValueError: no inputs; a budget that FFN pruning cannot reach; a layer that would lose all neurons; an unknown
            method or option; a family that is not known.
    """
    import pandas as pd

    for name, value, allowed in (("method", method, METHODS), ("normalisation", normalisation, NORMALISATIONS)):
        if value not in allowed:
            raise ValueError(f"{name}={value!r}: one of {', '.join(allowed)}")
    if not 0.0 < flops <= 1.0:
        raise ValueError(f"flops={flops!r}: the fraction of operations that stays must lie in (0, 1]")
    device = next(model.parameters()).device
    batches = [_unlabeled(batch, device) for batch in inputs]
    if not batches:
        raise ValueError("inputs is empty: give at least one batch of unlabeled inputs")
    result = copy.deepcopy(model)
    ffns = [units for units in find_units(result) if units.kind == "neurons"]
    stats, length = _activations(result, ffns, batches)
    count = _affordable(operations(result, length), flops, len(ffns))

    iterations = [0] * len(ffns)
    scores = []
    for n, units in enumerate(ffns):
        W = units.columns.by_unit(units.columns.module.weight.detach(), units.count)  # (N, d)
        if method in ("kcm", "r2d2", "r2"):
            score, iterations[n] = r2_scores(W, sigma=sigma, alpha=alpha, stop=stop, half=half)
            if method != "r2":
                score = score * _normalised(stats[n][statistic], normalisation)
        elif method == "d2":
            score = stats[n][statistic]
        elif method == "random":
            score = torch.rand(units.count, generator=torch.Generator().manual_seed(1_000 * seed + n)).to(W.device)
        else:
            score = W.norm(dim=1) * (stats[n]["abs"] if method == "output_magnitude" else 1.0)
        scores.append(score)
    masks = top_v_global(scores, count / sum(len(score) for score in scores), min_density)
    for units, mask in zip(ffns, masks, strict=True):
        if not bool(mask.any()):
            raise ValueError(f"{units.name} would lose all its neurons at flops={flops!r}: give min_density, say 0.01")

    scales = [torch.ones_like(score) for score in scores]
    if method == "kcm" if scale is None else scale:
        scales = _fit(result, ffns, masks, batches, ridge)
    for units, mask, m in zip(ffns, masks, scales, strict=True):
        for part in units.parts:
            along = (mask * m if part is units.columns else mask).to(part.module.weight)
            part.module.weight.data *= along[:, None] if part.dim == 0 else along
    left = operations(result, length)
    kept = sum(int(mask.sum()) * each for mask, each in zip(masks, left["per_neuron"], strict=True))
    rows = [
        (units.name, units.count, int(mask.sum()), float(mask.double().mean()), steps)
        for units, mask, steps in zip(ffns, masks, iterations, strict=True)
    ]
    return NeuronPruning(
        model=result,
        scores=scores,
        masks=masks,
        scales=[torch.where(mask, m, 0.0) for mask, m in zip(masks, scales, strict=True)],
        report=pd.DataFrame(rows, columns=["layer", "neurons", "kept", "density", "iterations"]),
        flops=(left["heads"] + kept) / (left["heads"] + left["neurons"]),
        length=length,
    )


def _affordable(count: dict[str, Any], flops: float, layers: int) -> int:
    """How many neurons the budget pays for, all FFNs being alike."""
    total, each = count["heads"] + count["neurons"], max(count["per_neuron"])
    affordable: int = math.floor((flops * total - count["heads"]) / each + 1e-9)
    if affordable < layers:
        least = (count["heads"] + layers * each) / total
        raise ValueError(f"flops={flops!r}: without pruning heads at least {least:.3f} of the operations stay")
    return affordable


def _normalised(d2: Tensor, how: str) -> Tensor:
    spread = {"minmax": d2.max() - d2.min(), "max": d2.abs().max(), "zscore": d2.std()}.get(how, torch.ones(()))
    shift = {"minmax": d2.min(), "zscore": d2.mean()}.get(how, torch.zeros(()))
    return (d2 - shift.to(d2)) / spread.to(d2).clamp(min=torch.finfo(d2.dtype).tiny)


def _unlabeled(batch: Batch, device: torch.device) -> dict[str, Tensor]:
    targets = ("labels", "start_positions", "end_positions")
    return {name: value.to(device) for name, value in batch.items() if name not in targets}


def _real(H: Tensor, batch: Batch) -> Tensor:
    """(rows, tokens) boolean for hidden states H (rows, tokens, …): True where there is no padding."""
    mask = batch.get("attention_mask")
    if mask is None or mask.shape != H.shape[:2]:
        return torch.ones(H.shape[:2], dtype=torch.bool, device=H.device)
    return mask.bool()


@contextmanager
def _evaluating(model: Any) -> Iterator[list[Any]]:
    """Evaluation mode without gradients; hooks put into the list are removed, and modes restored, afterwards."""
    modes, handles = [(module, module.training) for module in model.modules()], list[Any]()
    model.eval()
    try:
        with torch.no_grad():
            yield handles
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes:
            module.training = mode


def _activations(
    model: Any, ffns: list[Units], batches: list[dict[str, Tensor]]
) -> tuple[list[dict[str, Tensor]], float]:
    """For each FFN the mean, mean size and root mean square of its neurons' activations H, (N,) each; tokens a row."""
    sums: list[Any] = [0.0] * len(ffns)
    tokens = rows = 0
    current: dict[str, Tensor] = {}

    def watch(n: int) -> Any:
        def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            nonlocal tokens, rows
            real = _real(args[0], current)
            H = args[0][real].to(torch.promote_types(args[0].dtype, torch.float32))  # (tokens, N)
            sums[n] = sums[n] + torch.stack([H.sum(0), H.abs().sum(0), H.square().sum(0)])
            if n == 0:
                tokens, rows = tokens + len(H), rows + len(real)

        return hook

    with _evaluating(model) as handles:
        handles += [units.columns.module.register_forward_pre_hook(watch(n)) for n, units in enumerate(ffns)]
        for batch in batches:
            current = batch
            model(**batch)
    means = [total / tokens for total in sums]
    return [{"mean": mean, "abs": size, "rms": square.sqrt()} for mean, size, square in means], tokens / rows


class _Stop(Exception):
    """Ends a forward pass before its first block."""


def _fit(
    model: Any, ffns: list[Units], masks: list[Tensor], batches: list[dict[str, Tensor]], ridge: float
) -> list[Tensor]:
    """Scales for the neurons that stay, (N,) for each FFN, found layer by layer.

    A dense copy and a cut one go through the blocks side by side. In each, the cut one's neurons are scaled so that its
    stream after the FFN, residual included, comes closest to the dense one's, on all real tokens.
    """
    cut = copy.deepcopy(model)
    cut_ffns = [units for units in find_units(cut) if units.kind == "neurons"]
    for units, mask in zip(cut_ffns, masks, strict=True):
        units.keep(mask.nonzero().reshape(-1))
    pre_norm = model.config.model_type in _PRE_NORM
    found = []
    with _evaluating(model) as handles, _evaluating(cut) as cut_handles:
        calls = _first_calls(model, model.get_submodule(ffns[0].block), batches)
        streams = [[args[0], args[0]] for args, _ in calls]
        for units, small, mask in zip(ffns, cut_ffns, masks, strict=True):
            W = small.columns.by_unit(small.columns.module.weight.detach(), int(mask.sum())).float()  # (n, d)
            AtA, Atb = torch.zeros(len(W), len(W), device=W.device), torch.zeros(len(W), device=W.device)
            seen: dict[str, dict[str, Tensor]] = {"dense": {}, "cut": {}}
            handles += _watch(model, units, seen["dense"])
            cut_handles += _watch(cut, small, seen["cut"])
            for stream, (args, kwargs), batch in zip(streams, calls, batches, strict=True):
                outputs = [
                    _hidden(one.get_submodule(units.block)(x, *args[1:], **kwargs))
                    for one, x in zip((model, cut), stream, strict=True)
                ]
                target, rest = (
                    (y if pre_norm else part["x"] + part["out"])[_real(y, batch)].float()
                    for y, part in zip(outputs, seen.values(), strict=True)
                )
                H = seen["cut"]["H"][_real(outputs[1], batch)].float()  # (tokens, n)
                b = target - rest + H @ W  # what the neurons, each by its scale, have to add up to
                AtA += H.T @ H
                Atb += ((b @ W.T) * H).sum(0)
                stream[0] = outputs[0]
            AtA *= W @ W.T
            m = solve_scales(AtA, Atb, ridge)
            part = small.columns
            part.module.weight.data *= (m[:, None] if part.dim == 0 else m).to(part.module.weight)
            for stream, (args, kwargs) in zip(streams, calls, strict=True):
                stream[1] = _hidden(cut.get_submodule(units.block)(stream[1], *args[1:], **kwargs))
            for handle in (*handles, *cut_handles):
                handle.remove()
            found.append(torch.ones(units.count, device=m.device).masked_scatter(mask, m))
    return found


def _watch(model: Any, units: Units, seen: dict[str, Tensor]) -> list[Any]:
    """Hooks that note an FFN's input, its activations and its output."""

    def first(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        seen["x"] = args[0]

    def second(module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
        seen["H"], seen["out"] = args[0], out

    return [
        units.rows[0].module.register_forward_pre_hook(first),
        units.columns.module.register_forward_hook(second),
    ]


def _first_calls(
    model: Any, block: nn.Module, batches: list[dict[str, Tensor]]
) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
    """What the first block is called with, for each batch, but for caches; nothing behind it is computed."""
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def catch(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        values = [kwargs.pop("hidden_states")] if "hidden_states" in kwargs else list(args)
        names = {name: None if "Cache" in type(value).__name__ else value for name, value in kwargs.items()}
        calls.append((tuple(None if "Cache" in type(value).__name__ else value for value in values), names))
        raise _Stop

    handle = block.register_forward_pre_hook(catch, with_kwargs=True)
    try:
        for batch in batches:
            try:
                model(**batch)
            except _Stop:
                continue
    finally:
        handle.remove()
    return calls


def _hidden(output: Any) -> Tensor:
    hidden: Tensor = output[0] if isinstance(output, tuple) else output
    return hidden
