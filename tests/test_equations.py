"""`course.check`: an equation that does not hold is refused, and one that holds is kept for the tests."""

import pytest
import torch

from mvp_lite import course
from mvp_lite.course.equations import CHECKED

A = torch.tensor([[1.0, -2.0], [3.0, 4.0]], dtype=torch.float64)


def test_an_equation_that_holds_is_one_line_and_is_kept(capsys):
    course.check("3.2", A + A, 2 * A)
    course.check("3.3", A, A + 1, relation="<=")
    course.check("3.2", 2 * A, A + A)  # a reader who runs a cell again
    assert capsys.readouterr().out == "(3.2) holds\n(3.3) holds\n(3.2) holds\n"
    assert CHECKED["3.2"].catches(-2 * A) and CHECKED["3.2"].catches((2 * A).T)
    assert not CHECKED["3.2"].catches(2 * A + 1e-12)
    assert CHECKED["3.3"].catches(A + 2) and not CHECKED["3.3"].catches(A - 1)


@pytest.mark.parametrize("wrong", [A + 1e-6, A[:1], A / 0, torch.empty(0, dtype=torch.float64)])
def test_an_equation_that_does_not_hold_is_refused(wrong):
    CHECKED.pop("1.1", None)
    with pytest.raises(AssertionError, match=r"\(1\.1\) does not hold: error .*, allowed 1e-10"):
        course.check("1.1", wrong, A)
    assert "1.1" not in CHECKED
    course.check("1.1", A + 1e-6, A, tol=1e-5)


@pytest.mark.parametrize("number", ["1", "1.a", "1.1.1", "", "1.-1", 1.1])
def test_a_number_is_that_of_a_notebook_and_an_equation(number):
    with pytest.raises(ValueError, match="number="):
        course.check(number, A, A)


def test_single_precision_and_unknown_relations_are_refused():
    with pytest.raises(TypeError, match=r"float32: equations are checked in float64"):
        course.check("1.1", A.float(), A)
    with pytest.raises(ValueError, match="relation='<'"):
        course.check("1.1", A, A, relation="<")
