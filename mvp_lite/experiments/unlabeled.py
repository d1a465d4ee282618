"""Pruning without labels on one task: methods x budgets x samples of unlabeled text, resumable, one row a run.

The dense model is fine-tuned once and kept in a folder; every run prunes that one, cuts it smaller and scores it on the
validation split. Nothing is tuned. A sample is drawn from train with its seed, and its labels are thrown away but for
the methods that say they use them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from mvp_lite.experiments.grid import fewer_rows, read_rows, write_row
from mvp_lite.gradient_free import METHODS, prune_neurons
from mvp_lite.models import load_model, tokenizer_for
from mvp_lite.structure.shrinking import shrink
from mvp_lite.tasks.task import Task, load_task
from mvp_lite.train import default_device, fine_prune

__all__ = ["ALL_METHODS", "UNLABELED_COLUMNS", "Study", "parse_method", "parse_options", "run_study"]

UNLABELED_COLUMNS = (
    "task model dense_score method scale labelled source flops left score loss seed sequences options "
    "seconds device threads hardware versions command"
).split()
#: what a study compares; "+scale", "+labels" and "+heads" are read by `parse_method`
ALL_METHODS = (
    "random", "weight_magnitude", "weight_magnitude+scale", "output_magnitude", "r2", "d2", "r2d2", "kcm", "kcm+labels",
    "fisher",
)  # fmt: skip
#: a layer may lose nearly all its neurons, but not all: such a model could not be cut
MIN_DENSITY = 0.01
#: options of `prune_neurons` that a study may set, and how each is read
_OPTIONS: dict[str, Callable[[str], Any]] = {
    "sigma": lambda text: None if text == "median" else float(text),
    "alpha": float,
    "stop": str,
    "half": lambda text: {"True": True, "False": False}[text],
    "statistic": str,
    "normalisation": str,
    "ridge": float,
    "swap_by": str,
    "min_density": float,
}
_KEY = "task model method scale labelled source flops seed sequences options".split()


@dataclass(frozen=True)
class Study:
    """One dense model on one task, and what is tried on it.

    `steps` and `lr` are the dense fine-tuning's (None: the task's recipe); it is kept in a folder of its task's name
    below `folder`. `sequences` rows of train are the sample, of which `labels` rows keep theirs for methods with
    labels. `source` is the task from whose train rows the sample comes, read from `source_dir` (default: the same
    task). `options` is one setting of `prune_neurons`, see `parse_options`.
    """

    task: str
    model: str = "toy"
    methods: Sequence[str] = ALL_METHODS
    flops: Sequence[float] = (0.6, 0.7, 0.8)
    seeds: Sequence[int] = tuple(range(10))
    sequences: int = 2000
    labels: int = 512
    options: str = ""
    source: str | None = None
    source_dir: str | None = None
    data_dir: str | None = None
    max_length: int | None = None
    doc_stride: int | None = None
    score_rows: int | None = None
    batch_size: int = 32
    steps: int | None = None
    lr: float | None = None
    bf16: bool = False
    folder: Path = Path("build/unlabeled")
    model_name: str | None = None
    command: str = ""

    def check(self) -> None:
        """Raise ValueError for a study that could not be run."""
        for name in ("methods", "flops", "seeds"):
            if not getattr(self, name):
                raise ValueError(f"{name} is empty: nothing to run")
        for name in ("sequences", "labels"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)!r}: at least 1")
        for method in self.methods:
            asked = parse_method(method)
            if "labelled" in asked and self.source not in (None, self.task):
                raise ValueError(f"methods={method!r} needs labels, and source={self.source!r} has another task's")
        parse_options(self.options)


def parse_method(text: str) -> dict[str, Any]:
    """Arguments of `prune_neurons` for "kcm", "kcm+labels", "weight_magnitude+scale", "fisher+heads" and the like."""
    method, *extras = text.split("+")
    if method not in METHODS:
        raise ValueError(f"methods={text!r}: one of {', '.join(METHODS)}")
    if unknown := set(extras) - {"scale", "labels", "heads"}:
        raise ValueError(f"methods={text!r}: +{min(unknown)} is none of +scale, +labels, +heads")
    asked: dict[str, Any] = {"method": method, "scale": "scale" in extras or method in ("kcm", "fisher")}
    if "labels" in extras or method == "fisher":
        asked["labelled"] = True
    if "heads" in extras:
        asked["heads"] = True
    return asked


def parse_options(text: str) -> dict[str, Any]:
    """Arguments of `prune_neurons` from "sigma=0.5 stop=entrywise half=False"; sigma=median is its None."""
    found = {}
    for word in text.split():
        name, _, value = word.partition("=")
        if name not in _OPTIONS:
            raise ValueError(f"options={word!r}: NAME=VALUE with a name among {', '.join(_OPTIONS)}")
        try:
            found[name] = _OPTIONS[name](value)
        except (ValueError, KeyError) as error:
            raise ValueError(f"options={word!r}: {value!r} is no value of {name}") from error
    return found


def run_study(study: Study, out: Path, log: Callable[[str], None] = print) -> None:
    """Run what `out` does not hold yet, seed by seed, and append each finished run to it at once.

    The methods that depend on neither sample nor seed run for the first seed alone.
    """
    study.check()
    out.parent.mkdir(parents=True, exist_ok=True)
    done = {_key(row) for row in read_rows(out, UNLABELED_COLUMNS)}
    task = load_task(study.task, data_dir=study.data_dir, max_length=study.max_length, doc_stride=study.doc_stride)
    source = task
    if study.source not in (None, study.task):
        source = load_task(str(study.source), data_dir=study.source_dir, max_length=study.max_length)

    @cache
    def dense() -> tuple[Any, Any, float]:
        model, score = dense_model(study, task, log)
        part = task if study.score_rows is None else fewer_rows(task, study.score_rows)
        encoded = part.encode(tokenizer_for(model))
        if study.score_rows is not None:
            score = encoded.evaluate(model)["score"]
        return model, encoded, score

    @cache
    def batches(seed: int, rows: int) -> list[dict[str, Tensor]]:
        model = dense()[0]
        return sample(source, tokenizer_for(model), rows, seed, study.batch_size, next(model.parameters()).device)

    for seed in study.seeds:
        for method in study.methods:
            asked = parse_method(method)
            fixed = method in ("weight_magnitude", "r2")
            if fixed and seed != study.seeds[0]:
                continue
            for flops in sorted(study.flops):
                cell = _cell(study, task, method, flops, seed)
                if _key(cell) in done:
                    continue
                model, encoded, score = dense()
                given = {"min_density": MIN_DENSITY} | parse_options(study.options) | asked
                inputs = batches(seed, study.sequences)
                if "labelled" in asked:
                    given["labelled"] = batches(seed, cell["labelled"])
                started = time.perf_counter()
                pruned = prune_neurons(model, inputs, flops, seed=seed, **given)
                small = shrink(pruned.model)
                seconds = time.perf_counter() - started
                metrics = encoded.evaluate(small)
                cell |= {"dense_score": f"{score:.4f}", "left": f"{pruned.flops:.6f}"}
                cell |= {"score": f"{metrics['score']:.4f}", "loss": f"{metrics['loss']:.5f}"}
                _append(out, cell | {"seconds": f"{seconds:.1f}"}, log)
                done.add(_key(cell))


def sample(
    source: Task, tokenizer: Any, rows: int, seed: int, batch_size: int, device: Any = "cpu"
) -> list[dict[str, Tensor]]:
    """`rows` rows of train, drawn with `seed`, in batches from the longest to the shortest; labels are still in them.

    A smaller sample with the same seed is part of a larger one. A long row of a span task gives several sequences.
    """
    total = source.size("train")
    if rows > total:
        raise ValueError(f"sequences={rows!r}: {source.name} has only {total} rows in train")
    index = np.sort(np.random.default_rng(seed).permutation(total)[:rows])
    return list(source.subset("train", index).encode(tokenizer).batches("train", batch_size, device=device))


def dense_model(study: Study, task: Task, log: Callable[[str], None] = print) -> tuple[Any, float]:
    """The fine-tuned model of a study and its score on validation: from its folder, or trained and put there."""
    folder = study.folder / study.task.replace("/", "_")
    steps, lr = task.recipe(study.batch_size)
    about: dict[str, Any] = {
        "task": study.task, "model": _name(study), "steps": study.steps or steps, "lr": study.lr or lr,
        "batch_size": study.batch_size, "max_length": task.max_length, "bf16": study.bf16, "seed": 0,
    }  # fmt: skip
    note = folder / "dense.json"
    if note.exists():
        found = json.loads(note.read_text())
        if wrong := [name for name in about if found.get(name) != about[name]]:
            raise ValueError(
                f"{folder} holds a model with {wrong[0]}={found.get(wrong[0])!r}, not {about[wrong[0]]!r}: "
                "remove it or name another folder"
            )
        return load_model(folder, task).to(default_device()).eval(), found["score"]
    result = fine_prune(
        load_model(study.model, task), task, "dense", steps=about["steps"], lr=about["lr"],
        batch_size=study.batch_size, bf16=study.bf16, progress=False,
    )  # fmt: skip
    log(f"dense {study.task}: score {result.score:.4f} in {result.seconds:.0f} s")
    tokenizer = tokenizer_for(result.model)
    model: Any = result.model
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    note.write_text(json.dumps(about | {"score": result.score, "loss": result.metrics["loss"]}) + "\n")
    return load_model(folder, task).to(default_device()).eval(), result.score


def _name(study: Study) -> str:
    return study.model_name or (Path(study.model).name if Path(study.model).is_dir() else study.model)


def _cell(study: Study, task: Task, method: str, flops: float, seed: int) -> dict[str, Any]:
    """What is known of a run beforehand."""
    asked = parse_method(method)
    options = [*sorted(study.options.split()), *(["heads=True"] if "heads" in asked else [])]
    return {
        "task": study.task,
        "model": _name(study),
        "method": asked["method"],
        "scale": asked["scale"],
        "labelled": min(study.labels, study.sequences) if "labelled" in asked else 0,
        "source": study.source or task.name,
        "flops": flops,
        "seed": seed,
        "sequences": study.sequences,
        "options": " ".join(options),
        "command": study.command,
    }


def _key(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(f"{float(row[name]):.6g}" if name == "flops" else str(row[name]) for name in _KEY)


def _append(out: Path, cell: dict[str, Any], log: Callable[[str], None]) -> None:
    write_row(out, cell, UNLABELED_COLUMNS)
    words = "task method scale labelled flops seed options score left seconds".split()
    log(" ".join(f"{name} {cell[name]}" for name in words if cell[name] != ""))
