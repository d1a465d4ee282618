"""The rule by which soft movement and L0 reach a density."""

import math
from itertools import pairwise

import pytest
import torch

from mvp_lite.masks import hard_concrete_test_mask, shift_to_density, squeeze_to_density
from mvp_lite.penalty_control import PenaltyController


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.8])
@pytest.mark.parametrize("density", [0.01, 0.3, 0.77])
def test_a_shift_keeps_the_expected_number_and_the_order(density, threshold):
    torch.manual_seed(0)
    scores = [torch.randn(20, 30, dtype=torch.float64), torch.randn(40, 10, dtype=torch.float64) - 1]
    before = torch.cat([S.flatten() for S in scores])
    assert shift_to_density(scores, density, threshold) == int(density * 1000 + 0.5)
    after = torch.cat([S.flatten() for S in scores])
    assert int((after.sigmoid() > threshold).sum()) == int(density * 1000 + 0.5)
    torch.testing.assert_close(after - before, (after - before)[:1].expand(1000))


def test_a_shift_at_full_density_moves_nothing():
    scores = [torch.randn(5, 5)]
    before = scores[0].clone()
    assert shift_to_density(scores, 1.0, 0.5) == 25
    assert torch.equal(scores[0], before)


@pytest.mark.parametrize("move", [shift_to_density, squeeze_to_density])
def test_a_density_that_rounds_to_all_scores_prunes_none(move):
    scores = [torch.linspace(-3, 3, 1200, dtype=torch.float64)]
    assert move(scores, 0.9999, 0.1) == 1200
    assert int((scores[0].sigmoid() > 0.1).sum()) == 1200
    assert bool((scores[0].diff() > 0).all())


@pytest.mark.parametrize(("values", "kept"), [([3.0, 1.0, 1.0, 1.0, 0.9, -2.0], 4), ([0.5] * 6, 6)])
def test_equal_scores_stay_together_and_none_is_lost(values, kept):
    """Two of six are asked for; the entries around the boundary cannot be told apart."""
    scores = [torch.tensor(values[:2]), torch.tensor(values[2:])]
    assert shift_to_density(scores, 1 / 3, 0.2) == kept
    assert int((torch.cat(scores).sigmoid() > 0.2).sum()) == kept


def test_a_few_equal_scores_do_not_matter():
    scores = [torch.linspace(-1, 1, 1000, dtype=torch.float64)]
    scores[0][500] = scores[0][499]
    assert shift_to_density(scores, 0.5, 0.2) == 500
    assert abs(int((scores[0].sigmoid() > 0.2).sum()) - 500) <= 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("threshold", [1 / 12, 0.5, 0.8])
@pytest.mark.parametrize("density", [0.01, 0.3, 0.77])
def test_squeezing_moves_only_what_is_on_the_wrong_side(density, threshold, dtype):
    """And what lies within one logit of the threshold there; count exact, order kept."""
    torch.manual_seed(0)
    scores = [3 * torch.randn(20, 30, dtype=dtype), 3 * torch.randn(40, 10, dtype=dtype) - 1]
    before = torch.cat([S.flatten() for S in scores])
    level, count = math.log(threshold / (1 - threshold)), int(density * 1000 + 0.5)
    too_dense = int((before > level).sum()) > count
    assert squeeze_to_density(scores, density, threshold) == count
    after = torch.cat([S.flatten() for S in scores])
    assert int((after.sigmoid() > threshold).sum()) == count
    assert bool((after[before.argsort()].diff() >= 0).all())
    right = (after > level) | (before < level - 1) if too_dense else (after < level) | (before > level + 1)
    assert torch.equal(before[right], after[right]) and 0 < int((~right).sum())
    assert float((after[~right] - level).abs().max()) <= 1 + 1e-5
    again = [after.clone()]
    assert squeeze_to_density(again, density, threshold) == count
    torch.testing.assert_close(again[0], after, rtol=0, atol=2e-3)


@pytest.mark.parametrize("values", [[2.0, 1.0, 5e-4, -1.0], [2.0, -5e-4, -1.0, -2.0]])
def test_squeezing_moves_what_is_hardly_on_the_wrong_side(values):
    scores = [torch.tensor(values, dtype=torch.float64)]
    assert squeeze_to_density(scores, 0.5, 0.5) == 2
    assert int((scores[0].sigmoid() > 0.5).sum()) == 2


def test_squeezing_leaves_open_gates_open():
    """A shift would close them in part: each gate is a factor of its weight."""
    scores = [torch.linspace(0.0, 6.0, 1000)]
    shifted = [scores[0].clone()]
    best = scores[0] >= 4.5
    before = hard_concrete_test_mask(scores[0])[best]
    squeeze_to_density(scores, 0.25, 1 / 12)
    shift_to_density(shifted, 0.25, 1 / 12)
    masks = hard_concrete_test_mask(scores[0])
    assert torch.equal(masks.ne(0), best) and torch.equal(masks[best], before)
    assert float(hard_concrete_test_mask(shifted[0]).max()) < 0.3


@pytest.mark.parametrize(("values", "kept"), [([3.0, 1.0, 1.0, 1.0, 0.9, -2.0], 4), ([0.5] * 6, 6), ([-5.0] * 6, 6)])
def test_squeezing_loses_no_equal_scores(values, kept):
    scores = [torch.tensor(values[:2]), torch.tensor(values[2:])]
    assert squeeze_to_density(scores, 1 / 3, 0.2) == kept
    assert int((torch.cat(scores).sigmoid() > 0.2).sum()) == kept


def test_squeezing_at_full_density_moves_nothing():
    scores = [torch.full((5, 5), -7.0)]
    assert squeeze_to_density(scores, 1.0, 0.5) == 25
    assert bool((scores[0] == -7.0).all())


def controlled(gradient=1e-5):
    rule = PenaltyController()
    rule.observe(gradient)
    return rule


def test_too_dense_means_a_larger_penalty_in_proportion_to_the_gradients():
    def penalty(density, gradient):
        return controlled(gradient).penalty(density, 0.1, 1000)

    assert penalty(0.2, 1e-5) > penalty(0.1, 1e-5) > penalty(0.05, 1e-5) > 0
    assert penalty(0.2, 1e-3) == pytest.approx(100 * penalty(0.2, 1e-5))
    assert PenaltyController().penalty(0.2, 0.1, 1000) == 0.0, "no gradient seen yet: nothing to compare with"


def test_an_error_that_stays_keeps_raising_the_penalty():
    rule = controlled()
    values = [rule.penalty(0.12, 0.1, 1000) for _ in range(20)]
    assert all(b > a for a, b in pairwise(values))


def test_the_constants_of_the_controller():
    """Lambda is (mean gradient) x (number of scores) x exp(I + 8 e), and I grows from log 0.1 by 0.05 e a step."""
    for density in (0.05, 0.09, 0.1, 0.13, 0.3):
        rule, integral = controlled(2e-5), math.log(0.1)
        for _ in range(3):
            error = math.log(density / 0.1)
            integral += 0.05 * error
            expected = 2e-5 * 1000 * math.exp(integral + 8 * error)
            assert rule.penalty(density, 0.1, 1000) == pytest.approx(expected, rel=1e-12)


def test_the_limits_of_the_controller():
    for density, error in ((1.0, 2.0), (0.0, -2.0)):
        integral = math.log(0.1) + 0.05 * error
        expected = 1e-5 * 1000 * math.exp(min(max(integral + 8 * error, -12.0), 8.0))
        assert controlled().penalty(density, 0.001 if density else 0.9, 1000) == pytest.approx(expected, rel=1e-12)
    rule = controlled()
    for _ in range(1000):
        rule.penalty(1.0, 0.001, 1000)
    assert rule.integral == 8.0
    for _ in range(1000):
        rule.penalty(1e-4, 1.0, 1000)
    assert rule.integral == -10.0


def test_a_single_step_counts_no_more_than_an_error_of_2():
    for density, target, error in ((1.0, 0.01, 2.0), (1e-4, 1.0, -2.0)):
        rule = controlled()
        rule.penalty(density, target, 1000)
        assert rule.integral == pytest.approx(math.log(0.1) + 0.05 * error, rel=1e-12)


def test_the_running_mean_of_the_gradients():
    rule = PenaltyController()
    seen = [3.0, 1.0, 2.0, 8.0]
    for value in seen:
        rule.observe(value)
    mean = seen[0]
    for value in seen[1:]:
        mean = 0.9 * mean + 0.1 * value
    assert rule.mean_gradient == pytest.approx(mean, rel=1e-15)
