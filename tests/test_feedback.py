"""The rule by which soft movement and L0 reach a wanted density."""

from itertools import pairwise

import pytest
import torch

from mvp_lite.feedback import DensityFeedback, land


@pytest.mark.parametrize("cut", [-2.2, 0.0, 1.5])
@pytest.mark.parametrize("density", [0.01, 0.3, 0.77])
def test_landing_keeps_the_wanted_number_and_the_order(density, cut):
    torch.manual_seed(0)
    scores = [torch.randn(20, 30, dtype=torch.float64), torch.randn(40, 10, dtype=torch.float64) - 1]
    before = torch.cat([S.flatten() for S in scores])
    land(scores, density, cut)
    after = torch.cat([S.flatten() for S in scores])
    assert int((after > cut).sum()) == int(density * 1000 + 0.5)
    torch.testing.assert_close(after - before, (after - before)[:1].expand(1000))


def test_landing_at_full_density_moves_nothing():
    scores = [torch.randn(5, 5)]
    before = scores[0].clone()
    land(scores, 1.0, 0.0)
    assert torch.equal(scores[0], before)


def test_too_dense_means_a_larger_penalty_in_proportion_to_the_gradients():
    def penalty(density, gradient):
        rule = DensityFeedback()
        rule.observe(gradient)
        return rule.penalty(density, 0.1, 1000)

    assert penalty(0.2, 1e-5) > penalty(0.1, 1e-5) > penalty(0.05, 1e-5) > 0
    assert penalty(0.2, 1e-3) == pytest.approx(100 * penalty(0.2, 1e-5))
    assert DensityFeedback().penalty(0.2, 0.1, 1000) == 0.0, "no gradient seen yet: nothing to weigh against"


def test_an_error_that_stays_keeps_raising_the_penalty():
    rule = DensityFeedback()
    rule.observe(1e-5)
    values = [rule.penalty(0.12, 0.1, 1000) for _ in range(20)]
    assert all(b > a for a, b in pairwise(values))
