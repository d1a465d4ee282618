"""`load_task`: a task with a name, or a folder; `make_task`: data in memory as a task."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from pathlib import Path
from typing import Any

from mvp_lite.tasks.columns import describe
from mvp_lite.tasks.files import SUFFIXES, read_file
from mvp_lite.tasks.reading import checked, read_examples
from mvp_lite.tasks.sources import Source, split_sources
from mvp_lite.tasks.specs import SPECS, SPLITS, TASKS, TaskSpec
from mvp_lite.tasks.task import Task, check_integer

__all__ = ["load_task", "make_task"]

_LIKE = ("val", "dev", "eval")  # begins of names under which a validation split may hide
_HELD_OUT = 0.1  # of train, where there is no validation split


def load_task(
    name: str | Path,
    data_dir: str | Path | None = None,
    *,
    max_length: int | None = None,
    doc_stride: int | None = None,
    tokenizer: Any = None,
    limit: int | None = None,
    **options: Any,
) -> Task:
    """Read one of `TASKS`, a toy task from the package or a real one from the hub or `data_dir`; or a folder of yours.

    Args:
        name: one of `TASKS`, or a folder with train and validation, each as .jsonl, .jsonl.gz, .json (an array of
            objects, or lines), .csv or .tsv. A file test takes the place of a missing validation. Where there is
            neither, a tenth of train is held out.
        data_dir: of a real task, a folder of JSON lines, `train.jsonl` and `validation.jsonl` (MNLI:
            `validation_matched.jsonl`), each perhaps gzipped (`.jsonl.gz`), with the hub's column names.
        max_length: tokens of a sequence (128; SQuAD 384; toy 32), never more than the tokenizer allows.
        doc_stride: tokens of context that two neighboring windows of a span task share (128; toy 8).
        tokenizer: the one that `Task.encode` uses by default.
        limit: keep the first examples of each split.
        options: of a folder: the further arguments of `make_task`, as `text`, `label` and `labels`.

    Raises:
        TypeError: an argument that `make_task` does not have.
        ValueError: an unknown name, a missing column, a label out of range (as the -1 of GLUE's test examples), or an
            answer that is not in its context; the message names the file and line of the first such example. An
            argument that the task would not use.
        FileNotFoundError: a missing file.
        OSError: a hub data set that cannot be reached.
    """
    check_integer("limit", 1 if limit is None else limit, 1)
    if not isinstance(name, str) or name not in SPECS:
        folder = _existing(name)
        if data_dir is not None:
            raise ValueError(f"data_dir={str(data_dir)!r}: name={str(name)!r} is a folder already; leave data_dir out")
        known = [argument for argument in signature(make_task).parameters if argument not in SPLITS]
        unknown = [argument for argument in options if argument not in known]
        if unknown:
            raise TypeError(
                f"{unknown[0]}={options[unknown[0]]!r}: of a folder load_task takes {', '.join(known)}, limit"
            )
        train, validation, note = _folder(folder, limit)
        options = {"name": folder.resolve().name} | options
        return _make(
            train, validation, note, max_length=max_length, doc_stride=doc_stride, tokenizer=tokenizer, **options
        )
    if options:
        first, value = next(iter(options.items()))
        raise ValueError(f"{first}={value!r}: {name!r} has its own; load_task(folder, {first}=...) reads your data")
    spec = SPECS[name]
    if data_dir is not None and not spec.hub:
        raise ValueError(f"data_dir={str(data_dir)!r}: {name!r} comes from the package; leave data_dir out")
    max_length, doc_stride = _lengths(spec, max_length, doc_stride)
    examples = {split: read_examples(name, split, data_dir, limit) for split in SPLITS}
    return Task(name, spec, examples, max_length, doc_stride, tokenizer)


def make_task(
    train: Any,
    validation: Any = None,
    *,
    text: str | Sequence[str] | None = None,
    label: str | None = None,
    task_type: str | None = None,
    labels: Sequence[str] | Sequence[int] | None = None,
    name: str = "data",
    metric: str | None = None,
    max_length: int | None = None,
    doc_stride: int | None = None,
    tokenizer: Any = None,
    holdout: int | float | None = None,
    seed: int = 0,
    optional: bool = False,
) -> Task:
    """Examples in memory as a task, for `load_model` and `fine_prune`.

    What is not said is read from the data where they leave no doubt: one column with a name such as label, target or
    ner_tags; one or two columns of strings as the text. Classes are strings, a `ClassLabel`, or the integers from 0
    without gaps; other numbers with a fraction are regression, lists of tags are token classification, and SQuAD's
    answers are spans.

    Args:
        train: a `datasets.Dataset`, a list of dicts (one an example), a pandas DataFrame, or a `DatasetDict` or dict of
            such splits: "train" and "validation", or "test" where there is no validation.
        validation: as train; where there is none, examples of train are held out (`Task.holdout`: those that share a
            text stay on one side).
        text: the column to read, or a pair of two. For token classification a column of lists of words, for a span task
            question and context.
        label: the column to predict: integers or strings; for regression numbers; for token classification lists of
            tags, one for each word; for a span task answers as in SQuAD.
        task_type: "classification", "regression", "span" or "token classification".
        labels: names of the classes or tags in the order of their numbers; or, for integers that are not numbered from
            0, the integers. By default those of the `ClassLabel` feature, else the sorted strings found in train.
        name: of the task, for messages and `Result.settings`.
        metric: main score: "accuracy", "macro_f1", or for two classes "f1" of the second; "spearman" or "pearson"; "f1"
            or "exact_match" of answers; "f1" of entities or "accuracy" of tags. The first of each is the default.
        max_length: tokens of a sequence (128, span 384), never more than the tokenizer allows.
        doc_stride: of a span task: tokens of context that two neighboring windows share (128, at most a third of
            `max_length`).
        tokenizer: the one that `Task.encode` uses by default.
        holdout: examples held out of train, as a number or as a fraction below 1 (a tenth).
        seed: of the examples held out.
        optional: of a span task: examples without an answer are allowed, as in SQuAD 2.0.

    Returns:
        The task; its repr says which columns it reads and where its validation split comes from.

    Raises:
        TypeError: data of another type.
        ValueError: columns that leave open what is meant, a text or label that does not fit (the message names source
            and example, counted from 0), or an argument that the task would not use.
    """
    first, second, note = split_sources(train, validation)
    return _make(
        first, second, note, text=text, label=label, task_type=task_type, labels=labels, name=name, metric=metric,
        max_length=max_length, doc_stride=doc_stride, tokenizer=tokenizer, holdout=holdout, seed=seed,
        optional=optional,
    )  # fmt: skip


def _make(
    train: Source, validation: Source | None, note: str, *, text: str | Sequence[str] | None = None,
    label: str | None = None, task_type: str | None = None, labels: Sequence[Any] | None = None, name: str = "data",
    metric: str | None = None, max_length: int | None = None, doc_stride: int | None = None, tokenizer: Any = None,
    holdout: int | float | None = None, seed: int = 0, optional: bool = False,
) -> Task:  # fmt: skip
    """See `make_task`."""
    if not isinstance(name, str) or not name:
        raise ValueError(f"name={name!r}: must be a string that is not empty")
    check_integer("seed", seed, 0)
    if validation is not None and holdout is not None:
        raise ValueError(f"holdout={holdout!r}: there is a validation split already ({validation.name})")
    found = describe(train, text, label, task_type, labels, metric, optional)
    max_length, doc_stride = _lengths(found.spec, max_length, doc_stride)
    sources = {"train": train} if validation is None else {"train": train, "validation": validation}
    examples = {split: checked(source, found.spec, found.codes, found.as_type) for split, source in sources.items()}
    task = Task(name, found.spec, {"validation": {}} | examples, max_length, doc_stride, tokenizer, note)
    return task.holdout(_held_out(holdout, train), seed) if validation is None else task


def _held_out(holdout: Any, train: Source) -> int:
    """Number of examples."""
    if train.size < 2:
        raise ValueError(f"{train.name} has one example, so none can be held out: give validation=...")
    if isinstance(holdout, float):
        if not 0.0 < holdout < 1.0:
            raise ValueError(f"holdout={holdout!r}: must be a fraction between 0 and 1, or a number of examples")
    elif holdout is not None:
        check_integer("holdout", holdout, 1, train.size - 1, f" (train has {train.size} examples), or a fraction")
        return int(holdout)
    return min(max(1, round((_HELD_OUT if holdout is None else holdout) * train.size)), train.size - 1)


def _lengths(spec: TaskSpec, max_length: int | None, doc_stride: int | None) -> tuple[int, int]:
    max_length = spec.max_length if max_length is None else max_length
    check_integer("max_length", max_length, 8)
    if spec.task_type != "span" and doc_stride is not None:
        raise ValueError(f"doc_stride={doc_stride!r}: only a span task has windows, this is {spec.task_type}")
    default = spec.doc_stride if spec.doc_stride or spec.task_type != "span" else min(128, max_length // 3)
    doc_stride = default if doc_stride is None else doc_stride
    check_integer("doc_stride", doc_stride, 0, max_length - 1)
    return max_length, doc_stride


def _existing(name: Any) -> Path:
    """The folder that is named."""
    path = Path(name).expanduser() if isinstance(name, str | Path) and str(name) else None
    if path is None or not path.is_dir():
        if path is not None and path.is_file():
            raise ValueError(
                f"name={str(name)!r} is a file: give its folder, with the files train and validation in it"
            )
        raise ValueError(f"name={str(name)!r} is not a task, nor a folder; tasks are: {', '.join(TASKS)}")
    return path


def _folder(folder: Path, limit: int | None) -> tuple[Source, Source | None, str]:
    """Train, validation if there is one, and a note where test stands in for it."""
    train, validation, test = (_file(folder, stem) for stem in ("train", "validation", "test"))
    found = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
    if train is None:
        raise FileNotFoundError(f"name={str(folder)!r} lacks train{{{','.join(SUFFIXES)}}} (found: {found})")
    others = [p.name for p in sorted(folder.iterdir()) if p.name.startswith(_LIKE) and p.name.endswith(SUFFIXES)]
    if validation is None and others:
        raise FileNotFoundError(
            f"name={str(folder)!r} has {others[0]} and no validation file: rename it (found: {found})"
        )
    second = validation or test
    note = "validation is the file test" if validation is None and test is not None else ""
    return read_file(train, limit), None if second is None else read_file(second, limit), note


def _file(folder: Path, stem: str) -> Path | None:
    paths = [path for suffix in SUFFIXES if (path := folder / f"{stem}{suffix}").is_file()]
    if len(paths) > 1:
        names = " and ".join(path.name for path in paths)
        raise ValueError(f"name={str(folder)!r} has {names}: leave one of them")
    return paths[0] if paths else None
