r"""Pruning FFN neurons without labels and without gradients (Nova, Dai, Schuurmans, ICML 2023): R2, D2, KCM.

R2 looks at the weights alone: which neurons' outgoing weights represent the others? D2 looks at the data: how large is
a neuron's activation on unlabeled text? Their product ranks the neurons of all layers in one pool, a budget of
operations says how many stay, and least squares, layer by layer, scales those that do. The paper leaves several choices
open; here each is an argument, and its default is ours. With labels the same budget and the same scaling serve
more methods, whose masks `mask_search` finds: Kwon et al. (NeurIPS 2022), heads included, and KCM's extension.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mvp_lite.gradient_free.mask_search import (
    WORTHS,
    evaluating,
    fisher_importance,
    mask_gradients,
    rearrange,
    search,
    swap,
)
from mvp_lite.masks import top_v_global
from mvp_lite.structure.units import Units, find_units

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["METHODS", "NeuronPruning", "d2_scores", "operations", "prune_neurons", "r2_scores", "solve_scales"]

METHODS = ("kcm", "r2d2", "r2", "d2", "weight_magnitude", "output_magnitude", "random", "fisher")
STOPS = ("printed", "absolute", "entrywise")
NORMALISATIONS = ("minmax", "max", "zscore", "none")
STATISTICS = ("mean", "abs", "rms")
#: families whose FFN adds to the stream after its own normalisation, so that the block's output holds the sum
_PRE_NORM = ("gpt2", "vit", "llama", "mistral", "qwen2")
#: bytes that dense streams may take; where they are more they are computed a second time
_ROOM = 4 * 2**30

Batch = Mapping[str, Tensor]


def r2_scores(
    W: Tensor, *, sigma: float | None = 1.0, alpha: float = 0.01, stop: str = "absolute", half: bool = True,
    max_iterations: int = 100, block: int = 512,
) -> tuple[Tensor, int]:  # fmt: skip
    r"""R2 (Nova et al. 2023, Algorithm 2): how well each neuron's outgoing weights stand for the others'.

    From $C_0=1/N$ the multiplicative rule $C\leftarrow C\circ\sqrt{K/(KC)}$ with a Gaussian kernel K; the score is the
    diagonal of C when the rule is stopped. Run to its end it gives $C=I$, all scores 1: the ranking is that of an early
    stop, so `stop` and `alpha` are part of the method.

    Args:
        W: (N, d), a row for each neuron: the columns of the FFN's second map.
        sigma: width of the kernel; the default is the paper's. None: the median distance between two rows.
        alpha: stop when the change is at most this; the default is the paper's.
        stop: "absolute": $|\sum C'-\sum C|/\sum C$, the printed rule with bars, which its "less than 20 iterations"
            takes for granted; "printed": without them, so that it ends after one step for any W; "entrywise":
            $\sum|C'-C|/\sum C$ (ours), which looks at where C moves and takes 30 to 70 iterations.
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
    K = _squared_distances(W, block)
    if sigma is None:
        middle = N + (N * (N - 1) + 1) // 2  # the diagonal's N zeros come first
        sigma = float(K.reshape(-1).kthvalue(middle).values.sqrt()) or 1.0
    K = K.mul_(-(0.5 if half else 1.0) / sigma**2).exp_()
    C = torch.full_like(K, 1.0 / N)
    total, tiny = float(N), torch.finfo(K.dtype).tiny
    for iteration in range(1, max_iterations + 1):
        new_total = moved = 0.0
        for begin in range(0, N, block):
            columns = slice(begin, begin + block)
            old = C[:, columns]
            KC = K.mean(1, keepdim=True) if iteration == 1 else K @ old  # C_0 is constant: no product is needed
            new = old * (K[:, columns] / KC.clamp_(min=tiny)).sqrt_()
            new_total += float(new.sum())
            moved += float((new - old).abs_().sum())
            C[:, columns] = new
        change = {"printed": new_total - total, "absolute": abs(new_total - total), "entrywise": moved}[stop] / total
        total = new_total
        if change <= alpha:
            return C.diagonal().clone(), iteration
    return C.diagonal().clone(), max_iterations


def _squared_distances(W: Tensor, block: int) -> Tensor:
    """(N, N) in W's dtype, from products in float64 about the rows' mean; the diagonal is 0, nothing is below."""
    rows = W.double() - W.double().mean(0)
    squares = rows.square().sum(1)
    D = torch.empty(len(W), len(W), dtype=W.dtype, device=W.device)
    for begin in range(0, len(W), block):
        part = slice(begin, begin + block)
        D[part] = torch.addmm(squares[part, None] + squares, rows[part], rows.T, alpha=-2.0)
    return D.clamp_(min=0.0).fill_diagonal_(0.0)


def d2_scores(model: Any, inputs: Iterable[Batch], *, statistic: str = "mean") -> list[Tensor]:
    r"""D2: for each FFN a score (N,) for each neuron, its average activation over all tokens that are not padding.

    `statistic`: "mean" is the paper's average of $H$; "abs" and "rms" average $|H|$ and $H^2$ (then the root).
    """
    if statistic not in STATISTICS:
        raise ValueError(f"statistic={statistic!r}: one of {', '.join(STATISTICS)}")
    ffns = [units for units in find_units(model) if units.unit_type == "neurons"]
    device = next(model.parameters()).device
    stats, _, _ = _activations(model, ffns, [_unlabeled(batch, device) for batch in inputs])
    return [stat[statistic] for stat in stats]


def operations(model: Any, length: float) -> dict[str, Any]:
    """Multiply-adds of the encoder on one sequence of `length` tokens.

    {"heads", "neurons", "per_head": […], "per_neuron": […]}: the sums, and for each layer what one unit costs.

    Matrix products and attention's two products; embeddings, biases, normalisation and the task's head are left out.
    """
    found: dict[str, Any] = {"heads": 0.0, "neurons": 0.0, "per_head": [], "per_neuron": []}
    for units in find_units(model):
        count = length * sum(part.module.weight.numel() for part in units.parts)
        if units.unit_type == "heads":
            count += 2 * length**2 * units.count * units.columns.size
        found[units.unit_type] += count
        found["per_head" if units.unit_type == "heads" else "per_neuron"].append(count / units.count)
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

    `model`: a copy with the pruned units' weights 0 and the others' outgoing ones scaled; `mvp.shrink(model)` cuts
    them out. `scores`, `masks`, `scales`: for each FFN, (N,). `heads`, `head_scales`: for each attention layer, a mask
    and scales of its heads (of those that share a key as one), all kept and 1 where heads are not pruned. `report`: a
    row for each block. `flops`: the fraction of the encoder's operations that is left, on sequences of `length` tokens.
    """

    model: Any
    scores: list[Tensor]
    masks: list[Tensor]
    scales: list[Tensor]
    report: pd.DataFrame
    flops: float
    length: float
    heads: list[Tensor]
    head_scales: list[Tensor]


def prune_neurons(
    model: Any,
    inputs: Iterable[Batch],
    flops: float = 0.6,
    method: str = "kcm",
    *,
    labelled: Iterable[Batch] | None = None,
    heads: bool = False,
    scale: bool | None = None,
    min_density: float = 0.0,
    sigma: float | None = 1.0,
    alpha: float = 0.01,
    stop: str = "absolute",
    half: bool = True,
    statistic: str = "mean",
    normalisation: str = "minmax",
    ridge: float = 1e-3,
    swap_by: str = "size",
    seed: int = 0,
) -> NeuronPruning:
    r"""Prune FFN neurons of a fine-tuned model with unlabeled inputs; no labels, no gradients, no training.

    With `labelled` batches two methods take gradients too, though only those of masks; no weight is trained.

    Args:
        model: a transformers model of a family in `mvp_lite.structure.units.FAMILIES`; it is left as it is.
        inputs: batches as the model takes them (labels in them are ignored); padding is told by `attention_mask`.
        flops: fraction of the encoder's operations that stays, for sequences of the inputs' mean length.
        method: "kcm" (R2 x D2, scaled; with `labelled`, swaps before scaling), "r2d2" (not scaled), "r2", "d2",
            "weight_magnitude" (norm of the outgoing weights), "output_magnitude" (mean size of what a neuron adds),
            "random", or "fisher" (Kwon et al. 2022, scaled; needs `labelled`). All rank all layers in one pool.
        labelled: batches with labels, for "fisher" and "kcm"; see `mvp_lite.gradient_free.mask_search`. The batches' size matters.
        heads: "fisher" prunes attention heads too: the split that keeps most importance within the budget.
        scale: fit what stays, layer by layer, to the dense model's stream, heads too if they are pruned; default: for
            "kcm" and "fisher".
        min_density: fraction of each layer's neurons (and heads) that stays at least.
        sigma, alpha, stop, half: see `r2_scores`.
        statistic: see `d2_scores`.
        normalisation: of D2 before the product, in each layer: "minmax", "max", "zscore" or "none".
        ridge: see `solve_scales`.
        swap_by: what "kcm" with `labelled` takes a gradient to be worth; see `mvp_lite.gradient_free.mask_search.swap`.
        seed: of "random".

    Raises:
        ValueError: no inputs; a budget that cannot be reached; a layer that would lose all neurons or heads; labels
            that are missing, or given to a method without use for them; an unknown method or option; a family that is
            not known.
    """
    import pandas as pd

    for name, value, allowed in (
        ("method", method, METHODS),
        ("normalisation", normalisation, NORMALISATIONS),
        ("statistic", statistic, STATISTICS),
        ("swap_by", swap_by, tuple(WORTHS)),
    ):
        if value not in allowed:
            raise ValueError(f"{name}={value!r}: one of {', '.join(allowed)}")
    if not 0.0 < flops <= 1.0:
        raise ValueError(f"flops={flops!r}: the fraction of operations that stays must lie in (0, 1]")
    if labelled is None and method == "fisher":
        raise ValueError("labelled=None: method='fisher' needs batches with labels")
    if labelled is not None and method not in ("fisher", "kcm"):
        raise ValueError(f"labelled: method={method!r} has no use for labels; 'fisher' and 'kcm' have")
    if heads and method != "fisher":
        raise ValueError(f"heads=True: method={method!r} scores neurons alone; 'fisher' scores heads too")
    device = next(model.parameters()).device
    batches = [_unlabeled(batch, device) for batch in inputs]
    if not batches:
        raise ValueError("inputs is empty: give at least one batch of unlabeled inputs")
    result = copy.deepcopy(model)
    units_of = {
        kind: [units for units in find_units(result) if units.unit_type == kind] for kind in ("heads", "neurons")
    }
    attentions, ffns = units_of["heads"], units_of["neurons"]
    scale = method in ("kcm", "fisher") if scale is None else scale
    stats, length, streams = _activations(result, ffns, batches, room=_ROOM if scale and not heads else 0)
    costs = operations(result, length)
    affordable = _affordable(costs, flops, heads)
    gradients = None if labelled is None else mask_gradients(model, labelled, heads)

    iterations = [0] * len(ffns)
    head_masks = [torch.ones(units.count, dtype=torch.bool, device=device) for units in attentions]
    if method == "fisher":
        assert gradients is not None
        importance = fisher_importance(gradients)
        scores, head_scores = (importance[1::2], importance[::2]) if heads else (importance, None)
        budget = flops * (costs["heads"] + costs["neurons"]) - (0.0 if heads else costs["heads"])
        each = [max(costs[name]) for name in ("per_neuron", "per_head")]
        masks, found = search(scores, each[0], budget, head_scores, each[1], min_density)
        masks = [rearrange(mask, g) for mask, g in zip(masks, gradients[1::2] if heads else gradients, strict=True)]
        if heads:
            head_masks = [rearrange(mask, g) for mask, g in zip(found, gradients[::2], strict=True)]
    else:
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
        masks = top_v_global(scores, affordable / sum(len(score) for score in scores), min_density)
        if gradients is not None:
            masks = swap(masks, scores, gradients, swap_by)
    for kind, unit_masks in (("heads", head_masks), ("neurons", masks)):
        for units, mask in zip(units_of[kind], unit_masks, strict=True):
            if not bool(mask.any()):
                raise ValueError(
                    f"{units.name} would lose all its {kind} at flops={flops!r}: give min_density, say 0.01"
                )

    scales, head_scales = ([torch.ones(len(m), device=device) for m in each] for each in (masks, head_masks))
    if scale:
        scales, head_scales = _fit(result, masks, head_masks, batches, ridge, streams)
    kept = 0.0
    for kind, cost, unit_masks, found in (
        ("heads", costs["per_head"], head_masks, head_scales),
        ("neurons", costs["per_neuron"], masks, scales),
    ):
        for units, mask, m, one in zip(units_of[kind], unit_masks, found, cost, strict=True):
            kept += int(mask.sum()) * one
            for part in units.parts:
                along = (mask * m if part is units.columns else mask).to(part.module.weight)
                along = along.repeat_interleave(part.size).repeat(part.parts)
                part.module.weight.data *= along[:, None] if part.dim == 0 else along
    rows = [
        (units.name, units.count, int(mask.sum()), float(mask.double().mean()), steps, int(head_mask.sum()))
        for units, mask, steps, head_mask in zip(ffns, masks, iterations, head_masks, strict=True)
    ]
    return NeuronPruning(
        model=result,
        scores=scores,
        masks=masks,
        scales=[torch.where(mask, m, 0.0) for mask, m in zip(masks, scales, strict=True)],
        report=pd.DataFrame(rows, columns=["layer", "neurons", "kept", "density", "iterations", "heads"]),
        flops=kept / (costs["heads"] + costs["neurons"]),
        length=length,
        heads=head_masks,
        head_scales=[torch.where(mask, m, 0.0) for mask, m in zip(head_masks, head_scales, strict=True)],
    )


def _affordable(costs: dict[str, Any], flops: float, heads: bool) -> int:
    """How many neurons the budget pays for if all heads stay, all FFNs being alike."""
    total, each = costs["heads"] + costs["neurons"], max(costs["per_neuron"])
    fixed = sum(costs["per_head"]) if heads else costs["heads"]
    layers = len(costs["per_neuron"])
    if math.floor((flops * total - fixed) / each + 1e-9) < layers:
        least, how = (
            (fixed + layers * each) / total,
            "with one head in each layer" if heads else "without pruning heads",
        )
        raise ValueError(f"flops={flops!r}: {how} at least {least:.3f} of the operations stay")
    affordable: int = math.floor((flops * total - costs["heads"]) / each + 1e-9)
    return max(0, affordable)


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


def _activations(
    model: Any, ffns: list[Units], batches: list[dict[str, Tensor]], room: int = 0
) -> tuple[list[dict[str, Tensor]], float, list[list[Tensor]]]:
    """For each FFN the mean, mean size and root mean square of its neurons' activations H, (N,) each; tokens a row.

    And for each FFN and batch the stream behind it, (real tokens, d), which `_fit` aims at; nothing if these are
    larger than `room` bytes.
    """
    sums: list[Any] = [0.0] * len(ffns)
    streams: list[list[Tensor]] = [[] for _ in ffns]
    pre_norm = model.config.model_type in _PRE_NORM
    tokens = rows = 0
    current: dict[str, Tensor] = {}

    def keep(n: int, seen: dict[str, Tensor]) -> Any:
        def hook(module: nn.Module, args: tuple[Tensor, ...], out: Any) -> None:
            nonlocal room
            stream = _hidden(out) if pre_norm else seen["x"] + seen["out"]
            seen.clear()
            room -= stream.nbytes
            if room >= 0:
                streams[n].append(stream[_real(stream, current)])
            else:
                for others in streams:
                    others.clear()

        return hook

    def watch(n: int) -> Any:
        def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            nonlocal tokens, rows
            real = _real(args[0], current)
            H = args[0][real].to(torch.promote_types(args[0].dtype, torch.float32))  # (tokens, N)
            sums[n] = sums[n] + torch.stack([H.sum(0), H.abs().sum(0), H.square().sum(0)])
            if n == 0:
                tokens, rows = tokens + len(H), rows + len(real)

        return hook

    with evaluating(model) as handles, torch.no_grad():
        for n, units in enumerate(ffns):
            handles.append(units.columns.module.register_forward_pre_hook(watch(n)))
            if room:
                seen: dict[str, Tensor] = {}
                handles += _watch(units, seen)
                handles.append(model.get_submodule(units.block).register_forward_hook(keep(n, seen)))
        for batch in batches:
            current = batch
            model(**batch)
    means = [total / tokens for total in sums]
    stats = [{"mean": mean, "abs": size, "rms": square.sqrt()} for mean, size, square in means]
    return stats, tokens / rows, streams if room > 0 else []


class _Stop(Exception):
    """Ends a forward pass before its first block."""


def _fit(
    model: Any, masks: list[Tensor], head_masks: list[Tensor], batches: list[dict[str, Tensor]], ridge: float,
    targets: list[list[Tensor]] | None = None,
) -> tuple[list[Tensor], list[Tensor]]:  # fmt: skip
    """Scales for the neurons, and for the heads, that stay, found layer by layer.

    A dense copy and a cut one go through the blocks side by side. In each, the cut one's units are scaled so that its
    stream after them, residual included, comes closest to the dense one's, on all real tokens: first the heads, where
    any was pruned anywhere, then the neurons. `targets`: the dense streams behind the FFNs, if `_activations` kept
    them; then, unless heads are fitted, the dense model does not run again.
    """
    cut = copy.deepcopy(model)
    wanted = {"heads": iter(head_masks), "neurons": iter(masks)}
    pairs = []
    for units, small in zip(find_units(model), find_units(cut), strict=True):
        mask = next(wanted[units.unit_type])
        small.select(mask.nonzero().reshape(-1))
        pairs.append((units, small, mask))
    fitted = {"neurons"} if all(bool(mask.all()) for mask in head_masks) else {"heads", "neurons"}
    sides = {"cut": cut} if targets and "heads" not in fitted else {"dense": model, "cut": cut}
    known = iter(targets or [])
    pre_norm = model.config.model_type in _PRE_NORM
    scales: dict[str, list[Tensor]] = {"heads": [], "neurons": []}
    with evaluating(model) as handles, evaluating(cut) as cut_handles, torch.no_grad():
        calls = _first_calls(model, model.get_submodule(pairs[0][0].block), batches)
        streams = [{"dense": args[0], "cut": args[0]} for args, _ in calls]
        for units, small, mask in pairs:
            if units.unit_type not in fitted:
                scales[units.unit_type].append(torch.ones(units.count, device=mask.device))
                continue
            columns, count = small.columns, int(mask.sum())
            W = columns.by_unit(columns.module.weight.detach(), count).float()  # (n, entries of a unit)
            products, errors = torch.zeros(count, count, device=W.device), torch.zeros(count, device=W.device)
            seen: dict[str, dict[str, Tensor]] = {"dense": {}, "cut": {}}
            handles += _watch(units, seen["dense"])
            cut_handles += _watch(small, seen["cut"])
            before_ffn = []
            wanted_here = next(known, []) if units.unit_type == "neurons" else []
            for i, (stream, (args, kwargs), batch) in enumerate(zip(streams, calls, batches, strict=True)):
                outputs = {
                    side: _hidden(one.get_submodule(units.block)(stream[side], *args[1:], **kwargs))
                    for side, one in sides.items()
                }
                if units.unit_type == "heads":  # the residual is the block's own input
                    sums = {side: stream[side] + seen[side]["out"] for side in sides}
                elif pre_norm:
                    sums = outputs
                else:
                    sums = {side: seen[side]["x"] + seen[side]["out"] for side in sides}
                real = _real(sums["cut"], batch)
                target = sums["dense"][real] if "dense" in sums else wanted_here[i]
                H, error = seen["cut"]["H"][real].float(), (target - sums["cut"][real]).float()
                for total, part in zip((products, errors), _products(H, W, error), strict=True):
                    total += part
                if units.unit_type == "neurons":
                    stream |= outputs
                    x = outputs["cut"] - seen["cut"]["out"] if pre_norm else seen["cut"]["x"]
                    before_ffn.append((x, seen["cut"]["H"]))
            # What the units add up to is A 1 now and should be A 1 + error.
            AtA = products * (W @ W.T) if units.unit_type == "neurons" else products
            m = solve_scales(AtA, AtA.sum(1) + errors, ridge)
            along = m.repeat_interleave(columns.size).to(columns.module.weight)
            columns.module.weight.data *= along[:, None] if columns.dim == 0 else along
            for handle in (*handles, *cut_handles):
                handle.remove()
            if units.unit_type == "neurons":  # the cut block again, from its FFN's second map on
                norm = nn.Identity() if pre_norm else _last_norm(cut.get_submodule(units.block))
                for stream, (x, H) in zip(streams, before_ffn, strict=True):
                    stream["cut"] = norm(x + columns.module(H))
            scales[units.unit_type].append(torch.ones(units.count, device=m.device).masked_scatter(mask, m))
    return scales["neurons"], scales["heads"]


def _products(H: Tensor, W: Tensor, error: Tensor) -> tuple[Tensor, Tensor]:
    r"""For the normal equations of scales, where $A_i$ is unit i's part of the output: a batch's share.

    For heads $A^\top A$, for neurons the $H^\top H$ in $A^\top A=H^\top H\circ WW^\top$, (n, n); and $A^\top$ `error`,
    (n,). H: (tokens, n * size), what enters the columns; W: (n, size * d), their weights; error: (tokens, d).
    """
    n = len(W)
    size = H.shape[1] // n
    if size == 1:
        return H.T @ H, ((error @ W.T) * H).sum(0)
    A = torch.einsum("tns,nsd->ntd", H.view(len(H), n, size), W.view(n, size, -1)).reshape(n, -1)
    return A @ A.T, A @ error.reshape(-1)


def _last_norm(block: nn.Module) -> nn.Module:
    """What a block that normalises the sum of stream and FFN does last; the FFN's input is that stream."""
    return [module for module in block.modules() if isinstance(module, nn.LayerNorm)][-1]


def _watch(units: Units, seen: dict[str, Tensor]) -> list[Any]:
    """Hooks that note the input of the units' first map, and what enters and what leaves their columns."""

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
