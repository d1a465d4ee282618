"""Closed forms of scores and of their gradients against autograd, loops and finite differences, in float64."""

import math

import pytest
import torch
from torch import nn

import mvp_lite as mvp
from mvp_lite import masks, scores

EXACT = {"rtol": 1e-12, "atol": 1e-14}


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def problem(seed=0):
    """W, x, and a loss of the masked layer's output that is far from quadratic."""
    generator = torch.Generator().manual_seed(seed)
    W = torch.randn(5, 7, generator=generator, dtype=torch.float64)
    x = torch.randn(9, 7, generator=generator, dtype=torch.float64)
    y = torch.randint(0, 5, (9,), generator=generator)
    return W, x, lambda masked: nn.functional.cross_entropy(torch.tanh(x @ masked.t()), y)


def gradient(f, at):
    at = at.clone().requires_grad_()
    return torch.autograd.grad(f(at), at)[0]


def test_gradient_of_a_continuous_mask_is_g_times_w():
    W, _, loss = problem()
    M = torch.rand_like(W)
    G = gradient(loss, W * M)
    torch.testing.assert_close(gradient(lambda m: loss(W * m), M), scores.movement_gradient(G, W), **EXACT)
    torch.testing.assert_close(gradient(lambda w: loss(w * M), W), G * M, **EXACT)


def test_gradient_of_a_continuous_mask_is_a_finite_difference():
    W, _, loss = problem()
    M, h = torch.rand_like(W), 1e-5
    G = gradient(loss, W * M)
    for i, j in [(0, 0), (2, 5), (4, 6)]:
        step = torch.zeros_like(M)
        step[i, j] = h
        slope = (loss(W * (M + step)) - loss(W * (M - step))) / (2 * h)
        assert float(scores.movement_gradient(G, W)[i, j]) == pytest.approx(float(slope), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(("select", "level"), [(masks.TopV, 0.3), (masks.Threshold, 0.5)])
def test_straight_through_gradients_of_scores_and_weights(select, level):
    W, _, loss = problem()
    S = torch.randn_like(W)
    M = select.apply(S, level)
    G = gradient(loss, W * M)
    dS = gradient(lambda s: loss(W * select.apply(s, level)), S)
    torch.testing.assert_close(dS, scores.movement_gradient(G, W), **EXACT)
    assert bool((dS[M == 0] != 0).all()), "scores of pruned weights move too"
    torch.testing.assert_close(gradient(lambda w: loss(w * M), W), G * M, **EXACT)


def test_gradient_by_the_papers_sum_over_rows_and_columns():
    """Eq. 2 entry by entry: dL/da_i W_ij x_j, summed over the batch."""
    W, x, _ = problem()
    M = masks.top_v(torch.randn_like(W), 0.4).double()
    a = (x @ (W * M).t()).requires_grad_()
    (da,) = torch.autograd.grad(a.sin().sum(), a)
    slow = torch.zeros_like(W)
    for n in range(x.shape[0]):
        for i in range(W.shape[0]):
            for j in range(W.shape[1]):
                slow[i, j] += da[n, i] * W[i, j] * x[n, j]
    torch.testing.assert_close(scores.movement_gradient(da.t() @ x, W), slow, **EXACT)


@pytest.mark.parametrize(
    ("g", "w", "rises"), [(-1.0, 2.0, True), (1.0, -2.0, True), (-1.0, -2.0, False), (1.0, 2.0, False)]
)
def test_sign_table(g, w, rises):
    """Under gradient descent a score rises exactly when the weight moves away from zero."""
    dS = float(scores.movement_gradient(torch.tensor(g), torch.tensor(w)))
    assert (-dS > 0) is rises
    assert (abs(w - 0.1 * g) > abs(w)) is rises


@pytest.mark.parametrize("method", ["movement", "soft_movement", "magnitude"])
def test_teaching_layer(method):
    W, x, _ = problem()
    linear = nn.Linear(7, 5, dtype=torch.float64)
    linear.weight.data.copy_(W)
    layer = mvp.MaskedLinear(linear, method)
    layer.scores.data.normal_(generator=torch.Generator().manual_seed(2))
    layer.level = 0.5 if method == "soft_movement" else 0.3
    M = masks.threshold_mask(layer.scores, 0.5) if method == "soft_movement" else masks.top_v(
        W.abs() if method == "magnitude" else layer.scores, 0.3
    )  # fmt: skip
    assert torch.equal(layer.mask().detach(), M.double())
    torch.testing.assert_close(layer(x), x @ (W * M).t() + linear.bias, **EXACT)
    loss_of = lambda out: out.square().mean()  # noqa: E731
    loss_of(layer(x)).backward()
    G = gradient(lambda masked: loss_of(x @ masked.t() + linear.bias.detach()), W * M)
    torch.testing.assert_close(layer.weight.grad, G * M, **EXACT)
    if method == "magnitude":
        assert layer.scores.grad is None
    else:
        torch.testing.assert_close(layer.scores.grad, G * W, **EXACT)


def test_teaching_layer_with_a_mask_from_outside():
    linear = nn.Linear(3, 2, dtype=torch.float64)
    layer = mvp.MaskedLinear(linear)
    layer.fixed_mask = torch.tensor([[True, False, True], [False, False, True]])
    x = torch.randn(4, 3, dtype=torch.float64)
    layer(x).sum().backward()
    G = torch.ones(2, 4, dtype=torch.float64) @ x
    torch.testing.assert_close(layer.scores.grad, G * linear.weight.detach(), **EXACT)
    torch.testing.assert_close(layer.weight.grad, G * layer.fixed_mask, **EXACT)


# -- one-shot scores --------------------------------------------------------------------------------------------------


def test_taylor_predicts_the_loss_change_of_removing_a_small_weight():
    W, _, loss = problem()
    W = 1e-6 * W
    G = gradient(loss, W)
    for i in range(5):
        for j in range(7):
            without = W.clone()
            without[i, j] = 0.0
            change = float(loss(without) - loss(W))
            assert float(scores.taylor(G, W)[i, j]) == pytest.approx(change, rel=1e-2, abs=1e-12)
            assert float(scores.snip(G, W)[i, j]) == pytest.approx(abs(change), rel=1e-2, abs=1e-12)


def test_first_order_scores_are_loops():
    W, _, loss = problem()
    G = gradient(loss, W)
    for i in range(5):
        for j in range(7):
            g, w = float(G[i, j]), float(W[i, j])
            assert float(scores.taylor(G, W)[i, j]) == -g * w
            assert float(scores.snip(G, W)[i, j]) == math.fabs(g) * math.fabs(w)
            assert float(scores.magnitude(W)[i, j]) == math.fabs(w)


def test_fisher_is_a_loop_over_examples():
    W, x, _ = problem()
    examples = [gradient(lambda w, row=row: torch.tanh(w @ row).square().sum(), W) for row in x]
    slow = torch.zeros_like(W)
    for i in range(5):
        for j in range(7):
            slow[i, j] = 0.5 * float(W[i, j]) ** 2 * sum(float(g[i, j]) ** 2 for g in examples) / len(examples)
    torch.testing.assert_close(scores.fisher(iter(examples), W), slow, **EXACT)
    batch = torch.stack(examples).mean(0)
    assert not torch.allclose(scores.fisher([batch], W), slow), "squares of single examples, not of their mean"


def test_fisher_is_exact_where_the_curvature_is_the_fisher():
    """Logistic loss at its own probabilities: the expected squared gradient is the second derivative."""
    w, x = torch.tensor([0.01], dtype=torch.float64), torch.tensor([1.5], dtype=torch.float64)
    p = torch.sigmoid(w * x)
    gradients = [(p - 1) * x] * round(1000 * float(p)) + [p * x] * (1000 - round(1000 * float(p)))
    expected_loss = lambda v: float(  # noqa: E731
        -(p * torch.log(torch.sigmoid(v * x)) + (1 - p) * torch.log(1 - torch.sigmoid(v * x)))
    )
    change = expected_loss(torch.zeros_like(w)) - expected_loss(w)
    assert float(scores.fisher(gradients, w)) == pytest.approx(change, rel=1e-3)


def test_fisher_of_nothing():
    with pytest.raises(ValueError, match="per_example_gradients is empty"):
        scores.fisher([], torch.ones(2, 2))


# -- where scores start ------------------------------------------------------------------------------------------------


def test_scores_from_magnitude_have_mean_0_and_the_length_asked_for():
    start = scores.magnitude_start(torch.tensor([[0.0, 0.1], [0.1, 0.2]], dtype=torch.float64), 3.0)
    torch.testing.assert_close(start, torch.tensor([[-3.0, 0.0], [0.0, 3.0]], dtype=torch.float64))


def test_scores_from_a_matrix_of_zeros_are_zeros():
    start = scores.magnitude_start(torch.zeros(2, 3), 3.0)
    assert torch.equal(start, torch.zeros(2, 3))


# -- penalties --------------------------------------------------------------------------------------------------------


def test_soft_penalty_gradient_is_autograd_and_finite_difference():
    S = [
        torch.randn(4, 5, dtype=torch.float64),
        torch.randn(3, 2, dtype=torch.float64),
        torch.randn(6, 6, dtype=torch.float64),
    ]
    R = lambda Ss: sum(torch.sigmoid(s).mean() for s in Ss) / len(Ss)  # noqa: E731
    for i, s in enumerate(S):
        closed = scores.soft_penalty_gradient(s, len(S))
        expected = gradient(lambda t, i=i: R([t if i == j else S[j] for j in range(3)]), s)
        torch.testing.assert_close(closed, expected, **EXACT)
        moved = s.clone()
        moved[1, 1] += 1e-6
        slope = (R([moved if i == j else S[j] for j in range(3)]) - R(S)) / 1e-6
        assert float(closed[1, 1]) == pytest.approx(float(slope), rel=1e-4)
    assert bool((closed > 0).all()), "descent on the penalty lowers every score"


def test_l0_penalty_gradient_is_autograd():
    S = torch.randn(4, 5, dtype=torch.float64)
    expected = gradient(lambda s: masks.expected_l0(s).mean() / 3, S)
    torch.testing.assert_close(scores.l0_penalty_gradient(S, 3), expected, **EXACT)


def test_gradient_of_the_whole_gated_layer():
    """dL/dS = G * W * f(S) for one sample of the gate, and dL/dW = G * M."""
    W, _, loss = problem()
    S = torch.randn_like(W)
    u = torch.rand(W.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    M = masks.hard_concrete(S, u)
    G = gradient(loss, W * M)
    closed = scores.movement_gradient(G, W) * masks.hard_concrete_gradient(M)
    torch.testing.assert_close(
        gradient(lambda s: loss(W * masks.hard_concrete(s, u)), S), closed, rtol=1e-10, atol=1e-14
    )
    torch.testing.assert_close(gradient(lambda w: loss(w * M), W), G * M, **EXACT)


@pytest.mark.parametrize("method", ["magnitude", "movement", "soft_movement"])
def test_a_new_teaching_layer_keeps_every_weight(method):
    assert bool((mvp.MaskedLinear(nn.Linear(3, 2), method).mask() == 1).all())


def test_a_fixed_mask_takes_the_dtype_of_the_weight():
    layer = mvp.MaskedLinear(nn.Linear(3, 2))
    layer.fixed_mask = torch.eye(2, 3, dtype=torch.float64)
    assert layer.mask().dtype == torch.float32


def test_the_teaching_layer_names_a_method_that_it_does_not_have():
    with pytest.raises(ValueError, match="method='l0': must be 'magnitude', 'movement' or 'soft_movement'"):
        mvp.MaskedLinear(torch.nn.Linear(2, 2), "l0")
