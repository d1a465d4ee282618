"""`Task`: examples that are read and checked, and `EncodedTask`: the same under one tokenizer."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mvp_lite.tasks.encoding import EncodedSplit, check_tokenizer, fingerprint, shuffled, sorted_by_length, tokenize
from mvp_lite.tasks.evaluation import constant_answer, evaluate
from mvp_lite.tasks.sources import Columns
from mvp_lite.tasks.specs import SPECS, SPLITS, TaskSpec

__all__ = ["EncodedTask", "Task", "check_integer"]


@dataclass(frozen=True, repr=False, eq=False)
class Task:
    """Examples of a task, read and checked but not yet tokenized.

    `examples[split][column]` is a list with one entry an example; `splits` are "train" and "validation". `metric` is
    what `score` means, as "accuracy", "f1" or "spearman". `note` says where the validation split comes from, if it is
    not the data set's own. Tokenize with `encode`; hold examples of train out for tuning
    with `holdout`.
    """

    name: str
    spec: TaskSpec
    examples: dict[str, Columns]
    max_length: int
    doc_stride: int
    tokenizer: Any = None
    note: str = ""
    _encoded: dict[str, EncodedTask] = field(default_factory=dict, init=False)

    splits = SPLITS

    @property
    def task_type(self) -> str:
        """What is predicted: "classification" (one label), "regression" (a number), "span" (an answer's ends) or
        "token classification" (a tag for each word)."""
        return self.spec.task_type

    @property
    def labels(self) -> list[str]:
        """Names of the classes in the order of their numbers; empty where there are no classes."""
        return list(self.spec.labels)

    @property
    def num_labels(self) -> int:
        """Outputs of the head: one per class or tag, 1 for regression, 2 (start and end) for a span task."""
        return len(self.spec.labels) or (1 if self.task_type == "regression" else 2)

    @property
    def metric(self) -> str:
        """Name of the main score."""
        return self.spec.metrics[0]

    @property
    def text_columns(self) -> tuple[str, ...]:
        """Columns that are tokenized, in order."""
        return self.spec.text_columns

    @property
    def label_column(self) -> str:
        """Column that is predicted."""
        return self.spec.label_column

    def recipe(self, batch_size: int) -> tuple[int, float]:
        """(optimizer steps, learning rate) where none are given: the toy's, or 3 epochs at the papers' 3e-5."""
        return self.spec.steps or max(1, 3 * self.size("train") // batch_size), self.spec.lr

    def size(self, split: str) -> int:
        """Number of examples of a split."""
        return len(self.examples[_check_split(split)][self.label_column])

    def fingerprint(self) -> str:
        """SHA-256 of the examples of both splits in their order: equal for equal data, wherever they were read."""
        found = hashlib.sha256()
        for split in self.splits:
            for column, values in sorted(self.examples[split].items()):
                found.update(json.dumps([split, column, values], sort_keys=True).encode())
        return found.hexdigest()

    def __repr__(self) -> str:
        counts = ", ".join(f"{self.size(split):,} {split}" for split in SPLITS)
        note = f"; {self.note}" if self.note else ""
        if self.spec is not SPECS.get(self.name):
            texts = " and ".join(map(repr, self.text_columns))
            note = f"; reads {texts}, predicts {self.label_column!r}{note}"
        return f"Task({self.name!r}, {self.task_type}, {counts} examples{note})"

    def encode(self, tokenizer: Any = None) -> EncodedTask:
        """Tokenize lazily, once per tokenizer: two tokenizers with the same content share the work.

        Without an argument the `tokenizer` given to `load_task` or `make_task` is used.

        Raises:
            ValueError: no tokenizer, a slow one, or one without a pad token.
        """
        tokenizer = self.tokenizer if tokenizer is None else tokenizer
        check_tokenizer(tokenizer)
        return self._encoded.setdefault(fingerprint(tokenizer), EncodedTask(self, tokenizer))

    def subset(self, split: str, index: Any) -> Task:
        """The same task with only the examples `index` of a split, in that order."""
        columns = self.examples[_check_split(split)]
        return replace(self, examples=self.examples | {split: _select(columns, index)})

    def holdout(self, n: int, seed: int) -> Task:
        """The same task with `n` examples of train as its validation split, for tuning; the real one is not in it.

        Examples that share a text (SQuAD: the context; else the first, as MNLI's premise) stay on one side: those
        that share one with the last examples taken leave train too, so train shrinks by `n` examples or a few more.

        Raises:
            ValueError: `n` is not an integer from 1 to the size of train less 1, or nothing would be left in train.
        """
        train, total = self.examples["train"], self.size("train")
        check_integer("n", n, 1, total - 1, f" (train has {total} examples)")
        texts = [tuple(text) if isinstance(text, list) else text for text in train[self.spec.group]]
        number = {text: i for i, text in enumerate(sorted(set(texts)))}
        group = np.array([number[text] for text in texts])
        rank = np.random.default_rng(seed).permutation(len(number))[group]
        order = np.argsort(rank, kind="stable")
        keep = np.sort(order[rank[order] > rank[order[n - 1]]])
        if not keep.size:
            raise ValueError(
                f"n={n}: nothing would be left in train, since examples that share {self.spec.group!r} stay together; "
                "take fewer, or give validation data of their own"
            )
        examples = {"train": _select(train, keep), "validation": _select(train, np.sort(order[:n]))}
        return replace(self, examples=examples, note=f"validation is held out of train with seed {seed}")


class EncodedTask:
    """A task under one tokenizer; splits are tokenized when first used. Made by `Task.encode`."""

    def __init__(self, task: Task, tokenizer: Any) -> None:
        self.task = task
        self.tokenizer = tokenizer
        self.max_length = min(task.max_length, tokenizer.model_max_length)
        self._splits: dict[str, EncodedSplit] = {}
        self._baselines: dict[str, float] = {}

    def __repr__(self) -> str:
        return f"EncodedTask({self.task!r}, {type(self.tokenizer).__name__}, max_length={self.max_length})"

    def size(self, split: str) -> int:
        """Number of sequences of a split: its examples, or for a span task the windows of their contexts."""
        return len(self._split(split))

    def batches(
        self,
        split: str,
        batch_size: int,
        *,
        seed: int | None = None,
        steps: int | None = None,
        device: torch.device | str = "cpu",
    ) -> Iterator[dict[str, Tensor]]:
        """Batches ready for `model(**batch)`: (batch, width) integers, and labels or start and end positions (batch,).

        Labels are integers, for regression float32; for token classification they are (batch, width), with -100 for
        every token that is not the first of its word. Where there is no answer both its positions are 0. Width is the
        longest sequence's, rounded up to a multiple of 8 but not past `max_length`.

        With a `seed`: endless reshuffled epochs (exactly `steps` batches if given) in which sequences of similar length
        share a batch; those that do not fill the last batch of an epoch wait for the next epoch's shuffle. Without:
        one pass over all sequences, longest first. The global random state is neither read nor changed.

        Raises:
            ValueError: an unknown split, a batch size below 1 or above the split's, `steps` without a seed.
        """
        encoded = self._split(split)
        check_integer("batch_size", batch_size, 1)
        if seed is None:
            if steps is not None:
                raise ValueError(f"steps={steps!r} needs a seed: a pass without one is in order of length")
            order = sorted_by_length(encoded.lengths, batch_size)
        else:
            check_integer("steps", 0 if steps is None else steps, 0)
            if batch_size > len(encoded):
                raise ValueError(f"batch_size={batch_size}: the {split} split has only {len(encoded)} sequences")
            order = islice(shuffled(encoded.lengths, batch_size, np.random.default_rng(seed)), steps)
        return (encoded.batch(index, device) for index in order)

    def evaluate(
        self,
        model: torch.nn.Module,
        split: str = "validation",
        batch_size: int = 128,
        device: torch.device | str | None = None,
    ) -> dict[str, float]:
        """Scores in per cent: "score" (the task's metric), "loss" (mean over sequences), and each metric by name.

        Classification: "accuracy", for paraphrase tasks also "f1" of the duplicates. Regression: "spearman", 100 times
        the correlation of the ranks, ties sharing theirs; 0 if all predictions are equal. Token classification: "f1" of
        the entities as conlleval counts them, and "accuracy" of the tags, where words that were truncated count as
        missed. Span: "f1" and "exact_match"
        as SQuAD defines them, from the best span over all windows of an example (20 starts x 20 ends, at most 30
        tokens). Where answers are optional, none is predicted if its score, that of token 0 in the window where it is
        lowest, is above the best span's: the usual rule with a threshold of 0, which is not tuned.
        Batches go to `device`, by default where the model is. Modes of the modules are restored.

        Raises:
            ValueError: an unknown split, a batch size below 1, or a head that is not this task's.
        """
        self.check_head(model)
        encoded = self._split(split)
        check_integer("batch_size", batch_size, 1)
        device = next(model.parameters()).device if device is None else device
        return evaluate(model, encoded, self.task.spec, self.task.examples[split], batch_size, device)

    def baseline(self, split: str = "validation") -> tuple[float, int]:
        """(score, number of examples) of the best answer that is the same for every input, in per cent: chance level.

        Classification: the most frequent class. Regression: 0. Span: the best fixed place in the context. Token
        classification: the best tag for all words.
        """
        if split not in self._baselines:
            self._baselines[split] = constant_answer(self.task.spec, self.task.examples[_check_split(split)])
        return self._baselines[split], self.task.size(split)

    def check_head(self, model: torch.nn.Module) -> None:
        """Raise ValueError if the model's head is not this task's, in type or number of outputs."""
        inner: Any = getattr(model, "module", model)
        config = getattr(inner, "config", None)
        outputs = getattr(config, "num_labels", self.task.num_labels)
        target = "start_positions" if self.task.task_type == "span" else "labels"
        other = {"classification": "ForTokenClassification", "token classification": "ForSequenceClassification"}
        wrong = type(inner).__name__.endswith(other.get(self.task.task_type, "none"))
        if outputs != self.task.num_labels or wrong or not _takes(inner, target):
            raise ValueError(
                f"model={type(inner).__name__} has a head with {outputs} outputs that does not fit {self.task.name!r} "
                f"({self.task.task_type}, {self.task.num_labels} outputs): make one with load_model(name_or_path, task)"
            )

    def _split(self, split: str) -> EncodedSplit:
        if _check_split(split) not in self._splits:
            task = self.task
            self._splits[split] = tokenize(
                task.name, task.spec, task.examples[split], self.tokenizer, self.max_length, task.doc_stride
            )
        return self._splits[split]


def _takes(module: Any, argument: str) -> bool:
    parameters = inspect.signature(module.forward).parameters
    return argument in parameters or "input_ids" not in parameters  # a wrapper's signature says nothing


def _select(columns: Columns, index: Any) -> Columns:
    return {column: [values[i] for i in index] for column, values in columns.items()}


def _check_split(split: str) -> str:
    if split not in SPLITS:
        raise ValueError(f"split={split!r}: must be one of {', '.join(SPLITS)}")
    return split


def check_integer(argument: str, value: Any, low: int, high: int | None = None, why: str = "") -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < low or (high is not None and value > high):
        allowed = f"of at least {low}" if high is None else f"from {low} to {high}"
        raise ValueError(f"{argument}={value!r}: must be an integer {allowed}{why}")
