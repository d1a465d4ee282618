"""Examples as a user has them, in memory: their columns, and where each example stands."""

from __future__ import annotations

import reprlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["ACCEPTED", "Columns", "Source", "is_data", "row_source", "source_of", "split_sources"]

Columns = dict[str, list[Any]]

ACCEPTED = "a datasets.Dataset, a DatasetDict (or dict) of splits, a list of dicts or a pandas DataFrame"


@dataclass(frozen=True)
class Source:
    """One split, not yet checked.

    Attributes:
        name: file, hub data set or argument, for messages.
        size: number of examples.
        column_names: in the order of the data.
        read: the values of a column; raises ValueError where an example lacks it.
        lines: number of each example's line in its file, from 1; None where there is no file.
        classes: names of the classes in the columns that know them.
        untyped: every value is a string, as in CSV.
    """

    name: str
    size: int
    column_names: list[str]
    read: Callable[[str], list[Any]]
    lines: list[int] | None = None
    classes: dict[str, list[str]] = field(default_factory=dict)
    untyped: bool = False

    def place(self, index: int) -> str:
        """Where an example stands: "train.jsonl, line 9", or "train, example 8 (from 0)"."""
        if self.lines is None:
            return f"{self.name}, example {index} (from 0)"
        return f"{self.name}, line {self.lines[index]}"


def row_source(
    name: str, rows: Sequence[Any], lines: list[int] | None = None, untyped: bool = False, columns: Sequence[str] = ()
) -> Source:
    """Examples that are dicts, one each; the first one's columns are the source's, if none are given."""

    def place(index: int) -> str:
        return source.place(index)

    def read(column: str) -> list[Any]:
        for index, row in enumerate(rows):
            if column not in row:
                raise ValueError(f"{place(index)} lacks the column {column!r} (found: {', '.join(map(str, row))})")
        return [_plain(row[column]) for row in rows]

    found = list(columns) or (list(rows[0]) if rows and isinstance(rows[0], Mapping) else [])
    source = Source(name, len(rows), found, read, lines, untyped=untyped)
    for index, row in enumerate(rows):
        if not isinstance(row, Mapping):
            example = "one JSON object" if lines else "a dict, as {'text': ..., 'label': ...},"
            raise ValueError(f"{place(index)} is {reprlib.repr(row)}: must be {example} with a key for each column")
    return source


def is_data(value: Any) -> bool:
    """Is it something that `make_task` takes as train?"""
    return isinstance(value, list | tuple | dict) or _is(value, "datasets", "Dataset") or _is_frame(value)


def source_of(data: Any, argument: str) -> Source:
    """Raise TypeError, naming `argument`, for anything but a list of dicts, a Dataset or a DataFrame."""
    if isinstance(data, list | tuple):
        return row_source(argument, data)
    if _is(data, "datasets", "Dataset"):
        return _dataset_source(data, argument)
    if _is_frame(data):
        return _frame_source(data, argument)
    if _is(data, "datasets", "IterableDataset"):
        advice = "; datasets.Dataset.from_list(list(data)) reads an IterableDataset"
    elif hasattr(data, "__next__"):
        advice = "; list(data) reads an iterator"
    elif isinstance(data, str) or hasattr(data, "__fspath__"):
        advice = "; load_task(folder) reads files"
    else:
        advice = ""
    accepted = ACCEPTED if argument == "train" else ACCEPTED.replace(" a DatasetDict (or dict) of splits,", "")
    raise TypeError(f"{argument}={type(data).__name__}: must be {accepted}{advice}")


def split_sources(train: Any, validation: Any) -> tuple[Source, Source | None, str]:
    """Train, validation if there is one, and a note where "test" stands in for it.

    Raises:
        ValueError: a dict without "train", with two validation splits, or with a split that nothing would read.
        TypeError: see `source_of`.
    """
    if not isinstance(train, Mapping):
        return source_of(train, "train"), None if validation is None else source_of(validation, "validation"), ""
    splits, found = train, ", ".join(map(str, train)) or "nothing"
    if "train" not in splits:
        raise ValueError(
            f"train={type(train).__name__} with {found}: a dict of splits needs the key 'train'; "
            "datasets.Dataset.from_dict(columns) makes a data set of a dict of columns"
        )
    name = next((split for split in ("validation", "test") if split in splits), None)
    if validation is not None:
        if name is not None:
            raise ValueError(f"validation=... and a dict with the splits {found}: give the splits, or train alone")
        return source_of(splits["train"], "train"), source_of(validation, "validation"), ""
    others = [split for split in splits if split != "train"]
    if name is None and others:
        raise ValueError(
            f"train={type(train).__name__} with the splits {found}: none is called validation or test; write "
            f"make_task(splits['train'], splits[{others[0]!r}])"
        )
    note = "" if name != "test" else "validation is the split test"
    return source_of(splits["train"], "train"), None if name is None else source_of(splits[name], name), note


def _is(value: Any, module: str, name: str) -> bool:
    """Is it an instance of that class? No import: who has such an object has imported its module."""
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(value, getattr(loaded, name))


def _is_frame(value: Any) -> bool:
    return _is(value, "pandas", "DataFrame")


def _dataset_source(data: Any, argument: str) -> Source:
    plain, classes = data.with_format(None), {}
    for column, feature in data.features.items():
        names = getattr(getattr(feature, "feature", feature), "names", None)
        if names:
            classes[column] = list(names)
    return Source(argument, len(data), list(data.column_names), lambda column: list(plain[column]), classes=classes)


def _frame_source(data: Any, argument: str) -> Source:
    names = list(data.columns)
    if len(set(names)) < len(names) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{argument}=DataFrame with the columns {names!r}: must be distinct strings; rename them")
    return Source(argument, len(data), names, lambda column: [_plain(value) for value in data[column].tolist()])


def _plain(value: Any) -> Any:
    """Python's own number, string or list for NumPy's; the rest as it is."""
    if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return value
