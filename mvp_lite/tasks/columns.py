"""Which column is the text, which the label, and what the label means: as said, or where the data leave no doubt."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mvp_lite.tasks.entities import is_bio
from mvp_lite.tasks.sources import Source
from mvp_lite.tasks.specs import METRICS, TASK_TYPES, TaskSpec

__all__ = ["Description", "describe"]

#: a column of such a name is the label where there is just one
LABEL_NAMES = "label labels target targets class category score tag tags ner_tags pos_tags chunk_tags answers".split()
#: never text
ID_NAMES = ("id", "idx", "index", "guid", "uid", "unnamed: 0")
SPAN_COLUMNS = ("question", "context")


@dataclass(frozen=True)
class Description:
    """What `checked` needs: the task, the number of each label as it stands in the data, and the type of a CSV's."""

    spec: TaskSpec
    codes: dict[Any, int]
    as_type: type


def describe(
    train: Source,
    text: str | Sequence[str] | None,
    label: str | None,
    task_type: str | None,
    labels: Sequence[Any] | None,
    metric: str | None,
    optional: bool,
) -> Description:
    """The task that the arguments of `make_task` and the columns of train describe.

    Raises:
        ValueError: an argument that does not fit, or columns that leave open what is meant; the message shows them.
    """
    if task_type is not None and task_type not in TASK_TYPES:
        raise ValueError(f"task_type={task_type!r}: must be one of {', '.join(map(repr, TASK_TYPES))}")
    if not train.size:
        raise ValueError(f"{train.name} has no examples")
    columns = _Columns(train)
    texts = _text_argument(text, columns)
    label = _label_column(label, texts, columns)
    texts = texts or _text_columns(label, task_type, columns)
    values = columns.values(label)
    as_type = _csv_type(values, labels, task_type) if train.untyped else str
    if train.untyped:
        values = [as_type(value) for value in values if value != "" and _is(value, as_type)]
    names: Sequence[Any] = _label_argument(labels) or train.classes.get(label, [])
    task_type = task_type or _task_type(values, bool(names), texts, label, columns)
    if labels is not None and task_type in ("regression", "span"):
        raise ValueError(f"labels={reprlib.repr(labels)}: a {task_type} task has none; leave the argument out")
    if len(texts) == 2 and task_type == "token classification":
        raise ValueError(f"text={texts!r}: token classification reads one column, of lists of words")
    if len(texts) == 1 and task_type == "span":
        raise ValueError(f"text={texts[0]!r}: a span task reads a pair, as in text=('question', 'context')")
    if optional and task_type != "span":
        raise ValueError(f"optional=True: only answers of a span task may be missing, this is {task_type}")
    codes: dict[Any, int] = {}
    if task_type in ("classification", "token classification"):
        flat = (
            values if task_type == "classification" else [v for tags in values if isinstance(tags, list) for v in tags]
        )
        codes, names = _codes(flat, names, train.name, label)
    elif task_type == "regression" and train.size > 1 and len(set(map(repr, values))) == 1:
        raise ValueError(f"{train.name}, column {label!r}: every label is {values[0]!r}, so there is nothing to learn")
    spec = TaskSpec(
        text_columns=texts,
        group=texts[-1] if task_type == "span" else texts[0],
        labels=tuple(map(str, names)),
        task_type=task_type,
        label_column=label,
        optional=optional,
        metrics=_metrics(metric, task_type, names),
        max_length=384 if task_type == "span" else 128,
    )
    return Description(spec, codes, as_type)


class _Columns:
    """The columns of train, read once, and how messages show them."""

    def __init__(self, train: Source) -> None:
        self.train, self.names = train, train.column_names
        self._read: dict[str, list[Any]] = {}

    def values(self, name: str) -> list[Any]:
        if name not in self._read:
            self._read[name] = self.train.read(name)
        return self._read[name]

    def type_of(self, name: str) -> str:
        """Of the first value that is not missing."""
        first = next((value for value in self.values(name) if value is not None), None)
        if self.train.untyped:
            return "text" if _csv_type(self.values(name), None, None) is str else "number"
        if isinstance(first, list):
            return "list of texts" if first and isinstance(first[0], str) else "list"
        return "text" if isinstance(first, str) else type(first).__name__

    def shown(self) -> str:
        return f"{self.train.name} has the columns " + ", ".join(
            f"{name!r} ({self.type_of(name)})" for name in self.names
        )

    def check(self, argument: str, name: Any) -> str:
        if not isinstance(name, str):
            raise ValueError(f"{argument}={name!r}: must be the name of a column; {self.shown()}")
        if name not in self.names:
            raise ValueError(f"{argument}={name!r} is no column; {self.shown()}")
        return name


def _text_argument(text: str | Sequence[str] | None, columns: _Columns) -> tuple[str, ...]:
    if text is None:
        return ()
    given = (text,) if isinstance(text, str) else tuple(text) if isinstance(text, list | tuple) else ()
    if len(given) not in (1, 2) or len(set(given)) < len(given):
        raise ValueError(f"text={text!r}: must be the name of a column or a pair of two; {columns.shown()}")
    return tuple(columns.check("text", name) for name in given)


def _label_column(label: str | None, texts: tuple[str, ...], columns: _Columns) -> str:
    if label is not None:
        if columns.check("label", label) in texts:
            raise ValueError(f"label={label!r} is a text column too: must be another one; {columns.shown()}")
        return label
    others = [name for name in columns.names if name not in texts and name.lower() not in ID_NAMES]
    named = [name for name in others if name.lower() in LABEL_NAMES]
    found = named or (others if texts else [])
    if len(found) != 1:
        problem = "several may be the label" if len(found) > 1 else "none is called label"
        raise ValueError(f"{columns.shown()}; {problem}: write label='the column to predict'")
    return found[0]


def _text_columns(label: str, task_type: str | None, columns: _Columns) -> tuple[str, ...]:
    answers = columns.type_of(label) == "dict"
    if task_type in (None, "span") and answers and set(SPAN_COLUMNS) <= set(columns.names):
        return SPAN_COLUMNS
    words = isinstance(columns.values(label)[0], list) if task_type is None else task_type == "token classification"
    expected = "list of texts" if words else "text"
    others = [name for name in columns.names if name != label and name.lower() not in ID_NAMES]
    found = tuple(name for name in others if columns.type_of(name) == expected)
    if not 1 <= len(found) <= (1 if words else 2):
        problem = f"several may be the {expected}" if found else f"no column but {label!r} is {expected}"
        if words and not found:
            problem += " (a list as label is a tag for each word; one label of a text is a string or an integer)"
        pair = "" if words else " or text=('one', 'two')"
        raise ValueError(f"{columns.shown()}; {problem}: write text='the column to read'{pair}")
    return found


def _task_type(values: list[Any], named: bool, texts: tuple[str, ...], label: str, columns: _Columns) -> str:
    """What the values of the label say."""
    first = next((value for value in values if value is not None), None)
    distinct = {value for value in values if type(value) in (int, str, float)}
    advice = ", ".join(f"task_type={task_type!r}" for task_type in TASK_TYPES)
    if isinstance(first, list):
        return "token classification"
    if isinstance(first, dict) and len(texts) == 2:
        return "span"
    if named:
        return "classification"
    if type(first) is str:
        if len(distinct) > max(20, len(values) // 2):
            raise ValueError(
                f"label={label!r} holds {len(distinct)} different strings in {len(values)} examples: are they classes? "
                f"then write task_type='classification'; {columns.shown()}"
            )
        return "classification"
    if type(first) in (int, float):
        classes = distinct == set(range(len(distinct)))
        if (type(first) is int) == classes:  # 0, 1, 2 and 0.5, 1.5; open are 1, 5, 7 and 0.0, 1.0, 2.0
            return "classification" if classes else "regression"
        shown = reprlib.repr(sorted(distinct, key=str))
        raise ValueError(
            f"label={label!r} holds {shown}: write task_type='regression' for numbers; for classes use integers from "
            "0 or strings, or give labels=[...] with the integers found"
        )
    if isinstance(first, bool):
        raise ValueError(f"label={label!r} holds {first!r}: turn booleans into integers or strings; {columns.shown()}")
    raise ValueError(
        f"label={label!r} holds {first!r} ({type(first).__name__}): write one of {advice}; {columns.shown()}"
    )


def _label_argument(labels: Sequence[Any] | None) -> list[Any]:
    if labels is None:
        return []
    given = list(labels) if isinstance(labels, list | tuple) else []
    if (
        len(given) < 2
        or len(set(map(str, given))) < len(given)
        or len({type(value) for value in given} | {int, str}) > 2
    ):
        raise ValueError(f"labels={reprlib.repr(labels)}: must be a list of at least two different strings or integers")
    return given


def _codes(values: list[Any], names: Sequence[Any], source: str, label: str) -> tuple[dict[Any, int], Sequence[Any]]:
    """The number of each label, and the names in the order of the numbers."""
    found: list[Any] = sorted({value for value in values if type(value) is str})
    integers = sorted({value for value in values if type(value) is int})
    if found and integers:  # mixed: the first decides, and `checked` names what does not fit
        first = next(type(value) for value in values if type(value) in (int, str))
        found, integers = (found, []) if first is str else ([], integers)
    if names and (type(names[0]) is int or not integers):
        codes = {value: number for number, value in enumerate(names)}
    elif names:
        codes = {number: number for number in range(len(names))}
    elif found and not integers:
        codes, names = {value: number for number, value in enumerate(found)}, found
    elif integers and integers != list(range(len(integers))) and min(integers) >= 0 and not found:
        raise ValueError(
            f"{source}, column {label!r} holds the integers {reprlib.repr(integers)}: classes are numbered from 0 "
            f"without gaps; give labels={reprlib.repr(integers)} to number these, or labels=[names] with every name"
        )
    else:  # the first that is no label is named by `checked`
        names = [str(number) for number in range(max([*integers, 0]) + 1)]
        codes = {number: number for number in range(len(names))}
    if len(codes) < 2 and values:
        raise ValueError(f"{source}, column {label!r} holds one label alone, {values[0]!r}: a task needs two")
    return codes, names


def _metrics(metric: Any, task_type: str, names: Sequence[Any]) -> tuple[str, ...]:
    """Names of the scores, the main one first."""
    there = METRICS[task_type]
    if task_type == "classification":
        there = tuple(name for name in there if name != "f1" or len(names) == 2)
    if task_type == "token classification" and not is_bio(list(map(str, names))):
        there = ("accuracy",)
    if metric is not None and metric not in there:
        why = " (f1 of entities needs the tags O, B-… and I-…)" if there == ("accuracy",) else ""
        why = " (f1 is of two classes)" if task_type == "classification" and metric == "f1" else why
        shown = (
            repr(metric) if isinstance(metric, str) else f"{type(metric).__name__}, which goes with a DataLoader alone"
        )
        raise ValueError(f"metric={shown}: {task_type} has {', '.join(map(repr, there))}{why}")
    main = metric or there[0]
    if task_type == "classification":
        return tuple(dict.fromkeys((main, "accuracy")))
    return tuple(dict.fromkeys((main, *there)))


_INTEGER = re.compile(r"-?(0|[1-9][0-9]*)")
_NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")


def _is(value: str, as_type: type) -> bool:
    return as_type is str or (_INTEGER if as_type is int else _NUMBER).fullmatch(value) is not None


def _csv_type(values: list[str], labels: Sequence[Any] | None, task_type: str | None) -> type:
    """The type of a CSV column: integers or numbers if all values are, missing ones aside."""
    found = {value for value in values if value != ""}
    if labels is not None and found <= {label for label in labels if isinstance(label, str)}:
        return str
    for as_type in (float,) if task_type == "regression" else (int, float):
        if found and all(_is(value, as_type) for value in found):
            return as_type
    return float if task_type == "regression" else str
