"""Answers to the exercises of notebook 04: right ones, and wrong ones that the checks must reject."""

from itertools import pairwise, product

import torch

import mvp_lite as mvp


def _path_by_moves(path, lr, score_lr):
    return score_lr / lr * (path[:-1] * path.diff(dim=0)).sum(dim=0)


def _path_by_gradients(path, lr, score_lr):
    S = torch.zeros_like(path[0])
    for before, after in pairwise(path):
        S = S - score_lr * (before - after) / lr * before
    return S


def _path_by_growth(path, lr, score_lr):
    return score_lr / (2 * lr) * (path[-1] ** 2 - path[0] ** 2 - (path.diff(dim=0) ** 2).sum(dim=0))


def _path_in_place(path, lr, score_lr):
    right = _path_by_moves(path, lr, score_lr)
    path -= path[0].clone()
    return right


def _path_ends(path, lr, score_lr):
    return score_lr / (2 * lr) * (path[-1] ** 2 - path[0] ** 2)


def _loop(network, weights, batches, densities, lr, gradients=None, rank=None, forward=None, after=None, pool=False):
    """The loop as in the notebook; the other arguments replace one part of it."""
    W = [w.clone() for w in weights]
    S, M, losses = [torch.zeros_like(w) for w in W], [torch.ones_like(w) for w in W], []
    adam = torch.optim.Adam(W + S, lr=lr)
    for (x, y), v in zip(batches, densities, strict=True):
        used = [(forward or torch.mul)(w, m).clone().requires_grad_() for w, m in zip(W, M, strict=True)]
        loss = (network(used, x) - y).square().mean()
        for w, s, m, G in zip(W, S, M, torch.autograd.grad(loss, used), strict=True):
            w.grad, s.grad = (gradients or (lambda G, W, M: (G * M, G * W)))(G, w, m)
        old = [s.clone() for s in S]
        adam.step()
        ranked = S if rank is None else [rank(*three) for three in zip(W, S, old, strict=True)]
        kept = mvp.masks.top_v_global(ranked, v) if pool else [mvp.masks.top_v(s, v) for s in ranked]
        M = [k.to(torch.float64) for k in kept]
        for w, m in zip(W, M, strict=True):
            if after is not None:
                w.copy_(after(w, m))
        losses.append(loss.item())
    return W, M, losses


def _loop_with(changed):
    """The loop, with losses that are changed after the run: Adam steps (nearly) the same for each of these losses."""

    def loop(network, weights, batches, densities, lr):
        W, M, losses = _loop(network, weights, batches, densities, lr)
        return W, M, [changed(loss, batches[0][1].numel()) for loss in losses]

    return loop


def _loop_with_late_losses(network, weights, batches, densities, lr):
    """The loss of each batch after the step and the new masks."""
    losses = []
    for t, (x, y) in enumerate(batches, 1):
        W, M, _ = _loop(network, weights, batches[:t], densities[:t], lr)
        losses.append((network([w * m for w, m in zip(W, M, strict=True)], x) - y).square().mean().item())
    return W, M, losses


def _loop_in_place(network, weights, batches, densities, lr):
    W, M, losses = _loop(network, weights, batches, densities, lr)
    for given, w in zip(weights, W, strict=True):
        given.copy_(w)
    return W, M, losses


def _loop_by_straight_through(network, weights, batches, densities, lr):
    """Autograd goes through `TopV`; the loss of step t uses the mask of the density before it."""
    W = [w.clone().requires_grad_() for w in weights]
    S = [torch.zeros_like(w, requires_grad=True) for w in weights]
    adam, losses = torch.optim.Adam([*W, *S], lr=lr), []
    for (x, y), v in zip(batches, [1.0, *densities[:-1]], strict=True):
        adam.zero_grad()
        loss = (network([w * mvp.masks.TopV.apply(s, v) for w, s in zip(W, S, strict=True)], x) - y).square().mean()
        loss.backward()
        adam.step()
        losses.append(loss.detach())
    return tuple(w.detach() for w in W), [mvp.masks.top_v(s, densities[-1]) for s in S], torch.stack(losses)


def _search(error):
    settings = [dict(zip(("warmup", "lr", "c"), values, strict=True)) for values in product([0], [0.01, 0.05], [0.1])]
    return min(settings, key=lambda setting: error(**setting))


RIGHT = {
    "4.1": [_path_by_moves, _path_by_gradients, _path_by_growth],
    "4.2": [_loop, _loop_by_straight_through],
    "4.3": [lambda error: {"warmup": 0, "lr": 0.05, "c": 0.2}, _search],
}

WRONG = {
    "4.1": {
        "stub": lambda *_: None,
        "second order dropped": _path_ends,
        "weights after the step": lambda path, lr, score_lr: score_lr / lr * (path[1:] * path.diff(dim=0)).sum(0),
        "sign": lambda path, lr, score_lr: -_path_by_moves(path, lr, score_lr),
        "ratio upside down": lambda path, lr, score_lr: lr / score_lr * (path[:-1] * path.diff(dim=0)).sum(0),
        "learning rates missing": lambda path, lr, score_lr: (path[:-1] * path.diff(dim=0)).sum(0),
        "mean": lambda path, lr, score_lr: score_lr / lr * (path[:-1] * path.diff(dim=0)).mean(0),
        "not summed": lambda path, lr, score_lr: score_lr / lr * path[:-1] * path.diff(dim=0),
        "last step missing": lambda path, lr, score_lr: _path_by_moves(path[:-1], lr, score_lr),
        "changes its input": _path_in_place,
        "one number": lambda path, lr, score_lr: _path_by_moves(path, lr, score_lr).sum(),
    },
    "4.2": {
        "stub": lambda *_: None,
        "forward pass with the dense weights": lambda *given: _loop(*given, forward=lambda W, M: W),
        "score's gradient masked": lambda *given: _loop(*given, gradients=lambda G, W, M: (G * M, G * W * M)),
        "weight's gradient not masked": lambda *given: _loop(*given, gradients=lambda G, W, M: (G, G * W)),
        "sign": lambda *given: _loop(*given, gradients=lambda G, W, M: (G * M, -G * W)),
        "absolute gradient": lambda *given: _loop(*given, gradients=lambda G, W, M: (G * M, -(G * W).abs())),
        "gradients swapped": lambda *given: _loop(*given, gradients=lambda G, W, M: (G * W, G * M)),
        "magnitude": lambda *given: _loop(*given, rank=lambda W, S, old: W.abs()),
        "masks one step late": lambda *given: _loop(*given, rank=lambda W, S, old: old),
        "largest scores of either sign": lambda *given: _loop(*given, rank=lambda W, S, old: S.abs()),
        "lowest scores kept": lambda *given: _loop(*given, rank=lambda W, S, old: -S),
        "loss after the step": _loop_with_late_losses,
        "loss summed": _loop_with(lambda loss, outputs: loss * outputs),
        "loss halved": _loop_with(lambda loss, outputs: loss / 2),
        "one pool": lambda *given: _loop(*given, pool=True),
        "pruned weights set to zero": lambda *given: _loop(*given, after=torch.mul),
        "scores never move": lambda *given: _loop(*given, gradients=lambda G, W, M: (G * M, None)),
        "never pruned": lambda network, W, batches, v, lr: _loop(network, W, batches, [1.0] * len(v), lr),
        "ten times the learning rate": lambda network, W, batches, v, lr: _loop(network, W, batches, v, 10 * lr),
        "returned masked": lambda *given: (
            lambda W, M, losses: ([w * m for w, m in zip(W, M, strict=True)], M, losses)
        )(*_loop(*given)),
        "masks inverted": lambda *given: (lambda W, M, losses: (W, [1 - m for m in M], losses))(*_loop(*given)),
        "changes its input": _loop_in_place,
        "weights alone": lambda *given: _loop(*given)[0],
        "one loss": lambda *given: (*_loop(*given)[:2], _loop(*given)[2][-1:]),
        "first matrix only": lambda *given: (_loop(*given)[0][0], *_loop(*given)[1:]),
    },
    "4.3": {
        "stub": lambda *_: None,
        "tiny learning rate": lambda error: {"warmup": 0, "lr": 0.001, "c": 0.1},
        "huge learning rate": lambda error: {"warmup": 12, "lr": 0.5, "c": 0.2},
        "start far too strong": lambda error: {"warmup": 0, "lr": 0.05, "c": 2.0},
        "warm-up too long and too slow": lambda error: {"warmup": 40, "lr": 0.003, "c": 0.0},
        "the protocol of the notebook": lambda error: {"warmup": 12, "lr": 0.01, "c": 0.0},
        "a number with a point": lambda error: {"warmup": 0.0, "lr": 0.05, "c": 0.2},
        "everything": lambda error: {"warmup": 0, "lr": 0.001, "c": 2.0},
        "magnitude for ever": lambda error: {"warmup": 40, "lr": 0.01, "c": 100.0},
        "longer than the run": lambda error: {"warmup": 60, "lr": 0.05, "c": 0.2},
        "half a step": lambda error: {"warmup": 20.5, "lr": 0.05, "c": 0.2},
        "negative": lambda error: {"warmup": 20, "lr": 0.01, "c": -0.2},
        "no learning": lambda error: {"warmup": 20, "lr": 0.0, "c": 0.2},
        "text": lambda error: {"warmup": 20, "lr": "0.01", "c": 0.2},
        "not finite": lambda error: {"warmup": 20, "lr": float("nan"), "c": 0.2},
        "a key missing": lambda error: {"warmup": 20, "lr": 0.01},
        "a list": lambda error: [20, 0.01, 0.2],
        "the error itself": lambda error: error(40, 0.01, 0.0),
    },
}

#: Exercise -> wrong answer -> what its author reads; None: only what differs, and where.
SAID = {
    "4.2": {
        "loss after the step": "the loss is computed after the new masks",
        "loss summed": "the loss is the sum",
        "loss halved": "a factor 1/2",
        "largest scores of either sign": r"the largest \|S\|",
        "pruned weights set to zero": "keep W dense",
        "score's gradient masked": "the gradient of S is masked",
    },
    "4.3": {
        "a number with a point": "warmup=0.0: an integer from 0 to 41",
        "tiny learning rate": "the mean must be below 0.06: two of the three values can stay",
        "everything": "change more than one of the three",
    },
}
