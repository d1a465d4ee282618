"""Grids of fine-pruning runs, resumable: every finished run is one row of a CSV.

All methods get the same steps, and for each, at each density, the weight rate is chosen from the same values on rows
held out of train, with seeds that are not reported (`split` "holdout"). Each reported run scores the validation split
once. With distillation the teacher is the same encoder fine-tuned densely for as many steps, at the rate chosen for it,
with a seed that is not reported, and on the same rows: for a tuning run without those held out.
"""

from __future__ import annotations

import csv
import math
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from mvp_lite.models import load_model
from mvp_lite.pruner import METHODS
from mvp_lite.tasks.task import Task, load_task
from mvp_lite.train import Result, default_device, fine_prune

__all__ = [
    "COLUMNS", "LAMBDA_COLUMNS", "LAYER_COLUMNS", "Grid", "append_run", "best_rate", "fewer_rows", "planned",
    "read_rows", "run_grid", "run_key", "run_lambdas", "run_order", "task_grids", "tuning_runs", "write_row",
]  # fmt: skip

COLUMNS = (
    "split task method density kept scope distil seed steps lr score_lr score loss seconds "
    "batch_size max_length precision model device threads hardware versions command"
).split()
#: of a sweep over lambda, where no density is asked for
LAMBDA_COLUMNS = [{"density": "lam"}.get(name, name) for name in COLUMNS]
#: of a file of entries kept, one row a matrix
LAYER_COLUMNS = "task method density scope distil seed layer numel kept".split()
_KEY = "split task method density scope distil seed steps batch_size max_length precision model".split()

Row = dict[str, str]


@dataclass(frozen=True)
class Grid:
    """One model on one task. `methods` are a `Pruner`'s, "dense", or "scratch" (dense from random weights).

    `score_rows`: score so many rows of validation, drawn once, where all would take too long. `distil` gives every
    pruned run a teacher; with `plain_rates` their rates are those chosen without one, for all methods alike.
    """

    model: str
    task: str
    methods: Sequence[str]
    densities: Sequence[float]
    seeds: Sequence[int]
    steps: int
    lrs: Sequence[float]
    tune_steps: int
    tune_seeds: Sequence[int] = (100,)
    holdout: int = 1000
    batch_size: int = 32
    max_length: int | None = None
    doc_stride: int | None = None
    data_dir: str | None = None
    score_rows: int | None = None
    scope: str = "local"
    distil: bool = False
    plain_rates: bool = False
    bf16: bool = False
    model_name: str | None = None
    command: str = ""

    def check(self) -> None:
        """Raise ValueError for a setting no run could have."""
        known = ("dense", "scratch", *METHODS)
        for name, values in (
            ("methods", self.methods),
            ("densities", self.densities),
            ("seeds", self.seeds),
            ("lrs", self.lrs),
        ):
            if not values:
                raise ValueError(f"{name} is empty: nothing to run")
        for method in self.methods:
            if method not in known:
                raise ValueError(f"methods={method!r}: one of {', '.join(known)}")
        if both := set(self.seeds) & set(self.tune_seeds):
            raise ValueError(f"seeds {sorted(both)} are both tuned on and reported: keep them apart")


def run_grid(grid: Grid, out: Path, log: Callable[[str], None] = print, layers: Path | None = None) -> None:
    """Run what `out` does not hold yet, and append each finished run to it at once.

    Order: seed by seed, the lowest density for all methods before the next density; the first run of a method at a
    density is preceded by the choice of its rate. `layers` is a file for the entries kept in each matrix of the
    reported runs; a run that it lacks is run again for it, and `out` left as it is.
    """
    grid.check()
    out.parent.mkdir(parents=True, exist_ok=True)
    done = {run_key(row) for row in read_rows(out)}
    drawn = set() if layers is None else {_layers_key(row) for row in read_rows(layers, LAYER_COLUMNS)}
    task = load_task(grid.task, data_dir=grid.data_dir, max_length=grid.max_length, doc_stride=grid.doc_stride)
    parts = {
        "holdout": cache(lambda: task.holdout(grid.holdout, seed=min(grid.tune_seeds))),
        "validation": cache(lambda: task if grid.score_rows is None else fewer_rows(task, grid.score_rows)),
    }

    @cache
    def teacher(split: str) -> Any:
        _choose_rate("dense", 1.0)
        lr = best_rate(read_rows(out), tuning_runs(grid, task, "dense", 1.0))
        steps = grid.tune_steps if split == "holdout" else grid.steps
        result = _run(grid, parts[split](), planned(grid, task, split, "dense", 1.0, min(grid.tune_seeds), steps, lr))
        log(f"teacher for {split} {grid.task}, lr {lr}: score {result.score:.4f} in {result.seconds:.1f} s")
        return result.model

    def run(cell: dict[str, Any]) -> Result:
        return _run(grid, parts[cell["split"]](), cell, teacher(cell["split"]) if cell["distil"] else None)

    def _choose_rate(method: str, density: float) -> None:
        for cell in tuning_runs(grid, task, method, density):
            if run_key(cell) not in done:
                append_run(out, cell, run(cell), log)
                done.add(run_key(cell))

    for seed, density, method in run_order(grid):
        _choose_rate(method, density)
        lr = best_rate(read_rows(out), tuning_runs(grid, task, method, density))
        cell = planned(grid, task, "validation", method, density, seed, grid.steps, lr)
        new, undrawn = run_key(cell) not in done, method in METHODS and layers and _layers_key(cell) not in drawn
        if new or undrawn:
            result = run(cell)
            if new:
                append_run(out, cell, result, log)
            if layers and undrawn:
                _append_layers(layers, cell, result)


def best_rate(rows: Sequence[Row], tried: Sequence[dict[str, Any]]) -> float:
    """The rate with the best mean score over the tuning runs `tried`; where scores tie, the lowest loss."""
    wanted = {run_key(cell): cell["lr"] for cell in tried}
    found: dict[float, list[tuple[float, float]]] = {}
    for row in rows:
        if (lr := wanted.get(run_key(row))) is not None:
            found.setdefault(lr, []).append((float(row["score"]), -float(row["loss"])))
    return max(found, key=lambda lr: [sum(column) / len(column) for column in zip(*found[lr], strict=True)])


def tuning_runs(grid: Grid, task: Task, method: str, density: float) -> list[dict[str, Any]]:
    """The runs, on rows held out of train, that choose a method's rate at a density."""
    grid = replace(grid, distil=grid.distil and not grid.plain_rates)
    runs = [(seed, lr) for seed in grid.tune_seeds for lr in grid.lrs]
    return [planned(grid, task, "holdout", method, density, seed, grid.tune_steps, lr) for seed, lr in runs]


def run_lambdas(
    task_name: str, lams: Sequence[float], out: Path, *, steps: int, lr: float, score_lr: float, seed: int = 0,
    command: str = "", log: Callable[[str], None] = print,
) -> None:  # fmt: skip
    """Soft movement on the toy with a fixed final lambda, once for each of `lams` that `out` does not hold yet.

    The density is then an outcome (column `kept`). Nothing is tuned here: both rates are given.
    """
    done = {(row["task"], float(row["lam"]), int(row["seed"])) for row in read_rows(out, LAMBDA_COLUMNS)}
    task, method = load_task(task_name), "soft_movement"
    grid = Grid("toy", task_name, [method], [1.0], [seed], steps, [lr], steps, command=command)
    for lam in lams:
        if (task_name, lam, seed) in done:
            continue
        result = fine_prune(
            load_model("toy", task, seed=seed), task, method, steps=steps, lr=lr, score_lr=score_lr,
            batch_size=grid.batch_size, seed=seed, progress=False, penalty=float(lam),
        )  # fmt: skip
        cell = planned(grid, task, "validation", method, 1.0, seed, steps, lr)
        del cell["density"]  # an outcome here
        append_run(out, cell | {"lam": lam}, result, log, LAMBDA_COLUMNS)


def read_rows(path: Path, columns: Sequence[str] = COLUMNS) -> list[Row]:
    """Rows of a results file, as text; a last line cut short by a kill is dropped from the file."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        path.write_text(whole, encoding="utf-8")
    rows = list(csv.DictReader(whole.splitlines()))
    if rows and list(rows[0]) != list(columns):
        raise ValueError(f"{path} has the columns {', '.join(rows[0])}, not {', '.join(columns)}: name another file")
    return rows


def run_order(grid: Grid) -> Iterator[tuple[int, float, str]]:
    """Seed, density and method of each reported run: seed by seed, the lowest density first; dense once a seed."""
    seen = set()
    for seed in grid.seeds:
        for density in sorted(grid.densities):
            for method in grid.methods:
                item = (seed, 1.0 if method in ("dense", "scratch") else density, method)
                if item not in seen:
                    seen.add(item)
                    yield item


def planned(
    grid: Grid, task: Task, split: str, method: str, density: float, seed: int, steps: int, lr: float
) -> dict[str, Any]:
    """What is known of a run beforehand."""
    dense = method in ("dense", "scratch")
    return {
        "split": split,
        "task": grid.task,
        "method": method,
        "density": 1.0 if dense else density,
        "scope": "" if dense else ("global" if method in ("soft_movement", "l0") else grid.scope),
        "distil": grid.distil and not dense,
        "seed": seed,
        "steps": steps,
        "lr": lr,
        "batch_size": grid.batch_size,
        "max_length": task.max_length,
        "precision": "bf16 autocast" if grid.bf16 else "float32",
        "model": grid.model_name or (Path(grid.model).name if Path(grid.model).is_dir() else grid.model),
        "command": grid.command,
    }


def run_key(row: dict[str, Any]) -> tuple[str, ...]:
    """What tells two runs of a file apart; a reported run has one rate, so its rate is not part of it."""
    names = [*_KEY, "lr"] if row["split"] == "holdout" else _KEY
    return tuple(f"{float(row[n]):.6g}" if n in ("density", "lr") else str(row[n]) for n in names)


def _layers_key(row: dict[str, Any]) -> tuple[str, ...]:
    names = "task method density scope distil seed".split()
    return tuple(f"{float(row[n]):.6g}" if n == "density" else str(row[n]) for n in names)


def fewer_rows(task: Task, rows: int) -> Task:
    """The task with `rows` of its validation rows, drawn with a fixed seed."""
    total = task.size("validation")
    if not 1 <= rows <= total:
        raise ValueError(f"score_rows={rows!r}: from 1 to the {total} rows of {task.name}'s validation split")
    index = np.sort(np.random.default_rng(0).permutation(total)[:rows])
    return task.subset("validation", index)


def _run(grid: Grid, task: Task, cell: dict[str, Any], teacher: Any = None) -> Result:
    dense = cell["method"] in ("dense", "scratch")
    model = load_model(grid.model, task, pretrained=cell["method"] != "scratch", seed=cell["seed"])
    return fine_prune(
        model, task, "dense" if dense else cell["method"], cell["density"], steps=cell["steps"], lr=cell["lr"],
        batch_size=grid.batch_size, seed=cell["seed"], bf16=grid.bf16, teacher=teacher, progress=False,
        **({} if dense else {"scope": cell["scope"]}),
    )  # fmt: skip


def _append_layers(path: Path, cell: dict[str, Any], result: Result) -> None:
    rows = result.report.assign(**{name: cell[name] for name in LAYER_COLUMNS if name in cell})
    rows["numel"] = [math.prod(shape) for shape in rows["shape"]]
    rows[LAYER_COLUMNS].to_csv(path, mode="a", header=not path.exists(), index=False, lineterminator="\n")


def append_run(
    out: Path, cell: dict[str, Any], result: Result, log: Callable[[str], None], columns: Sequence[str] = COLUMNS
) -> None:
    """Append a planned run and what came of it to `out`."""
    row = cell | {
        "kept": f"{result.density:.6g}",
        "score_lr": result.settings["score_lr"] or "",
        "score": f"{result.score:.4f}",
        "loss": f"{result.metrics['loss']:.5f}",
        "seconds": f"{result.seconds:.1f}",
    }
    write_row(out, row, columns)
    asked = "density" if "density" in row else "lam"
    log(
        f"{row['split']} {row['task']} {row['method']} {asked} {row[asked]} seed {row['seed']} lr {row['lr']}: "
        f"score {row['score']} kept {row['kept']} in {row['seconds']} s"
    )


def write_row(out: Path, row: dict[str, Any], columns: Sequence[str]) -> None:
    """Append a finished run, and what it ran on, to `out`, so that a kill later on cannot take it away."""
    import torch
    import transformers

    versions = f"python {platform.python_version()}, torch {torch.__version__}, transformers {transformers.__version__}"
    where = {"device": default_device().type, "threads": torch.get_num_threads(), "hardware": _hardware()}
    new = not out.exists()
    with out.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row | where | {"versions": versions})
        file.flush()
        os.fsync(file.fileno())


def _hardware() -> str:
    import torch

    if default_device().type == "cuda":
        return torch.cuda.get_device_name()
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        name = next(
            (line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line), name
        )
    return f"{name}, {os.cpu_count()} cores"


def task_grids(grid: Grid, tasks: Sequence[str]) -> list[Grid]:
    """The same grid for several tasks."""
    return [replace(grid, task=name) for name in tasks]
