"""What was measured, as text, as JSON and as a picture."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mvp_lite.latency.timing import break_even, crossings, measure
from mvp_lite.latency.variants import VARIANTS, load

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["picture", "run", "text", "write"]


def run(
    folder: Path, batch: Sequence[int], length: Sequence[int], threads: int, rounds: int, out: Path | None
) -> list[str]:
    """The command `speed`: measures, writes `out` (JSON) and a picture beside it, and returns lines to print."""
    model = load(folder)
    table = measure(model, batch=batch, length=length, threads=threads, rounds=rounds)
    tokens = sorted({b * n for b in batch for n in length})
    try:
        sweep = break_even(model, tokens=tokens, threads=threads, rounds=min(rounds, 9))
    except ValueError:  # no blocks
        sweep = None
    lines = [text(table, sweep)]
    if out is not None:
        write(out, table, sweep)
        lines.append(f"written: {out}")
        if find_spec("matplotlib") is None:
            lines.append("no picture: matplotlib is not installed")
        else:
            lines.append(f"written: {picture(out.with_suffix('.png'), table, sweep)}")
    return lines


def text(table: pd.DataFrame, sweep: pd.DataFrame | None) -> str:
    """The table for a terminal, what was not measured, and the break-even densities."""
    lines = [f"{'batch x tokens':>14}  {'variant':<12}{'ms':>9}  {'speed-up over dense (quartiles)'}"]
    for row in table.to_dict("records"):
        shape = f"{row['batch']} x {row['length']}" if row["variant"] == "dense" else ""
        ratio = f"{row['speed_up']:.2f} ({row['low']:.2f}-{row['high']:.2f})" if row["variant"] != "dense" else ""
        lines.append(f"{shape:>14}  {row['variant']:<12}{row['ms']:>9.2f}  {ratio}".rstrip())
    lines += ["", *(f"not measured: {name}: {why}" for name, why in table.attrs.get("missing", {}).items())]
    for tokens, density in (crossings(sweep) if sweep is not None else {}).items():
        part = None if sweep is None else sweep[sweep["tokens"] == tokens]
        lines.append(f"{tokens} tokens: CSR {_verdict(density, part)}")
    return "\n".join(lines).rstrip()


def _verdict(density: float | None, part: Any) -> str:
    if density is not None:
        return f"is faster than dense below a density of {density:.2f}"
    faster = bool((part["speed_up"] >= 1).all())
    return f"is {'faster' if faster else 'slower'} than dense at all densities measured"


def write(path: str | Path, table: pd.DataFrame, sweep: pd.DataFrame | None = None) -> None:
    """Write the tables, what was not measured and the versions as JSON."""
    found: dict[str, Any] = {
        "versions": f"python {platform.python_version()}, torch {torch.__version__}",
        "machine": platform.machine(),
        "variants": VARIANTS,
        "latency": table.round(4).to_dict("records"),
        "not measured": table.attrs.get("missing", {}),
    }
    if sweep is not None:
        found["csr over dense, random zeros"] = sweep.round(4).to_dict("records")
        found["break-even density by tokens"] = crossings(sweep)
    Path(path).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def picture(path: str | Path, table: pd.DataFrame, sweep: pd.DataFrame | None = None) -> Path:
    """Draw the speed-up of each variant and, from a sweep, the density at which CSR stops being faster; PNG.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2 if sweep is None else 10.4, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 1 if sweep is None else 2, squeeze=False)[0]
    names = [name for name in dict.fromkeys(table["variant"]) if name != "dense"]
    shapes = list(table.groupby(["batch", "length"], sort=False))
    for number, (shape, part) in enumerate(shapes):
        rows: Mapping[str, Any] = {row["variant"]: row for row in part.to_dict("records")}
        at = [i + 0.8 * (number + 0.5) / len(shapes) - 0.4 for i in range(len(names))]
        middle = [rows[name]["speed_up"] for name in names]
        error = [
            [rows[n]["speed_up"] - rows[n]["low"] for n in names],
            [rows[n]["high"] - rows[n]["speed_up"] for n in names],
        ]
        color = str(0.25 + 0.55 * number / max(1, len(shapes) - 1))
        label = "{} x {} tokens".format(*shape)
        axes[0].bar(at, middle, 0.8 / len(shapes), yerr=error, color=color, ecolor="0.5", label=label)
    axes[0].axhline(1.0, color="black", linewidth=0.8)
    axes[0].set_xticks(range(len(names)), names, rotation=20)
    axes[0].set_ylabel("speed-up over dense")
    axes[0].legend(fontsize=8)
    if sweep is not None:
        for (tokens, part), marker in zip(sweep.groupby("tokens"), "osv^D*<>Pd" * 10, strict=False):
            axes[1].plot(part["density"], part["speed_up"], marker=marker, label=f"{tokens} tokens")
        axes[1].axhline(1.0, color="black", linewidth=0.8)
        axes[1].set(xscale="log", yscale="log", xlabel="density (random zeros)", ylabel="speed-up of CSR over dense")
        ticks = [0.5, 1, 2, 5, 10]
        axes[1].set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        axes[1].set_xticks(sorted(set(sweep["density"])), [f"{d:g}" for d in sorted(set(sweep["density"]))])
        axes[1].minorticks_off()
        axes[1].legend(fontsize=8)
    figure.savefig(path, dpi=150)
    return Path(path)
