"""`from mvp_lite import course` offers the course's tools, and loads each of them only when it is used."""

import subprocess
import sys
from pathlib import Path

import pytest

import mvp_lite as mvp
from mvp_lite import course
from mvp_lite.course import analysis, figures

ROOT = Path(__file__).resolve().parents[1]


def test_every_name_is_there():
    assert dir(course) == sorted(course.__all__)
    for name in course.__all__:
        assert getattr(course, name) is not None
    assert course.figures is figures and callable(course.check)
    with pytest.raises(AttributeError, match=r"'mvp_lite\.course' has no attribute 'checks'"):
        _ = course.checks


def test_the_course_is_not_spilled_into_the_package():
    assert dir(mvp) == sorted(mvp.__all__)
    for name in mvp.__all__:
        assert getattr(mvp, name) is not None
    assert set(mvp.__all__).isdisjoint(course.__all__)
    assert mvp.Result.__module__ == "mvp_lite.train" and mvp.Task.__module__ == "mvp_lite.tasks.task"
    with pytest.raises(AttributeError, match="'mvp_lite' has no attribute 'figures'"):
        _ = mvp.figures


def loaded_by(code: str) -> str:
    heavy = ["IPython", "datasets", "ipywidgets", "matplotlib", "nbformat", "pandas", "transformers"]
    code += f"; import sys; print([name for name in {heavy} if name in sys.modules])"
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    ("use", "loaded"),
    [
        ("dir(course)", []),
        ("course.check", []),
        ("course.anatomy", []),
        ("course.exercises", []),
        ("course.analysis", ["pandas"]),
        ("course.figures", ["matplotlib", "pandas"]),
    ],
)
def test_a_tool_loads_only_what_it_needs(use, loaded):
    assert loaded_by(f"from mvp_lite import course; {use}").strip() == str(loaded)


def test_figures_and_tables_list_methods_in_one_order():
    assert tuple(figures.METHOD_STYLE) == analysis.METHODS
