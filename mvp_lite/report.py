"""The table of the pruned matrices, as it is printed."""

from __future__ import annotations

import itertools
from typing import Any

import pandas as pd

__all__ = ["Report", "common_prefix"]


class Report(pd.DataFrame):
    """A data frame whose text fits into 80 columns: it leaves out what the names in `layer` begin with.

    What is left out becomes the title of the column. The data are not changed.
    """

    @property
    def _constructor(self) -> type[Report]:
        return Report

    def __repr__(self) -> str:
        table: Any = pd.DataFrame(self)
        if "layer" not in table.columns or table.empty:
            return str(table)
        prefix = common_prefix(list(table["layer"]))
        table = table.assign(layer=[name.removeprefix(prefix) for name in table["layer"]])
        table = table.rename(columns={"layer": prefix or "layer"})
        rows = pd.get_option("display.max_rows")
        return str(table.to_string(index=False, max_rows=rows, float_format="{:.4f}".format))


def common_prefix(names: list[str]) -> str:
    """What all of several dotted names begin with, whole parts only: "bert.encoder.layer."."""
    columns = zip(*(name.split(".")[:-1] for name in names), strict=False)
    shared = itertools.takewhile(lambda column: len(set(column)) == 1, columns)
    return "".join(f"{column[0]}." for column in shared)
