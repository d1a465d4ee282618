"""The optimizer-hook engine against the straight-through masked layer: the same run, bit for bit."""

import copy

import pytest
import torch
from nets import layers, used
from torch import nn

import mvp_lite as mvp
from mvp_lite import masks
from mvp_lite.schedule import cubic
from mvp_lite.scores import soft_penalty_gradient

STEPS, WARMUP, COOLDOWN, DENSITY, TAU = 60, 6, 12, 0.2, 0.1
OPTIMIZERS = {
    "sgd": lambda groups: torch.optim.SGD(groups, lr=0.05, momentum=0.9),
    "adamw": lambda groups: torch.optim.AdamW(groups, lr=3e-3, weight_decay=0.01),
}
SCORE_LR = {"sgd": 2.0, "adamw": 0.3}


class Net(nn.Module):
    """Two masked blocks between a dense first map and a dense head."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(6, 12)
        self.blocks = nn.ModuleList([nn.Linear(12, 16), nn.Linear(16, 12)])
        self.head = nn.Linear(12, 3)

    def forward(self, x):
        x = torch.tanh(self.stem(x))
        for block in self.blocks:
            x = torch.tanh(block(x))
        return self.head(x)


def batches(count, seed, dtype):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        x = torch.randn(32, 6, generator=generator, dtype=dtype)
        yield x, (x[:, 0] * x[:, 1] > 0).long() + (x[:, 2] > 0.5).long()


def reference_run(net, method, scope, make, score_lr, accumulate, penalty, dtype):
    """The paper's formulation: masks in the forward pass, autograd for both gradients, penalty in the loss."""
    net.blocks = nn.ModuleList(mvp.MaskedLinear(block, method) for block in net.blocks)
    layers = list(net.blocks)
    scores = [layer.scores for layer in layers if layer.scores.requires_grad]
    weights = [p for name, p in net.named_parameters() if not name.endswith("scores")]
    groups = [{"params": weights}] + ([{"params": scores, "lr": score_lr, "weight_decay": 0.0}] if scores else [])
    optimizer = make(groups)
    losses, seen = [], []
    data = batches(STEPS * accumulate, 1, dtype)
    for step in range(STEPS):
        density = cubic(step, 1.0, DENSITY, STEPS, WARMUP, COOLDOWN)
        tau = cubic(step, 0.0, TAU, STEPS, WARMUP, COOLDOWN)
        for layer in layers:
            layer.level = tau if method == "soft_movement" else density
        if scope == "global" and method != "soft_movement":
            S = [layer.weight.detach().abs() if method == "magnitude" else layer.scores.detach() for layer in layers]
            for layer, mask in zip(layers, masks.top_v_global(S, density), strict=True):
                layer.fixed_mask = mask
        optimizer.zero_grad()
        total = 0.0
        for _ in range(accumulate):
            x, y = next(data)
            loss = nn.functional.cross_entropy(net(x), y) / accumulate
            loss.backward()
            total += loss.item()
        if penalty:
            regularizer = sum(torch.sigmoid(layer.scores).mean() for layer in layers) / len(layers)
            (penalty * tau / TAU * regularizer).backward()
        losses.append(total)
        seen.append([layer.mask().detach() != 0 for layer in layers])
        optimizer.step()
    return losses, seen, [s.detach() for s in scores]


def engine_run(net, method, scope, make, score_lr, accumulate, penalty, dtype):
    optimizer = make([{"params": list(net.parameters())}])
    pruner = mvp.Pruner(
        net, method, density=DENSITY, total_steps=STEPS, warmup_steps=WARMUP, cooldown_steps=COOLDOWN, scope=scope,
        **used(method, score_lr=score_lr, penalty=penalty, threshold=TAU, magnitude_init=0.0),
    ).attach(optimizer)  # fmt: skip
    losses, seen = [], []
    data = batches(STEPS * accumulate, 1, dtype)
    for _ in range(STEPS):
        optimizer.zero_grad()
        seen.append([layer.mask.clone() for layer in layers(pruner)])
        total = 0.0
        for _ in range(accumulate):
            x, y = next(data)
            loss = nn.functional.cross_entropy(net(x), y) / accumulate
            loss.backward()
            total += loss.item()
        losses.append(total)
        optimizer.step()
    return losses, seen, [layer.scores.detach() for layer in layers(pruner) if layer.scores is not None], pruner


def both(method, scope, optimizer, accumulate=1, penalty=0.0, dtype=torch.float32):
    torch.manual_seed(0)
    net = Net().to(dtype)
    args = (method, scope, OPTIMIZERS[optimizer], SCORE_LR[optimizer], accumulate, penalty, dtype)
    return reference_run(copy.deepcopy(net), *args), engine_run(net, *args)


CASES = [("movement", "local"), ("movement", "global"), ("magnitude", "local"), ("magnitude", "global")]
CASES += [("soft_movement", "global")]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(("method", "scope"), CASES)
def test_bit_equal_without_accumulation(method, scope, optimizer):
    (losses, seen, scores), (losses2, seen2, scores2, pruner) = both(method, scope, optimizer)
    assert losses == losses2
    assert all(torch.equal(a, b) for one, two in zip(seen, seen2, strict=True) for a, b in zip(one, two, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(scores, scores2, strict=True))
    if method != "soft_movement":
        assert not torch.equal(seen2[-1][0], seen2[STEPS // 2][0]), "the run must really prune"
        assert pruner.density == pytest.approx(DENSITY, abs=3e-3)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(
    ("method", "scope", "accumulate", "penalty"),
    [
        ("movement", "local", 3, 0.0),
        ("movement", "global", 3, 0.0),
        ("magnitude", "local", 3, 0.0),
        ("soft_movement", "global", 1, 5.0),
        ("soft_movement", "global", 3, 5.0),
    ],
)
def test_equal_with_accumulation_or_penalty(method, scope, accumulate, penalty, optimizer):
    (losses, seen, scores), (losses2, seen2, scores2, pruner) = both(
        method, scope, optimizer, accumulate, penalty, torch.float64
    )
    assert losses == pytest.approx(losses2, rel=1e-11)
    assert all(torch.equal(a, b) for one, two in zip(seen, seen2, strict=True) for a, b in zip(one, two, strict=True))
    for a, b in zip(scores, scores2, strict=True):
        assert ((a - b).abs() <= 1e-12 * b.abs().max()).all()
    assert pruner.density < 1.0


def test_penalty_gradient_is_the_papers_mean_of_means():
    S = [
        torch.randn(4, 5, dtype=torch.float64, requires_grad=True),
        torch.randn(7, 3, dtype=torch.float64, requires_grad=True),
    ]
    (sum(torch.sigmoid(s).mean() for s in S) / 2).backward()
    for s in S:
        torch.testing.assert_close(s.grad, soft_penalty_gradient(s.detach(), 2), rtol=1e-13, atol=0)
