"""Grids of fine-pruning runs: methods x densities x seeds, resumable.

All methods get the same steps, and for each, at each density, the learning rate of the weights is chosen from the same
values on examples held out of train, with seeds that are not reported (`split` "holdout"). Each reported run scores the
validation split once. With distillation the teacher is the same encoder fine-tuned densely for as many steps, at the
learning rate chosen for it, with a seed that is not reported, and on the same examples: for a tuning run without those
held out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mvp_lite.experiments.recipes import UNPRUNED, Recipe
from mvp_lite.experiments.settings import ModelSettings, floats, integers, option, words
from mvp_lite.experiments.table import Cell, Table
from mvp_lite.methods import METHODS
from mvp_lite.models import load_model
from mvp_lite.paths import data_path
from mvp_lite.tasks import toy
from mvp_lite.tasks.task import Task
from mvp_lite.train import Result, fine_prune

__all__ = [
    "COLUMNS", "KEY", "LAYER_COLUMNS", "Grid", "ToyGrid", "append_run", "choose_lr", "planned", "run_grid", "run_order",
    "toy_tasks_option", "tuning_runs",
]  # fmt: skip

COLUMNS = (
    "split task method density kept scope distil seed steps lr score_lr score loss seconds "
    "batch_size max_length precision model device threads hardware versions command "
    "baseline constant_share losses changed"
).split()
KEY = "split task method density scope distil seed steps batch_size max_length precision model".split()
#: of a file of entries kept, with one row per matrix
LAYER_COLUMNS = "task method density scope distil seed layer numel kept".split()
_LAYER_KEY = LAYER_COLUMNS[:6]

Log = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Grid(ModelSettings):
    """One model on some tasks: `python -m mvp_lite run`."""

    command_name: ClassVar[str] = "run"
    results_name: ClassVar[str] = "small_TASK.csv"
    tasks: Sequence[str] = option(
        read=words, flags=("--task", "--tasks"), help="toy/..., or sst2, mnli, qqp, mrpc, qnli, stsb, squad, squad_v2"
    )
    methods: Sequence[str] = option(
        ("dense", "magnitude", "movement", "soft_movement", "l0"),
        read=words,
        help=f'{", ".join(METHODS)}, perhaps with options as in "movement magnitude_init=0.2", "dense", or "scratch" '
        "(dense from random weights)",
    )
    densities: Sequence[float] = option((0.1, 0.03), read=floats, help="fractions of the weights kept")
    seeds: Sequence[int] = option((0,), read=integers, help="seeds of the reported runs")
    steps: int = option(1500, read=int, help="optimizer steps of a reported run")
    lrs: Sequence[float] = option(
        (3e-5, 1e-4, 3e-4), read=floats, help="learning rates to choose from; one alone is not tuned"
    )
    tune_steps: int = option(500, read=int, help="optimizer steps of a tuning run; 0: as many as --steps")
    tune_seeds: Sequence[int] = option((100,), read=integers, help="seeds of the tuning runs")
    holdout: int = option(1000, read=int, help="examples held out of train for tuning")
    scope: str = option(
        "local",
        choices=("local", "global"),
        help="for magnitude, movement and random: rank scores in each matrix, or in the pool of all",
    )
    distill: bool = option(
        False, flags=("--distill", "--distil"), help="with a teacher: the dense model, fine-tuned in the same way"
    )
    plain_lrs: bool = option(
        False,
        flags=("--plain-lrs", "--plain-rates"),
        help="with --distill: for all methods the learning rates that were chosen without a teacher",
    )
    layers: Path | None = option(  # noqa: RUF009, a field
        None, read=Path, public=lambda path: Path(path.name), help="file for the entries kept in each matrix"
    )

    def results_path(self) -> Path:
        label = "_".join(self.tasks).replace("/", "_")
        return self.out or data_path("results", self.results_name.replace("TASK", label))

    def check(self) -> None:
        """Raise ValueError for a setting that no run could have."""
        for name in ("tasks", "methods", "densities", "seeds", "lrs"):
            if not getattr(self, name):
                raise ValueError(f"{name} is empty: nothing to run")
        for method in self.methods:
            Recipe.parse(method)
        if both := set(self.seeds) & set(self.tune_seeds):
            raise ValueError(f"seeds {sorted(both)} are both tuned on and reported: keep them apart")

    def examples_of(self, task: Task, split: str) -> Task:
        """The task as runs of a split see it: a tuning run is scored on examples held out of train."""
        return task.holdout(self.holdout, seed=min(self.tune_seeds)) if split == "holdout" else self.scored(task)


def toy_tasks_option(*default: str) -> Any:
    """The option `--tasks` of the toy's commands, where its tasks have short names."""

    def read(text: str) -> tuple[str, ...]:
        return tuple(f"toy/{name}" for name in words(text))

    def write(tasks: Sequence[str]) -> str:
        return ",".join(task.removeprefix("toy/") for task in tasks)

    return option(read(",".join(default)), read=read, write=write, help="tasks in the toy language")


@dataclass(frozen=True, kw_only=True)
class ToyGrid(Grid):
    """The toy's model on its tasks, with its own steps and learning rates: `python -m mvp_lite toy measure`."""

    command_name: ClassVar[str] = "toy measure"
    results_name: ClassVar[str] = "toy.csv"
    model: str = "toy"
    model_name: str | None = None
    data_dir: str | None = None
    max_length: int | None = None
    doc_stride: int | None = None
    score_examples: int | None = None
    tasks: Sequence[str] = toy_tasks_option("sentiment", "inference", "paraphrase", "qa")
    methods: Sequence[str] = option(
        ("dense", "scratch", "magnitude", "movement"), read=words, help="methods, as for `run`"
    )
    densities: Sequence[float] = option((0.7, 0.1, 0.03), read=floats, help="fractions of the weights kept")
    seeds: Sequence[int] = option((0, 1, 2, 3, 4), read=integers, help="seeds of the reported runs")
    steps: int = option(toy.STEPS, read=int, help="optimizer steps of a reported run")
    lrs: Sequence[float] = option(toy.LRS, read=floats, help="learning rates to choose from; one alone is not tuned")
    tune_steps: int = option(0, read=int, help="optimizer steps of a tuning run; 0: as many as --steps")


def run_grid(grid: Grid, log: Log = print) -> None:
    """Run what the results file does not hold yet, and append each finished run to it at once.

    Order: task by task, seed by seed, the lowest density for all methods before the next density; the first run of a
    method at a density is preceded by the choice of its learning rate. A reported run that the file `grid.layers` lacks
    is run again for it, and its row left as it is.
    """
    grid.check()
    table = Table(grid.results_path(), COLUMNS, KEY)
    layers = None if grid.layers is None else Table(grid.layers, LAYER_COLUMNS, _LAYER_KEY)
    for name in grid.tasks:
        _run_task(grid, grid.load(name), table, layers, log)


def _run_task(grid: Grid, task: Task, table: Table, layers: Table | None, log: Log) -> None:
    examples_of = cache(partial(grid.examples_of, task))

    def run(cell: Cell) -> Result:
        teacher = dense_teacher(cell["split"]) if cell["distil"] else None
        return _fine_prune(grid, examples_of(cell["split"]), cell, teacher)

    def record(cell: Cell) -> Result:
        result = run(cell)
        append_run(table, cell, result, log)
        return result

    def chosen_lr(method: str, density: float) -> float:
        if len(grid.lrs) == 1:
            return grid.lrs[0]
        return choose_lr(table, tuning_runs(grid, task, method, density), record)

    @cache
    def dense_teacher(split: str) -> Any:
        lr = chosen_lr("dense", 1.0)
        result = run(planned(grid, task, split, "dense", 1.0, min(grid.tune_seeds), lr))
        log(f"teacher for {split} {task.name}, lr {lr}: score {result.score:.4f} in {result.seconds:.1f} s")
        return result.model

    for seed, density, method in run_order(grid):
        cell = planned(grid, task, "validation", method, density, seed, chosen_lr(method, density))
        no_layers = layers is not None and method in METHODS and not layers.has(cell)
        if table.has(cell) and (lr := float(table.row(cell)["lr"])) != cell["lr"]:
            log(f"{_name(cell)} has lr {lr}, and {cell['lr']} is chosen now: delete its row to run it again")
        if table.has(cell) and not no_layers:
            continue
        result = run(cell) if table.has(cell) else record(cell)
        if layers is not None and no_layers:
            layers.append(*_layer_cells(cell, result))


def run_order(grid: Grid) -> Iterator[tuple[int, float, str]]:
    """Seed, density and method of each reported run: seed by seed, the lowest density first; dense once a seed."""
    seen = set()
    for seed in grid.seeds:
        for density in sorted(grid.densities):
            for method in grid.methods:
                item = (seed, 1.0 if method in UNPRUNED else density, method)
                if item not in seen:
                    seen.add(item)
                    yield item


def planned(grid: Grid, task: Task, split: str, method: str, density: float, seed: int, lr: float) -> Cell:
    """What is known of a run beforehand."""
    recipe, tuning = Recipe.parse(method), split == "holdout"
    dense = recipe.is_dense
    scope = recipe.options.get("scope", grid.scope)
    return {
        "split": split,
        "task": task.name,
        "method": method,
        "density": 1.0 if dense else density,
        "scope": "" if dense else ("global" if recipe.name in ("soft_movement", "l0") else scope),
        "distil": grid.distill and not dense and not (tuning and grid.plain_lrs),
        "seed": seed,
        "steps": (tuning and grid.tune_steps) or grid.steps,
        "lr": lr,
        "batch_size": grid.batch_size,
        "max_length": task.max_length,
        "precision": "bf16 autocast" if grid.bf16 else "float32",
        "model": grid.model_label,
        "command": replace(grid, methods=(method,)).command(),
    }


def tuning_runs(grid: Grid, task: Task, method: str, density: float) -> list[Cell]:
    """The runs, on examples held out of train, that choose a method's learning rate at a density."""
    runs = [(seed, lr) for seed in grid.tune_seeds for lr in grid.lrs]
    return [planned(grid, task, "holdout", method, density, seed, lr) for seed, lr in runs]


def choose_lr(table: Table, tuning: Sequence[Cell], record: Callable[[Cell], object]) -> float:
    """The learning rate with the best mean score over the tuning runs; where scores tie, the lowest loss.

    `record` runs one that the table lacks, and appends it.
    """
    outcomes: dict[float, list[tuple[float, float]]] = {}
    for cell in tuning:
        if not table.has(cell):
            record(cell)
        row = table.row(cell)
        outcomes.setdefault(cell["lr"], []).append((float(row["score"]), -float(row["loss"])))
    return max(outcomes, key=lambda lr: np.mean(outcomes[lr], axis=0).tolist())


def append_run(table: Table, cell: Cell, result: Result, log: Log) -> None:
    """Append a planned run and what it gave."""
    found = {
        "kept": f"{result.density:.6g}",
        "score_lr": result.settings["score_lr"],
        "score": f"{result.score:.4f}",
        "baseline": "" if result.diagnosis.baseline is None else f"{result.diagnosis.baseline:.4f}",
        "constant_share": f"{result.diagnosis.constant_share:.4f}",
        "losses": _curve(result.history["loss"].tolist()),
        "changed": _curve(result.diagnosis.changed),
        "loss": f"{result.metrics['loss']:.5f}",
        "seconds": f"{result.seconds:.1f}",
    }
    table.append(cell | found)
    log(f"{_name(cell)} lr {cell['lr']}: score {found['score']} kept {found['kept']} in {found['seconds']} s")


def _name(cell: Cell) -> str:
    asked = "lam" if "lam" in cell else "density"
    return f"{cell['split']} {cell['task']} {cell['method']} {asked} {cell[asked]} seed {cell['seed']}"


def _curve(values: Sequence[float]) -> str:
    """Means over twenty parts of the run."""
    parts = np.array_split(np.asarray(values, dtype=float), 20)
    return " ".join(f"{part.mean():.4g}" for part in parts if part.size)


def _fine_prune(grid: Grid, task: Task, cell: Cell, teacher: Any) -> Result:
    recipe = Recipe.parse(cell["method"])
    model = load_model(grid.model, task, pretrained=recipe.name != "scratch", seed=cell["seed"])
    common: dict[str, Any] = {"lr": cell["lr"], "batch_size": grid.batch_size, "bf16": grid.bf16, "progress": False}
    if recipe.dense_steps:
        fine_prune(model, task, "dense", steps=recipe.dense_steps, seed=cell["seed"], teacher=teacher, **common)
    return fine_prune(
        model, task, recipe.method, cell["density"], steps=cell["steps"] - recipe.dense_steps, seed=cell["seed"],
        teacher=teacher, **common, **({} if recipe.is_dense else recipe.options | {"scope": cell["scope"]}),
    )  # fmt: skip


def _layer_cells(cell: Cell, result: Result) -> list[Cell]:
    report = result.report
    matrices = zip(report["layer"], report["shape"], report["kept"], strict=True)
    return [cell | {"layer": name, "numel": math.prod(shape), "kept": kept} for name, shape, kept in matrices]
