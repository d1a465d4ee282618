"""A resumable table of runs: a CSV that gains one row when a run finishes, and that knows which runs it holds."""

from __future__ import annotations

import csv
import io
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from mvp_lite.storage.record import hardware
from mvp_lite.train import default_device

__all__ = ["Cell", "Row", "Table", "read_rows"]

#: what is known of a run, by column
Cell = dict[str, Any]
#: a row of the file, as text
Row = dict[str, str]


class Table:
    """A results file with the given columns, in which `key` names the columns that identify a run.

    A tuning run (`split` "holdout") is identified by its learning rate too. A reported run is not: it has the one that
    was chosen for it, and counts as done whatever was chosen.

    Raises:
        ValueError: the file has other columns.
    """

    def __init__(self, path: Path, columns: Sequence[str], key: Sequence[str]) -> None:
        self.path, self.columns, self.key = path, tuple(columns), tuple(key)
        self.rows = read_rows(path, columns)
        self._by_key = {self._identity(row): row for row in self.rows}

    def has(self, cell: Mapping[str, Any]) -> bool:
        """Whether the run is there already; `cell` needs the columns of the key only."""
        return self._identity(cell) in self._by_key

    def row(self, cell: Mapping[str, Any]) -> Row:
        """The row of a run that is there. Raises KeyError if it is not."""
        return self._by_key[self._identity(cell)]

    def append(self, *cells: Mapping[str, Any]) -> None:
        """Add rows and, where the table has columns for it, what they ran on; on the disk when this returns."""
        machine = _machine() if "hardware" in self.columns else {}
        rows = [{name: _text((cell | machine).get(name)) for name in self.columns} for cell in map(dict, cells)]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, self.columns, lineterminator="\n")
            if file.tell() == 0:
                writer.writeheader()
            writer.writerows(rows)
            file.flush()
            os.fsync(file.fileno())
        self.rows += rows
        self._by_key |= {self._identity(row): row for row in rows}

    def _identity(self, cell: Mapping[str, Any]) -> tuple[str, ...]:
        names = (*self.key, "lr") if cell.get("split") == "holdout" else self.key
        return tuple(_canonical(cell[name]) for name in names)


def read_rows(path: Path, columns: Sequence[str]) -> list[Row]:
    """Rows of a results file; a last line that a kill left half-written is removed from the file.

    Raises:
        ValueError: the file has other columns; it is left as it is.
    """
    if not path.exists():
        return []
    text = path.read_bytes().decode()
    complete = text[: text.rfind("\n") + 1]
    found = next(csv.reader(io.StringIO(complete or text, newline="")), [])
    if found != list(columns) and not (complete == "" and ",".join(columns).startswith(text)):
        raise ValueError(f"{path} has the columns {', '.join(found)}, not {', '.join(columns)}: name another file")
    if complete != text:
        os.truncate(path, len(complete.encode()))
    return list(csv.DictReader(io.StringIO(complete, newline="")))


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _canonical(value: Any) -> str:
    """The same text for 0.1, "0.1" and "0.10"."""
    text = _text(value)
    try:
        return f"{float(text):.9g}"
    except ValueError:
        return text


def _machine() -> Row:
    import transformers

    versions = f"python {platform.python_version()}, torch {torch.__version__}, transformers {transformers.__version__}"
    device, threads = default_device().type, str(torch.get_num_threads())
    return {"device": device, "threads": threads, "hardware": hardware(default_device()), "versions": versions}
