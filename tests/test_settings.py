"""What a run asks of its method: which values pass, what becomes of them, which are refused and under which name."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from mvp_lite.schedule import Schedule
from mvp_lite.settings import Settings, check_density, check_integer, check_positive, plain


def settings(**given):
    return Settings(Schedule(10, 0, 0), **{"density": 0.5, **given})


# -- single values ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [3, np.int64(3), torch.tensor(3)])
def test_numbers_of_numpy_and_torch_become_pythons_own(number):
    assert plain(number) == 3 and type(plain(number)) is int
    assert check_integer("steps", number) == 3 and type(check_integer("steps", number)) is int
    assert type(check_positive("rate", number)) is float


def test_what_is_no_number_stays_as_it_is():
    ones = torch.ones(1)
    assert plain(ones) is ones and plain("3") == "3" and plain(None) is None


@pytest.mark.parametrize("value", [2.0, True, "3", None, np.float64(2.0), torch.ones(1)])
def test_an_integer_is_named_where_it_is_none(value):
    with pytest.raises(TypeError, match=r"^steps=.*: must be an integer$"):
        check_integer("steps", value)


@pytest.mark.parametrize("value", [0, 0.0, -1.0, math.nan, True, "3", None])
def test_a_positive_number_is_named_where_it_is_none(value):
    with pytest.raises(ValueError, match=r"^lr=.*: must be a positive learning rate$"):
        check_positive("lr", value, "learning rate")
    with pytest.raises(ValueError, match=r"^lr=.*: must be a positive number$"):
        check_positive("lr", value)


def test_a_small_number_is_positive():
    assert check_positive("lr", 1e-9) == 1e-9


# -- densities --------------------------------------------------------------------------------------------------------


def test_one_density_or_one_for_each_pattern():
    assert check_density(0.3) == 0.3 and check_density(np.float32(0.5)) == 0.5
    assert type(check_density(Fraction(1, 2))) is float and type(check_density(1)) is int
    found = check_density({"query": np.float64(0.1), ".*": 1})
    assert found == {"query": 0.1, ".*": 1.0} and {type(value) for value in found.values()} == {float}


@pytest.mark.parametrize("density", ["0.1", None, True, [0.1], {1: 0.5}, {"a": "0.1"}, {"a": True}])
def test_a_density_of_another_type(density):
    with pytest.raises(TypeError, match=r"^density="):
        check_density(density)


@pytest.mark.parametrize("density", [{}, {"a": 0.0}, {"a": 0.5, "b": 1.1}, {"a": -0.1}])
def test_a_pattern_without_a_fraction(density):
    with pytest.raises(ValueError, match=r"^density="):
        check_density(density)


# -- together ---------------------------------------------------------------------------------------------------------


def test_numbers_are_kept_as_floats_that_a_checkpoint_can_hold():
    found = settings(
        density=np.float32(0.5), initial_density=1, scope="global", min_density=0, threshold=torch.tensor(0.25),
        penalty=2, magnitude_init=1, seed=np.int64(7), score_lr=np.float64(0.1), score_init=np.float64(-1.0),
    )  # fmt: skip
    floats = ("density", "initial_density", "min_density", "threshold", "penalty", "magnitude_init")
    assert [getattr(found, name) for name in floats] == [0.5, 1.0, 0.0, 0.25, 2.0, 1.0]
    assert {type(getattr(found, name)) for name in (*floats, "score_lr", "score_init")} == {float}
    assert found.seed == 7 and type(found.seed) is int


def test_defaults():
    found = settings()
    assert (found.initial_density, found.scope, found.min_density, found.threshold) == (1.0, "local", 0.0, 0.1)
    assert found.penalty == "feedback" and found.magnitude_init is found.score_lr is found.score_init is None


@pytest.mark.parametrize(
    "given",
    [
        {"density": 1.0},
        {"density": 0.4, "initial_density": 0.4},
        {"penalty": 0.0},
        {"magnitude_init": 0.0},
        {"score_init": -2.0},
        {"score_lr": 1e-9},
        {"scope": "global", "min_density": 0.5},
        {"threshold": 0.999},
        {"threshold": 0.001},
    ],
)
def test_the_ends_of_each_range_are_allowed(given):
    for name, value in given.items():
        assert getattr(settings(**given), name) == value


def test_a_learning_rate_is_called_one():
    with pytest.raises(ValueError, match=r"^score_lr=0\.0: must be a positive learning rate$"):
        settings(score_lr=0.0)


@pytest.mark.parametrize("name", ["density", "initial_density", "min_density", "threshold", "seed"])
@pytest.mark.parametrize("value", ["0.1", None, True])
def test_numbers_of_another_type(name, value):
    with pytest.raises(TypeError, match=f"^{name}=.*: must be an? (number|integer)$"):
        settings(**{name: value})


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"scope": "layer"}, "scope"),
        ({"density": 0.0}, "density"),
        ({"density": -0.1}, "density"),
        ({"density": 1.1}, "density"),
        ({"density": math.nan}, "density"),
        ({"initial_density": 0.4}, "initial_density"),
        ({"initial_density": 1.1}, "initial_density"),
        ({"penalty": -1.0}, "penalty"),
        ({"penalty": math.inf}, "penalty"),
        ({"penalty": math.nan}, "penalty"),
        ({"penalty": "none"}, "penalty"),
        ({"penalty": True}, "penalty"),
        ({"penalty": None}, "penalty"),
        ({"score_lr": 0.0}, "score_lr"),
        ({"score_lr": "fast"}, "score_lr"),
        ({"score_init": math.inf}, "score_init"),
        ({"score_init": math.nan}, "score_init"),
        ({"score_init": "zero"}, "score_init"),
        ({"magnitude_init": -0.1}, "magnitude_init"),
        ({"magnitude_init": math.inf}, "magnitude_init"),
        ({"magnitude_init": "one"}, "magnitude_init"),
        ({"magnitude_init": True}, "magnitude_init"),
        ({"threshold": 0.0}, "threshold"),
        ({"threshold": 1.0}, "threshold"),
        ({"min_density": 0.1}, "min_density"),
        ({"min_density": 0.6, "scope": "global"}, "min_density"),
        ({"min_density": -0.1, "scope": "global"}, "min_density"),
    ],
)
def test_values_outside_their_range(given, name):
    with pytest.raises(ValueError, match=f"^{name}="):
        settings(**given)
