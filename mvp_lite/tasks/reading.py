"""The examples of a split: read from the hub, or from a folder of JSON lines, and checked."""

from __future__ import annotations

import gzip
import json
from itertools import islice
from pathlib import Path
from typing import Any

from mvp_lite.hub import connection
from mvp_lite.paths import data_path
from mvp_lite.tasks.spans import answer_problem
from mvp_lite.tasks.specs import SPECS, TASKS, TaskSpec

__all__ = ["Columns", "read_examples"]

Columns = dict[str, list[Any]]


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
        source, columns = f"{'/'.join(spec.hub)}, split {split}", _read_hub(name, spec, split, limit)
    else:
        folder = data_path(*name.split("/")) if data_dir is None else Path(data_dir).expanduser()
        path = _find_file(name, folder, split)
        source, columns = str(path), _read_json_lines(path, spec, limit)
    _check(source, spec, columns)
    return columns


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


def _read_json_lines(path: Path, spec: TaskSpec, limit: int | None) -> Columns:
    # Not by `datasets`: it silently turns a label "1" into 1 and a missing column into None, and it leaves a copy of
    # each file in the user's cache.
    columns: Columns = {column: [] for column in spec.columns}
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as file:
            lines = list(islice(file, limit))
    except (EOFError, OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read, is it truncated? ({error})") from error
    for number, line in enumerate(lines, start=1):
        try:
            example = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number} is not JSON: {error}") from error
        for column in spec.columns:
            if not isinstance(example, dict) or column not in example:
                found = ", ".join(example) if isinstance(example, dict) else type(example).__name__
                raise ValueError(f"{path}, line {number} lacks the column {column!r} (found: {found})")
            columns[column].append(example[column])
    return columns


def _read_hub(name: str, spec: TaskSpec, split: str, limit: int | None) -> Columns:
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
    return {column: list(data[column]) for column in spec.columns}


def _check(source: str, spec: TaskSpec, columns: Columns) -> None:
    def bad(index: int, column: str, problem: str) -> ValueError:
        value = repr(columns[column][index])
        shown = value if len(value) <= 80 else value[:77] + "..."
        return ValueError(f"{source}, example {index} (from 0), column {column!r}: {shown} {problem}")

    if not columns[spec.label_column]:
        raise ValueError(f"{source} has no examples")
    for column in spec.text_columns:
        for index, text in enumerate(columns[column]):
            if not isinstance(text, str):
                raise bad(index, column, "is not a text")
    for index, label in enumerate(columns[spec.label_column]):
        if spec.labels:
            if type(label) is not int or not 0 <= label < len(spec.labels):
                names = ", ".join(f"{i} {text}" for i, text in enumerate(spec.labels))
                raise bad(index, "label", f"is not a label ({names}; examples without one must be left out)")
        elif spec.scale:
            low, high = spec.scale
            if type(label) not in (int, float) or not low <= label <= high:
                problem = f"is not a number from {low:g} to {high:g} (examples without one must be left out)"
                raise bad(index, "label", problem)
        elif (problem_found := answer_problem(label, columns["context"][index], spec.optional)) is not None:
            raise bad(index, "answers", problem_found)
