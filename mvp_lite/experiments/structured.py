"""The toy's grid with groups: unstructured against structured pruning at equal numbers of encoder weights.

Steps, batches, tuning and seeds are those of `experiments`: for each choice of groups, method and density the weight
rate is chosen from the same values on rows held out of train, with a seed that is not reported. What differs is the
column `groups`, and `parameters`: all parameters of the model once `mvp_lite.structure.shrinking.shrink` has cut it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from mvp_lite import groups as make
from mvp_lite.experiments.grid import (
    COLUMNS,
    Grid,
    append_run,
    best_rate,
    planned,
    read_rows,
    run_key,
    run_order,
    tuning_runs,
)
from mvp_lite.masks import keep_count
from mvp_lite.models import load_model
from mvp_lite.structure.shrinking import shrink
from mvp_lite.structure.units import find_units
from mvp_lite.tasks.task import Task, load_task
from mvp_lite.train import Result, fine_prune

__all__ = ["GROUPS", "STRUCTURED_COLUMNS", "group_density", "kept_of_encoder", "run_structured"]

#: name in the file -> what `Pruner(groups=…)` gets; blocks are a quarter of the toy's heads wide
GROUPS: dict[str, Any] = {
    "weights": "weights",
    "blocks": make.blocks(8, 8),
    "blocks+neurons": make.mixed(make.blocks(8, 8), "neurons"),
    "heads+neurons": make.mixed("heads", "neurons"),
    "neurons": "neurons",
}
STRUCTURED_COLUMNS = [*COLUMNS[:3], "groups", *COLUMNS[3:], "parameters"]
HEADS, NEURONS = 4, 512  # of each layer of the toy; its FFN has twice as many weights as its attention


def group_density(groups: str, density: float) -> float:
    """The fraction of groups to ask for, so that the toy's encoder keeps a fraction `density` of its matrices' entries.

    Neurons alone leave the attention, a third of them, whole. Of heads and neurons, both cut by one fraction, whole
    heads stay, and at least one: the fraction is the one that comes nearest.

    Raises:
        ValueError: unknown groups, or a density that neurons alone cannot reach.
    """
    if groups not in GROUPS:
        raise ValueError(f"groups={groups!r}: one of {', '.join(GROUPS)}")
    if groups == "neurons":
        if density <= 1 / 3:
            raise ValueError(f"density={density!r}: neurons alone leave the attention, a third of the encoder, whole")
        return (3 * density - 1) / 2
    if groups == "heads+neurons":

        def kept(neurons: int) -> float:
            return (keep_count(HEADS, neurons / NEURONS) / HEADS + 2 * neurons / NEURONS) / 3

        return min(range(1, NEURONS + 1), key=lambda neurons: abs(kept(neurons) - density)) / NEURONS
    return density


def kept_of_encoder(model: Any) -> float:
    """Fraction of the entries of all matrices of attention and FFN that are not 0."""
    matrices = [part.module.weight for units in find_units(model) for part in units.parts]
    return sum(int(W.count_nonzero()) for W in matrices) / sum(int(W.numel()) for W in matrices)


def run_structured(grid: Grid, groups: Sequence[str], out: Path, log: Callable[[str], None] = print) -> None:
    """Run what `out` does not hold yet, `grid` once for each of `groups`, and append each finished run at once.

    Densities that a choice of groups cannot reach are left out. Seed by seed, density by density, group by group.

    Raises:
        ValueError: unknown groups, or a setting that no run could have.
    """
    grid.check()
    if grid.distil:
        raise ValueError("distil=True: the grid with groups has no teacher")
    for name in groups:
        group_density(name, 1.0)
    out.parent.mkdir(parents=True, exist_ok=True)
    task = load_task(grid.task)
    held_out = cache(lambda: task.holdout(grid.holdout, seed=min(grid.tune_seeds)))

    def run(name: str, cell: dict[str, Any]) -> None:
        if run_key(cell) in {run_key(row) for row in _rows(out, name)}:
            return
        result = _run(grid, held_out() if cell["split"] == "holdout" else task, name, cell)
        small = sum(p.numel() for p in shrink(result.model).parameters())
        append_run(out, cell | {"groups": name, "parameters": small}, result, log, STRUCTURED_COLUMNS)

    for seed, density, method in run_order(grid):
        for name in groups:
            if name == "neurons" and density <= 1 / 3:
                continue
            tried = tuning_runs(grid, task, method, density)
            for cell in tried:
                run(name, cell)
            lr = best_rate(_rows(out, name), tried)
            run(name, planned(grid, task, "validation", method, density, seed, grid.steps, lr))


def _rows(out: Path, name: str) -> list[dict[str, str]]:
    return [row for row in read_rows(out, STRUCTURED_COLUMNS) if row["groups"] == name]


def _run(grid: Grid, task: Task, name: str, cell: dict[str, Any]) -> Result:
    model = load_model(grid.model, task, seed=cell["seed"])
    result = fine_prune(
        model, task, cell["method"], group_density(name, cell["density"]), steps=cell["steps"], lr=cell["lr"],
        batch_size=grid.batch_size, seed=cell["seed"], bf16=grid.bf16, progress=False, groups=GROUPS[name],
        scope=cell["scope"],
    )  # fmt: skip
    return replace(result, density=kept_of_encoder(model))
