"""Pruning a fine-tuned model without training it: rank its units, select within a budget, fit scales, apply.

KCM (Nova, Dai, Schuurmans, ICML 2023) takes FFN neurons and needs unlabeled text alone. With labels the same budget
and the same scaling serve Kwon et al. (NeurIPS 2022), heads included, and KCM's extension. The papers leave several
choices open; here each is an option, and its default is ours.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor
from tqdm.auto import tqdm

from mvp_lite.gradient_free.batches import Batch, checked, model_inputs
from mvp_lite.gradient_free.costs import budget, total_operations, unit_operations
from mvp_lite.gradient_free.d2 import observe_activations
from mvp_lite.gradient_free.layer import Layer, find_layers, of_type
from mvp_lite.gradient_free.mask_search import mask_gradients
from mvp_lite.gradient_free.methods import METHODS, Ranking, make_ranking
from mvp_lite.gradient_free.scaling import check_blocks, fit_scales, recorded_states

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["NeuronPruning", "kcm", "prune_neurons"]


@dataclass(frozen=True, repr=False)
class NeuronPruning:
    """What `prune_neurons` gives.

    Attributes:
        model: a copy with the pruned units' weights 0 and the others' outgoing ones scaled; `mvp.shrink(model)` makes
            it smaller.
        layers: a record for each attention layer and each FFN, in the model's order. The properties below read them.
        length: mean number of tokens of a sequence, for which operations are counted.
    """

    model: Any
    layers: Sequence[Layer]
    length: float

    def __repr__(self) -> str:
        neurons, heads = (
            f"{sum(len(layer.kept) for layer in layers)} of {sum(len(layer.mask) for layer in layers)}"
            for layers in (of_type("neurons", self.layers), of_type("heads", self.layers))
        )
        kept = f"{neurons} neurons and {heads} heads kept, {100 * self.flops:.1f} % of the operations"
        return f"NeuronPruning({type(self.model).__name__}: {kept})"

    @property
    def scores(self) -> list[Tensor]:
        """For each FFN (N,): the neurons' ranking."""
        return [layer.scores for layer in of_type("neurons", self.layers)]

    @property
    def masks(self) -> list[Tensor]:
        """For each FFN (N,) boolean: True where a neuron stays."""
        return [layer.mask for layer in of_type("neurons", self.layers)]

    @property
    def scales(self) -> list[Tensor]:
        """For each FFN (N,): 0 for pruned neurons, 1 for all others if they were not scaled."""
        return [layer.scales for layer in of_type("neurons", self.layers)]

    @property
    def heads(self) -> list[Tensor]:
        """For each attention layer a boolean mask of its heads, of those that share a key as one."""
        return [layer.mask for layer in of_type("heads", self.layers)]

    @property
    def head_scales(self) -> list[Tensor]:
        """As `scales`, of the heads."""
        return [layer.scales for layer in of_type("heads", self.layers)]

    @property
    def flops(self) -> float:
        """The fraction of the encoder's operations that is left, on sequences of `length` tokens."""
        return sum(len(layer.kept) * layer.operations for layer in self.layers) / total_operations(self.layers)

    @property
    def report(self) -> pd.DataFrame:
        """A row for each block: its FFN's name, neurons, how many and which fraction stay, R2's iterations, heads."""
        import pandas as pd

        rows = [
            (ffn.units.name, len(ffn.mask), len(ffn.kept), len(ffn.kept) / len(ffn.mask), ffn.iterations,
             len(attention.kept))
            for ffn, attention in zip(of_type("neurons", self.layers), of_type("heads", self.layers), strict=True)
        ]  # fmt: skip
        return pd.DataFrame(rows, columns=["layer", "neurons", "kept", "density", "iterations", "heads"])


def kcm(
    model: Any,
    inputs: Iterable[Batch],
    flops: float = 0.6,
    *,
    labeled: Iterable[Batch] | None = None,
    scale: bool = True,
    min_density: float = 0.0,
    ridge: float = 1e-3,
    uniform: bool = False,
    progress: bool = False,
    **options: Any,
) -> NeuronPruning:
    """KCM (Nova et al. 2023, Algorithm 1): prune FFN neurons with unlabeled inputs; no gradients, no training.

    R2 times normalized D2 scores each neuron; the best of all layers stay, as many as `flops` pays for; least squares
    scale them. The three steps are `methods.R2D2`, `methods.Ranking.select` and `scaling.fit_scales`. `options` are the
    fields of `methods.KCM`; all else is as in `prune_neurons(..., method="kcm")`, which is the same.
    """
    return prune_neurons(
        model, inputs, flops, "kcm", labeled=labeled, scale=scale, min_density=min_density, ridge=ridge,
        uniform=uniform, progress=progress, **options,
    )  # fmt: skip


def prune_neurons(
    model: Any,
    inputs: Iterable[Batch],
    flops: float = 0.6,
    method: str | Ranking = "kcm",
    *,
    labeled: Iterable[Batch] | None = None,
    heads: bool = False,
    scale: bool | None = None,
    min_density: float = 0.0,
    ridge: float = 1e-3,
    uniform: bool = False,
    progress: bool = False,
    **options: Any,
) -> NeuronPruning:
    r"""Prune FFN neurons of a fine-tuned model: by default with unlabeled inputs alone, without gradients or training.

    With `labeled` batches two methods take gradients of masks too; no weight is ever trained.

    Args:
        model: a transformers model of a family in `mvp_lite.structure.units.FAMILIES`; it is left as it is.
        inputs: batches as the model takes them (labels in them are ignored); padding is identified by `attention_mask`.
            Every method reads them, if only to count operations at their mean length.
        flops: fraction of the encoder's operations that stays, for sequences of the inputs' mean length.
        method: "kcm" (R2 x D2, scaled; with `labeled`, swaps before scaling), "r2d2" (not scaled), "r2", "d2",
            "weight_magnitude" (norm of the outgoing weights), "output_magnitude" (mean norm of what a neuron adds),
            "random", or "fisher" (Kwon et al. 2022, scaled; needs `labeled`). All rank all layers in one pool. Or a
            `methods.Ranking` of your own.
        labeled: batches with labels, for "fisher" and "kcm"; see `mask_search.mask_gradients`. The batch size matters:
            gradients are averaged within a batch.
        heads: "fisher" prunes attention heads too: the split of largest importance within the budget.
        scale: fit what stays, layer by layer, to the dense model's hidden states, heads too if they are pruned;
            default: for "kcm" and "fisher".
        min_density: fraction of each layer's neurons (and heads) that stays at least.
        ridge: see `scaling.solve_scales`.
        uniform: every layer keeps the same number of neurons, its own best ones, in place of one pool of all layers.
            What `shrink` makes of the model is then read by stock `from_pretrained`. Not with `heads`.
        progress: show progress bars.
        options: of the method by its name; a method ignores those that only others have. "kcm", "r2d2", "r2":
            sigma=1.0, alpha=0.01, stop="absolute", half=True, see `r2.r2_scores`. "kcm", "r2d2", "d2":
            statistic="mean", see `d2.d2_scores`. "kcm", "r2d2": normalization="minmax", of D2 in each layer, or "max",
            "zscore", "none". "kcm": swap_by="magnitude", see `mask_search.swap`. "random": seed=0.

    Raises:
        ValueError: no inputs; a budget that cannot be reached; a layer that would lose all neurons or heads; labels
            that are missing, or given to a method without use for them; an unknown method, or a value that an option
            does not take; a family that is not known, or has an encoder and a decoder; a scale for a model with a
            convolution between its blocks.
        TypeError: inputs that are no batches of tensors; an option that no method has, or one beside an instance.
    """
    ranking = make_ranking(method, options)
    _check(method, ranking, flops, labeled, heads, uniform)
    scale = ranking.scaled if scale is None else scale
    device = next(model.parameters()).device
    batches = [model_inputs(batch, device) for batch in checked("inputs", inputs)]
    if not batches:
        raise ValueError("inputs is empty: give at least one batch of unlabeled inputs")

    pruned = copy.deepcopy(model)
    layers = find_layers(pruned)
    if scale:
        check_blocks(pruned)
    ffns = of_type("neurons", layers)
    with recorded_states(pruned, ffns, limit=None if scale and not heads else 0) as states:
        length = observe_activations(pruned, ffns, tqdm(batches, desc="activations", disable=not progress))
    for layer in layers:
        layer.operations = unit_operations(layer.units, length)
    candidates = layers if heads else ffns
    left = budget(layers, flops, heads)
    if labeled is not None:
        for layer, gradients in zip(candidates, mask_gradients(model, labeled, heads), strict=True):
            layer.gradients = gradients

    for layer in tqdm(candidates, desc="scores", disable=not progress):
        layer.scores = ranking.score(layer)
    pools = [[layer] for layer in candidates] if uniform else [candidates]
    for pool in pools:
        ranking.select(pool, left / len(pools), min_density)
    for layer in candidates:
        if not len(layer.kept):
            lost = f"{layer.units.name} would lose all its {layer.units.unit_type}"
            raise ValueError(f"{lost} at flops={flops!r}: give min_density, say 0.01")
        layer.scales = layer.mask.to(layer.scales)
    if scale:
        fit_scales(pruned, layers, batches, ridge, states, progress)
    for layer in layers:
        layer.apply()
    return NeuronPruning(pruned, layers, length)


def _check(method: str | Ranking, ranking: Ranking, flops: float, labeled: Any, heads: bool, uniform: bool) -> None:
    name = method if isinstance(method, str) else type(method).__name__
    if not 0.0 < flops <= 1.0:
        raise ValueError(f"flops={flops!r}: the fraction of operations that stays must lie in (0, 1]")
    if labeled is None and ranking.needs_labels:
        raise ValueError(f"labeled=None: method={name!r} needs batches with labels")
    if labeled is not None and not ranking.takes_labels:
        raise ValueError(f"labeled: method={name!r} has no use for labels; {_which('takes_labels')} have")
    if heads and uniform:
        raise ValueError("uniform=True: not with heads=True, which splits one budget between heads and neurons")
    if heads and not ranking.takes_heads:
        raise ValueError(f"heads=True: method={name!r} scores neurons alone; {_which('takes_heads')} scores heads too")


def _which(ability: str) -> str:
    return " and ".join(repr(name) for name, ranking in METHODS.items() if getattr(ranking, ability))
