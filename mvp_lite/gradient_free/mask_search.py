r"""Which heads and neurons to keep, from labels (Kwon et al. 2022; Nova et al. 2023, section 4.4).

Put a gate $m_i=1$ on what each unit adds to the model. One forward and one backward pass of a labelled batch give
$g_i=\partial\mathcal L/\partial m_i$ for all units at once; no weight is trained. Kwon et al. approximate the loss of a
mask by $\mathcal L(m)\approx\mathcal L(1)+\frac12\sum_b\big(\sum_{i\text{ pruned}}g_{b,i}\big)^2$, the empirical Fisher
matrix in place of the Hessian: its diagonal ranks the units and finds the split between heads and neurons (`search`),
its blocks within a layer correct the choice (`rearrange`). KCM's extension exchanges units by the gradients themselves
(`swap`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mvp_lite.masks import top_v
from mvp_lite.structure.units import find_units

__all__ = ["WORTHS", "evaluating", "fisher_importance", "mask_gradients", "rearrange", "search", "swap"]

#: what `swap` takes a unit's gradient g to be worth
WORTHS: dict[str, Callable[[Tensor], Tensor]] = {"size": torch.abs, "gradient": torch.clone, "loss": torch.neg}


@contextmanager
def evaluating(model: nn.Module) -> Iterator[list[Any]]:
    """Evaluation mode; hooks put into the list are removed, and every module's mode restored, afterwards."""
    modes, handles = [(module, module.training) for module in model.modules()], list[Any]()
    model.eval()
    try:
        yield handles
    finally:
        for handle in handles:
            handle.remove()
        for module, mode in modes:
            module.training = mode


def mask_gradients(model: Any, labelled: Iterable[Mapping[str, Tensor]], heads: bool = False) -> list[Tensor]:
    r"""$\partial\mathcal L_b/\partial m$ at $m=1$, by one forward and one backward pass for each batch b.

    The gate of a unit multiplies what enters its columns: a neuron's activation, all of a head's output. Heads that
    share a key and a value (grouped-query attention) share a gate. The model's weights, gradients, modes and hooks are
    left as they are. Padding counts only where the model's loss looks at it: a classifier's does not, the softmax over
    positions of a question-answering head does.

    Args:
        model: a transformers model of a family in `mvp_lite.structure.units.FAMILIES`.
        labelled: batches as the model takes them, with labels; the loss is the model's own, a mean over the batch.
        heads: gates for the heads too.

    Returns:
        For each FFN (batches, N); with `heads` for each attention layer too, in the order of `find_units`: a block's
        heads before its neurons.

    Raises:
        ValueError: no batches, a batch without labels, a loss that is not finite, a family that is not known.
    """
    gated = [units for units in find_units(model) if heads or units.unit_type == "neurons"]
    device = next(model.parameters()).device
    found: list[tuple[Tensor, ...]] = []
    with evaluating(model) as handles, torch.enable_grad():
        gates = [_gate(units.columns, units.count, handles) for units in gated]
        for n, batch in enumerate(labelled):
            loss = getattr(model(**{name: value.to(device) for name, value in batch.items()}), "loss", None)
            if loss is None:
                raise ValueError(f"labelled: batch {n} gives no loss; it holds {', '.join(batch)} and lacks labels")
            if not bool(loss.isfinite()):
                raise ValueError(f"labelled: batch {n} has a loss of {loss.item()}")
            found.append(torch.autograd.grad(loss, gates))
    if not found:
        raise ValueError("labelled is empty: give at least one batch with labels")
    return [torch.stack(gradients) for gradients in zip(*found, strict=True)]


def _gate(columns: Any, count: int, handles: list[Any]) -> Tensor:
    """Ones (count,), multiplied by a hook into the input of the map that leads out of the units."""
    weight = columns.module.weight
    gate = torch.ones(count, dtype=torch.promote_types(weight.dtype, torch.float32), device=weight.device)
    gate.requires_grad_()

    def hook(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        along = gate.repeat_interleave(columns.size).to(args[0].dtype)
        return (args[0] * along, *args[1:])

    handles.append(columns.module.register_forward_pre_hook(hook))
    return gate


def fisher_importance(gradients: Sequence[Tensor]) -> list[Tensor]:
    r"""Diagonal of the empirical Fisher matrix of the gates, $\sum_b g_{b,i}^2$: (n,) for each (batches, n).

    As in Kwon et al.'s code the sum is over *batches*, whose losses are means: within a batch the examples' gradients
    may cancel, so that the batch size is part of the method. Batches of one row give the sum over examples.
    """
    return [g.square().sum(0) for g in gradients]


def search(
    neurons: Sequence[Tensor], per_neuron: float, budget: float,
    heads: Sequence[Tensor] | None = None, per_head: float = 0.0, min_density: float = 0.0,
) -> tuple[list[Tensor], list[Tensor]]:  # fmt: skip
    """The masks of largest total importance within a budget (Kwon et al. 2022, mask search).

    For each number of heads, the best ones of all layers, and the best neurons that the rest of the budget pays for; of
    these splits the one whose importance is largest, of equals the one with more heads.

    Args:
        neurons: importance of each FFN's neurons, (N,) each.
        per_neuron: what one of them costs.
        budget: what all that is kept may cost, in the same unit.
        heads: importance of each attention layer's heads; None: only neurons are chosen, and heads cost nothing.
        per_head: what one of them costs.
        min_density: fraction of each layer's units that stays at least.

    Returns:
        Boolean masks of the neurons and of the heads (none without `heads`).

    Raises:
        ValueError: the budget does not pay for one unit, or `min_density` of them, in each layer.
    """
    if not 0.0 <= min_density <= 1.0:
        raise ValueError(f"min_density={min_density!r}: the fraction of each layer that stays must lie in [0, 1]")
    neuron_order, neuron_sums, fewest = _ranked(neurons, min_density)
    head_order, head_sums, fewest_heads = _ranked(heads, min_density) if heads else (None, torch.zeros(1), 0)
    best, chosen = -math.inf, (0, 0)
    for h in range(len(head_sums) - 1, fewest_heads - 1, -1):
        n = min(math.floor((budget - h * per_head) / per_neuron + 1e-9), len(neuron_sums) - 1)
        if n < fewest:
            continue
        total = float(neuron_sums[n]) + float(head_sums[h])
        if total > best:
            best, chosen = total, (n, h)
    if best == -math.inf:
        least = fewest * per_neuron + fewest_heads * per_head
        raise ValueError(f"budget={budget:g}: the least that min_density={min_density!r} lets stay costs {least:g}")
    masks = _kept(neurons, neuron_order, chosen[0])
    return masks, _kept(heads, head_order, chosen[1]) if heads and head_order is not None else []


def _ranked(scores: Sequence[Tensor], min_density: float) -> tuple[Tensor, Tensor, int]:
    """Places in the pool of all layers, best first; importance of the first 0, 1, … of them; how many must stay.

    What `min_density` guarantees comes first.
    """
    pool = torch.cat([score.double() for score in scores])
    if bool(pool.isnan().any()):
        raise ValueError("importance holds NaN: no order, so no search")
    must = torch.zeros_like(pool, dtype=torch.bool)
    if min_density > 0.0:
        must = torch.cat([top_v(score, min_density) for score in scores])
    order = pool.masked_fill(must, math.inf).argsort(descending=True, stable=True)
    sums = torch.cat([pool.new_zeros(1), pool[order].cumsum(0)])
    return order, sums, max(len(scores), int(must.sum()))


def _kept(scores: Sequence[Tensor], order: Tensor, count: int) -> list[Tensor]:
    kept = torch.zeros_like(order, dtype=torch.bool).index_fill_(0, order[:count], True)
    return list(torch.split(kept, [len(score) for score in scores]))


def rearrange(mask: Tensor, gradients: Tensor) -> Tensor:
    r"""Choose anew which units of one layer are pruned, as many as before (Kwon et al. 2022, mask rearrangement).

    The objective is $\sum_b\big(\sum_{i\text{ pruned}}g_{b,i}\big)^2$: units whose gradients cancel may go together.
    Greedy: each kept unit in turn, the least important first, joins the pruned ones, and of them all the one leaves
    without which the objective is smallest. It never rises.

    Args:
        mask: (n,) boolean, True where a unit is kept.
        gradients: (batches, n), see `mask_gradients`.

    Returns:
        (n,) boolean with as many True.
    """
    if mask.dtype != torch.bool or gradients.ndim != 2 or gradients.shape[1] != len(mask):
        raise ValueError(
            f"mask of {mask.dtype} {tuple(mask.shape)} and gradients {tuple(gradients.shape)}: "
            "booleans (n,) and (batches, n) are wanted"
        )
    if bool(mask.all()):
        return mask.clone()
    g = gradients.double().cpu().T.contiguous()  # (n, batches): each unit's gradients side by side
    rising = g.square().sum(1).argsort(stable=True)
    kept = mask.cpu()[rising]
    pruned = torch.cat([rising[~kept], rising[:1]])  # the last place is for the one that is tried
    rows = g[pruned]
    total = rows[:-1].sum(0)
    for unit in rising[kept].tolist():
        pruned[-1], rows[-1] = unit, g[unit]
        total += rows[-1]
        leaves = int((total - rows).square_().sum(1).argmin())
        total -= rows[leaves]
        pruned[leaves], rows[leaves] = pruned[-1], rows[-1].clone()
    new = torch.ones(len(mask), dtype=torch.bool).index_fill_(0, pruned[:-1], False)
    return new.to(mask.device)


def swap(
    masks: Sequence[Tensor], scores: Sequence[Tensor], gradients: Sequence[Tensor], by: str = "size"
) -> list[Tensor]:
    r"""Exchange kept units for pruned ones while that raises the kept set's total gradient (Nova et al., section 4.4).

    All layers are one pool. The kept unit with the lowest score (KCM's R2 x D2) makes room for the pruned one whose
    gradient is worth most; then the next lowest for the next best, until an exchange would not raise the total. A unit
    exchanged once stays where it is. The paper says neither this nor which gradient it means.

    Args:
        masks: boolean (n,) for each layer.
        scores: (n,) for each layer: the ranking that the masks come from.
        gradients: (batches, n) for each layer; summed over the batches.
        by: what a gradient g is worth: "size" is |g|, "gradient" g as it is, "loss" -g, by which to first order the
            loss would rise without the unit.

    Returns:
        New masks; as many units are kept in all, though not in each layer.
    """
    if by not in WORTHS:
        raise ValueError(f"by={by!r}: one of {', '.join(WORTHS)}")
    kept, score = torch.cat(list(masks)).clone(), torch.cat(list(scores))
    worth = WORTHS[by](torch.cat([g.double().sum(0) for g in gradients]))
    outgoing = score.masked_fill(~kept, math.inf).argsort(stable=True)[: int(kept.sum())]
    incoming = worth.masked_fill(kept, -math.inf).argsort(descending=True, stable=True)[: int((~kept).sum())]
    pairs = min(len(outgoing), len(incoming))
    outgoing, incoming = outgoing[:pairs], incoming[:pairs]
    raises = (worth[incoming] > worth[outgoing]).long().cumprod(0).bool()
    kept[outgoing[raises]], kept[incoming[raises]] = False, True
    return list(torch.split(kept, [len(mask) for mask in masks]))
