"""Soft movement on the toy at fixed final penalties lambda, resumable: the density is then an outcome."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from mvp_lite.experiments.grid import COLUMNS, Log, ToyGrid, append_run, planned
from mvp_lite.experiments.settings import Settings, floats, option
from mvp_lite.experiments.table import Table
from mvp_lite.models import load_model
from mvp_lite.tasks import toy
from mvp_lite.tasks.loading import load_task
from mvp_lite.train import fine_prune

__all__ = ["LAMBDA_COLUMNS", "LambdaSweep", "run_lambdas"]

#: `lam` in place of `density`, which is not asked for
LAMBDA_COLUMNS = [{"density": "lam"}.get(name, name) for name in COLUMNS]


@dataclass(frozen=True, kw_only=True)
class LambdaSweep(Settings):
    """One run for each lambda; nothing is tuned: `python -m mvp_lite toy lambda`."""

    command_name: ClassVar[str] = "toy lambda"
    results_name: ClassVar[str] = "toy_lambda.csv"
    task: str = option(
        "toy/inference",
        read=lambda name: f"toy/{name}",
        write=lambda task: task.removeprefix("toy/"),
        help="sentiment, inference, paraphrase or qa",
    )
    lambdas: Sequence[float] = option(
        (1.0, 10.0, 30.0, 100.0, 300.0, 1000.0), read=floats, flags=("--lambdas", "--lams"), help="final penalties"
    )
    lr: float = option(1e-4, read=float, help="learning rate of the weights")
    score_lr: float = option(0.1, read=float, help="learning rate of the scores; 1e-2 is too slow for 300 steps")
    seed: int = option(0, read=int, help="seed of every run")
    steps: int = option(toy.STEPS, read=int, help="optimizer steps of every run")


def run_lambdas(sweep: LambdaSweep, log: Log = print) -> None:
    """Run what the results file does not hold yet, and append each finished run to it at once."""
    table, task = Table(sweep.results_path(), LAMBDA_COLUMNS, ["task", "lam", "seed"]), load_task(sweep.task)
    grid = ToyGrid(steps=sweep.steps)
    for lam in sweep.lambdas:
        run = planned(grid, task, "validation", "soft_movement", 1.0, sweep.seed, sweep.lr)
        cell = run | {"lam": lam, "command": sweep.command()}
        if table.has(cell):
            continue
        result = fine_prune(
            load_model(grid.model, task, seed=sweep.seed), task, cell["method"], steps=sweep.steps, lr=sweep.lr,
            score_lr=sweep.score_lr, batch_size=grid.batch_size, seed=sweep.seed, progress=False, penalty=lam,
        )  # fmt: skip
        append_run(table, cell, result, log)
