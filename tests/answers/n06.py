"""Answers to the exercises of notebook 06: two right ones for each, and wrong ones that the checks must reject."""

import math

import torch

from mvp_lite.masks import expected_l0, hard_concrete, hard_concrete_gradient, keep_count, threshold_mask, top_v


def step_by_hand(W, S, x, y, tau, lam, lr, score_lr):
    M = threshold_mask(S, tau, min_density=0.0)
    s = torch.sigmoid(S)
    G = torch.einsum("no,ni->oi", x @ (W * M).T - y, x) / len(x)
    return W - lr * G * M, S - score_lr * (G * W + lam * (s - s**2))


def step_by_autograd(W, S, x, y, tau, lam, lr, score_lr):
    M = (S > math.log(tau / (1 - tau))).to(W.dtype).requires_grad_()
    weight, scores = W.clone().requires_grad_(), S.clone().requires_grad_()
    (((weight * M) @ x.T - y.T).square().sum() / 2 / len(x)).backward()
    (lam * torch.sigmoid(scores).sum()).backward()
    return W - lr * weight.grad, S - score_lr * (M.grad + scores.grad)


def step_in_place(W, S, x, y, tau, lam, lr, score_lr):
    new = step_by_hand(W, S, x, y, tau, lam, lr, score_lr)
    W.copy_(new[0])
    S.copy_(new[1])
    return W, S


def step_with(new_W=None, new_S=None, forward=lambda W, M: W * M, scale=1.0):
    """The right step with a part of it replaced."""

    def step(W, S, x, y, tau, lam, lr, score_lr):
        M, s = threshold_mask(S, tau, min_density=0.0), torch.sigmoid(S)
        G = scale * (x @ forward(W, M).T - y).T @ x / len(x)
        given = {"W": W, "S": S, "G": G, "M": M, "s": s, "tau": tau, "lam": lam, "lr": lr, "score_lr": score_lr}
        given["right"] = (W - lr * G * M, S - score_lr * (G * W + lam * s * (1 - s)))
        return (new_W(**given) if new_W else given["right"][0], new_S(**given) if new_S else given["right"][1])

    return step


def step_of_scores(gradient):
    """The right step, but with another gradient of the scores."""
    return step_with(new_S=lambda S, score_lr, **given: S - score_lr * gradient(S=S, **given))


def step_summed(W, S, x, y, tau, lam, lr, score_lr):
    return step_with(scale=len(x))(W, S, x, y, tau, lam, lr, score_lr)


def step_of_raw_scores(W, S, x, y, tau, lam, lr, score_lr):
    M, s = tau < S, torch.sigmoid(S)
    G = (x @ (W * M).T - y).T @ x / len(x)
    return W - lr * G * M, S - score_lr * (G * W + lam * s * (1 - s))


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


def shift_rounded(count):
    return shift_with(lambda S, ranked, k, tau: S - middle(ranked, k) + logit(tau), count)


def shift_in_place(S, density, tau):
    return S.copy_(shift_by_sort(S, density, tau))


def logit(tau):
    return math.log(tau / (1 - tau))


def middle(ranked, k):
    return (ranked[k - 1] + ranked[min(k, len(ranked) - 1)]) / 2


def l0_closed(W, S, G, u, lam):
    P = torch.sigmoid(S + 2 / 3 * math.log(11))
    squeezed = torch.sigmoid(1.5 * (torch.log(u / (1 - u)) + S))
    Z = 1.2 * squeezed - 0.1
    return G * W * 1.8 * squeezed * (1 - squeezed) * (Z > 0) * (Z < 1) + lam * (P - P**2)


def l0_autograd(W, S, G, u, lam):
    scores = S.detach().clone().requires_grad_()
    ((G * W * hard_concrete(scores, u)).sum() + lam * expected_l0(scores).sum()).backward()
    return scores.grad


def l0_with(formula):
    """A wrong formula of W, S, G, M, f, P, s, lam."""

    def gradient(W, S, G, u, lam):
        M = hard_concrete(S, u)
        return formula(W, S, G, M, hard_concrete_gradient(M), expected_l0(S), torch.sigmoid(S), lam)

    return gradient


def l0_without_clip(W, S, G, u, lam):
    squeezed, P = torch.sigmoid(1.5 * (u.logit() + S)), expected_l0(S)
    return G * W * 1.8 * squeezed * (1 - squeezed) + lam * P * (1 - P)


def l0_squeezed(inside):
    """The right gradient, but with another argument of the sigmoid in f."""

    def gradient(W, S, G, u, lam):
        squeezed, P = torch.sigmoid(inside(S, u)), expected_l0(S)
        Z = 1.2 * squeezed - 0.1
        return G * W * 1.8 * squeezed * (1 - squeezed) * (Z > 0) * (Z < 1) + lam * P * (1 - P)

    return gradient


def stub(*_):
    return None


RIGHT = {
    "6.1": [step_by_hand, step_by_autograd],
    "6.2": [shift_by_sort, shift_by_mask],
    "6.3": [l0_closed, l0_autograd],
}

WRONG = {
    "6.1": {
        "stub": stub,
        "in place": step_in_place,
        "scores alone": lambda *a: step_by_hand(*a)[1],
        "other order": lambda *a: step_by_hand(*a)[::-1],
        "transposed": lambda *a: tuple(t.T for t in step_by_hand(*a)),
        "dense forward pass": step_with(forward=lambda W, M: W),
        "sum over the examples": step_summed,
        "factor 2": step_with(scale=2.0),
        "tau against S": step_of_raw_scores,
        "pruned weights move": step_with(new_W=lambda W, G, lr, **_: W - lr * G),
        "ascent": step_with(new_W=lambda W, G, M, lr, **_: W + lr * G * M),
        "zeroed weights": step_with(new_W=lambda M, right, **_: right[0] * M),
        "learning rate of the scores for W": step_with(new_W=lambda W, G, M, score_lr, **_: W - score_lr * G * M),
        "learning rate of the weights for S": step_with(
            new_S=lambda S, right, lr, score_lr, **_: S + (right[1] - S) * lr / score_lr
        ),
        "mask left in": step_of_scores(lambda W, G, M, s, lam, **_: G * W * M + lam * s * (1 - s)),
        "penalty masked": step_of_scores(lambda W, G, M, s, lam, **_: G * W + M * lam * s * (1 - s)),
        "both masked": step_of_scores(lambda W, G, M, s, lam, **_: M * (G * W + lam * s * (1 - s))),
        "slope in the term of the loss": step_of_scores(lambda W, G, s, lam, **_: (G * W + lam) * s * (1 - s)),
        "sigma for its derivative": step_of_scores(lambda W, G, s, lam, **_: G * W + lam * s),
        "weights after the step": step_of_scores(lambda G, s, lam, right, **_: G * right[0] + lam * s * (1 - s)),
        "weight forgotten": step_of_scores(lambda G, s, lam, **_: G + lam * s * (1 - s)),
        "penalty forgotten": step_of_scores(lambda W, G, **_: G * W),
        "penalty upwards": step_of_scores(lambda W, G, s, lam, **_: G * W - lam * s * (1 - s)),
        "mean for sum": step_of_scores(lambda W, S, G, s, lam, **_: G * W + lam * s * (1 - s) / S.numel()),
        "absolute value": step_of_scores(lambda W, S, G, lam, **_: G * W + lam * S.sign()),
    },
    "6.2": {
        "stub": stub,
        "constant alone": lambda S, density, tau: shift_by_sort(S, density, tau).flatten()[0] - S.flatten()[0],
        "mask": lambda S, density, tau: top_v(S, density),
        "tau for its log-odds": shift_with(lambda S, ranked, k, tau: S - middle(ranked, k) + tau),
        "around zero": shift_with(lambda S, ranked, k, tau: S - middle(ranked, k)),
        "sign of the threshold": shift_with(lambda S, ranked, k, tau: S - middle(ranked, k) - logit(tau)),
        "sign of the middle": shift_with(lambda S, ranked, k, tau: S + middle(ranked, k) + logit(tau)),
        "sign of the shift": shift_with(lambda S, ranked, k, tau: S + middle(ranked, k) - logit(tau)),
        "at the last that passes": shift_with(lambda S, ranked, k, tau: S - ranked[k - 1] + logit(tau)),
        "just above the first that fails": shift_with(
            lambda S, ranked, k, tau: S - (0.1 * ranked[k - 1] + 0.9 * ranked[k]) + logit(tau)
        ),
        "off by one": shift_with(lambda S, ranked, k, tau: S - middle(ranked, k + 1) + logit(tau)),
        "rounded down": shift_rounded(lambda n, v: max(1, int(v * n))),
        "rounded up": shift_rounded(lambda n, v: math.ceil(v * n)),
        "rounded to even": shift_rounded(lambda n, v: max(1, round(v * n))),
        "none kept": shift_rounded(lambda n, v: math.floor(v * n + 0.5)),
        "the lowest": shift_with(lambda S, ranked, k, tau: S - middle(ranked.flip(0), k) + logit(tau)),
        "scaled": lambda S, density, tau: 2 * shift_by_sort(S, density, tau) - logit(tau),
        "in place": shift_in_place,
        "flattened": lambda *a: shift_by_sort(*a).flatten()[None],
    },
    "6.3": {
        "stub": stub,
        "penalty forgotten": l0_with(lambda W, S, G, M, f, P, s, lam: G * W * f),
        "loss forgotten": l0_with(lambda W, S, G, M, f, P, s, lam: lam * P * (1 - P)),
        "f forgotten": l0_with(lambda W, S, G, M, f, P, s, lam: G * W + lam * P * (1 - P)),
        "clip forgotten": l0_without_clip,
        "mask for f": l0_with(lambda W, S, G, M, f, P, s, lam: G * W * M + lam * P * (1 - P)),
        "weight forgotten": l0_with(lambda W, S, G, M, f, P, s, lam: G * f + lam * P * (1 - P)),
        "b forgotten in f": l0_with(lambda W, S, G, M, f, P, s, lam: G * W * f * 2 / 3 + lam * P * (1 - P)),
        "not differentiated": l0_with(lambda W, S, G, M, f, P, s, lam: G * W * f + lam * P),
        "soft movement's penalty": l0_with(lambda W, S, G, M, f, P, s, lam: G * W * f + lam * s * (1 - s)),
        "the other sigmoid": l0_with(lambda W, S, G, M, f, P, s, lam: G * W * f + lam * P * (1 - s)),
        "divided by b": l0_with(lambda W, S, G, M, f, P, s, lam: G * W * f + 1.5 * lam * P * (1 - P)),
        "mean for sum": l0_with(lambda W, S, G, M, f, P, s, lam: G * W * f + lam * P * (1 - P) / S.numel()),
        "lambda forgotten": l0_with(lambda W, S, G, M, f, P, s, lam: G * W * f + P * (1 - P)),
        "penalty upwards": l0_with(lambda W, S, G, M, f, P, s, lam: G * W * f - lam * P * (1 - P)),
        "penalty times f": l0_with(lambda W, S, G, M, f, P, s, lam: (G * W + lam * P * (1 - P)) * f),
        "penalty times M": l0_with(lambda W, S, G, M, f, P, s, lam: G * W * f + M * lam * P * (1 - P)),
        "penalty of open gates": l0_with(lambda W, S, G, M, f, P, s, lam: G * W * f + lam * P * (1 - P) * (M > 0)),
        "noise forgotten": l0_squeezed(lambda S, u: 1.5 * S),
        "temperature forgotten": l0_squeezed(lambda S, u: u.logit() + S),
        "test-time gate": l0_squeezed(lambda S, u: S),
        "u for its log-odds": l0_squeezed(lambda S, u: 1.5 * (u + S)),
        "the step": lambda *a: -l0_closed(*a),
        "printed log": lambda W, S, G, u, lam: l0_closed(W, S.log(), G, u, lam),
        "transposed": lambda *a: l0_closed(*a).T,
    },
}

#: Exercise -> wrong answer -> what its author reads; None: only what differs, and where.
SAID = {
    "6.1": {
        "tau against S": r"threshold of sigmoid\(S\)",
        "mask left in": "without a mask: else pruned weights never return$",
        "penalty masked": "the penalty acts on every score, without a mask$",
        "both masked": "neither of its two terms",
        "slope in the term of the loss": r"straight-through, G \* W, without sigmoid",
        "mean for sum": "a sum here, not a mean$",
        "absolute value": None,
    },
    "6.2": {
        "rounded down": r"2 of 20 .*: density \* N is rounded down",
        "rounded up": r"2 of 6 .*: density \* N is rounded up",
        "rounded to even": r"2 of 20 .*: a half is rounded up",
        "none kept": "expected 1 .*: k is at least 1",
        "off by one": "one too many passes",
        "just above the first that fails": None,
    },
    "6.3": {
        "penalty times f": "only the term of the loss has the factor f$",
        "penalty times M": "the penalty has no mask$",
        "penalty of open gates": "also where the gate is shut$",
        "noise forgotten": "the noise u is missing in f$",
        "temperature forgotten": "b is missing inside the sigmoid of f$",
        "test-time gate": "the noise u and the temperature b are missing in f$",
        "u for its log-odds": "by its log-odds",
        "f forgotten": "the factor f is missing$",
        "soft movement's penalty": "soft movement's penalty",
    },
}
