"""Answers to the exercises of notebook 04: right ones, and wrong ones that the checks must reject."""

from itertools import pairwise

import torch


def _step_by_addcmul(W, S, G, M, lr, score_lr):
    return torch.addcmul(W, G, M, value=-lr), torch.addcmul(S, G, W, value=-score_lr)


def _step_on_copies(W, S, G, M, lr, score_lr):
    W_next, S_next = W.clone(), S.clone()
    S_next -= score_lr * G * W_next
    W_next[M == 1] -= lr * G[M == 1]
    return W_next, S_next


def _step_in_place(W, S, G, M, lr, score_lr):
    W -= lr * G * M
    S -= score_lr * G * W
    return W, S


def _step_in_place_in_order(W, S, G, M, lr, score_lr):
    S -= score_lr * G * W
    W -= lr * G * M
    return W, S


def _step_too_late(W, S, G, M, lr, score_lr):
    W = W - lr * G * M
    return W, S - score_lr * G * W


def _path_by_moves(path, lr, score_lr):
    return score_lr / lr * (path[:-1] * path.diff(dim=0)).sum(dim=0)


def _path_by_gradients(path, lr, score_lr):
    S = torch.zeros_like(path[0])
    for before, after in pairwise(path):
        S = S - score_lr * (before - after) / lr * before
    return S


def _path_in_place(path, lr, score_lr):
    right = _path_by_moves(path, lr, score_lr)
    path -= path[0].clone()
    return right


def _path_ends(path, lr, score_lr):
    return score_lr / (2 * lr) * (path[-1] ** 2 - path[0] ** 2)


def _step_of(density, final, total, warmup, cooldown):
    return warmup + (1 - ((density - final) / (1 - final)).pow(1 / 3)) * (total - warmup - cooldown)


def _step_of_by_logarithm(density, final, total, warmup, cooldown):
    left = torch.exp(torch.log((density - final) / (1 - final)) / 3)
    return left * warmup + (1 - left) * (total - cooldown)


def _ratio(density, final):
    return (density - final) / (1 - final)


RIGHT = {
    "4.1": [_step_by_addcmul, _step_on_copies],
    "4.2": [_path_by_moves, _path_by_gradients],
    "4.3": [_step_of, _step_of_by_logarithm],
}

WRONG = {
    "4.1": {
        "stub": lambda *_: None,
        "as it was": _step_in_place,
        "weights first": _step_too_late,
        "in place, in order": _step_in_place_in_order,
        "sign": lambda W, S, G, M, lr, score_lr: (W - lr * G * M, S + score_lr * G * W),
        "gradient masked": lambda W, S, G, M, lr, score_lr: (W - lr * G * M, S - score_lr * G * M * W),
        "weight masked": lambda W, S, G, M, lr, score_lr: (W * M - lr * G * M, S - score_lr * G * W * M),
        "pruned weights move": lambda W, S, G, M, lr, score_lr: (W - lr * G, S - score_lr * G * W),
        "weights returned masked": lambda W, S, G, M, lr, score_lr: (W * M - lr * G * M, S - score_lr * G * W),
        "one learning rate": lambda W, S, G, M, lr, score_lr: (W - lr * G * M, S - lr * G * W),
        "swapped": lambda W, S, G, M, lr, score_lr: (S - score_lr * G * W, W - lr * G * M),
        "scores only": lambda W, S, G, M, lr, score_lr: S - score_lr * G * W,
        "transposed": lambda W, S, G, M, lr, score_lr: ((W - lr * G * M).T, (S - score_lr * G * W).T),
    },
    "4.2": {
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
    "4.3": {
        "stub": lambda *_: None,
        "no warm-up": lambda v, f, T, a, b: _step_of(v, f, T, a, b) - a,
        "no cool-down": lambda v, f, T, a, b: _step_of(v, f, T, a, 0),
        "as printed": lambda v, f, T, a, b: _step_of(v, f, T, a, b) + b,
        "square root": lambda v, f, T, a, b: a + (1 - _ratio(v, f) ** 0.5) * (T - a - b),
        "straight line": lambda v, f, T, a, b: a + (1 - _ratio(v, f)) * (T - a - b),
        "cubed": lambda v, f, T, a, b: a + (1 - _ratio(v, f) ** 3) * (T - a - b),
        "from the end": lambda v, f, T, a, b: a + _ratio(v, f) ** (1 / 3) * (T - a - b),
        "final forgotten": lambda v, f, T, a, b: a + (1 - v ** (1 / 3)) * (T - a - b),
        "rounded up": lambda v, f, T, a, b: _step_of(v, f, T, a, b).ceil(),
        "one number": lambda v, f, T, a, b: _step_of(v, f, T, a, b)[0],
        "a list": lambda v, f, T, a, b: _step_of(v, f, T, a, b).tolist(),
    },
}
