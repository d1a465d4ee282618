"""What the notebooks say is true of what they compute, and a wrong equation would be noticed (tests/claims)."""

import json
import re
from pathlib import Path

import nbformat
import pytest
import torch
from in_notebook import ROOT, Claims, claims_of, run

from mvp_lite.course import editions, exercises
from mvp_lite.course.exercises import tools

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
BANKS = sorted((ROOT / "tests" / "claims").glob("n*.py"))


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    out = tmp_path_factory.mktemp("student")
    editions.student(ROOT / "notebooks", out)
    return out


@pytest.mark.slow
@pytest.mark.parametrize("path", BANKS, ids=lambda path: path.stem)
def test_a_notebook_keeps_its_word_and_needs_no_answer(path, student):
    (notebook,) = (ROOT / "notebooks").glob(f"{path.stem[1:]}_*.ipynb")
    problems = run(notebook, claims_of(path), student / notebook.name)
    assert not problems, "\n".join(problems)


def test_every_notebook_with_exercises_is_run():
    assert [path.stem[1:] for path in BANKS] == [path.name[:2] for path in NOTEBOOKS if path.name[:2] != "00"]


def notebook(folder: Path, *cells: str) -> Path:
    """Cells that begin with a capital letter or a dollar sign are text."""
    kinds = ["markdown" if cell[0].isupper() or cell[0] == "$" else "code" for cell in cells]
    made = [{"cell_type": kind, "source": [cell]} for kind, cell in zip(kinds, cells, strict=True)]
    path = folder / "01_small.ipynb"
    path.write_text(json.dumps({"cells": made}))
    return path


SMALL = (
    "from mvp_lite import course\nimport torch\ntorch.set_default_dtype(torch.float64)\na = 2.0",
    "Twice a is b. And a is two.",
    'b = a + a\ncourse.check("1.1", b, 2 * a)',
    "Now a changes.",
    "a = 5.0",
    "It is five.",
)


def test_claims_run_where_they_are_made(tmp_path):
    claims = Claims()
    claims.planted("1.1")(lambda b: {"sign": -b})
    claims.claim("Twice a is b")(lambda a, b: _assert(b == 2 * a))
    claims.claim("a is\n two", above=True)(lambda a: _assert(a == 2))
    claims.claim("a = 5.0")(lambda a: _assert(a == 5))
    claims.claim("It is five")(lambda a: _assert(a == 5))
    assert run(notebook(tmp_path, *SMALL), claims) == []
    assert torch.get_default_dtype() == torch.float32


def _assert(truth: bool) -> None:
    assert truth


@pytest.mark.parametrize(
    ("quotation", "claim", "message"),
    [
        ("Twice a is b", lambda a, b: _assert(a == b), "not true: 'Twice a is b'"),
        ("Now a changes.", lambda a: _assert(a == 2), "not true: 'Now a changes.'"),
        ("no such words", lambda: None, "quoted from 0 cells"),
        ("a", lambda: None, "quoted from 5 cells"),
        ("It is five", lambda c: None, r"no name \['c'\]"),
    ],
)
def test_a_claim_that_does_not_hold_is_named(tmp_path, quotation, claim, message):
    claims = Claims()
    claims.planted("1.1")(lambda b: {"sign": -b})
    claims.claim(quotation)(claim)
    problems = "\n".join(run(notebook(tmp_path, *SMALL), claims))
    assert re.search(message, problems), problems


def test_planted_errors_are_needed_and_noticed(tmp_path):
    path = notebook(tmp_path, *SMALL)
    assert run(path, Claims()) == ["(1.1) has no planted errors"]
    claims = Claims()
    claims.planted("1.1")(lambda a: {"none at all": 2 * a, "sign": -2 * a})
    assert run(path, claims) == ["(1.1) does not catch the planted error 'none at all'"]
    with pytest.raises(AssertionError, match="planted errors already"):
        claims.planted("1.1")(lambda: {})


LESSON = (
    "from mvp_lite import course",
    "A function to write.\n\n### Exercise 1.9 (5 minutes, easy)",
    "def double(x):\n    ### BEGIN SOLUTION\n    return 2 * x\n    ### END SOLUTION",
    'course.exercises.check("1.9", double)\nfound = double(3)',
    "It is six.",
    "other = 8",
    "The other is eight.",
)


@pytest.fixture
def taught(tmp_path, monkeypatch):
    """The lesson and its student edition, after a replacement."""

    def check(double):
        if double(1) != 2:
            raise exercises.WrongAnswer("not twice")

    monkeypatch.setitem(tools.CHECKS, "1.9", check)

    def write(old: str, new: str) -> tuple[Path, Path]:
        (tmp_path / "all").mkdir()
        path = notebook(tmp_path / "all", *(cell.replace(old, new) for cell in LESSON))
        found = nbformat.read(path, as_version=nbformat.NO_CONVERT) | {
            "nbformat": 4,
            "nbformat_minor": 5,
            "metadata": {},
        }
        cells = [c | {"id": str(i), "metadata": {}} for i, c in enumerate(found["cells"])]
        cells = [c | ({"outputs": [], "execution_count": None} if c["cell_type"] == "code" else {}) for c in cells]
        path.write_text(json.dumps(found | {"cells": cells}))
        (student,) = editions.student(tmp_path / "all", tmp_path / "student")
        return path, student

    return write


def test_claims_see_answers_but_no_cell_needs_them(taught):
    claims = Claims()
    claims.claim("It is six")(lambda found: _assert(found == 6))
    claims.claim("The other is eight")(lambda found, other, double: _assert(found == 6 and double(4) == other))
    path, student = taught("other", "other")
    assert run(path, claims, student) == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("other = 8", "other = found + 2", "name 'found' is not defined"),
        ("other = 8", "other = double(4)", "NotImplementedError"),
        (
            "    ### BEGIN SOLUTION\n    return 2 * x\n    ### END SOLUTION",
            "    return 2 * x",
            "accepts a missing answer",
        ),
    ],
)
def test_a_cell_that_needs_an_answer_is_noticed(taught, old, new, message):
    path, student = taught(old, new)
    problems = run(path, Claims(), student)
    assert len(problems) == 1 and re.search(message, problems[0]), problems
