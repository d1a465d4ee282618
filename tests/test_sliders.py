"""Widgets as pages without Python: every position drawn, by the widget's own function; the sliders work in Chromium."""

import base64
import io
import json
import re

import browser as lab
import ipywidgets
import nbformat
import numpy as np
import pytest
import test_browser
from matplotlib import pyplot as plt
from nbformat.v4 import new_code_cell, new_notebook
from PIL import Image

from mvp_lite.__main__ import main
from mvp_lite.course import figures, sliders

GRAY = {(a, b): 40 * a + 10 * place for a in (0, 1) for place, b in enumerate("xyz")}


def draw(a, b):
    plt.figure(figsize=(1, 1)).add_axes((0, 0, 1, 1)).imshow([[GRAY[a, b]]], cmap="gray", vmin=0, vmax=255)
    plt.show()


@pytest.fixture
def widget():
    return ipywidgets.interactive(
        draw,
        a=ipywidgets.IntSlider(1, 0, 1, description="λ < 1"),
        b=ipywidgets.SelectionSlider(options=[("one", "x"), ("two", "y"), ("three", "z")], value="y"),
    )


def gray(picture):
    """The value in the middle of a picture."""
    image = Image.open(io.BytesIO(base64.b64decode(picture))).convert("L")
    return image.getpixel((image.width // 2, image.height // 2))


def test_every_combination_is_drawn_the_last_slider_fastest(widget):
    found = sliders.pictures(widget)
    assert [gray(picture) for picture in found["pictures"]] == list(GRAY.values())
    assert found["sliders"] == [
        {"label": "λ < 1", "values": ["0", "1"], "start": 1},
        {"label": "b", "values": ["one", "two", "three"], "start": 1},
    ]
    assert not plt.get_fignums()


def test_a_player_is_drawn_by_its_slider(widget):
    with_player = ipywidgets.VBox([ipywidgets.Play(), widget])
    assert sliders.pictures(with_player) == sliders.pictures(widget)


def test_a_long_slider_needs_positions_and_its_first_is_one_of_them(monkeypatch):
    widget = ipywidgets.interactive(
        lambda n: plt.subplots(), n=ipywidgets.FloatSlider(2.0, min=0.0, max=10.0, step=0.2)
    )
    with pytest.raises(ValueError, match="n: has 51 positions, must have at most 20"):
        sliders.pictures(widget)
    monkeypatch.setitem(sliders.POSITIONS, "n", [0, 10])
    with pytest.raises(ValueError, match=r"POSITIONS\['n'\]=\[0.0, 10.0\]: must hold the first position, 2.0"):
        sliders.pictures(widget)
    monkeypatch.setitem(sliders.POSITIONS, "n", [0, 2, 10])
    found = sliders.pictures(widget)
    assert found["sliders"] == [{"label": "n", "values": ["0", "2", "10"], "start": 1}]


# In `explore` one menu changes the other; no notebook shows it.
@pytest.mark.parametrize("name", sorted(set(test_browser.CALLS) - {"explore"}))
def test_every_widget_of_the_course_has_positions(name, monkeypatch):
    names = {}
    exec(test_browser.SETUP, names)
    shown = eval(f"course.widgets.{name}({test_browser.CALLS[name]})", names)
    inner = shown if hasattr(shown, "kwargs_widgets") else shown.children[-1]
    drawn = []
    monkeypatch.setattr(inner, "f", lambda **values: drawn.append(values) or plt.close("all"))
    monkeypatch.setattr(figures.style, "_small_png", lambda axes: plt.close("all") or b"")
    found = sliders.pictures(shown)
    asked = list(drawn)  # a slider that moves draws again
    assert len(asked) == len(found["pictures"]) == np.prod([len(slider["values"]) for slider in found["sliders"]])
    assert len({json.dumps(values) for values in asked}) == len(asked) <= 40
    for slider, argument in zip(inner.kwargs_widgets, asked[0], strict=True):
        for values in asked:
            slider.value = values[argument]
            assert slider.value == values[argument], "a position that the widget has too"


SETUP = """\
import ipywidgets
from matplotlib import pyplot as plt


def line(n):
    plt.plot([0, n])
    plt.show()


_ = 1  # hides what IPython shows last"""
WIDGET = "# as course.widgets. does\nipywidgets.interactive(line, n=(1, 3))"


@pytest.mark.slow
def test_a_notebook_draws_its_own_widget_and_stays_as_it_is(tmp_path, capsys):
    path = tmp_path / "05_lines.ipynb"
    cells = [new_code_cell(SETUP), new_code_cell(WIDGET, id="abc"), new_code_cell("1 / 0")]
    nbformat.write(new_notebook(cells=cells), path)
    before = path.read_bytes()
    assert main(["sliders", str(path), "--out", str(tmp_path / "out")]) == 0
    (made,) = (tmp_path / "out").iterdir()
    assert made.name == "05_lines-abc.html" and made.name in capsys.readouterr().out
    assert path.read_bytes() == before
    pictures = json.loads(re.search(r"pictures = (\[.*\]);", made.read_text())[1])
    assert len(set(pictures)) == 3

    nbformat.write(new_notebook(cells=cells[:1]), path)
    with pytest.raises(ValueError, match=r"05_lines.ipynb shows no widget"):
        sliders.write(path, tmp_path)


@pytest.mark.slow
def test_the_sliders_work_without_python(widget, tmp_path):
    chromium = lab.chromium()
    content = sliders.pictures(widget)
    (tmp_path / "page.html").write_text(sliders.page(content, "one") + sliders.page(content, "two"))
    with lab.browser(chromium) as opened:
        page = opened.new_page(viewport={"width": 390, "height": 800})
        asked, problems = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto((tmp_path / "page.html").as_uri())
        picture = page.locator("#sliders-two img")

        def seen():
            assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
            return gray(picture.get_attribute("src").partition("base64,")[2]), picture.get_attribute("alt")

        assert seen() == (GRAY[1, "y"], "The picture at λ < 1 = 1, b = two")
        for label, key, value in [("b", "ArrowRight", (1, "z")), ("λ < 1", "ArrowLeft", (0, "z"))]:
            page.locator("#sliders-two").get_by_label(label).press(key)
            assert seen()[0] == GRAY[value]
        assert seen()[1] == "The picture at λ < 1 = 0, b = three"
        assert page.locator("#sliders-two output").all_inner_texts() == ["0", "three"]
        assert page.locator("#sliders-one output").all_inner_texts() == ["1", "two"], "the other widget stays"
        page.locator("#sliders-two").get_by_label("b").press("ArrowLeft")
        assert seen()[0] == GRAY[0, "y"]
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert not problems
        assert all(url.startswith(("file:", "data:")) for url in asked)
