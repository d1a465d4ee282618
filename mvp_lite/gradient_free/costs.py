"""What a model computes, in multiply-adds, and how much of it a budget leaves to the units that may be pruned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mvp_lite.gradient_free.layer import Layer, find_layers, of_type
from mvp_lite.structure.units import Units

__all__ = ["budget", "operations", "total_operations", "unit_operations"]

_OF_POSITIONS = ("pos_key_proj", "pos_query_proj")


def unit_operations(units: Units, length: float) -> float:
    """Multiply-adds of one unit on one sequence of `length` tokens.

    Its rows and columns, and for a head attention's two products; biases, normalization and DeBERTa's relative
    positions, whose maps run once for a batch, are left out.
    """
    of_tokens = [part for part in units.parts if not part.name.endswith(_OF_POSITIONS)]
    entries: int = sum(part.module.weight.numel() for part in of_tokens)
    count = length * entries / units.count
    if units.unit_type == "heads":
        count += 2 * length**2 * units.columns.size
    return count


def operations(model: Any, length: float) -> dict[str, Any]:
    """Multiply-adds of the encoder on one sequence of `length` tokens; embeddings and the task's head are left out.

    {"heads", "neurons", "per_head": [...], "per_neuron": [...]}: the sums, and for each layer what one unit costs.
    """
    found: dict[str, Any] = {"heads": 0.0, "neurons": 0.0, "per_head": [], "per_neuron": []}
    for units in (layer.units for layer in find_layers(model)):
        each = unit_operations(units, length)
        found[units.unit_type] += units.count * each
        found["per_head" if units.unit_type == "heads" else "per_neuron"].append(each)
    return found


def total_operations(layers: Sequence[Layer]) -> float:
    """Multiply-adds of all units of the layers on one sequence, pruned or not."""
    return sum(layer.units.count * layer.operations for layer in layers)


def budget(layers: Sequence[Layer], flops: float, heads: bool) -> float:
    """Multiply-adds that the pruned layers may keep if the fraction `flops` of all `layers` is to stay.

    FFNs are pruned, and attention layers with `heads`; layers that are not keep all their operations.

    Raises:
        ValueError: less than one unit for each pruned layer.
    """
    total = total_operations(layers)
    pruned = layers if heads else of_type("neurons", layers)
    left = total_operations(pruned) - (1.0 - flops) * total
    least = sum(layer.operations for layer in pruned)
    if left < least * (1 - 1e-9):
        how = "with one head in each layer" if heads else "without pruning heads"
        lowest = 1.0 - (total_operations(pruned) - least) / total
        raise ValueError(f"flops={flops!r}: {how} at least {lowest:.3f} of the operations stay")
    return left
