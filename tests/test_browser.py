"""Notebooks in JupyterLab and a real headless Chromium: equations drawn, sliders moved, pictures seen to change."""

import re
from pathlib import Path

import browser as lab
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from mvp_lite import course

ROOT = Path(__file__).resolve().parents[1]
REAL = ROOT / "notebooks" / "03_gradient_of_movement_scores.ipynb"

pytestmark = pytest.mark.slow

SETUP = """\
import pandas as pd
import torch

from mvp_lite import course

course.setup()
steps = torch.arange(6.0)[:, None, None]
start = torch.tensor([[1.5, -0.75, 0.25], [-2.0, 0.5, 1.25]])
history = {"W": start - 0.1 * steps, "G": start.cos() * (1 + steps), "S": steps * start.sin()}
history["M"] = (history["S"] >= 0).float()
moments = {lam: [{"step": 10 * i, "tau": 0.05 * i, "scores": start - lam * i} for i in range(3)] for lam in (0.0, 1.0)}
results = pd.DataFrame({"density": [0.03, 0.1], "score": [70.0, 90.0], "method": "movement", "task": "qa"})
results = results.assign(split="validation", seed=0)
turn = {"magnitude": start.abs(), "movement": start.sin(), "kept": start > 0, "result": "error 0.5"}
turns = {0.0: turn, 0.5: turn | {"kept": start.abs() > 1}}
keep = start.abs() > 1
some = torch.arange(32) % 3 > 0
budgets = {0.5: {"masks": [~some, some], "score": 60.0}, 0.9: {"masks": [some, some], "score": 95.0}}
frames = [{"step": 0, "density": 1.0, "score": 50.0, "weights": start, "kept": start != 0}]
frames += [{"step": 9, "density": 0.5, "score": 90.0, "weights": 1.2 * start, "kept": keep}]"""
CALLS = {
    "along_swap": "lambda a: (a - 1).square().sum(), start[0], start[1]",
    "dial": "turns",
    "explore": "results",
    "hard_concrete_gate": "",
    "layer_history": "history",
    "neurons_left": "budgets",
    "removal": "lambda w: w.sin().square().sum(), {'start': start.ravel(), 'end': 2 * start.ravel()}",
    "schedules": "",
    "scores_and_mask": "torch.arange(200.0).reshape(20, 10).cos()",
    "scores_and_threshold": "moments",
    "softened": "[4.0, 2.0, -2.0]",
    "weights_leave": "frames",
}
EQUATIONS = r"""Inline $G\odot W$, and displayed

$$\frac{\partial\mathcal L}{\partial S_{ij}}=G_{ij}W_{ij} \tag{1.1}$$

$$S^{(T)}=-\alpha_S\sum_{t<T}G^{(t)}\odot W^{(t)} \tag{1.2}$$"""


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """One browser and one JupyterLab for this file; gives a function that opens a notebook and returns its page."""
    path = lab.chromium()
    folder = tmp_path_factory.mktemp("lab")
    with lab.jupyterlab(folder) as address, lab.browser(path) as chromium:

        def put_and_open(notebook, name):
            lab.put(notebook, folder / name)
            return lab.open_notebook(chromium, address, name)

        yield put_and_open


@pytest.fixture(scope="module")
def widgets(opened):
    """The page of a notebook that shows every widget."""
    shown = [new_code_cell(f"course.widgets.{name}({argument})") for name, argument in CALLS.items()]
    notebook = new_notebook(cells=[new_markdown_cell(EQUATIONS), new_code_cell(SETUP), *shown])
    page = opened(notebook, "widgets.ipynb")
    lab.run_all(page)
    assert lab.math_errors(page, notebook) == []
    return page


@pytest.mark.parametrize("name", CALLS)
def test_a_slider_moves_the_picture(widgets, name):
    cell = widgets.locator(".jp-CodeCell", has_text=f"course.widgets.{name}(")
    first, second = lab.move_slider(widgets, cell)
    assert first.startswith("data:image/png") and second.startswith("data:image/png")
    again = lab.move_slider(widgets, cell, key="ArrowLeft")
    assert again == (second, first), "back where it was, the same picture"


def test_every_widget_is_tried():
    assert set(CALLS) == set(course.widgets.__all__)


def test_a_notebook_of_the_course(opened):
    notebook = nbformat.read(REAL, as_version=4)
    sources = [cell.source for cell in notebook.cells if "course.widgets." in cell.source]
    page = opened(notebook, REAL.name)
    lab.run_all(page)
    assert lab.math_errors(page, notebook) == []
    assert sources
    for source in sources:
        call = re.search(r"course\.widgets\.\w+\(", source)[0]
        lab.move_slider(page, page.locator(".jp-CodeCell", has_text=call))


def test_wrong_equations_and_a_cell_that_raises_are_seen(opened):
    wrong = new_markdown_cell("$$x \\left( y$$\n\nand\n\n$$\\unheardof + 1$$")
    notebook = new_notebook(cells=[wrong, new_code_cell("1 / 0"), new_code_cell("2")])
    page = opened(notebook, "wrong.ipynb")
    assert len(lab.math_errors(page, notebook)) == 2
    with pytest.raises(AssertionError, match="ZeroDivisionError"):
        lab.run_all(page)


def test_without_a_browser_it_skips_or_fails_and_says_why(monkeypatch):
    monkeypatch.setenv("MVP_LITE_CHROMIUM", "/nowhere/chromium")
    monkeypatch.delenv("MVP_LITE_NEEDS_BROWSER", raising=False)
    with pytest.raises(pytest.skip.Exception, match="looked for MVP_LITE_CHROMIUM='/nowhere/chromium'"):
        lab.chromium()
    monkeypatch.delenv("MVP_LITE_CHROMIUM")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(pytest.skip.Exception, match="looked for chromium, chromium-browser, google-chrome on PATH"):
        lab.chromium()
    monkeypatch.setenv("MVP_LITE_NEEDS_BROWSER", "1")
    with pytest.raises(pytest.fail.Exception, match="MVP_LITE_NEEDS_BROWSER=1, but no Chromium"):
        lab.chromium()
