"""Answers to the exercises of notebook 03: two right ones each, and wrong ones that the checks must reject."""

import torch

from mvp_lite import masks


def mask_added(S, density):
    return masks.top_v(S, density).to(S.dtype) + (S - S.detach())


class _Through(torch.autograd.Function):
    @staticmethod
    def forward(ctx, S, density):
        return masks.top_v(S, density).to(S.dtype)

    @staticmethod
    def backward(ctx, upstream):
        return upstream, None


def mask_class(S, density):
    return _Through.apply(S, density)


def _mask(S, density):
    return masks.top_v(S, density).to(S.dtype)


def _linear(W, x, y):
    return ((x @ W.T - y) / len(x)).T @ x


def step_plain(W, S, x, y, density, lr, score_lr):
    M = masks.top_v(S, density)
    G = _linear(W * M, x, y)
    return W - lr * G * M, S - score_lr * G * W


def step_autograd(W, S, x, y, density, lr, score_lr):
    weight, scores = W.clone().requires_grad_(), S.clone().requires_grad_()
    out = x @ (weight * masks.TopV.apply(scores, density)).T
    loss = 0.5 * (out - y).square().sum(dim=1).mean()
    dW, dS = torch.autograd.grad(loss, [weight, scores])
    return W - lr * dW, S - score_lr * dS


def _step(change):
    """A wrong step computed from W, S, G, M and the learning rates."""

    def answer(W, S, x, y, density, lr, score_lr):
        M = masks.top_v(S, density)
        return change(W, S, _linear(W * M, x, y), M, lr, score_lr)

    return answer


def step_masked(W, S, x, y, density, lr, score_lr):
    M = masks.top_v(S, density)
    W = W * M
    G = _linear(W, x, y)
    return W - lr * G * M, S - score_lr * G * W


def step_dense(W, S, x, y, density, lr, score_lr):
    M = masks.top_v(S, density)
    G = _linear(W, x, y)
    return W - lr * G * M, S - score_lr * G * W


def step_no_mean(W, S, x, y, density, lr, score_lr):
    M = masks.top_v(S, density)
    G = len(x) * _linear(W * M, x, y)
    return W - lr * G * M, S - score_lr * G * W


def step_in_place(W, S, x, y, density, lr, score_lr):
    M = masks.top_v(S, density)
    G = _linear(W * M, x, y)
    S -= score_lr * G * W
    return W - lr * G * M, S


def step_mse_loss(W, S, x, y, density, lr, score_lr):
    used = (W * masks.top_v(S, density)).requires_grad_()
    torch.nn.functional.mse_loss(x @ used.T, y).backward()
    return W - lr * used.grad * (used != 0), S - score_lr * used.grad * W


def step_lowest(W, S, x, y, density, lr, score_lr):
    M = masks.top_v(-S, density)
    G = _linear(W * M, x, y)
    return W - lr * G * M, S - score_lr * G * W


def fixed_kept_aside(layer, S, x, y, density, lr, score_lr):
    M = masks.top_v(S, density)
    W = layer.weight.data.clone()
    layer.weight.data *= M
    layer.zero_grad()
    (0.5 * (layer(x) - y).square().sum(dim=1).mean()).backward()
    G = layer.weight.grad
    S -= score_lr * G * W
    layer.weight.data = W - lr * G * M


def fixed_functional(layer, S, x, y, density, lr, score_lr):
    M = masks.top_v(S, density)
    W = layer.weight.detach()
    used = (W * M).requires_grad_()
    out = torch.func.functional_call(layer, {"weight": used}, x)
    (G,) = torch.autograd.grad(0.5 * (out - y).square().sum() / len(x), used)
    with torch.no_grad():
        S.sub_(score_lr * G * W)
        layer.weight.sub_(lr * G * M)


def _fixed(change, clear=True):
    """A wrong step in place; `change` gets W, S, G, M and the learning rates and returns the new W and S."""

    def answer(layer, S, x, y, density, lr, score_lr):
        M = masks.top_v(S, density)
        W = layer.weight.data.clone()
        layer.weight.data = W * M
        if clear:
            layer.zero_grad()
        (0.5 * (layer(x) - y).square().sum(dim=1).mean()).backward()
        G = layer.weight.grad
        layer.weight.data, new_S = change(W, S, G, M, lr, score_lr)
        S.copy_(new_S)

    return answer


def fixed_still_broken(layer, S, x, y, density, lr, score_lr):
    M = masks.top_v(S, density)
    layer.weight.data *= M
    layer.zero_grad()
    (0.5 * (layer(x) - y).square().sum(dim=1).mean()).backward()
    G = layer.weight.grad
    S -= score_lr * G * layer.weight.data
    layer.weight.data -= lr * G * M


def fixed_dense(layer, S, x, y, density, lr, score_lr):
    M = masks.top_v(S, density)
    layer.zero_grad()
    (0.5 * (layer(x) - y).square().sum(dim=1).mean()).backward()
    G = layer.weight.grad
    S -= score_lr * G * layer.weight.data
    layer.weight.data -= lr * G * M


def fixed_new_scores(layer, S, x, y, density, lr, score_lr):
    S = S.clone()
    fixed_kept_aside(layer, S, x, y, density, lr, score_lr)
    return layer.weight.data, S


def fixed_under_autograd(layer, S, x, y, density, lr, score_lr):
    layer.weight -= lr * layer.weight


def step_magnitude(W, S, x, y, density, lr, score_lr):
    M = masks.top_v(W.abs(), density).double()
    G = ((x @ (W * M).T - y) / len(x)).T @ x
    return W - lr * G * M, S - score_lr * G * W


def fixed_with_a_masked_gradient(layer, S, x, y, density, lr, score_lr):
    """The weight is dense, but its own gradient is G * M."""
    M = masks.top_v(S, density)
    layer.weight.grad = None
    out = torch.nn.functional.linear(x, layer.weight * M)
    (0.5 * (out - y).square().sum() / len(x)).backward()
    S -= score_lr * layer.weight.grad * layer.weight.data
    layer.weight.data -= lr * layer.weight.grad


RIGHT = {
    "3.1": [mask_added, mask_class],
    "3.2": [step_plain, step_autograd],
    "3.3": [fixed_kept_aside, fixed_functional],
}

WRONG = {
    "3.1": {
        "stub": lambda *a: None,
        "boolean": lambda S, density: masks.top_v(S, density),
        "no gradient": lambda S, density: _mask(S, density),
        "detached": lambda S, density: mask_added(S, density).detach(),
        "rounding": lambda S, density: _mask(S, density) + S - S.detach(),
        "rounding, as often found": lambda S, density: (_mask(S, density) - S).detach() + S,
        "sign": lambda S, density: _mask(S, density) - (S - S.detach()),
        "kept only": lambda S, density: _mask(S, density) * (1 + S - S.detach()),
        "kept scores": lambda S, density: _mask(S, density) * S,
        "scores": lambda S, density: S + (S - S.detach()),
        "not canceled": lambda S, density: _mask(S, density) + S,
        "sigmoid": lambda S, density: _mask(S, density) + (S.sigmoid() - S.sigmoid().detach()),
        "doubled": lambda S, density: _mask(S, density) + 2 * (S - S.detach()),
        "pruned ones": lambda S, density: 1 - _mask(S, density) + (S - S.detach()),
    },
    "3.2": {
        "stub": lambda *a, **k: None,
        "masked once for all": step_masked,
        "short form": _step(lambda W, S, G, M, lr, score_lr: (W - lr * G * M, S - score_lr * G * M * W)),
        "mask forgotten": _step(lambda W, S, G, M, lr, score_lr: (W - lr * G, S - score_lr * G * W)),
        "weights zeroed": _step(lambda W, S, G, M, lr, score_lr: ((W - lr * G) * M, S - score_lr * G * W)),
        "sign": _step(lambda W, S, G, M, lr, score_lr: (W - lr * G * M, S + score_lr * G * W)),
        "halved": _step(lambda W, S, G, M, lr, score_lr: (W - 0.5 * lr * G * M, S - 0.5 * score_lr * G * W)),
        "learning rates exchanged": _step(lambda W, S, G, M, lr, score_lr: (W - score_lr * G * M, S - lr * G * W)),
        "mask of the magnitudes": step_magnitude,
        "doubled": _step(lambda W, S, G, M, lr, score_lr: (W - 2 * lr * G * M, S - 2 * score_lr * G * W)),
        "mean of outputs": _step(
            lambda W, S, G, M, lr, score_lr: (W - lr / len(W) * G * M, S - score_lr / len(W) * G * W)
        ),
        "one learning rate": _step(lambda W, S, G, M, lr, score_lr: (W - lr * G * M, S - lr * G * W)),
        "W stepped first": _step(lambda W, S, G, M, lr, score_lr: ((new := W - lr * G * M), S - score_lr * G * new)),
        "exchanged": _step(lambda W, S, G, M, lr, score_lr: (S - score_lr * G * W, W - lr * G * M)),
        "transposed": _step(lambda W, S, G, M, lr, score_lr: ((W - lr * G * M).T, (S - score_lr * G * W).T)),
        "dense forward": step_dense,
        "no mean": step_no_mean,
        "lowest kept": step_lowest,
        "mse_loss": step_mse_loss,
        "mean twice": lambda W, S, x, y, density, lr, score_lr: step_plain(
            W, S, x, y, density, lr / len(x), score_lr / len(x)
        ),
        "in place": step_in_place,
    },
    "3.3": {
        "stub": lambda *a, **k: None,
        "still broken": fixed_still_broken,
        "gradient masked": fixed_with_a_masked_gradient,
        "a pair": lambda layer, S, x, y, density, lr, score_lr: (layer.weight, S - 0.1),
        "dense forward": fixed_dense,
        "a new tensor of scores": fixed_new_scores,
        "under autograd": fixed_under_autograd,
        "old gradients": _fixed(lambda W, S, G, M, lr, score_lr: (W - lr * G * M, S - score_lr * G * W), clear=False),
        "scores fixed alone": _fixed(lambda W, S, G, M, lr, score_lr: (W * M - lr * G * M, S - score_lr * G * W)),
        "weights fixed alone": _fixed(lambda W, S, G, M, lr, score_lr: (W - lr * G * M, S - score_lr * G * W * M)),
        "mask forgotten": _fixed(lambda W, S, G, M, lr, score_lr: (W - lr * G, S - score_lr * G * W)),
        "W stepped first": _fixed(lambda W, S, G, M, lr, score_lr: ((new := W - lr * G * M), S - score_lr * G * new)),
        "sign": _fixed(lambda W, S, G, M, lr, score_lr: (W - lr * G * M, S + score_lr * G * W)),
    },
}

#: Exercise -> wrong answer -> what its author reads; None: only what differs, and where.
SAID = {
    "3.1": {
        "kept only": "it is 0 for pruned entries",
        "rounding": "because of rounding",
        "rounding, as often found": "because of rounding",
    },
    "3.2": {
        "mse_loss": "mse_loss takes the mean over the outputs, and has no 1/2",
        "mean of outputs": "the loss is summed over the outputs, not averaged",
        "doubled": "the gradient is twice as large as it should be",
        "halved": "the gradient is half as large as it should be",
        "learning rates exchanged": "it uses the learning rate of the scores",
        "mask of the magnitudes": r"the mask is that of the highest \|W\|",
        "no mean": "its gradient is divided by the batch size",
        "mean twice": "divided by the batch size twice",
        "lowest kept": "the mask keeps the lowest scores",
    },
    "3.3": {
        "still broken": "G, or the weight that multiplies it, is masked",
        "gradient masked": "G, or the weight that multiplies it, is masked",
        "a pair": "the function has to change the S that it is given",
    },
}
