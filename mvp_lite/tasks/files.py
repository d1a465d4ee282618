"""Files of examples: JSON lines, a JSON array, CSV and TSV, with the line on which each example stands."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import TextIO

from mvp_lite.tasks.sources import Source, row_source

__all__ = ["SUFFIXES", "read_file"]

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".csv", ".tsv")


def read_file(path: Path, limit: int | None = None) -> Source:
    """The first `limit` examples of a file, not yet checked. Blank lines and a byte-order mark are skipped.

    Not by `datasets`: it silently turns a label "1" into 1 and a missing column into None, and it leaves a copy of
    each file in the user's cache. Nor by pandas: in its CSV the text "NA" is a missing value, and lines are not known.

    Raises:
        ValueError: a file that cannot be read or is not what its name says; the message names file and line.
    """
    table = path.suffix in (".csv", ".tsv")
    try:
        with (gzip.open if path.suffix == ".gz" else open)(
            path, "rt", encoding="utf-8-sig", newline="" if table else None
        ) as file:
            if table:
                return _csv(path, file, limit)
            return _json_array(path, file, limit) if path.suffix == ".json" else _json_lines(path, file, limit)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} cannot be read: its encoding must be UTF-8 ({error})") from error
    except (EOFError, OSError) as error:
        raise ValueError(f"{path} cannot be read, is it truncated? ({error})") from error


def _json_array(path: Path, file: TextIO, limit: int | None) -> Source:
    text = file.read()
    if not text.lstrip().startswith("["):  # JSON lines often have this suffix too
        return _json_lines(path, io.StringIO(text), limit)
    try:
        return row_source(str(path), json.loads(text)[:limit])
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {error.lineno} is not JSON: {error.msg}") from error


def _json_lines(path: Path, file: Iterable[str], limit: int | None) -> Source:
    rows, lines = [], []
    for number, line in islice(((number, line) for number, line in enumerate(file, start=1) if line.strip()), limit):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number} is not JSON: {error}") from error
        lines.append(number)
    return row_source(str(path), rows, lines)


def _csv(path: Path, file: Iterable[str], limit: int | None) -> Source:
    # strict: otherwise a quotation mark that nothing closes takes the lines after it into its own field.
    reader = csv.reader(file, "excel-tab" if path.suffix == ".tsv" else "excel", strict=True)
    rows: list[dict[str, str]] = []
    lines: list[int] = []
    header: list[str] = []
    while limit is None or len(rows) < limit:
        begin = reader.line_num + 1
        try:
            fields = next(reader, None)
        except csv.Error as error:
            raise ValueError(
                f"{path}, line {begin} is not CSV: {error}; a field with a separator, a quotation mark or a line break "
                'stands in quotation marks, with those inside doubled (""), as pandas writes it'
            ) from error
        if fields is None:
            break
        if not header:
            header = fields
            if len(set(header)) < len(header) or "" in header:
                raise ValueError(f"{path}, line {begin}: the header {header!r} must be distinct names of columns")
        elif fields:
            if len(fields) != len(header):
                raise ValueError(f"{path}, line {begin} has {len(fields)} fields, the header has {len(header)}")
            rows.append(dict(zip(header, fields, strict=True)))
            lines.append(begin)
    return row_source(str(path), rows, lines, untyped=True, columns=header)
