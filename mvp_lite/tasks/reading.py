"""The examples of a split: read from the hub or from a folder, and checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mvp_lite.hub import connection
from mvp_lite.paths import data_path
from mvp_lite.tasks.files import read_file
from mvp_lite.tasks.sources import Columns, Source
from mvp_lite.tasks.spans import answer_problem
from mvp_lite.tasks.specs import SPECS, TASKS, TaskSpec

__all__ = ["checked", "read_examples"]

_LEFT_OUT = "examples without one must be left out"


def read_examples(name: str, split: str, data_dir: str | Path | None = None, limit: int | None = None) -> Columns:
    """The columns of "train" or "validation" of a task, one entry an example; `limit` keeps the first ones.

    Raises:
        ValueError: a file that is not JSON lines, a missing column, a text, label or answer that does not fit the task.
            The message names file and line, or source and index, of the first such example.
        FileNotFoundError: no file of that split in the folder.
        OSError: a hub data set that cannot be reached.
    """
    spec = SPECS[name]
    split = spec.validation if split == "validation" else split
    if data_dir is None and spec.hub:
        source = _read_hub(name, spec, split, limit)
    else:
        folder = data_path(*name.split("/")) if data_dir is None else Path(data_dir).expanduser()
        source = read_file(_find_file(name, folder, split), limit)
    return checked(source, spec)


def _find_file(name: str, folder: Path, split: str) -> Path:
    paths = [folder / f"{split}.jsonl", folder / f"{split}.jsonl.gz"]
    for path in paths:
        if path.is_file():
            return path
    found = ", ".join(sorted(p.name for p in folder.iterdir())) if folder.is_dir() else "no such folder"
    remake = "; `python -m mvp_lite toy build` makes the toy's" if name.startswith("toy/") else ""
    raise FileNotFoundError(
        f"data_dir={str(folder)!r} lacks {paths[0].name} or {paths[1].name} (found: {found or 'nothing'}){remake}"
    )


def _read_hub(name: str, spec: TaskSpec, split: str, limit: int | None) -> Source:
    import datasets

    try:
        with connection():
            data = datasets.load_dataset(*spec.hub, split=split)
    except (OSError, ValueError) as error:
        files = " and ".join(f"{stem}.jsonl[.gz]" for stem in ("train", spec.validation))
        raise OSError(
            f"the hub data set {'/'.join(spec.hub)!r} cannot be reached ({error}). Offline, "
            f"load_task({name!r}, data_dir=...) reads a folder with {files}, one JSON object a line with the keys "
            f"{', '.join(spec.columns)}; the toy tasks ({', '.join(n for n in TASKS if n[:4] == 'toy/')}) need nothing"
        ) from error
    missing = [column for column in spec.columns if column not in data.column_names]
    if missing:
        found = ", ".join(data.column_names)
        raise ValueError(f"{'/'.join(spec.hub)}, split {split} lacks the column {missing[0]!r} (found: {found})")
    data = data if limit is None else data.select(range(min(limit, len(data))))
    source = f"{'/'.join(spec.hub)}, split {split}"
    return Source(source, len(data), list(data.column_names), lambda column: list(data[column]))


def checked(source: Source, spec: TaskSpec, codes: Mapping[Any, int] | None = None, as_type: type = str) -> Columns:
    """The columns of a task, with each label as a number.

    Args:
        source: one split.
        spec: what the columns must hold.
        codes: value of a label -> number of its class; by default the values are the numbers.
        as_type: type of the labels in a file of strings: int, float or str.

    Raises:
        ValueError: no examples, a missing column, or a text or label that does not fit; it names the first such one.
    """
    if not source.size:
        raise ValueError(f"{source.name} has no examples")
    columns = {column: source.read(column) for column in spec.columns}
    texts, label_column = spec.text_columns, spec.label_column
    if source.untyped:
        columns[label_column] = [_typed(value, as_type) for value in columns[label_column]]

    def bad(index: int, column: str, problem: str, value: Any = None) -> ValueError:
        shown = repr(columns[column][index] if value is None else value)
        shown = shown if len(shown) <= 80 else shown[:77] + "..."
        return ValueError(f"{source.place(index)}, column {column!r}: {shown} {problem}")

    words = spec.task_type == "token classification"
    for column in texts:
        for index, text in enumerate(columns[column]):
            if words:
                if (problem := _words_problem(text)) is not None:
                    raise bad(index, column, problem)
            elif not isinstance(text, str):
                raise bad(index, column, "is not a text (examples without one must be left out)")

    codes = dict(zip(range(len(spec.labels)), range(len(spec.labels)), strict=True)) if codes is None else codes
    for index, label in enumerate(columns[label_column]):
        if spec.task_type == "classification":
            if not _is_label(label, codes):
                raise bad(index, label_column, f"is not a label ({_named(spec, codes)}; {_LEFT_OUT})")
            columns[label_column][index] = codes[label]
        elif words:
            count = len(columns[texts[0]][index])
            if not isinstance(label, list) or len(label) != count:
                problem = f"is not a list of {count} tags, one for each of the words in {texts[0]!r}"
                raise bad(index, label_column, problem)
            wrong = [at for at, tag in enumerate(label) if not _is_label(tag, codes)]
            if wrong:
                problem = f"holds {label[wrong[0]]!r} at word {wrong[0]} (from 0), which is not a tag"
                raise bad(index, label_column, f"{problem} ({_named(spec, codes)})")
            columns[label_column][index] = [codes[tag] for tag in label]
        elif spec.task_type == "regression":
            low, high = spec.scale or (-math.inf, math.inf)
            if type(label) not in (int, float) or not low <= label <= high or math.isinf(label):
                allowed = f"number from {low:g} to {high:g}" if spec.scale else "finite number"
                raise bad(index, label_column, f"is not a {allowed} ({_LEFT_OUT})")
        elif (problem := answer_problem(label, columns[texts[1]][index], spec.optional)) is not None:
            raise bad(index, label_column, problem)
    return columns


def _is_label(label: Any, codes: Mapping[Any, int]) -> bool:
    return type(label) in (int, str) and label in codes  # True and 1.0 equal 1


def _named(spec: TaskSpec, codes: Mapping[Any, int]) -> str:
    """The labels there are, as they stand in the data; the first 20 of many."""
    names = [
        repr(v) if isinstance(v, str) else " ".join(dict.fromkeys([str(v), spec.labels[i]])) for v, i in codes.items()
    ]
    more = f", … {len(names)} in all" if len(names) > 20 else ""
    hint = "; labels=[...] names others" if any(isinstance(value, str) for value in codes) else ""
    return ", ".join(names[:20]) + more + hint


def _words_problem(text: Any) -> str | None:
    if not isinstance(text, list) or not all(isinstance(word, str) for word in text):
        return "is not a list of words (JSON lines can hold lists, CSV cannot)"
    return None if text else "holds no words (such examples must be left out)"


def _typed(value: str, as_type: type) -> Any:
    """The value of a field of CSV; None for an empty one, and the string where it is no such number."""
    if value == "":
        return None
    try:
        number = as_type(value)
    except ValueError:
        return value
    return number
