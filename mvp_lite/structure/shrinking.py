"""From zeros to a smaller model: heads and FFN neurons without effect are removed, and the result can be reloaded."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mvp_lite.structure.units import find_units

__all__ = ["load_shrunk", "shrink", "sizes"]

#: key of `config.json` that holds how many heads and neurons each block has
KEY = "mvp_lite_units"


def shrink(model: Any) -> Any:
    """A smaller dense copy of a pruned model, without the heads and FFN neurons whose outgoing weights are all 0.

    Its outputs equal those of `model` up to rounding. A layer keeps at least one head and one neuron. The copy's
    `save_pretrained(folder)` writes the sizes into `config.json`; `load_shrunk(folder)` reads it back.

    Args:
        model: a transformers model of a family in `mvp_lite.structure.units.FAMILIES`, plain (that is, after
            `pruner.finalize()`).

    Raises:
        ValueError: a family whose heads and neurons are not known.
    """
    small = copy.deepcopy(model)
    for units in find_units(small):
        alive = units.alive().nonzero().reshape(-1)
        units.select(alive if len(alive) else torch.zeros(1, dtype=torch.long, device=alive.device))
    setattr(small.config, KEY, sizes(small))
    return small


def sizes(model: Any) -> dict[str, list[int]]:
    """Numbers of heads and of neurons of each block: {"heads": […], "neurons": […]}."""
    found: dict[str, list[int]] = {"heads": [], "neurons": []}
    for units in find_units(model):
        found[units.unit_type].append(units.count)
    return found


def load_shrunk(folder: str | Path, **options: Any) -> Any:
    """Load what a shrunk model's `save_pretrained(folder)` wrote, as a model of the same class; also from the hub.

    `options` go to `from_pretrained`. A folder without sizes in its `config.json` is loaded as it is.

    Raises:
        OSError: no such folder or hub name.
        ValueError: sizes that do not fit the architecture, or an architecture that transformers does not have.
    """
    import transformers

    config = transformers.AutoConfig.from_pretrained(folder)
    name = (config.architectures or [""])[0]
    architecture: Any = getattr(transformers, name, None)
    if architecture is None:
        raise ValueError(f"{folder}: architecture {name!r} in config.json is not one of transformers'")
    plan = getattr(config, KEY, None)
    if plan is None:
        return architecture.from_pretrained(folder, **options)

    def build(self: nn.Module, config: Any, *args: Any, **kwargs: Any) -> None:
        architecture.__init__(self, config, *args, **kwargs)
        _shrink_to(self, plan)

    smaller: Any = type(name, (architecture,), {"__init__": build})
    model = smaller.from_pretrained(folder, **options)
    model.__class__ = architecture
    return model


def _shrink_to(model: Any, plan: dict[str, list[int]]) -> None:
    """Give a newly built model the sizes of `plan`; its weights are loaded afterwards."""
    found = find_units(model)
    remaining = {unit_type: iter(plan[unit_type]) for unit_type in ("heads", "neurons")}
    if any(len(plan[unit_type]) != sum(units.unit_type == unit_type for units in found) for unit_type in remaining):
        raise ValueError(f"{KEY} in config.json is for another number of blocks than the model has")
    for units in found:
        count = next(remaining[units.unit_type])
        if not 1 <= count <= units.count:
            raise ValueError(f"{KEY}: {count} {units.unit_type} in {units.name}, which has {units.count}")
        units.select(torch.arange(count))
