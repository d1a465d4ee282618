"""Structured pruning without training: Nova et al. (ICML 2023) and the mask search of Kwon et al. (NeurIPS 2022)."""

from mvp_lite.gradient_free.costs import operations
from mvp_lite.gradient_free.d2 import d2_scores
from mvp_lite.gradient_free.methods import METHODS, Ranking
from mvp_lite.gradient_free.pruning import NeuronPruning, kcm, prune_neurons
from mvp_lite.gradient_free.r2 import r2_scores
from mvp_lite.gradient_free.scaling import solve_scales

__all__ = [
    "METHODS",
    "NeuronPruning",
    "Ranking",
    "d2_scores",
    "kcm",
    "operations",
    "prune_neurons",
    "r2_scores",
    "solve_scales",
]
