"""Pruning without labels on one task: methods x budgets x samples of unlabeled text, resumable.

The dense model is fine-tuned once and kept in a folder; every run prunes and shrinks a copy of it, and scores that copy
on the validation split, or, to choose an option, on examples held out of train. Nothing is tuned. A sample of train is
chosen with its seed; only methods that say so use its labels.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from mvp_lite.experiments.grid import Log
from mvp_lite.experiments.settings import ModelSettings, floats, integers, option, words
from mvp_lite.experiments.subsets import random_subset
from mvp_lite.experiments.table import Cell, Table
from mvp_lite.gradient_free import METHODS, prune_neurons
from mvp_lite.models import load_model, tokenizer_for
from mvp_lite.paths import data_path
from mvp_lite.structure.shrinking import shrink
from mvp_lite.tasks.loading import load_task
from mvp_lite.tasks.task import Task
from mvp_lite.train import default_device, fine_prune

__all__ = [
    "ALL_METHODS", "UNLABELED_COLUMNS", "UNLABELED_KEY", "Study", "parse_method", "parse_options", "planned",
    "run_order", "run_study", "sample",
]  # fmt: skip

UNLABELED_COLUMNS = (
    "task model dense_score method scale labelled source flops left score loss seed sequences options "
    "seconds device threads hardware versions command"
).split()
UNLABELED_KEY = "task model method scale labelled source flops seed sequences options".split()
#: what a study compares; "+scale", "+labels" and "+heads" are read by `parse_method`
ALL_METHODS = (
    "random", "weight_magnitude", "weight_magnitude+scale", "output_magnitude", "r2", "d2", "r2d2", "kcm", "kcm+labels",
    "fisher",
)  # fmt: skip
#: they depend on neither the sample nor the seed
FIXED_METHODS = ("weight_magnitude", "r2")
#: a layer may lose nearly all its neurons, but not all: such a model could not be shrunk
MIN_DENSITY = 0.01
FOLDER = Path("build/unlabeled")
#: which examples `Study.holdout` holds out of train
HOLDOUT_SEED = 100
#: options of `prune_neurons` that a study may set, and how each is read
_OPTIONS: dict[str, Callable[[str], Any]] = {
    "sigma": lambda text: None if text == "median" else float(text),
    "alpha": float,
    "stop": str,
    "half": lambda text: {"True": True, "False": False}[text],
    "statistic": str,
    "normalization": str,
    "ridge": float,
    "swap_by": str,
    "min_density": float,
}
#: options that results files spell in another way
_RECORDED = {"normalization": "normalisation"}


@dataclass(frozen=True, kw_only=True)
class Study(ModelSettings):
    """One dense model on one task, and what is tried on it: `python -m mvp_lite unlabeled`.

    The dense model is kept in a folder of its task's name below `folder`.
    """

    command_name: ClassVar[str] = "unlabeled"
    results_name: ClassVar[str] = "unlabeled_TASK.csv"
    model: str = option("toy", help='"toy", a local folder or a hub name')
    task: str = option(help="toy/..., sst2, mnli, squad, ...")
    methods: Sequence[str] = option(ALL_METHODS, read=words, help="methods, each perhaps with +scale, +labels, +heads")
    flops: Sequence[float] = option((0.6, 0.7, 0.8), read=floats, help="fractions of the operations kept")
    seeds: Sequence[int] = option(tuple(range(10)), read=integers, help="seeds of the samples of text")
    sequences: int = option(2000, read=int, help="examples of train in a sample")
    labels: int = option(512, read=int, help="examples of the sample whose labels methods with labels use")
    options: str = option("", help='of prune_neurons, for instance "sigma=0.5 stop=entrywise"')
    source: str | None = option(None, help="task whose train examples are the text (default: --task)")
    source_dir: str | None = option(None, public=lambda path: "SOURCE_DIR", help="folder of JSON lines of --source")
    holdout: int = option(0, read=int, help="score this many examples held out of train, not validation (0: none)")
    steps: int | None = option(None, read=int, help="optimizer steps of the dense fine-tuning (default: the task's)")
    lr: float | None = option(None, read=float, help="learning rate of the dense fine-tuning (default: the task's)")
    folder: Path = option(  # noqa: RUF009, a field
        FOLDER, read=Path, public=lambda folder: FOLDER, help="folder for the dense model"
    )

    def results_path(self) -> Path:
        label = "toy" if self.task.startswith("toy/") else self.task
        return self.out or data_path("results", self.results_name.replace("TASK", label))

    def check(self) -> None:
        """Raise ValueError for a study that could not be run."""
        for name in ("methods", "flops", "seeds"):
            if not getattr(self, name):
                raise ValueError(f"{name} is empty: nothing to run")
        for name, least in (("sequences", 1), ("labels", 1), ("holdout", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)!r}: at least {least}")
        for method in self.methods:
            if "labeled" in parse_method(method) and self.source not in (None, self.task):
                raise ValueError(f"methods={method!r} needs labels, and source={self.source!r} has another task's")
        parse_options(self.options)


def parse_method(text: str) -> dict[str, Any]:
    """Arguments of `prune_neurons` for "kcm", "kcm+labels", "weight_magnitude+scale", "fisher+heads" and the like.

    `labeled` is True where batches with labels are needed.
    """
    method, *extras = text.split("+")
    if method not in METHODS:
        raise ValueError(f"methods={text!r}: must be one of {', '.join(METHODS)}")
    if unknown := set(extras) - {"scale", "labels", "heads"}:
        raise ValueError(f"methods={text!r}: +{min(unknown)} is none of +scale, +labels, +heads")
    asked: dict[str, Any] = {"method": method, "scale": "scale" in extras or method in ("kcm", "fisher")}
    if "labels" in extras or method == "fisher":
        asked["labeled"] = True
    if "heads" in extras:
        asked["heads"] = True
    return asked


def parse_options(text: str) -> dict[str, Any]:
    """Arguments of `prune_neurons` from "sigma=0.5 stop=entrywise half=False"; sigma=median is its None.

    The spelling of recorded rows, "normalisation=max", is read too.
    """
    spelled = {recorded: name for name, recorded in _RECORDED.items()}
    found = {}
    for word in text.split():
        name, _, value = word.partition("=")
        name = spelled.get(name, name)
        if name not in _OPTIONS:
            raise ValueError(f"options={word!r}: NAME=VALUE with a name among {', '.join(_OPTIONS)}")
        try:
            found[name] = _OPTIONS[name](value)
        except (ValueError, KeyError) as error:
            raise ValueError(f"options={word!r}: {value!r} is no value of {name}") from error
    return found


def run_study(study: Study, log: Log = print) -> None:
    """Run what the results file does not hold yet, and append each finished run to it at once."""
    study.check()
    table = Table(study.results_path(), UNLABELED_COLUMNS, UNLABELED_KEY)
    task = study.load(study.task)
    if study.holdout:
        task = task.holdout(study.holdout, seed=HOLDOUT_SEED)
    source = task
    if study.source not in (None, study.task):
        source = load_task(str(study.source), data_dir=study.source_dir, max_length=study.max_length)

    @cache
    def dense() -> tuple[Any, Any, float]:
        model, score = dense_model(study, task, log)
        encoded = study.scored(task).encode(tokenizer_for(model))
        if study.score_examples is not None:
            score = encoded.evaluate(model)["score"]
        return model, encoded, score

    @lru_cache(maxsize=2)
    def batches(seed: int, count: int) -> list[dict[str, Tensor]]:
        model = dense()[0]
        return sample(source, tokenizer_for(model), count, seed, study.batch_size, next(model.parameters()).device)

    for seed, method, flops in run_order(study):
        cell = planned(study, method, flops, seed)
        if table.has(cell):
            continue
        model, encoded, dense_score = dense()
        given = {"min_density": MIN_DENSITY} | parse_options(study.options) | parse_method(method)
        inputs = batches(seed, study.sequences)
        if "labeled" in given:
            given["labeled"] = batches(seed, cell["labelled"])
        started = time.perf_counter()
        pruned = prune_neurons(model, inputs, flops, seed=seed, **given)
        small = shrink(pruned.model)
        seconds = time.perf_counter() - started
        metrics = encoded.evaluate(small)
        cell |= {"dense_score": f"{dense_score:.4f}", "left": f"{pruned.flops:.6f}", "seconds": f"{seconds:.1f}"}
        cell |= {"score": f"{metrics['score']:.4f}", "loss": f"{metrics['loss']:.5f}"}
        table.append(cell)
        shown = "task method scale labelled flops seed options score left seconds".split()
        log(" ".join(f"{name} {cell[name]}" for name in shown if cell[name] != ""))


def run_order(study: Study) -> Iterator[tuple[int, str, float]]:
    """Seed, method and budget of each run, seed by seed; methods that depend on neither have the first seed only."""
    for seed in study.seeds:
        for method in study.methods:
            if seed == study.seeds[0] or method not in FIXED_METHODS:
                for flops in sorted(study.flops):
                    yield seed, method, flops


def sample(
    source: Task, tokenizer: Any, count: int, seed: int, batch_size: int, device: Any = "cpu"
) -> list[dict[str, Tensor]]:
    """`count` examples of train, chosen with `seed`, in batches from the longest to the shortest; labels are in them.

    A smaller sample with the same seed is contained in a larger one. A long example of a span task gives several
    sequences.
    """
    part = random_subset(source, "train", count, seed=seed, argument="sequences")
    return list(part.encode(tokenizer).batches("train", batch_size, device=device))


def dense_model(study: Study, task: Task, log: Log = print) -> tuple[Any, float]:
    """The fine-tuned model of a study and its score on validation: from its folder, or trained and put there.

    Raises:
        ValueError: the model in the folder has other settings.
    """
    folder = study.folder / study.task.replace("/", "_")
    steps, lr = task.recipe(study.batch_size)
    about: dict[str, Any] = {
        "task": study.task, "model": study.model_label, "steps": study.steps or steps, "lr": study.lr or lr,
        "batch_size": study.batch_size, "max_length": task.max_length, "bf16": study.bf16, "seed": 0,
        "holdout": study.holdout,
    }  # fmt: skip
    note = folder / "dense.json"
    if not note.exists():
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
    found = {"holdout": 0} | json.loads(note.read_text())  # notes of earlier versions do not say it
    if wrong := [name for name in about if found.get(name) != about[name]]:
        raise ValueError(
            f"{folder} holds a model with {wrong[0]}={found.get(wrong[0])!r}, not {about[wrong[0]]!r}: "
            "remove it or name another folder"
        )
    return load_model(folder, task).to(default_device()).eval(), found["score"]


def planned(study: Study, method: str, flops: float, seed: int) -> Cell:
    """What is known of a run beforehand."""
    asked = parse_method(method)
    options = [_recorded(word) for word in study.options.split()]
    return {
        "task": study.task,
        "model": study.model_label,
        "method": asked["method"],
        "scale": asked["scale"],
        "labelled": min(study.labels, study.sequences) if "labeled" in asked else 0,
        "source": study.source or study.task,
        "flops": flops,
        "seed": seed,
        "sequences": study.sequences,
        "options": " ".join([*sorted(options), *(["heads=True"] if "heads" in asked else [])]),
        "command": study.command(),
    }


def _recorded(option: str) -> str:
    name, separator, value = option.partition("=")
    return f"{_RECORDED.get(name, name)}{separator}{value}"
