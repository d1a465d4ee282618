"""The ledger: an equation that does not hold is refused, and so is a check that cannot fail."""

import math

import numpy as np
import pytest
import torch

from mvp_lite import course

A = torch.tensor([[1.0, -2.0], [3.0, 4.0]], dtype=torch.float64)


def test_a_right_equation_is_counted(capsys):
    ledger = course.Ledger(3)
    ledger.check("3.1", A + A, 2 * A, planted={"sign": -2 * A, "transposed": 2 * A.T})
    ledger.check("3.2", 0.5, 0.25 + 0.25, planted={"doubled": 1.0})
    ledger.check("3.3", A > 0, A.sign() == 1, planted={"reversed": A < 0})
    ledger.check("3.4", np.arange(3), [0, 1, 2], planted={"off by one": np.arange(1, 4)})
    ledger.check("3.4", 3, 3, planted={"off by one": 4})  # a reader who runs a cell again
    ledger.close()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "(3.1) holds, largest error 0.0e+00; caught: sign, transposed"
    assert lines[-1] == "notebook 3: 4 equations hold, 5 planted errors caught, largest error 0.0e+00"


@pytest.mark.parametrize("wrong", [A + 1e-6, A[:1], torch.full_like(A, math.nan), torch.empty(0, dtype=torch.float64)])
def test_a_wrong_equation_is_refused(wrong):
    ledger = course.Ledger(1)
    with pytest.raises(AssertionError, match=r"\(1\.1\) does not hold"):
        ledger.check("1.1", wrong, A, planted={"sign": -A})
    with pytest.raises(AssertionError, match="no equation was checked"):
        ledger.close()


def test_the_error_is_relative_to_the_largest_entry():
    ledger = course.Ledger(1)
    ledger.check("1.1", 1e6 + 1e-6, 1e6, planted={"sign": -1e6})
    with pytest.raises(AssertionError, match="does not hold"):
        ledger.check("1.1", 1.1e-12, 1e-12, planted={"sign": -1e-12})
    ledger.check("1.1", 1.1e-12, 1e-12, planted={"sign": -1e-12}, tol=0.2)


def test_inequalities():
    ledger = course.Ledger(1)
    ledger.check("1.1", A, A + 1, relation="<=", planted={"reversed": A + 2})
    ledger.check("1.2", A, A - 1, relation=">=", planted={"reversed": A - 2})
    with pytest.raises(AssertionError, match="does not hold"):
        ledger.check("1.3", A, A - 1, relation="<=", planted={"reversed": A + 2})
    with pytest.raises(AssertionError, match="does not hold"):
        ledger.check("1.3", A, A + 1, relation=">=", planted={"reversed": A - 2})


def test_a_check_that_cannot_fail_is_refused():
    ledger = course.Ledger(1)
    with pytest.raises(AssertionError, match="does not catch the planted error 'transposed'"):
        ledger.check("1.1", np.eye(2), [[1, 0], [0, 1]], planted={"transposed": np.eye(2).T})
    with pytest.raises(ValueError, match="needs a planted error"):
        ledger.check("1.1", A, A, planted={})


@pytest.mark.parametrize("tag", ["2.1", "1", "1.a", "1.1.1", "", "1.-1"])
def test_numbers_belong_to_the_notebook(tag):
    with pytest.raises(ValueError, match="tag="):
        course.Ledger(1).check(tag, A, A, planted={"sign": -A})


def test_single_precision_and_unknown_relations_are_refused():
    with pytest.raises(TypeError, match="float64"):
        course.Ledger(1).check("1.1", A.float(), A, planted={"sign": -A})
    with pytest.raises(TypeError, match="float64"):
        course.Ledger(1).check("1.1", A, A, planted={"sign": -A.float()})
    with pytest.raises(ValueError, match="relation="):
        course.Ledger(1).check("1.1", A, A, planted={"sign": -A}, relation="<")
