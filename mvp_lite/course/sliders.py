"""The widgets of a notebook for a page without Python: pictures of chosen positions, drawn in advance by the notebook.

The pictures come from the cells themselves, so text, formulas and functions exist once.
"""

from __future__ import annotations

import base64
import html
import itertools
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["MOST", "POSITIONS", "page", "pictures", "write"]

#: A slider has at most this many positions in a page; each position is a picture of about 10 kB.
MOST = 20

#: Argument -> its positions in a page, for sliders with more than `MOST`; where the slider starts is one of them.
POSITIONS: dict[str, Sequence[float]] = {
    "kept": (1, 3, 5, *range(10, 101, 10)),
    "s": range(1, 11),
    "warmup": (0, 10, 25, 45),
    "cooldown": (0, 20, 45),
    "final": (0.03, 0.1, 0.5),
    "score": range(-6, 7),
    "temperature": (0.5, 1, 2, 3, 4, 6, 8, 12, 16),
}

_MIME = "application/x-mvp-lite-sliders+json"
_RECORD = (
    "from mvp_lite.course import sliders\n\nsliders._display(Out[max(Out)])"  # "_" may be a variable of the notebook
)

_PAGE = """\
<div class="sliders" id="sliders-{name}">
{inputs}
<p><img alt="" style="max-width: 100%; background: white"></p>
<p><small>Drawn in advance, at {count} positions. In Jupyter the notebook draws every position.</small></p>
<script>
(() => {{
  const box = document.getElementById("sliders-{name}"), picture = box.querySelector("img");
  const inputs = [...box.querySelectorAll("input")], values = {values}, pictures = {pictures};
  const show = () => {{
    let place = 0;
    inputs.forEach((input, n) => {{
      const value = values[n][input.value];
      place = place * values[n].length + Number(input.value);
      input.nextElementSibling.textContent = value;
      input.setAttribute("aria-valuetext", value);
    }});
    picture.src = "data:image/png;base64," + pictures[place];
    picture.alt = "The picture at " + inputs.map((input, n) => input.name + " = " + values[n][input.value]).join(", ");
  }};
  inputs.forEach(input => input.addEventListener("input", show));
  show();  // a browser may keep the positions when it loads a page again
}})();
</script>
</div>
"""
_INPUT = (
    '<p><label>{label} <input type="range" name="{label}" min="0" max="{last}" value="{start}"> <output></output>'
    "</label></p>"
)


def write(notebook: Path, out: Path) -> list[Path]:
    """Run a notebook up to its last widget and write a page for each widget; the notebook stays as it is.

    A page is a piece of HTML that needs no other file, named after the notebook and the id of the widget's cell.

    Raises:
        ValueError: a notebook without a widget, or what `pictures` raises (as an error of the cell).
    """
    import nbformat

    from mvp_lite.course import editions

    content: Any = nbformat.read(notebook, as_version=4)  # type: ignore[no-untyped-call]
    shown = [
        place
        for place, cell in enumerate(content.cells)
        if cell.cell_type == "code" and "course.widgets." in cell.source
    ]
    if not shown:
        raise ValueError(f"{notebook.name} shows no widget of course.widgets")
    cells = content.cells[: shown[-1] + 1]
    for place in reversed(shown):  # a cell after each, which draws what it has shown
        cells.insert(place + 1, nbformat.v4.new_code_cell(_RECORD))  # type: ignore[no-untyped-call]
    content.cells = cells
    editions.run(content, notebook.parent)
    out.mkdir(parents=True, exist_ok=True)
    made = []
    for before, cell in itertools.pairwise(cells):
        for output in cell.get("outputs", []):
            if found := output.get("data", {}).get(_MIME):
                made.append(out / f"{notebook.stem}-{before.id}.html")
                made[-1].write_text(page(found, before.id), encoding="ascii")
    return made


def pictures(widget: Any) -> dict[str, Any]:
    """What a widget of `course.widgets` draws, at every combination of the positions of its sliders.

    Returns:
        "sliders", for each a dict of "label", "values" (texts) and "start" (an index); "pictures", PNG files in base64,
        the last slider fastest.

    Raises:
        ValueError: a slider with more than `MOST` positions and none in `POSITIONS`, or whose first is not there.
    """
    from matplotlib import pyplot as plt

    from mvp_lite.course.figures.style import _small_png

    if not hasattr(widget, "kwargs_widgets"):  # a player and its sliders
        (widget,) = (child for child in widget.children if hasattr(child, "kwargs_widgets"))
    chosen = {name: _positions(name, slider) for name, slider in zip(widget.kwargs, widget.kwargs_widgets, strict=True)}
    sliders = []
    for (name, options), slider in zip(chosen.items(), widget.kwargs_widgets, strict=True):
        values = [value for _, value in options]
        if slider.value not in values:
            raise ValueError(f"POSITIONS[{name!r}]={values}: must hold the first position, {slider.value}")
        texts = [text for text, _ in options]
        sliders.append({"label": slider.description, "values": texts, "start": values.index(slider.value)})
    plt.close("all")
    drawn = []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="FigureCanvasAgg is non-interactive")
        plt.switch_backend("agg")  # `plt.show()` leaves the figure to us
        for places in itertools.product(*chosen.values()):
            widget.f(**{name: value for name, (_, value) in zip(chosen, places, strict=True)})
            drawn.append(base64.b64encode(_small_png(plt.gcf().axes)).decode("ascii"))
    return {"sliders": sliders, "pictures": drawn}


def page(content: dict[str, Any], name: str) -> str:
    """HTML for what `pictures` returned: the sliders, which a keyboard moves too, and the picture of their position."""
    sliders = content["sliders"]
    inputs = [
        _INPUT.format(label=html.escape(slider["label"]), last=len(slider["values"]) - 1, start=slider["start"])
        for slider in sliders
    ]
    text = _PAGE.format(
        name=name,
        inputs="\n".join(inputs),
        count=len(content["pictures"]),
        values=json.dumps([slider["values"] for slider in sliders]).replace("<", "\\u003c"),
        pictures=json.dumps(content["pictures"]),
    )
    return text.encode("ascii", "xmlcharrefreplace").decode("ascii")


def _positions(name: str, slider: Any) -> list[tuple[str, Any]]:
    """Texts and values."""
    if hasattr(slider, "options"):
        return [(text, value) for text, value in slider.options]
    values = POSITIONS.get(name)
    if values is None:
        count = round((slider.max - slider.min) / slider.step) + 1
        if count > MOST:
            raise ValueError(f"{name}: has {count} positions, must have at most {MOST}, or some in POSITIONS")
        values = [slider.min + place * slider.step for place in range(count)]
    return [(f"{value:g}", type(slider.value)(value)) for value in values]


def _display(widget: Any) -> None:
    """In a kernel: hand the pictures of a widget to `write`."""
    from IPython.display import display

    display({_MIME: pictures(widget)}, raw=True)  # type: ignore[no-untyped-call]
