"""Answers to the exercises of notebook 03: two right ones each, and wrong ones that the checks must reject."""

import torch

from mvp_lite import masks


def conv1d_einsum(x, dL_da, W, M):
    G = torch.einsum("npj,npi->ji", x, dL_da)
    return G * M, G * W


def conv1d_flat(x, dL_da, W, M):
    G = x.flatten(0, 1).T @ dL_da.flatten(0, 1)
    return [M * G, W * G]


def _conv1d(change):
    def answer(x, dL_da, W, M):
        return change(conv1d_flat(x, dL_da, torch.ones_like(W), torch.ones_like(M))[0], x, dL_da, W, M)

    return answer


def conv1d_in_place(x, dL_da, W, M):
    G = conv1d_einsum(x, dL_da, torch.ones_like(W), torch.ones_like(W))[0]
    return G * M, W.mul_(G)


def cut_added(S, density):
    return masks.top_v(S, density).to(S.dtype) + (S - S.detach())


class _Through(torch.autograd.Function):
    @staticmethod
    def forward(ctx, S, density):
        return masks.top_v(S, density).to(S.dtype)

    @staticmethod
    def backward(ctx, upstream):
        return upstream, None


def cut_class(S, density):
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


def step_broken(W, S, x, y, density, lr, score_lr):
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


def step_lowest(W, S, x, y, density, lr, score_lr):
    M = masks.top_v(-S, density)
    G = _linear(W * M, x, y)
    return W - lr * G * M, S - score_lr * G * W


RIGHT = {
    "3.1": [conv1d_einsum, conv1d_flat],
    "3.2": [cut_added, cut_class],
    "3.3": [step_plain, step_autograd],
}

WRONG = {
    "3.1": {
        "stub": lambda *a: None,
        "one tensor": _conv1d(lambda G, x, dL_da, W, M: G * M),
        "transposed": _conv1d(lambda G, x, dL_da, W, M: ((G * M).T, (G * W).T)),
        "mask forgotten": _conv1d(lambda G, x, dL_da, W, M: (G, G * W)),
        "mask left in the score": _conv1d(lambda G, x, dL_da, W, M: (G * M, G * M * W)),
        "exchanged": _conv1d(lambda G, x, dL_da, W, M: (G * W, G * M)),
        "sign of the score": _conv1d(lambda G, x, dL_da, W, M: (G * M, -G * W)),
        "W forgotten": _conv1d(lambda G, x, dL_da, W, M: (G * M, G)),
        "mean": _conv1d(lambda G, x, dL_da, W, M: (G * M / x.shape[0], G * W / x.shape[0])),
        "mean over positions": _conv1d(lambda G, x, dL_da, W, M: (G * M, G * W / x[..., 0].numel())),
        "summed too early": _conv1d(
            lambda G, x, dL_da, W, M: (torch.outer(x.sum((0, 1)), dL_da.sum((0, 1))) * M, G * W)
        ),
        "in place": conv1d_in_place,
    },
    "3.2": {
        "stub": lambda *a: None,
        "boolean": lambda S, density: masks.top_v(S, density),
        "no gradient": lambda S, density: _mask(S, density),
        "detached": lambda S, density: cut_added(S, density).detach(),
        "rounding": lambda S, density: _mask(S, density) + S - S.detach(),
        "sign": lambda S, density: _mask(S, density) - (S - S.detach()),
        "kept only": lambda S, density: _mask(S, density) * (1 + S - S.detach()),
        "kept scores": lambda S, density: _mask(S, density) * S,
        "scores": lambda S, density: S + (S - S.detach()),
        "not cancelled": lambda S, density: _mask(S, density) + S,
        "sigmoid": lambda S, density: _mask(S, density) + (S.sigmoid() - S.sigmoid().detach()),
        "doubled": lambda S, density: _mask(S, density) + 2 * (S - S.detach()),
        "pruned ones": lambda S, density: 1 - _mask(S, density) + (S - S.detach()),
    },
    "3.3": {
        "stub": lambda *a, **k: None,
        "still broken": step_broken,
        "short form": _step(lambda W, S, G, M, lr, score_lr: (W - lr * G * M, S - score_lr * G * M * W)),
        "mask forgotten": _step(lambda W, S, G, M, lr, score_lr: (W - lr * G, S - score_lr * G * W)),
        "weights zeroed": _step(lambda W, S, G, M, lr, score_lr: ((W - lr * G) * M, S - score_lr * G * W)),
        "sign": _step(lambda W, S, G, M, lr, score_lr: (W - lr * G * M, S + score_lr * G * W)),
        "one learning rate": _step(lambda W, S, G, M, lr, score_lr: (W - lr * G * M, S - lr * G * W)),
        "W stepped first": _step(lambda W, S, G, M, lr, score_lr: ((new := W - lr * G * M), S - score_lr * G * new)),
        "exchanged": _step(lambda W, S, G, M, lr, score_lr: (S - score_lr * G * W, W - lr * G * M)),
        "transposed": _step(lambda W, S, G, M, lr, score_lr: ((W - lr * G * M).T, (S - score_lr * G * W).T)),
        "dense forward": step_dense,
        "no mean": step_no_mean,
        "lowest kept": step_lowest,
        "in place": step_in_place,
    },
}
