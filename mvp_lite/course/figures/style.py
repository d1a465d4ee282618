"""How every figure of the course looks, and how it is shown.

Colors are those of Okabe and Ito (2008), chosen for color-blind readers, and one of Tol (2021). Markers and lines
differ too, for print.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from cycler import cycler
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator
from matplotlib.typing import LineStyleType
from numpy.typing import NDArray
from PIL import Image

from mvp_lite.course.analysis import FROM_MAGNITUDE

__all__ = [
    "GRAY",
    "LINES",
    "MARKERS",
    "METHOD_STYLE",
    "OKABE_ITO",
    "STYLE",
    "Look",
    "axes_or_new",
    "curve_style",
    "log_axis",
    "save",
    "shared_legend",
    "show",
]

OKABE_ITO = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LINES = ("-", "--", "-.", ":", "-", "--", "-.")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GRAY = "#999999"

#: matplotlib settings of the course, for `matplotlib.style.use`.
STYLE: dict[str, Any] = {
    "figure.figsize": (6.0, 3.6),
    "figure.dpi": 100,
    "savefig.dpi": 100,
    "figure.constrained_layout.use": True,
    "font.size": 11,
    "axes.titlesize": 11,
    "legend.fontsize": 9.5,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "lines.linewidth": 1.8,
    "lines.markersize": 6,
    "image.cmap": "cividis",
    "axes.prop_cycle": cycler(color=OKABE_ITO, linestyle=LINES),
    "svg.hashsalt": "mvp_lite",
}


@dataclass(frozen=True)
class Look:
    """How a method is drawn, the same in every figure."""

    label: str
    color: str
    marker: str
    line: LineStyleType

    @property
    def curve(self) -> dict[str, Any]:
        """Color, marker and line, for `Axes.plot`."""
        return {"color": self.color, "marker": self.marker, "linestyle": self.line}


#: Has the keys and the order of `analysis.METHODS`.
METHOD_STYLE: dict[str, Look] = {
    "dense": Look("dense (nothing pruned)", "#000000", "*", "-"),
    "movement": Look("movement", "#0072B2", "o", "-"),
    FROM_MAGNITUDE: Look("movement from magnitude", "#332288", "P", (0, (6, 1, 1, 1))),
    "soft_movement": Look("soft movement", "#56B4E9", "^", "-."),
    "l0": Look("L0", "#009E73", "D", (0, (5, 1))),
    "magnitude": Look("magnitude", "#D55E00", "s", "--"),
    "random": Look("random", "#CC79A7", "X", ":"),
    "scratch": Look("dense, not pretrained", "#666666", "v", (0, (1, 2))),
}


def show(ax: Axes | NDArray[Any] | Sequence[Axes], alt: str = "") -> None:
    """Display the figure of `ax` in a notebook, with its description, if given, as alt text.

    The notebooks of the course keep the description in the metadata of the cell (`editions.execute` adds it).
    """
    from IPython.display import display

    picture = {"image/png": base64.b64encode(_small_png(ax)).decode("ascii"), "text/plain": "figure"}
    metadata = {"image/png": {"alt": alt}} if alt else {}
    display(picture, raw=True, metadata=metadata)  # type: ignore[no-untyped-call]


def save(ax: Axes | NDArray[Any] | Sequence[Axes], path: str | Path) -> None:
    """Write the figure of `ax` to a PNG file, as `show` would display it, and close it."""
    Path(path).write_bytes(_small_png(ax))


def _small_png(ax: Axes | NDArray[Any] | Sequence[Axes]) -> bytes:
    """PNG of 128 colors, a quarter of the size; no version of matplotlib inside, so that the bytes repeat."""
    figure = np.atleast_1d(np.asarray(ax, dtype=object)).ravel()[0].figure
    drawn, small = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", bbox_inches="tight")
    plt.close(figure)
    Image.open(drawn).convert("RGB").quantize(128, dither=Image.Dither.NONE).save(small, "png", optimize=True)
    return small.getvalue()


def log_axis(ax: Axes, ticks: Sequence[float]) -> None:
    """A logarithmic x axis with these ticks alone, labeled with plain numbers; without any, it chooses its own."""
    ax.set_xscale("log")
    if len(ticks):
        ax.set_xticks(ticks)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.xaxis.set_minor_locator(NullLocator())


def shared_legend(
    axes: Iterable[Axes], loc: Literal["outside upper center", "outside lower center"], ncols: int
) -> None:
    """One legend for all of `axes` (of one figure), with each label once."""
    panels = list(axes)
    handles = {label: line for ax in panels for line, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    panels[0].figure.legend(handles.values(), handles.keys(), loc=loc, ncols=min(ncols, len(handles)))


def axes_or_new(ax: Axes | None) -> Axes:
    """`ax`, or the axes of a new figure."""
    return plt.subplots()[1] if ax is None else ax


def curve_style(index: int) -> dict[str, Any]:
    """Color, line and marker of the curve with this index, for `Axes.plot`."""
    styles = {"color": OKABE_ITO, "linestyle": LINES, "marker": MARKERS}
    return {name: values[index % len(values)] for name, values in styles.items()}
