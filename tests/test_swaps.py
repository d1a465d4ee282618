"""Random swaps are steps of movement pruning: compared with the package's layer and PyTorch's optimizer."""

import pytest
import torch
from torch.nn import functional as F

import mvp_lite as mvp
from mvp_lite.course import swaps

FLAT = {"linear": lambda a, y: (a * y).sum(-1).mean(), "squared": lambda a, y: 0.5 * (a - y).square().sum(-1).mean(),
        "cross-entropy": lambda a, y: F.cross_entropy(a, y.argmax(-1))}  # fmt: skip


def layer_of(W, S, density):
    layer = mvp.MaskedLinear(torch.nn.Linear(*W.T.shape, bias=False, dtype=W.dtype))
    layer.weight.data, layer.scores.data, layer.level = W.clone(), S.clone(), density
    return layer


@pytest.mark.parametrize("loss", swaps.LOSSES)
@pytest.mark.parametrize("batch", [1, 3])
def test_an_event_is_a_step_of_the_packages_layer(loss, batch):
    changes = swaps.sample(loss, batch=batch, events=30, seed=1)
    first, true = [], []
    for W, S, x, y in zip(*swaps.draw(batch=batch, events=30, seed=1), strict=True):
        layer = layer_of(W, S, 5 / 36)
        optimizer = torch.optim.SGD([{"params": layer.weight, "lr": 0.01}, {"params": layer.scores, "lr": 0.3}])
        used, mask = (layer.weight * layer.mask()).detach().requires_grad_(), layer.mask().detach()
        (G,) = torch.autograd.grad(FLAT[loss](x.T @ used.T, y.T), used)
        before = FLAT[loss](layer(x.T), y.T)
        before.backward()
        optimizer.step()
        if not torch.equal(layer.mask(), mask):
            true.append((FLAT[loss](layer(x.T), y.T) - before).item())
            first.append((G * (layer.weight * layer.mask() - used)).sum().item())
    assert 2 < len(true) < 30
    torch.testing.assert_close(changes.true, torch.tensor(true, dtype=torch.float64))
    torch.testing.assert_close(changes.first, torch.tensor(first, dtype=torch.float64))
    assert changes.share == sum(change <= 0 for change in true) / len(true)


def test_the_penalty_the_optimizer_and_the_other_example():
    W, S, x, y = swaps.draw(events=50, seed=2)
    G = y @ x.mT  # linear loss

    def measured(S_before, S_next, x=x, y=y):
        M, M_next = swaps.top(S_before, 5), swaps.top(S_next, 5)
        change = (y * ((W * M_next - W * M) @ x)).sum((1, 2))
        return change[(M != M_next).flatten(1).any(1)]

    plain = S - 0.3 * G * W
    found = swaps.sample("linear", lr_W=0.0, penalty=0.5, events=50, seed=2)
    torch.testing.assert_close(found.true, measured(S, plain - 0.15 * S.sigmoid() * (1 - S.sigmoid())))
    other = swaps.sample("linear", lr_W=0.0, other_example=True, events=50, seed=2)
    assert len(other.true) == len(measured(S, plain)) and not torch.allclose(other.true, measured(S, plain))
    torch.testing.assert_close(other.first, measured(S, plain))

    seen = []

    class Watched(torch.optim.SGD):
        def step(self, closure=None):
            (scores,) = self.param_groups[0]["params"]
            seen.append((scores.detach().clone(), scores.grad.clone()))
            return super().step(closure)

    found = swaps.sample("linear", lr_W=0.0, optimizer=lambda S: Watched(S, lr=0.3, momentum=0.9), events=50, seed=2)
    (before, last), scores = seen[-1], S
    assert len(seen) == 5 and torch.equal(seen[0][0], S)
    torch.testing.assert_close(last, G * W)
    velocity = torch.zeros_like(S)
    for at, gradient in seen:
        torch.testing.assert_close(at, scores)
        velocity = 0.9 * velocity + gradient
        scores = scores - 0.3 * velocity
    torch.testing.assert_close(found.true, measured(before, scores))


def test_another_selection_after_the_step():
    found = swaps.sample("linear", events=20, select_next=lambda S: swaps.top(S, 3))
    assert len(found.true) == 20, "two weights leave in every event"
    assert swaps.top(swaps.draw()[1], 3).sum((1, 2)).eq(3).all()
    with pytest.raises(ValueError, match="loss='hinge': must be one of linear, squared, cross-entropy"):
        swaps.sample("hinge")


def test_events_repeat_with_their_seed():
    one, same, other = (swaps.draw(0.1, 2, 5, seed)[0] for seed in (3, 3, 4))
    assert torch.equal(one, same) and not torch.equal(one, other) and one.shape == (5, 6, 6)


def test_a_step_names_what_it_swaps():
    W = torch.tensor([[0.4, 0.5, -0.2], [-0.3, 0.4, 0.5]], dtype=torch.float64)
    S = torch.tensor([[0.1, 0.5, -0.3], [0.2, -0.2, 0.3]], dtype=torch.float64)
    x, y = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64), torch.tensor([1.0, 3.0], dtype=torch.float64)
    swap = swaps.step(W, S, x, y, 0.1)
    assert (swap.leaves, swap.enters) == ((0, 1), (1, 2))
    assert swap.first == pytest.approx(-6.5) and swap.true == pytest.approx(-4.875)
    still = swaps.step(W, S, x, y, 0.001)
    assert still.leaves == still.enters == (0, 1)
    assert still.first == pytest.approx(-0.001 * 16), "training alone"
