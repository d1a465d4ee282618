"""The toy's grid with groups: unstructured against structured pruning at equal numbers of encoder weights.

Steps, batches, tuning and seeds are those of `mvp_lite.experiments.grid`: for each choice of groups, method and density
the learning rate of the weights is chosen from the same values on examples held out of train, with a seed that is not
reported. Two columns are new: `groups`, and `parameters`, which counts all parameters of the model once
`mvp_lite.structure.shrinking.shrink` has removed its pruned units.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, ClassVar

from mvp_lite import groups as make
from mvp_lite.experiments.grid import (
    COLUMNS,
    KEY,
    Log,
    ToyGrid,
    append_run,
    choose_lr,
    planned,
    run_order,
    toy_tasks_option,
    tuning_runs,
)
from mvp_lite.experiments.settings import floats, integers, option, words
from mvp_lite.experiments.table import Cell, Table
from mvp_lite.masks import keep_count
from mvp_lite.models import load_model
from mvp_lite.structure.shrinking import shrink
from mvp_lite.structure.units import find_units
from mvp_lite.tasks.task import Task
from mvp_lite.train import Result, fine_prune

__all__ = ["GROUPS", "STRUCTURED_COLUMNS", "StructuredGrid", "group_density", "kept_of_encoder", "run_structured"]

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


@dataclass(frozen=True, kw_only=True)
class StructuredGrid(ToyGrid):
    """The toy's grid, once for each choice of groups: `python -m mvp_lite toy structured`."""

    command_name: ClassVar[str] = "toy structured"
    results_name: ClassVar[str] = "toy_structured.csv"
    tasks: Sequence[str] = toy_tasks_option("inference", "paraphrase")
    methods: Sequence[str] = option(("movement", "magnitude"), read=words, help="methods of pruning")
    densities: Sequence[float] = option((0.3, 0.1), read=floats, help="fractions of the encoder's weights kept")
    seeds: Sequence[int] = option((0, 1, 2), read=integers, help="seeds of the reported runs")
    groups: Sequence[str] = option(("weights", "heads+neurons", "blocks"), read=words, help=f"of {', '.join(GROUPS)}")

    def check(self) -> None:
        super().check()
        if self.distill:
            raise ValueError("distill=True: the grid with groups has no teacher")
        for name in self.groups:
            group_density(name, 1.0)


def group_density(groups: str, density: float) -> float:
    """The fraction of groups to ask for, so that the toy's encoder keeps a fraction `density` of its matrices' entries.

    Neurons alone leave the attention, a third of them, whole. Heads and neurons are pruned by one fraction; whole heads
    stay, and at least one, so the fraction is the one that gets nearest.

    Raises:
        ValueError: unknown groups, or a density that neurons alone cannot reach.
    """
    if groups not in GROUPS:
        raise ValueError(f"groups={groups!r}: must be one of {', '.join(GROUPS)}")
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


def run_structured(grid: StructuredGrid, log: Log = print) -> None:
    """Run what the results file does not hold yet, and append each finished run to it at once.

    Densities that a choice of groups cannot reach are left out. Task by task, seed by seed, density by density, group
    by group.

    Raises:
        ValueError: unknown groups, or a setting that no run could have.
    """
    grid.check()
    table = Table(grid.results_path(), STRUCTURED_COLUMNS, [*KEY, "groups"])
    for name in grid.tasks:
        _run_task(grid, grid.load(name), table, log)


def _run_task(grid: StructuredGrid, task: Task, table: Table, log: Log) -> None:
    examples_of = cache(partial(grid.examples_of, task))

    def record(cell: Cell) -> None:
        result = _fine_prune(grid, examples_of(cell["split"]), cell)
        parameters = sum(p.numel() for p in shrink(result.model).parameters())
        append_run(table, cell | {"parameters": parameters}, result, log)

    for seed, density, method in run_order(grid):
        for name in grid.groups:
            if name == "neurons" and density <= 1 / 3:
                continue
            groups = {"groups": name}
            lr = choose_lr(table, [cell | groups for cell in tuning_runs(grid, task, method, density)], record)
            cell = planned(grid, task, "validation", method, density, seed, lr) | groups
            if not table.has(cell):
                record(cell)


def _fine_prune(grid: StructuredGrid, task: Task, cell: Cell) -> Result:
    name, model = cell["groups"], load_model(grid.model, task, seed=cell["seed"])
    result = fine_prune(
        model, task, cell["method"], group_density(name, cell["density"]), steps=cell["steps"], lr=cell["lr"],
        batch_size=grid.batch_size, seed=cell["seed"], bf16=grid.bf16, progress=False, groups=GROUPS[name],
        scope=cell["scope"],
    )  # fmt: skip
    return replace(result, density=kept_of_encoder(model))
