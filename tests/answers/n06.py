"""Answers to the exercises of notebook 06: two right ones for each, and wrong ones that the checks must reject."""

import math

import torch

from mvp_lite.masks import expected_l0, keep_count, threshold_mask, top_v


def step_by_masks(W, S, G, tau, lam, lr):
    M = threshold_mask(S, tau, min_density=0.0)
    s = torch.sigmoid(S)
    return W - lr * G * M, S - lr * (G * W + lam * (s - s**2))


def step_by_loop(W, S, G, tau, lam, lr):
    new_W, new_S = W.clone(), S.clone()
    for i in range(W.shape[0]):
        for j in range(W.shape[1]):
            s = 1 / (1 + math.exp(-float(S[i, j])))
            if s > tau:
                new_W[i, j] -= lr * G[i, j]
            new_S[i, j] -= lr * (G[i, j] * W[i, j] + lam * s * (1 - s))
    return new_W, new_S


def broken_step(W, S, G, tau, lam, lr):
    M = threshold_mask(S, tau, min_density=0.0)
    W = W - lr * G * M
    return W, S - lr * (G * M * W + lam * torch.sigmoid(S))


def step_in_place(W, S, G, tau, lam, lr):
    new = step_by_masks(W, S, G, tau, lam, lr)
    W.copy_(new[0])
    S.copy_(new[1])
    return W, S


def slipped_step(new_W=None, new_S=None):
    """The right step with one of its two results replaced."""

    def step(W, S, G, tau, lam, lr):
        M, s = threshold_mask(S, tau, min_density=0.0), torch.sigmoid(S)
        right = step_by_masks(W, S, G, tau, lam, lr)
        given = {"W": W, "S": S, "G": G, "M": M, "s": s, "tau": tau, "lam": lam, "lr": lr, "right": right}
        return (new_W(**given) if new_W else right[0], new_S(**given) if new_S else right[1])

    return step


def shift_by_sort(S, density, tau):
    k = keep_count(S.numel(), density)
    ranked = S.flatten().sort(descending=True).values
    return S + (math.log(tau) - math.log(1 - tau) - (ranked[k - 1] + ranked[k]) / 2)


def shift_by_mask(S, density, tau):
    kept = top_v(S, density)
    return S - (S[kept].min() + S[~kept].max()) / 2 + torch.logit(torch.tensor(tau, dtype=S.dtype))


def shift_with(place, k=keep_count):
    def shift(S, density, tau):
        ranked = S.flatten().sort(descending=True).values
        return place(S, ranked, k(S.numel(), density), tau)

    return shift


def shift_in_place(S, density, tau):
    return S.copy_(shift_by_sort(S, density, tau))


def logit(tau):
    return math.log(tau / (1 - tau))


def middle(ranked, k):
    return (ranked[k - 1] + ranked[min(k, len(ranked) - 1)]) / 2


def l0_closed(S, lam, matrices):
    P = torch.sigmoid(S + 2 / 3 * math.log(11))
    return lam * P * (1 - P) / matrices / S.numel()


def l0_autograd(S, lam, matrices):
    scores = S.detach().clone().requires_grad_()
    (lam * expected_l0(scores).sum() / (matrices * S.numel())).backward()
    return scores.grad


def l0_slip(formula):
    return lambda S, lam, matrices: formula(S, expected_l0(S), lam, matrices, S.numel())


def stub(*_):
    return None


RIGHT = {
    "6.1": [step_by_masks, step_by_loop],
    "6.2": [shift_by_sort, shift_by_mask],
    "6.3": [l0_closed, l0_autograd],
}

WRONG = {
    "6.1": {
        "stub": stub,
        "as it was": broken_step,
        "in place": step_in_place,
        "scores alone": lambda *a: step_by_masks(*a)[1],
        "other order": lambda *a: step_by_masks(*a)[::-1],
        "pruned weights move": slipped_step(new_W=lambda W, G, lr, **_: W - lr * G),
        "ascent": slipped_step(new_W=lambda W, G, M, lr, **_: W + lr * G * M),
        "tau against S": slipped_step(new_W=lambda W, S, G, tau, lr, **_: W - lr * G * (tau < S)),
        "zeroed weights": slipped_step(new_W=lambda M, right, **_: right[0] * M),
        "mask left in": slipped_step(
            new_S=lambda W, S, G, M, s, lam, lr, **_: S - lr * (G * W * M + lam * s * (1 - s))
        ),
        "sigma for its derivative": slipped_step(new_S=lambda W, S, G, s, lam, lr, **_: S - lr * (G * W + lam * s)),
        "weights after the step": slipped_step(
            new_S=lambda S, G, s, lam, lr, right, **_: S - lr * (G * right[0] + lam * s * (1 - s))
        ),
        "penalty forgotten": slipped_step(new_S=lambda W, S, G, lr, **_: S - lr * G * W),
        "penalty upwards": slipped_step(new_S=lambda W, S, G, s, lam, lr, **_: S - lr * (G * W - lam * s * (1 - s))),
        "mean for sum": slipped_step(
            new_S=lambda W, S, G, s, lam, lr, **_: S - lr * (G * W + lam * s * (1 - s) / S.numel())
        ),
        "transposed": lambda *a: tuple(t.T for t in step_by_masks(*a)),
    },
    "6.2": {
        "stub": stub,
        "constant alone": lambda S, density, tau: shift_by_sort(S, density, tau).flatten()[0] - S.flatten()[0],
        "mask": lambda S, density, tau: top_v(S, density),
        "tau for its log-odds": shift_with(lambda S, ranked, k, tau: S - middle(ranked, k) + tau),
        "around zero": shift_with(lambda S, ranked, k, tau: S - middle(ranked, k)),
        "sign of the threshold": shift_with(lambda S, ranked, k, tau: S - middle(ranked, k) - logit(tau)),
        "sign of the middle": shift_with(lambda S, ranked, k, tau: S + middle(ranked, k) + logit(tau)),
        "at the last that passes": shift_with(lambda S, ranked, k, tau: S - ranked[k - 1] + logit(tau)),
        "just above the first that fails": shift_with(
            lambda S, ranked, k, tau: S - (0.1 * ranked[k - 1] + 0.9 * ranked[k]) + logit(tau)
        ),
        "off by one": shift_with(lambda S, ranked, k, tau: S - middle(ranked, k + 1) + logit(tau)),
        "rounded down": shift_with(
            lambda S, ranked, k, tau: S - middle(ranked, k) + logit(tau), lambda n, v: max(1, int(v * n))
        ),
        "the lowest": shift_with(lambda S, ranked, k, tau: S - middle(ranked.flip(0), k) + logit(tau)),
        "scaled": lambda S, density, tau: 2 * shift_by_sort(S, density, tau) - logit(tau),
        "in place": shift_in_place,
        "flattened": lambda *a: shift_by_sort(*a).flatten()[None],
    },
    "6.3": {
        "stub": stub,
        "sum form": l0_slip(lambda S, P, lam, n, N: lam * P * (1 - P)),
        "matrices forgotten": l0_slip(lambda S, P, lam, n, N: lam * P * (1 - P) / N),
        "entries forgotten": l0_slip(lambda S, P, lam, n, N: lam * P * (1 - P) / n),
        "not differentiated": l0_slip(lambda S, P, lam, n, N: lam * P / (n * N)),
        "value": l0_slip(lambda S, P, lam, n, N: lam * P.mean() / n),
        "soft movement's": l0_slip(lambda S, P, lam, n, N: lam * torch.sigmoid(S) * torch.sigmoid(-S) / (n * N)),
        "sign": lambda *a: -l0_closed(*a),
        "lambda forgotten": lambda S, lam, n: l0_closed(S, 1.0, n),
        "shift the other way": lambda S, lam, n: l0_closed(S - 4 / 3 * math.log(11), lam, n),
        "printed log": lambda S, lam, n: l0_closed(S.log(), lam, n),
        "divided by b": lambda *a: l0_closed(*a) * 1.5,
        "transposed": lambda *a: l0_closed(*a).T,
    },
}
