r"""Which heads and neurons to keep, from labels (Kwon et al. 2022; Nova et al. 2023, section 4.4).

Put a gate $m_i=1$ on what each unit adds to the model. One forward and one backward pass of a labeled batch give
$g_i=\partial\mathcal L/\partial m_i$ for all units at once; no weight is trained. Kwon et al. approximate the loss of a
mask by $\mathcal L(m)\approx\mathcal L(1)+\frac12\sum_b\big(\sum_{i\text{ pruned}}g_{b,i}\big)^2$, the empirical Fisher
matrix in place of the Hessian: its diagonal ranks the units and finds the split between heads and neurons (`search`),
its blocks within a layer correct the choice (`rearrange`). KCM's extension exchanges units by the gradients themselves
(`swap`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mvp_lite.forward import evaluating
from mvp_lite.gradient_free.batches import checked
from mvp_lite.masks import top_v
from mvp_lite.structure.units import Slices, find_units

__all__ = ["SWAP_CRITERIA", "fisher_importance", "mask_gradients", "rearrange", "search", "swap"]

#: how `swap` reads the importance of a unit from its gradient g
SWAP_CRITERIA: dict[str, Callable[[Tensor], Tensor]] = {
    "magnitude": torch.abs,
    "gradient": torch.clone,
    "loss": torch.neg,
}


def mask_gradients(model: Any, labeled: Iterable[Mapping[str, Tensor]], heads: bool = False) -> list[Tensor]:
    r"""$\partial\mathcal L_b/\partial m$ at $m=1$, by one forward and one backward pass for each batch b.

    The gate of a unit multiplies what enters its columns: a neuron's activation, all of a head's output. Heads that
    share a key and a value (grouped-query attention) share a gate. The model's weights, gradients, modes and hooks are
    left as they are. Padding counts only where the model's loss looks at it: a classifier's does not, the softmax over
    positions of a question-answering head does.

    Args:
        model: a transformers model of a family in `mvp_lite.structure.units.FAMILIES`.
        labeled: batches as the model takes them, with labels; the loss is the model's own, a mean over the batch.
        heads: gates for the heads too.

    Returns:
        For each FFN (batches, N); with `heads` for each attention layer too, in the order of `find_units`: a block's
        heads before its neurons.

    Raises:
        ValueError: no batches, a batch without labels, a loss that is not finite, a family that is not known.
        TypeError: not batches of tensors.
    """
    gated = [units for units in find_units(model) if heads or units.unit_type == "neurons"]
    device = next(model.parameters()).device
    found: list[tuple[Tensor, ...]] = []
    with evaluating(model) as handles, torch.enable_grad():
        gates = [_gate(units.columns, units.count, handles) for units in gated]
        for n, batch in enumerate(checked("labeled", labeled)):
            loss = getattr(model(**{name: value.to(device) for name, value in batch.items()}), "loss", None)
            if loss is None:
                raise ValueError(f"labeled: batch {n} gives no loss; it holds {', '.join(batch)} and lacks labels")
            if not bool(loss.isfinite()):
                raise ValueError(f"labeled: batch {n} has a loss of {loss.item()}")
            found.append(torch.autograd.grad(loss, gates))
    if not found:
        raise ValueError("labeled is empty: give at least one batch with labels")
    return [torch.stack(gradients) for gradients in zip(*found, strict=True)]


def _gate(columns: Slices, count: int, handles: list[Any]) -> Tensor:
    """Ones (count,), multiplied by a hook into the input of the map that leads out of the units."""
    weight = columns.module.weight
    gate = torch.ones(count, dtype=torch.promote_types(weight.dtype, torch.float32), device=weight.device)
    gate.requires_grad_()

    def hook(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        along = gate.repeat_interleave(columns.size).to(args[0].dtype)
        return (args[0] * along, *args[1:])

    handles.append(columns.module.register_forward_pre_hook(hook))
    return gate


def fisher_importance(gradients: Tensor) -> Tensor:
    r"""Diagonal of the empirical Fisher matrix of a layer's gates, $\sum_b g_{b,i}^2$: (n,) from (batches, n).

    As in Kwon et al.'s code the sum is over *batches*, whose losses are means: within a batch the examples' gradients
    may cancel, so that the batch size is part of the method. Batches of one example give the sum over examples.
    """
    return gradients.square().sum(0)


def search(
    neurons: Sequence[Tensor], per_neuron: float, budget: float,
    heads: Sequence[Tensor] | None = None, per_head: float = 0.0, min_density: float = 0.0,
) -> tuple[list[Tensor], list[Tensor]]:  # fmt: skip
    """The masks of largest total importance within a budget (Kwon et al. 2022, mask search).

    For each number of heads, the best ones of all layers, and the best neurons that the rest of the budget pays for; of
    these splits the one whose importance is largest, of equals the one with more heads. As in Kwon et al. a layer may
    lose all its units: `min_density` guarantees that it does not.

    Args:
        neurons: importance of each FFN's neurons, (N,) each.
        per_neuron: operations of one of them.
        budget: operations of all units that stay, at most.
        heads: importance of each attention layer's heads; None: only neurons are chosen, and heads cost nothing.
        per_head: operations of one of them.
        min_density: fraction of each layer's units that stays at least, though not less than one unit; 0: no guarantee.

    Returns:
        Boolean masks of the neurons and of the heads (none without `heads`).

    Raises:
        ValueError: the budget does not pay for what `min_density` guarantees; NaN among the importances.
    """
    if not 0.0 <= min_density <= 1.0:
        raise ValueError(f"min_density={min_density!r}: the fraction of each layer that stays must lie in [0, 1]")
    neuron_order, neuron_sums, least_neurons = _ranked(neurons, min_density)
    head_order, head_sums, least_heads = _ranked(heads or [], min_density)
    best, split = -math.inf, (0, 0)
    for h in range(len(head_order), least_heads - 1, -1):
        n = min(math.floor((budget - h * per_head) / per_neuron + 1e-9), len(neuron_order))
        if n < least_neurons:
            continue
        importance = float(neuron_sums[n]) + float(head_sums[h])
        if importance > best:
            best, split = importance, (n, h)
    if best == -math.inf:
        least = least_neurons * per_neuron + least_heads * per_head
        raise ValueError(f"budget={budget:g}: the units that min_density={min_density!r} guarantees take {least:g}")
    return _first(neuron_order, split[0], neurons), _first(head_order, split[1], heads or [])


def _ranked(importance: Sequence[Tensor], min_density: float) -> tuple[Tensor, Tensor, int]:
    """The units of all layers in one order, best first; importance of the first 0, 1, ... of them; how many must stay.

    Those that `min_density` guarantees lead the order.
    """
    if not importance:
        return torch.zeros(0, dtype=torch.long), torch.zeros(1, dtype=torch.float64), 0
    pool = torch.cat([layer.double() for layer in importance])
    if bool(pool.isnan().any()):
        raise ValueError("importance holds NaN: no order, so no search")
    guaranteed = torch.zeros_like(pool, dtype=torch.bool)
    if min_density > 0.0:
        guaranteed = torch.cat([top_v(layer, min_density) for layer in importance])
    order = pool.masked_fill(guaranteed, math.inf).argsort(descending=True, stable=True)
    sums = torch.cat([pool.new_zeros(1), pool[order].cumsum(0)])
    return order, sums, int(guaranteed.sum())


def _first(order: Tensor, count: int, layers: Sequence[Tensor]) -> list[Tensor]:
    """Masks of the shapes of `layers`, True for the first `count` units of the order."""
    kept = torch.zeros_like(order, dtype=torch.bool).index_fill_(0, order[:count], True)
    return list(torch.split(kept, [len(layer) for layer in layers]))


def rearrange(mask: Tensor, gradients: Tensor) -> Tensor:
    r"""Choose anew which units of one layer are pruned, as many as before (Kwon et al. 2022, mask rearrangement).

    The objective is $\sum_b\big(\sum_{i\text{ pruned}}g_{b,i}\big)^2$: units whose gradients cancel may go together.
    Greedy: each kept unit in turn, the least important first, joins the pruned ones; then the pruned unit whose removal
    from the set makes the objective smallest is kept again. The objective never rises.

    Args:
        mask: (n,) boolean, True where a unit is kept.
        gradients: (batches, n), see `mask_gradients`.

    Returns:
        (n,) boolean with as many True.
    """
    if mask.dtype != torch.bool or gradients.ndim != 2 or gradients.shape[1] != len(mask):
        raise ValueError(
            f"mask of {mask.dtype} {tuple(mask.shape)} and gradients {tuple(gradients.shape)}: "
            "expected booleans (n,) and (batches, n)"
        )
    if bool(mask.all()):
        return mask.clone()
    g = gradients.double().cpu().T.contiguous()  # (n, batches): each unit's gradients side by side
    rising = g.square().sum(1).argsort(stable=True)
    kept = mask.cpu()[rising]
    pruned = torch.cat([rising[~kept], rising[:1]])  # the last place is for the unit that joins
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
    masks: Sequence[Tensor], scores: Sequence[Tensor], gradients: Sequence[Tensor], by: str = "magnitude",
    min_density: float = 0.0,
) -> list[Tensor]:  # fmt: skip
    r"""Exchange kept units for pruned ones while that raises the kept set's total gradient (Nova et al., section 4.4).

    All layers are one pool. The kept unit with the lowest score (KCM's R2 x D2) makes room for the pruned one with the
    best gradient; then the next lowest for the next best, until an exchange would not raise the total. A unit exchanged
    once stays where it is. The paper specifies neither this rule nor what makes a gradient the best.

    Args:
        masks: boolean (n,) for each layer.
        scores: (n,) for each layer: the ranking that the masks come from.
        gradients: (batches, n) for each layer; summed over the batches.
        by: how a gradient g is read: "magnitude" is |g|, "gradient" g as it is, "loss" -g, by which to first order the
            loss would rise without the unit.
        min_density: fraction of each layer's units, those with the highest scores, that is not exchanged.

    Returns:
        New masks; as many units are kept in all, though not in each layer.
    """
    if by not in SWAP_CRITERIA:
        raise ValueError(f"by={by!r}: must be one of {', '.join(SWAP_CRITERIA)}")
    kept, score = torch.cat(list(masks)).clone(), torch.cat(list(scores))
    importance = SWAP_CRITERIA[by](torch.cat([g.double().sum(0) for g in gradients]))
    exchangeable = kept.clone()
    if min_density > 0.0:
        exchangeable &= ~torch.cat([top_v(layer, min_density) for layer in scores])
    outgoing = score.masked_fill(~exchangeable, math.inf).argsort(stable=True)[: int(exchangeable.sum())]
    incoming = importance.masked_fill(kept, -math.inf).argsort(descending=True, stable=True)[: int((~kept).sum())]
    pairs = min(len(outgoing), len(incoming))
    outgoing, incoming = outgoing[:pairs], incoming[:pairs]
    raises = (importance[incoming] > importance[outgoing]).long().cumprod(0).bool()
    kept[outgoing[raises]], kept[incoming[raises]] = False, True
    return list(torch.split(kept, [len(mask) for mask in masks]))
