"""The methods: how each scores a layer's units, and how it selects those that stay.

A method of your own is a subclass of `Ranking` with its own `score`: `prune_neurons(model, inputs, method=Yours())`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
from torch import Tensor

from mvp_lite.gradient_free.d2 import NORMALIZATIONS, STATISTICS
from mvp_lite.gradient_free.layer import Layer, of_type
from mvp_lite.gradient_free.mask_search import SWAP_CRITERIA, fisher_importance, rearrange, search, swap
from mvp_lite.gradient_free.r2 import r2_scores
from mvp_lite.masks import top_v_global

__all__ = [
    "D2",
    "KCM",
    "METHODS",
    "R2",
    "R2D2",
    "Fisher",
    "OutputMagnitude",
    "Random",
    "Ranking",
    "WeightMagnitude",
    "make_ranking",
]


@dataclass(frozen=True)
class Ranking:
    """Scores the units of each layer; the best of all layers in one pool stay.

    Attributes:
        scaled: the units that stay are scaled by default.
        takes_labels: it has a use for labels, that is, for `Layer.gradients`.
        needs_labels: it cannot do without.
        takes_heads: it chooses attention heads too.
    """

    scaled: ClassVar[bool] = False
    takes_labels: ClassVar[bool] = False
    needs_labels: ClassVar[bool] = False
    takes_heads: ClassVar[bool] = False

    def score(self, layer: Layer) -> Tensor:
        """(n,): the units with the highest scores stay."""
        raise NotImplementedError

    def select(self, layers: Sequence[Layer], budget: float, min_density: float) -> None:
        """Set the layers' masks from their scores: as many units as `budget` multiply-adds pay for.

        At least the fraction `min_density` of each layer stays. All units take the same number of operations.
        """
        count = math.floor(budget / max(layer.operations for layer in layers) + 1e-9)
        density = min(count / sum(layer.units.count for layer in layers), 1.0)
        masks = top_v_global([layer.scores for layer in layers], density, min_density)
        for layer, mask in zip(layers, masks, strict=True):
            layer.mask = mask


@dataclass(frozen=True)
class R2(Ranking):
    """R2 (Nova et al. 2023, Algorithm 2): is a neuron needed to represent the others? See `r2_scores`."""

    sigma: float | None = 1.0
    alpha: float = 0.01
    stop: str = "absolute"
    half: bool = True

    def score(self, layer: Layer) -> Tensor:
        scores, layer.iterations = r2_scores(
            layer.W, sigma=self.sigma, alpha=self.alpha, stop=self.stop, half=self.half
        )
        return scores


@dataclass(frozen=True)
class D2(Ranking):
    """D2 (Nova et al. 2023, Algorithm 1, lines 5 to 8): a neuron's average activation. See `d2_scores`."""

    statistic: str = "mean"

    def __post_init__(self) -> None:
        _one_of("statistic", self.statistic, STATISTICS)

    def score(self, layer: Layer) -> Tensor:
        return layer.activations[self.statistic]


@dataclass(frozen=True)
class R2D2(R2):
    """R2 times D2 (Nova et al. 2023, Algorithm 1, line 9), D2 normalized within each layer."""

    statistic: str = "mean"
    normalization: str = "minmax"

    def __post_init__(self) -> None:
        _one_of("statistic", self.statistic, STATISTICS)
        _one_of("normalization", self.normalization, NORMALIZATIONS)

    def score(self, layer: Layer) -> Tensor:
        return super().score(layer) * NORMALIZATIONS[self.normalization](layer.activations[self.statistic])


@dataclass(frozen=True)
class KCM(R2D2):
    """KCM (Nova et al. 2023, Algorithm 1): R2 times D2 ranks the neurons of all layers, and those that stay are scaled.

    With labels neurons are exchanged before scaling (section 4.4), see `mask_search.swap`.
    """

    scaled: ClassVar[bool] = True
    takes_labels: ClassVar[bool] = True
    swap_by: str = "magnitude"

    def __post_init__(self) -> None:
        super().__post_init__()
        _one_of("swap_by", self.swap_by, SWAP_CRITERIA)

    def select(self, layers: Sequence[Layer], budget: float, min_density: float) -> None:
        super().select(layers, budget, min_density)
        # Without labels all sums of gradients are 0, and nothing is exchanged.
        masks, scores, gradients = zip(*((layer.mask, layer.scores, layer.gradients) for layer in layers), strict=True)
        for layer, mask in zip(layers, swap(masks, scores, gradients, self.swap_by, min_density), strict=True):
            layer.mask = mask


@dataclass(frozen=True)
class WeightMagnitude(Ranking):
    """Norm of a neuron's outgoing weights."""

    def score(self, layer: Layer) -> Tensor:
        return _norms(layer.W)


@dataclass(frozen=True)
class OutputMagnitude(Ranking):
    """Mean norm of what a neuron adds to the hidden states: the norm of its weights times the mean of |H|."""

    def score(self, layer: Layer) -> Tensor:
        return _norms(layer.W) * layer.activations["abs"]


@dataclass(frozen=True)
class Random(Ranking):
    """Uniform random numbers, different for each layer and seed."""

    seed: int = 0

    def score(self, layer: Layer) -> Tensor:
        generator = torch.Generator().manual_seed(1_000 * self.seed + layer.number)
        return torch.rand(layer.units.count, generator=generator).to(layer.W.device)


@dataclass(frozen=True)
class Fisher(Ranking):
    """Kwon et al. 2022: importance from the gates' gradients, search, rearrangement; those that stay are scaled.

    With heads, they and the neurons compete under one budget.
    """

    scaled: ClassVar[bool] = True
    takes_labels: ClassVar[bool] = True
    needs_labels: ClassVar[bool] = True
    takes_heads: ClassVar[bool] = True

    def score(self, layer: Layer) -> Tensor:
        return fisher_importance(layer.gradients)

    def select(self, layers: Sequence[Layer], budget: float, min_density: float) -> None:
        neurons, heads = of_type("neurons", layers), of_type("heads", layers)
        masks, head_masks = search(
            [layer.scores for layer in neurons],
            max(layer.operations for layer in neurons),
            budget,
            [layer.scores for layer in heads],
            max((layer.operations for layer in heads), default=0.0),
            min_density,
        )
        for layer, mask in zip([*neurons, *heads], [*masks, *head_masks], strict=True):
            layer.mask = rearrange(mask, layer.gradients)


METHODS: dict[str, type[Ranking]] = {
    "kcm": KCM,
    "r2d2": R2D2,
    "r2": R2,
    "d2": D2,
    "weight_magnitude": WeightMagnitude,
    "output_magnitude": OutputMagnitude,
    "random": Random,
    "fisher": Fisher,
}


def make_ranking(method: str | Ranking, options: Mapping[str, Any]) -> Ranking:
    """The method of that name. Options that only other methods have are ignored, so that one call serves them all.

    Raises:
        ValueError: an unknown method, or a value that an option does not take.
        TypeError: an option that no method has, or one beside an instance.
    """
    if isinstance(method, Ranking):
        if options:
            raise TypeError(f"{min(options)}: an instance of {type(method).__name__} has its options already")
        return method
    _one_of("method", method, METHODS)
    known = {field.name for ranking in METHODS.values() for field in fields(ranking)}
    if unknown := sorted(set(options) - known):
        raise TypeError(f"{unknown[0]}: no method has this option; there are {', '.join(sorted(known))}")
    own = {field.name for field in fields(METHODS[method])}
    return METHODS[method](**{name: value for name, value in options.items() if name in own})


def _norms(W: Tensor) -> Tensor:
    norms: Tensor = torch.linalg.vector_norm(W, dim=1)
    return norms


def _one_of(name: str, value: Any, allowed: Any) -> None:
    if value not in allowed:
        raise ValueError(f"{name}={value!r}: must be one of {', '.join(allowed)}")
