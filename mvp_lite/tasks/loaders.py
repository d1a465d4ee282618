"""What `fine_prune` takes as a task: a task, data in memory, or a `DataLoader` with a metric."""

from __future__ import annotations

import inspect
import math
import reprlib
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mvp_lite.forward import TARGETS, evaluating
from mvp_lite.tasks.loading import make_task
from mvp_lite.tasks.sources import ACCEPTED, is_data
from mvp_lite.tasks.specs import TASKS
from mvp_lite.tasks.task import EncodedTask

__all__ = ["LoaderTask", "as_task"]

#: score of a model on batches: a number, or scores by name with one called "score"
Metric = Callable[[nn.Module, "Batches"], Any]

_EPOCHS, _LR = 3, 3e-5


def as_task(task: Any, model: nn.Module, validation: Any, metric: Any, tokenizer: Any, steps: int | None) -> Any:
    """The argument `task` of `fine_prune` as a task; an object that has `recipe` and `encode` is one already.

    Raises:
        TypeError: none of what is accepted.
        ValueError: `validation` or `metric` where they would not be used, or missing; data that are no task.
    """
    if isinstance(task, DataLoader):
        return LoaderTask(task, validation, metric, tokenizer, steps)
    if is_data(task):
        return _data_task(task, model, validation, metric, tokenizer)
    for argument, value in (("validation", validation), ("metric", metric)):
        if value is not None:
            raise ValueError(f"{argument}={reprlib.repr(value)}: goes with data or a DataLoader; a task has its own")
    if hasattr(task, "recipe") or (hasattr(task, "encode") and not isinstance(task, str)):
        return task  # what it lacks, if anything, is named by the caller
    advice = ""
    if isinstance(task, EncodedTask):
        advice = "; give the task itself, encoded.task"
    elif isinstance(task, str):
        advice = f"; write load_task({task!r})" + ("" if task in TASKS else f" (tasks with a name: {', '.join(TASKS)})")
    raise TypeError(
        f"task={reprlib.repr(task)}: must be what load_task or make_task returns, {ACCEPTED}, a torch DataLoader with "
        f"validation= and metric=, or an object with the attributes of mvp_lite.train.TaskLike{advice}"
    )


def _data_task(data: Any, model: nn.Module, validation: Any, metric: Any, tokenizer: Any) -> Any:
    task = make_task(data, validation, metric=metric, tokenizer=tokenizer)
    names = list((getattr(getattr(model, "config", None), "id2label", None) or {}).values())
    if task.labels and set(task.labels) <= set(names) and names != task.labels:  # the head's order counts
        task = make_task(data, validation, metric=metric, tokenizer=tokenizer, labels=names)
    return task


class LoaderTask:
    """A `DataLoader` of arguments of the model, targets included, with another one and a metric to score on.

    Args:
        train: yields dicts of tensors, as `input_ids`, `attention_mask` and `labels`. Its order and the length of its
            batches are the user's; where it shuffles without a generator of its own, the seed of the run decides.
        validation: as train.
        metric: `metric(model, batches)` returns a number, or a dict of numbers with a "score", higher being better; the
            model is in evaluation mode and without gradients, the batches are those of `validation` on its device.
    """

    name = "DataLoader"

    def __init__(
        self, train: DataLoader[Any], validation: Any, metric: Any, tokenizer: Any = None, steps: int | None = None
    ) -> None:
        if not isinstance(validation, DataLoader):
            raise TypeError(
                f"validation={reprlib.repr(validation)}: a DataLoader as task needs another one to score on"
            )
        if not callable(metric):
            raise TypeError(
                f"metric={reprlib.repr(metric)}: a DataLoader as task needs a function metric(model, batches) that "
                "returns a number, or a dict of numbers with a 'score'"
            )
        if tokenizer is not None:
            raise ValueError(
                f"tokenizer={type(tokenizer).__name__}: batches of a DataLoader are tokenized; leave it out"
            )
        self.train, self.validation, self.metric = train, validation, metric
        self.length = _length(train)
        if self.length is None and steps is None:
            raise ValueError("steps=None: this DataLoader has no length; say how many steps")
        for argument, loader in (("task", train), ("validation", validation)):
            if _length(loader) == 0:
                raise ValueError(f"{argument}=DataLoader without a batch: has it examples, and enough for drop_last?")
        self.batch_size = train.batch_size
        self.tokenizer = False  # none, and none is to be looked for beside the model

    def recipe(self, batch_size: int) -> tuple[int, float]:
        """Three passes, and the papers' learning rate."""
        return _EPOCHS * (self.length or 0), _LR

    def encode(self, tokenizer: Any) -> _Loaders:
        """The loaders are encoded already."""
        return _Loaders(self)

    def __repr__(self) -> str:
        return f"LoaderTask({self.length or 'unknown'} batches)"


class _Loaders:
    def __init__(self, task: LoaderTask) -> None:
        self.task = task
        self.targets: set[str] = set()

    def check_head(self, model: nn.Module) -> None:
        """Nothing is known of the targets but their names, which the first batch shows."""
        self.targets = set(TARGETS) & set(inspect.signature(model.forward).parameters)

    def batches(
        self, split: str, batch_size: int, *, seed: int, steps: int, device: torch.device
    ) -> Iterator[dict[str, Tensor]]:
        """Passes over train until there are `steps` batches; `batch_size` is the loader's own."""
        done = 0
        for epoch in count():
            before = done
            for batch in _pass(self.task.train, seed + epoch):
                if done == steps:
                    return
                yield self._moved(batch, device)
                done += 1
            if done == before:
                raise ValueError("task=DataLoader without a batch: has it examples, and enough for drop_last?")
            if done == steps:
                return

    def evaluate(self, model: nn.Module, split: str, *, device: torch.device) -> dict[str, float]:
        """What the metric returns, as floats."""
        with evaluating(model), torch.no_grad():
            value = self.task.metric(model, Batches(self.task.validation, lambda batch: self._moved(batch, device)))
        scores = dict(value) if isinstance(value, Mapping) else {"score": value}
        try:
            found = {str(name): float(score) for name, score in scores.items()}
        except (TypeError, ValueError):
            found = {}
        if "score" not in found or math.isnan(found["score"]):
            raise TypeError(
                f"metric returned {reprlib.repr(value)}: must be a number, or a dict of them with a 'score'"
            )
        return found

    def _moved(self, batch: Any, device: torch.device) -> dict[str, Tensor]:
        if not isinstance(batch, Mapping):
            raise TypeError(
                f"the DataLoader yields a {type(batch).__name__}: must be a dict of the model's arguments, as "
                "input_ids, attention_mask and labels; collate_fn makes one"
            )
        if self.targets and not self.targets & batch.keys():
            raise ValueError(
                f"the DataLoader's batches have no {' or '.join(sorted(self.targets))} (found: {', '.join(batch)}), so "
                "the model gives no loss; rename the column"
            )
        return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in batch.items()}


class Batches:
    """Batches on the model's device, as often as they are asked for."""

    def __init__(self, loader: DataLoader[Any], moved: Callable[[Any], dict[str, Tensor]]) -> None:
        self.loader, self.moved = loader, moved

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        return map(self.moved, _pass(self.loader, 0))

    def __len__(self) -> int:
        return len(self.loader)


def _length(loader: DataLoader[Any]) -> int | None:
    try:
        return len(loader)
    except TypeError:  # of an iterable data set
        return None


def _pass(loader: DataLoader[Any], seed: int) -> Iterator[Any]:
    """One pass whose order, where nothing else decides, comes from the seed; the global random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        batches = iter(loader)
        first = next(batches, None)  # a shuffling sampler draws here
    if first is not None:
        yield first
        yield from batches
