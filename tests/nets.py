"""A net with two prunable maps between a dense stem and a dense head, its data, and the plainest training loop."""

import torch
from torch import nn

import mvp_lite as mvp

METHODS = ("magnitude", "movement", "soft_movement", "l0", "random")
TOP_V = ("magnitude", "movement", "random")
OPTIMIZERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=3e-3, weight_decay=0.01),
}


class Net(nn.Module):
    def __init__(self, seed=0, dtype=torch.float32, device="cpu"):
        super().__init__()
        torch.manual_seed(seed)
        self.stem = nn.Linear(6, 12)
        self.blocks = nn.ModuleList([nn.Linear(12, 16), nn.Linear(16, 12)])
        self.head = nn.Linear(12, 3)
        self.to(dtype=dtype, device=device)

    def forward(self, x):
        x = torch.tanh(self.stem(x))
        for block in self.blocks:
            x = torch.tanh(block(x))
        return self.head(x)


def batch(i, dtype=torch.float32, device="cpu"):
    """The i-th batch, always the same."""
    x = torch.randn(16, 6, generator=torch.Generator().manual_seed(1000 + i), dtype=torch.float64).to(dtype)
    return x.to(device), ((x[:, 0] * x[:, 1] > 0).long() + (x[:, 2] > 0.5).long()).to(device)


def loss_of(net, i):
    weight = net.stem.weight
    x, y = batch(i, weight.dtype, weight.device)
    return nn.functional.cross_entropy(net(x), y)


def used(method, **options):
    """The options that the method does not ignore: those it ignores are refused."""
    ignored = mvp.methods.find_method(method).ignores
    return {name: value for name, value in options.items() if name not in ignored}


def make(method="movement", *, steps=20, optimizer="adamw", dtype=torch.float32, device="cpu", net=None, **options):
    """(net, optimizer, attached pruner) with settings that prune hard in few steps; drops those the method ignores."""
    net = Net(dtype=dtype, device=device) if net is None else net
    optimizer = OPTIMIZERS[optimizer](net.parameters()) if isinstance(optimizer, str) else optimizer
    given = {"density": 0.2, "total_steps": steps, "warmup_steps": 2, "cooldown_steps": 4}
    given |= {"magnitude_init": 0.0, "score_lr": 0.3}  # the papers' methods
    pruner = mvp.Pruner(net, method, **used(method, **(given | options))).attach(optimizer)
    return net, optimizer, pruner


def train(net, optimizer, steps, *, accumulate=1, after=None, scheduler=None):
    """Train over the numbered steps; `after` is called behind each; returns the losses."""
    losses = []
    for step in steps:
        optimizer.zero_grad()
        for micro in range(accumulate):
            loss = loss_of(net, step * accumulate + micro) / accumulate
            loss.backward()
            losses.append(loss.item())
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
        if after is not None:
            after()
    return losses


class Layer:
    """A pruned matrix together with the scores of its own, for `groups="weights"`."""

    def __init__(self, matrix, group):
        self.matrix, self.group = matrix, group

    def __getattr__(self, name):
        return getattr(self.group if name in ("scores", "importance") else self.matrix, name)


def layers(pruner):
    return [Layer(matrix, group) for group in pruner.groups for matrix in group.matrices]


def snapshot(pruner):
    """Everything that a step may change, copied."""
    state = {f"{layer.name}.weight": layer.weight for layer in layers(pruner)}
    state |= {f"{layer.name}.master": layer.master for layer in layers(pruner)}
    state |= {f"{layer.name}.mask": layer.mask for layer in layers(pruner)}
    state |= {f"{layer.name}.scores": layer.scores for layer in layers(pruner) if layer.scores is not None}
    state = {name: tensor.detach().clone() for name, tensor in state.items()}
    return state | {"steps_done": torch.tensor(pruner.steps_done), "penalty": torch.tensor(pruner.penalty)}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
