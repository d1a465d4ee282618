"""Grids of fine-pruning runs, resumable: every finished run is one row of a CSV.

All methods get the same steps, and for each, at each density, the weight rate is chosen from the same values on rows
held out of train, with seeds that are not reported (`split` "holdout"). Each reported run scores the validation split
once.
"""

from __future__ import annotations

import csv
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mvp_lite.course.pretrained import load_model
from mvp_lite.course.tasks import Task, load_task
from mvp_lite.pruner import METHODS
from mvp_lite.train import Result, default_device, fine_prune

__all__ = ["COLUMNS", "LAMBDA_COLUMNS", "Grid", "read_rows", "run_grid", "run_lambdas"]

COLUMNS = (
    "split task method density kept scope distil seed steps lr score_lr score loss seconds "
    "batch_size max_length precision model device threads hardware versions command"
).split()
#: of a sweep over lambda, where no density is asked for
LAMBDA_COLUMNS = [{"density": "lam"}.get(name, name) for name in COLUMNS]
_KEY = "split task method density scope distil seed steps batch_size max_length precision model".split()

Row = dict[str, str]


@dataclass(frozen=True)
class Grid:
    """One model on one task. `methods` are a `Pruner`'s, "dense", or "scratch" (dense from random weights)."""

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
    data_dir: str | None = None
    scope: str = "local"
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


def run_grid(grid: Grid, out: Path, log: Callable[[str], None] = print) -> None:
    """Run what `out` does not hold yet, and append each finished run to it at once.

    Order: seed by seed, the lowest density for all methods before the next density; the first run of a method at a
    density is preceded by the choice of its rate.
    """
    grid.check()
    out.parent.mkdir(parents=True, exist_ok=True)
    done = {_key(row) for row in read_rows(out)}
    task = load_task(grid.task, data_dir=grid.data_dir, max_length=grid.max_length)
    tuning = None
    for seed, density, method in _order(grid):
        for cell in _tuning_cells(grid, task, method, density):
            if _key(cell) not in done:
                tuning = tuning or task.holdout(grid.holdout, seed=min(grid.tune_seeds))
                _append(out, cell, _run(grid, tuning, cell), log)
                done.add(_key(cell))
        lr = best_rate(read_rows(out), _tuning_cells(grid, task, method, density))
        cell = _cell(grid, task, "validation", method, density, seed, grid.steps, lr)
        if _key(cell) not in done:
            _append(out, cell, _run(grid, task, cell), log)


def best_rate(rows: Sequence[Row], tried: Sequence[dict[str, Any]]) -> float:
    """The rate with the best mean score over the tuning runs `tried`; where scores tie, the lowest loss."""
    wanted = {_key(cell): cell["lr"] for cell in tried}
    found: dict[float, list[tuple[float, float]]] = {}
    for row in rows:
        if (lr := wanted.get(_key(row))) is not None:
            found.setdefault(lr, []).append((float(row["score"]), -float(row["loss"])))
    return max(found, key=lambda lr: [sum(column) / len(column) for column in zip(*found[lr], strict=True)])


def _tuning_cells(grid: Grid, task: Task, method: str, density: float) -> list[dict[str, Any]]:
    runs = [(seed, lr) for seed in grid.tune_seeds for lr in grid.lrs]
    return [_cell(grid, task, "holdout", method, density, seed, grid.tune_steps, lr) for seed, lr in runs]


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
        cell = _cell(grid, task, "validation", method, 1.0, seed, steps, lr)
        del cell["density"]  # an outcome here
        _append(out, cell | {"lam": lam}, result, log, LAMBDA_COLUMNS)


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


def _order(grid: Grid) -> Iterator[tuple[int, float, str]]:
    seen = set()
    for seed in grid.seeds:
        for density in sorted(grid.densities):
            for method in grid.methods:
                item = (seed, 1.0 if method in ("dense", "scratch") else density, method)
                if item not in seen:
                    seen.add(item)
                    yield item


def _cell(
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
        "distil": False,
        "seed": seed,
        "steps": steps,
        "lr": lr,
        "batch_size": grid.batch_size,
        "max_length": task.max_length,
        "precision": "bf16 autocast" if grid.bf16 else "float32",
        "model": grid.model_name or (Path(grid.model).name if Path(grid.model).is_dir() else grid.model),
        "command": grid.command,
    }


def _key(row: dict[str, Any]) -> tuple[str, ...]:
    names = [*_KEY, "lr"] if row["split"] == "holdout" else _KEY
    return tuple(f"{float(row[n]):.6g}" if n in ("density", "lr") else str(row[n]) for n in names)


def _run(grid: Grid, task: Task, cell: dict[str, Any]) -> Result:
    dense = cell["method"] in ("dense", "scratch")
    model = load_model(grid.model, task, pretrained=cell["method"] != "scratch", seed=cell["seed"])
    return fine_prune(
        model, task, "dense" if dense else cell["method"], cell["density"], steps=cell["steps"], lr=cell["lr"],
        batch_size=grid.batch_size, seed=cell["seed"], bf16=grid.bf16, progress=False,
        **({} if dense else {"scope": cell["scope"]}),
    )  # fmt: skip


def _append(
    out: Path, cell: dict[str, Any], result: Result, log: Callable[[str], None], columns: Sequence[str] = COLUMNS
) -> None:
    import torch
    import transformers

    versions = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    row = cell | {
        "kept": f"{result.density:.6g}",
        "score_lr": result.settings["score_lr"] or "",
        "score": f"{result.score:.4f}",
        "loss": f"{result.metrics['loss']:.5f}",
        "seconds": f"{result.seconds:.1f}",
        "device": default_device().type,
        "threads": torch.get_num_threads(),
        "hardware": _hardware(),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }
    new = not out.exists()
    with out.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)
        file.flush()
        os.fsync(file.fileno())
    asked = "density" if "density" in row else "lam"
    log(
        f"{row['split']} {row['task']} {row['method']} {asked} {row[asked]} seed {row['seed']} lr {row['lr']}: "
        f"score {row['score']} kept {row['kept']} in {row['seconds']} s"
    )


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
