"""What describes a task, and the twelve with a name: columns, labels, metrics, lengths, where they are on the hub."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from mvp_lite.tasks.toy import LR, MAX_LENGTH, STEPS

__all__ = ["METRICS", "SPECS", "SPLITS", "TASKS", "TASK_TYPES", "TaskSpec"]

SPLITS = ("train", "validation")
#: each type of task and its scores, the default first
METRICS = {
    "classification": ("accuracy", "f1", "macro_f1"),
    "regression": ("spearman", "pearson"),
    "span": ("f1", "exact_match"),
    "token classification": ("f1", "accuracy"),
}
TASK_TYPES = tuple(METRICS)


@dataclass(frozen=True)
class TaskSpec:
    """What has to be known about a task before it is read.

    Attributes:
        text_columns: the one or two texts of an example, in the tokenizer's order; of token classification, the words.
        group: the text column that examples may share; `Task.holdout` keeps such examples together.
        task_type: one of `TASK_TYPES`.
        label_column: the column that is predicted.
        labels: names of the classes, or of the tags of a word.
        scale: lowest and highest label of a regression task; empty for any finite number.
        optional: of a span task: examples without an answer are allowed.
        metrics: names of the scores, the main one first.
        others: columns that have to be there although nothing reads them.
        hub: arguments of `datasets.load_dataset`; empty for the toy.
        validation: the hub's name of the validation split.
        max_length, doc_stride: tokens of a sequence; tokens of context that neighboring windows share.
        steps, lr: of fine-tuning; without `steps`, 3 epochs.
    """

    text_columns: tuple[str, ...]
    group: str
    labels: tuple[str, ...] = ()
    task_type: str = "classification"
    label_column: str = "label"
    scale: tuple[float, ...] = ()
    optional: bool = False
    metrics: tuple[str, ...] = ("accuracy",)
    others: tuple[str, ...] = ()
    hub: tuple[str, ...] = ()
    validation: str = "validation"
    max_length: int = 128
    doc_stride: int = 0
    steps: int | None = None
    lr: float = 3e-5

    @property
    def columns(self) -> tuple[str, ...]:
        return (*self.others, *self.text_columns, self.label_column)


_SENTIMENT = TaskSpec(("sentence",), "sentence", ("negative", "positive"), hub=("stanfordnlp/sst2",))
_INFERENCE = TaskSpec(
    ("premise", "hypothesis"),
    "premise",
    ("entailment", "neutral", "contradiction"),
    hub=("nyu-mll/glue", "mnli"),
    validation="validation_matched",
)
_PARAPHRASE = TaskSpec(
    ("question1", "question2"),
    "question1",
    ("not_duplicate", "duplicate"),
    metrics=("accuracy", "f1"),
    hub=("nyu-mll/glue", "qqp"),
)
_SPAN = TaskSpec(
    ("question", "context"),
    "context",
    task_type="span",
    label_column="answers",
    others=("id",),
    metrics=("f1", "exact_match"),
    hub=("rajpurkar/squad",),
    max_length=384,
    doc_stride=128,
)
_PAIR = ("sentence1", "sentence2")


def _glue(name: str, text_columns: tuple[str, ...], **options: Any) -> TaskSpec:
    return TaskSpec(text_columns, text_columns[0], hub=("nyu-mll/glue", name), **options)


def _toy(spec: TaskSpec, **changes: Any) -> TaskSpec:
    return replace(spec, hub=(), validation="validation", max_length=MAX_LENGTH, steps=STEPS, lr=LR, **changes)


SPECS: dict[str, TaskSpec] = {
    "toy/sentiment": _toy(_SENTIMENT),
    "toy/inference": _toy(_INFERENCE),
    "toy/paraphrase": _toy(_PARAPHRASE, labels=("different", "same")),
    "toy/qa": _toy(_SPAN, doc_stride=8),
    "sst2": _SENTIMENT,
    "mnli": _INFERENCE,
    "qqp": _PARAPHRASE,
    "mrpc": _glue("mrpc", _PAIR, labels=("not_equivalent", "equivalent"), metrics=("accuracy", "f1")),
    "qnli": _glue("qnli", ("question", "sentence"), labels=("entailment", "not_entailment")),
    "stsb": _glue("stsb", _PAIR, task_type="regression", scale=(0.0, 5.0), metrics=("spearman",)),
    "squad": _SPAN,
    "squad_v2": replace(_SPAN, hub=("rajpurkar/squad_v2",), optional=True),
}
TASKS = tuple(SPECS)
