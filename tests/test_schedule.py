"""The cubic schedule: corners, shape, and the printed formula that it is not."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvp_lite.schedule import SHAPES, Schedule, check_schedule, cubic

runs = st.tuples(st.integers(0, 50), st.integers(0, 50), st.integers(1, 200)).map(lambda r: (sum(r), r[0], r[1]))


def printed(t: int, initial: float, final: float, total: int, warmup: int, cooldown: int) -> float:
    """Eq. 5 with the numerator as printed."""
    return final + (initial - final) * (1 - (t - warmup - cooldown) / (total - warmup - cooldown)) ** 3


def test_corners():
    v = [cubic(t, 1.0, 0.1, 100, 10, 20) for t in range(101)]
    assert v[:11] == [1.0] * 11 and v[80:] == [0.1] * 21
    assert v[11] == pytest.approx(0.1 + 0.9 * (69 / 70) ** 3) and v[79] == pytest.approx(0.1 + 0.9 / 70**3)
    assert v[45] == pytest.approx(0.1 + 0.9 / 8)


def test_the_printed_formula_jumps():
    assert printed(10, 1.0, 0.1, 100, 10, 20) == pytest.approx(2.01, abs=5e-3)
    assert printed(79, 1.0, 0.1, 100, 10, 20) == pytest.approx(0.124, abs=5e-4)
    assert cubic(10, 1.0, 0.1, 100, 10, 20) == 1.0 and cubic(79, 1.0, 0.1, 100, 10, 20) == pytest.approx(0.1, abs=1e-4)


@given(runs, st.floats(0.01, 1.0), st.floats(0.0, 1.0))
def test_starts_and_ends_where_it_should_and_never_turns_back(run, initial, final):
    total, warmup, cooldown = run
    v = [cubic(t, initial, final, *run) for t in range(total + 1)]
    assert v[0] == v[warmup] == initial and v[total - cooldown] == v[total] == final
    steps = [b - a for a, b in pairwise(v)]
    direction = 1 if final >= initial else -1
    assert all(s * direction >= -1e-15 for s in steps)
    # A cubic's steepest slope is 3 / length: no jump anywhere.
    assert max(map(abs, steps)) <= 3 * abs(final - initial) / (total - warmup - cooldown) + 1e-12


def test_the_ends_are_exact_whatever_the_rounding():
    assert 0.7 + (0.1 - 0.7) != 0.1
    assert [cubic(t, 0.1, 0.7, 100, 10, 20) for t in (10, 80)] == [0.1, 0.7]
    nearly = Schedule(100, 10, 20, lambda progress: 1.0 - progress + 1e-7)
    assert [nearly.value(t, 1.0, 0.5) for t in (10, 80)] == [1.0, 0.5]


def test_done_from_the_step_that_has_the_final_value():
    schedule = Schedule(100, 10, 20)
    assert [schedule.done(t) for t in (0, 79, 80, 100)] == [False, False, True, True]


def test_a_step_beyond_the_end_stays():
    assert cubic(1000, 1.0, 0.1, 100, 10, 20) == 0.1


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((0, 0, 0), "total_steps=0: .*at least 1"),
        ((-5, 0, 0), "total_steps=-5"),
        ((10.0, 0, 0), r"total_steps=10\.0: must be an integer"),
        ((True, 0, 0), "total_steps=True"),
        (("10", 0, 0), "total_steps='10'"),
        ((10, -1, 0), "warmup_steps=-1: .*at least 0"),
        ((10, 0, -1), "cooldown_steps=-1: .*at least 0"),
        ((10, 0.1, 0), r"warmup_steps=0\.1: must be an integer"),
        ((10, 4, 6), r"warmup_steps=4 \+ cooldown_steps=6 must be less than total_steps=10"),
        ((10, 10, 0), r"warmup_steps=10 \+ cooldown_steps=0 must be less"),
        ((10, 0, 11), r"warmup_steps=0 \+ cooldown_steps=11 must be less"),
    ],
)
def test_impossible_runs(arguments, match):
    with pytest.raises(ValueError, match=match):
        check_schedule(*arguments)


@pytest.mark.parametrize("arguments", [(1, 0, 0), (10, 4, 5), (10, 9, 0), (10, 0, 9)])
def test_possible_runs(arguments):
    check_schedule(*arguments)


# Other shapes


@pytest.mark.parametrize("name", SHAPES)
def test_named_shapes_fall_from_1_to_0(name):
    values = [SHAPES[name](i / 100) for i in range(101)]
    assert values[0] == 1.0 and values[-1] == 0.0 and all(a > b for a, b in pairwise(values))


def test_cosine_starts_and_ends_flat_and_linear_is_even():
    cosine, linear = (Schedule(120, 10, 10, shape) for shape in ("cosine", "linear"))
    assert cosine.value(60, 1.0, 0.1) == pytest.approx(0.55) == linear.value(60, 1.0, 0.1)
    assert linear.value(35, 1.0, 0.1) == pytest.approx(0.775) and cosine.value(35, 1.0, 0.1) > 0.86
    assert cosine.value(11, 1.0, 0.0) > 0.9997 and cubic(11, 1.0, 0.0, 120, 10, 10) < 0.971


@given(runs, st.floats(0.01, 1.0), st.floats(0.0, 1.0))
def test_the_cubic_shape_is_the_cubic_schedule(run, initial, final):
    for t in range(run[0] + 1):
        assert Schedule(*run).value(t, initial, final) == cubic(t, initial, final, *run)


def test_a_function_of_progress():
    def square(progress):
        return (1.0 - progress) ** 2

    schedule = Schedule(100, 10, 20, square)
    assert [schedule.value(t, 1.0, 0.2) for t in (10, 80, 99)] == [1.0, 0.2, 0.2]
    assert schedule.value(45, 1.0, 0.2) == pytest.approx(0.2 + 0.8 / 4)
    assert schedule.fingerprint == Schedule(100, 10, 20, lambda p: 1 - 2 * p + p * p).fingerprint[:1] + [
        pytest.approx(value) for value in schedule.fingerprint[1:]
    ]
    assert schedule.fingerprint != Schedule(100, 10, 20, lambda p: (1 - p) ** 3).fingerprint


@pytest.mark.parametrize(
    ("shape", "error", "match"),
    [
        ("quartic", ValueError, "schedule='quartic': must be one of cubic, cosine, linear, or a function"),
        (0.5, TypeError, r"schedule=0\.5: a name \(cubic, cosine, linear\) or a function of progress"),
        (lambda p: p, ValueError, r"returned 0\.0 at progress 0; it must go from 1 at progress 0 to 0 at progress 1"),
        (lambda p: 1.0, ValueError, r"returned 1\.0 at progress 1"),
        (lambda p: 1 - p if p in (0, 1) else 2.0, ValueError, r"returned 2\.0 at progress 0\.05"),
        (lambda p: 1 - p if p in (0, 1) else -0.5, ValueError, r"returned -0\.5 at progress 0\.05"),
        (lambda p: float("nan"), ValueError, "returned nan at progress 0"),
    ],
)
def test_a_wrong_shape(shape, error, match):
    with pytest.raises(error, match=match):
        Schedule(100, 10, 20, shape)
