"""Answers to the exercises of notebook 08: two right ones for each, and wrong ones that the checks must reject."""

import math

import torch
from torch.nn import functional as F


def kd_by_logs(student, teacher, T):
    log_p, log_q = torch.log_softmax(teacher / T, 1), torch.log_softmax(student / T, 1)
    return T**2 * (log_p.exp() * (log_p - log_q)).sum(1).mean()


def kd_by_loop(student, teacher, T):
    total = torch.zeros((), dtype=student.dtype)
    for z, z_t in zip(student, teacher, strict=True):
        weights = [math.exp(float(a) / T) for a in z_t]
        p = [w / sum(weights) for w in weights]
        q = (z / T).exp() / (z / T).exp().sum()
        total = total + sum(a * (math.log(a) - b.log()) for a, b in zip(p, q, strict=True))
    return T * T * total / len(student)


def kd_torch(student, teacher, T, reduction="batchmean"):
    log_q, p = torch.log_softmax(student / T, 1), torch.softmax(teacher / T, 1)
    return F.kl_div(log_q, p, reduction=reduction)


def mixed(student, teacher, labels, T, alpha_ce, alpha_kd):
    return alpha_ce * F.cross_entropy(student, labels) + alpha_kd * T**2 * kd_torch(student, teacher, T)


def mixed_by_hand(student, teacher, labels, T, alpha_ce, alpha_kd):
    ce = -torch.log_softmax(student, 1).gather(1, labels[:, None]).mean()
    return alpha_ce * ce + alpha_kd * kd_by_logs(student, teacher, T)


def mixed_by_loop(student, teacher, labels, T, alpha_ce, alpha_kd):
    ce = sum(z.logsumexp(0) - z[y] for z, y in zip(student, labels, strict=True)) / len(labels)
    return alpha_ce * ce + alpha_kd * kd_by_loop(student, teacher, T)


def mixed_with(formula):
    """The mixed loss with one of its parts replaced: ce and kd (with T squared) are the right ones."""

    def loss(student, teacher, labels, T, alpha_ce, alpha_kd):
        ce, kd = F.cross_entropy(student, labels), T**2 * kd_torch(student, teacher, T)
        return formula(ce, kd, alpha_ce, alpha_kd, student, teacher, labels, T)

    return loss


def raw(z, t, T, reduction="none"):
    return F.kl_div(torch.softmax(z / T, 1), torch.softmax(t / T, 1), reduction=reduction)


def gradient(W, M, X, teacher, labels, T, alpha_ce, alpha_kd):
    z = X @ (W * M).T
    y = F.one_hot(labels, len(W))
    pulled = alpha_ce * (torch.softmax(z, 1) - y)
    pulled = pulled + alpha_kd * T * (torch.softmax(z / T, 1) - torch.softmax(teacher / T, 1))
    return pulled.T @ X / len(X) * W


def gradient_by_autograd(W, M, X, teacher, labels, T, alpha_ce, alpha_kd):
    mask = M.to(W.dtype).clone().requires_grad_()
    mixed(X @ (W * mask).T, teacher, labels, T, alpha_ce, alpha_kd).backward()
    return mask.grad


def gradient_by_loop(W, M, X, teacher, labels, T, alpha_ce, alpha_kd):
    G = torch.zeros_like(W)
    for x, t, label in zip(X, teacher, labels, strict=True):
        z = (W * M) @ x
        pull = alpha_ce * torch.softmax(z, 0) + alpha_kd * T * (torch.softmax(z / T, 0) - torch.softmax(t / T, 0))
        pull[label] -= alpha_ce
        G += torch.outer(pull, x) / len(X)
    return G * W


def gradient_with(last, forward=lambda W, M: W * M, label_T=lambda T: 1.0, teacher_T=lambda T: T, factor=lambda T: T):
    """The gradient with one of its parts replaced."""

    def found(W, M, X, teacher, labels, T, alpha_ce, alpha_kd):
        z = X @ forward(W, M).T
        ce = torch.softmax(z / label_T(T), 1) - F.one_hot(labels, len(W))
        kd = torch.softmax(z / T, 1) - torch.softmax(teacher / teacher_T(T), 1)
        return last((alpha_ce * ce + alpha_kd * factor(T) * kd).T @ X / len(X), W, M)

    return found


def times_W(G, W, M):
    return G * W


def tokens(student, teacher, labels, T):
    real = labels != -100
    return kd_by_logs(student[real], teacher[real], T)


def tokens_by_weights(student, teacher, labels, T):
    log_p, log_q = (torch.log_softmax(z / T, -1) for z in (teacher, student))
    kl = (log_p.exp() * (log_p - log_q)).sum(-1)
    weight = (labels >= 0).to(kl.dtype)
    return T * T * (kl * weight).sum() / weight.sum()


def kl_of(student, teacher, T):
    log_p, log_q = (torch.log_softmax(z / T, -1) for z in (teacher, student))
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def kd_over_examples(z, t, T):
    """Softmax over the wrong dimension."""
    p, q = torch.softmax(t / T, 0), torch.softmax(z / T, 0)
    return T**2 * (p * (p / q).log()).sum(1).mean()


def kl_over_positions(z, t, T):
    p, q = torch.softmax(t / T, 1), torch.softmax(z / T, 1)
    return (p * (p / q).log()).sum(2)


def single(answer):
    """The answer in single precision."""
    return lambda *given: answer(
        *(x.float() if isinstance(x, torch.Tensor) and x.is_floating_point() else x for x in given)
    )


def stub(*_):
    return None


RIGHT = {
    "8.1": [mixed, mixed_by_hand, mixed_by_loop, single(mixed)],
    "8.2": [gradient, gradient_by_autograd, gradient_by_loop],
    "8.3": [tokens, tokens_by_weights, single(tokens)],
}

WRONG = {
    "8.1": {
        "stub": stub,
        "number": lambda *a: mixed(*a).item(),
        "detached": lambda z, *a: mixed(z.detach(), *a),
        "no logarithm": mixed_with(lambda ce, kd, a, b, z, t, y, T: a * ce + b * T**2 * raw(z, t, T, "batchmean")),
        "no logarithm, no T squared": mixed_with(
            lambda ce, kd, a, b, z, t, y, T: a * ce + b * raw(z, t, T, "batchmean")
        ),
        "mean over entries": mixed_with(lambda ce, kd, a, b, z, *_: a * ce + b * kd / z.shape[1]),
        "sum over examples": mixed_with(lambda ce, kd, a, b, z, *_: a * ce + b * kd * len(z)),
        "T squared forgotten": mixed_with(lambda ce, kd, a, b, z, t, y, T: a * ce + b * kd / T**2),
        "T once": mixed_with(lambda ce, kd, a, b, z, t, y, T: a * ce + b * kd / T),
        "both": mixed_with(lambda ce, kd, a, b, z, t, y, T: a * ce + b * kd / T**2 / z.shape[1]),
        "labels softened": mixed_with(lambda ce, kd, a, b, z, t, y, T: a * F.cross_entropy(z / T, y) + b * kd),
        "T squared on both": mixed_with(lambda ce, kd, a, b, z, t, y, T: a * ce * T**2 + b * kd),
        "one minus": mixed_with(lambda ce, kd, a, b, *_: a * ce + (1 - a) * kd),
        "probabilities": mixed_with(
            lambda ce, kd, a, b, z, t, y, T: a * F.cross_entropy(torch.softmax(z, 1), y) + b * kd
        ),
        "exchanged in kl_div": mixed_with(
            lambda ce, kd, a, b, z, t, y, T: (
                a * ce + b * F.kl_div(torch.softmax(t / T, 1), torch.log_softmax(z / T, 1), reduction="batchmean")
            )
        ),
        "weights exchanged": mixed_with(lambda ce, kd, a, b, *_: b * ce + a * kd),
        "no weights": mixed_with(lambda ce, kd, *_: ce + kd),
        "teacher alone": mixed_with(lambda ce, kd, a, b, *_: b * kd),
        "labels alone": mixed_with(lambda ce, kd, a, b, *_: a * ce),
        "student first": mixed_with(lambda ce, kd, a, b, z, t, y, T: a * ce + b * kd_by_logs(t, z, T)),
        "cross-entropy": mixed_with(
            lambda ce, kd, a, b, z, t, y, T: (
                a * ce - b * T**2 * (torch.softmax(t / T, 1) * torch.log_softmax(z / T, 1)).sum(1).mean()
            )
        ),
        "no temperature": mixed_with(lambda ce, kd, a, b, z, t, y, T: a * ce + b * T**2 * kd_torch(z, t, 1.0)),
        "times T": mixed_with(lambda ce, kd, a, b, z, t, y, T: a * ce + b * T**2 * kd_torch(z, t, 1 / T)),
        "teacher not softened": mixed_with(lambda ce, kd, a, b, z, t, y, T: a * ce + b * T**2 * kd_torch(z, t * T, T)),
        "student not softened": mixed_with(lambda ce, kd, a, b, z, t, y, T: a * ce + b * T**2 * kd_torch(z * T, t, T)),
        "over examples": mixed_with(lambda ce, kd, a, b, z, t, y, T: a * ce + b * kd_over_examples(z, t, T)),
        "logarithms in both": mixed_with(
            lambda ce, kd, a, b, z, t, y, T: (
                a * ce
                + b * T**2 * F.kl_div(torch.log_softmax(z / T, 1), torch.log_softmax(t / T, 1), reduction="batchmean")
            )
        ),
        "teacher in its place for labels": mixed_with(
            lambda ce, kd, a, b, z, t, *_: a * F.cross_entropy(z, t.argmax(1)) + b * kd
        ),
    },
    "8.2": {
        "stub": stub,
        "mask left in": gradient_with(lambda G, W, M: G * W * M),
        "W forgotten": gradient_with(lambda G, W, M: G),
        "of the weights": gradient_with(lambda G, W, M: G * M),
        "of the step": gradient_with(lambda G, W, M: -G * W),
        "sum": lambda W, M, X, *a: gradient(W, M, X, *a) * len(X),
        "T forgotten": gradient_with(times_W, factor=lambda T: 1.0),
        "T squared": gradient_with(times_W, factor=lambda T: T * T),
        "one over T": gradient_with(times_W, factor=lambda T: 1 / T),
        "labels softened": gradient_with(times_W, label_T=lambda T: T),
        "teacher not softened": gradient_with(times_W, teacher_T=lambda T: 1.0),
        "weights exchanged": lambda *a: gradient(*a[:-2], a[-1], a[-2]),
        "labels alone": lambda *a: gradient(*a[:-1], 0.0),
        "teacher alone": lambda *a: gradient(*a[:-2], 0.0, a[-1]),
        "dense forward": gradient_with(times_W, forward=lambda W, M: W),
        "teacher's sign": gradient_with(times_W, factor=lambda T: -T),
        "transposed": lambda *a: gradient(*a).T,
        "in place": lambda W, *a: W.mul_(gradient(W, *a)),
    },
    "8.3": {
        "stub": stub,
        "number": lambda *a: tokens(*a).item(),
        "detached": lambda z, *a: tokens(z.detach(), *a),
        "padding counts": lambda z, t, y, T: T**2 * kl_of(z, t, T).mean(),
        "divided by all": lambda z, t, y, T: T**2 * (kl_of(z, t, T) * (y != -100)).mean(),
        "over sequences": lambda z, t, y, T: T**2 * kl_of(z, t, T)[y != -100].sum() / len(z),
        "batchmean of all": lambda z, t, y, T: (
            T**2 * F.kl_div(torch.log_softmax(z / T, 2), torch.softmax(t / T, 2), reduction="batchmean")
        ),
        "mean of means": lambda z, t, y, T: T**2 * ((kl_of(z, t, T) * (y != -100)).sum(1) / (y != -100).sum(1)).mean(),
        "T squared forgotten": lambda z, t, y, T: tokens(z, t, y, T) / T**2,
        "T once": lambda z, t, y, T: tokens(z, t, y, T) / T,
        "summed": lambda z, t, y, T: tokens(z, t, y, T) * (y != -100).sum(),
        "padding alone": lambda z, t, y, T: T**2 * kl_of(z, t, T)[y == -100].mean(),
        "class 0 left out": lambda z, t, y, T: T**2 * kl_of(z, t, T)[y > 0].mean(),
        "student first": lambda z, t, y, T: tokens(t, z, y, T),
        "no temperature": lambda z, t, y, T: T**2 * tokens(z, t, y, 1.0),
        "no temperature at all": lambda z, t, y, T: tokens(z, t, y, 1.0),
        "cross-entropy": lambda z, t, y, T: (
            -(T**2) * (torch.softmax(t / T, -1) * torch.log_softmax(z / T, -1)).sum(-1)[y != -100].mean()
        ),
        "by position": lambda z, t, y, T: T**2 * kl_of(z, t, T) * (y != -100),
        "softmax over positions": lambda z, t, y, T: T**2 * kl_over_positions(z, t, T)[y != -100].mean(),
    },
}


SAID = {
    "8.1": {
        "no logarithm": "use log_softmax in its first argument$",
        "both": "T squared is missing, and the mean is over the examples",
        "labels softened": "the loss of the labels has no temperature$",
        "cross-entropy": r"subtract the teacher's entropy \(the gradient is right\)$",
        "student first": r"the sum is of p log\(p / q\)$",
        "one minus": "not 1 - alpha_ce$",
        "probabilities": "expects logits",
        "exchanged in kl_div": "then the teacher's probabilities$",
    },
    "8.2": {
        "mask left in": "no mask: else pruned weights never return$",
        "of the weights": r"that of the scores is G \* W$",
        "T squared": "one T goes with the derivative$",
        "labels softened": "the labels' term has no temperature$",
        "one over T": "is multiplied by T squared$",
        "dense forward": r"uses W \* M, not W$",
    },
    "8.3": {
        "padding counts": "leave out those with the label -100$",
        "divided by all": "the mean divides by all positions$",
        "over sequences": "not over the sequences$",
        "mean of means": "each position the same$",
        "no temperature": "the temperature is missing$",
        "no temperature at all": "temperature and T squared are missing$",
        "cross-entropy": r"subtract the teacher's entropy",
        "class 0 left out": "the label of class 0 is no padding",
    },
}
