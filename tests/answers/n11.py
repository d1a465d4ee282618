"""Answers to the exercises of notebook 11: two right ones for each, and wrong ones that the checks must reject."""

import math

import torch


def gaussian(W, sigma, factor=2.0):
    return torch.exp(-torch.cdist(W, W).square() / (factor * sigma**2))


def r2_closed(W, sigma, alpha):
    K = gaussian(W, sigma)
    C = torch.full_like(K, 1 / len(W))
    while True:
        new = C * (K / (K @ C)).sqrt()
        change, C = (new - C).abs().sum() / C.sum(), new
        if change <= alpha:
            return C.diagonal()


def r2_by_loops(W, sigma, alpha):
    N = len(W)
    K = [[math.exp(-float((a - b).square().sum()) / (2 * sigma**2)) for b in W] for a in W]
    C, change = [[1 / N] * N for _ in range(N)], math.inf
    while change > alpha:
        KC = [[sum(K[i][k] * C[k][j] for k in range(N)) for j in range(N)] for i in range(N)]
        new = [[C[i][j] * math.sqrt(K[i][j] / KC[i][j]) for j in range(N)] for i in range(N)]
        total = sum(map(sum, C))
        change = sum(abs(new[i][j] - C[i][j]) for i in range(N) for j in range(N)) / total
        C = new
    return torch.tensor([C[i][i] for i in range(N)], dtype=W.dtype)


def r2_in_place(W, sigma, alpha):
    scores = r2_closed(W, sigma, alpha)
    W /= sigma
    return scores


def r2_with(
    step=lambda K, C: C * (K / (K @ C)).sqrt(),
    kernel=gaussian,
    change=lambda new, C: (new - C).abs().sum() / C.sum(),
    start=lambda K: torch.full_like(K, 1 / len(K)),
    end=lambda new, C: new.diagonal(),
):
    """R2 with a part replaced."""

    def r2(W, sigma, alpha):
        K = kernel(W, sigma)
        C = start(K)
        for _ in range(500):
            new = step(K, C)
            if change(new, C) <= alpha or not new.isfinite().all():
                return end(new, C)
            C = new
        return end(new, C)

    return r2


def d2_flat(batches):
    return torch.cat([H[mask.bool()] for H, mask in batches]).mean(0)


def d2_summed(batches):
    total = sum((H * mask[..., None]).sum((0, 1)) for H, mask in batches)
    return total / sum(mask.sum() for _, mask in batches)


def d2_with(part):
    """A mean over the batches of `part`."""
    return lambda batches: torch.stack([part(H, mask) for H, mask in batches]).mean(0)


def d2_zeroed(batches):
    total = sum((H * mask[..., None]).sum((0, 1)) for H, mask in batches)
    return total / sum(mask.numel() for _, mask in batches)


def minmax(x):
    return (x - x.min()) / (x.max() - x.min())


def best_by_sort(R2, D2, k):
    pool = torch.cat([a * minmax(b) for a, b in zip(R2, D2, strict=True)])
    kept = torch.zeros(len(pool), dtype=torch.bool)
    kept[pool.topk(k).indices] = True
    return list(kept.split([len(a) for a in R2]))


def best_by_threshold(R2, D2, k):
    scores = [a * (b - b.min()) / (b.max() - b.min()) for a, b in zip(R2, D2, strict=True)]
    least = sorted((float(x) for layer in scores for x in layer), reverse=True)[k - 1]
    return tuple(layer >= least for layer in scores)


def best_with(score):
    """The k highest of all layers of another score of each layer."""

    def best(R2, D2, k):
        pool = torch.cat([score(a, b) for a, b in zip(R2, D2, strict=True)])
        kept = torch.zeros(len(pool), dtype=torch.bool)
        kept[pool.topk(k).indices] = True
        return list(kept.split([len(a) for a in R2]))

    return best


def best_over_all_layers(R2, D2, k):
    low, high = torch.cat(D2).min(), torch.cat(D2).max()
    return best_with(lambda a, b: a * (b - low) / (high - low))(R2, D2, k)


def best_in_each(count):
    def best(R2, D2, k):
        scores = [a * minmax(b) for a, b in zip(R2, D2, strict=True)]
        return [x >= x.topk(min(count(k, len(R2)), len(x))).values[-1] for x in scores]

    return best


def stub(*_):
    return None


RIGHT = {
    "11.1": [r2_closed, r2_by_loops, r2_with(lambda K, C: C * (K / (C @ K)).sqrt())],
    "11.2": [d2_flat, d2_summed],
    "11.3": [best_by_sort, best_by_threshold],
}

WRONG = {
    "11.1": {
        "stub": stub,
        "no root": r2_with(lambda K, C: C * K / (K @ C)),
        "upside down": r2_with(lambda K, C: C * ((K @ C) / K).sqrt()),
        "C forgotten": r2_with(lambda K, C: (K / (K @ C)).sqrt()),
        "entry by entry": r2_with(lambda K, C: C * (K / (K * C)).sqrt()),
        "without the 2": r2_with(kernel=lambda W, sigma: gaussian(W, sigma, 1.0)),
        "not squared": r2_with(kernel=lambda W, sigma: torch.exp(-torch.cdist(W, W) / (2 * sigma**2))),
        "linear kernel": r2_with(kernel=lambda W, sigma: (W @ W.T).abs()),
        "columns": r2_with(kernel=lambda W, sigma: gaussian(W.T, sigma)),
        "signed change": r2_with(change=lambda new, C: (new - C).sum() / C.sum()),
        "absolute value of the sum": r2_with(change=lambda new, C: (new - C).sum().abs() / C.sum()),
        "the step before": r2_with(end=lambda new, C: C.diagonal()),
        "starts at ones": r2_with(start=torch.ones_like),
        "starts at the identity": r2_with(start=lambda K: torch.eye(len(K), dtype=K.dtype) / len(K)),
        "starts at 1": r2_with(start=lambda K: torch.eye(len(K), dtype=K.dtype)),
        "2 sigma": r2_with(kernel=lambda W, sigma: torch.exp(-torch.cdist(W, W).square() / (2 * sigma))),
        "mean change": r2_with(change=lambda new, C: (new - C).abs().mean()),
        "the matrix": r2_with(end=lambda new, C: new),
        "in place": r2_in_place,
    },
    "11.2": {
        "stub": stub,
        "padding counted": lambda batches: torch.cat([H.flatten(0, 1) for H, _ in batches]).mean(0),
        "padding in the divisor": d2_zeroed,
        "mean of batches": d2_with(lambda H, mask: H[mask.bool()].mean(0)),
        "mean of batches, padded": d2_with(lambda H, mask: H.mean((0, 1))),
        "mean of sentences": lambda batches: torch.cat(
            [(H * m[..., None]).sum(1) / m.sum(1, keepdim=True) for H, m in batches]
        ).mean(0),
        "absolute values": lambda batches: torch.cat([H[mask.bool()].abs() for H, mask in batches]).mean(0),
        "sum": lambda batches: torch.cat([H[mask.bool()] for H, mask in batches]).sum(0),
        "padding alone": lambda batches: torch.cat([H[mask == 0] for H, mask in batches]).mean(0),
        "last batch": lambda batches: d2_flat(batches[-1:]),
        "by sentence": lambda batches: (
            sum((H * mask[..., None]).sum((0, 1)) for H, mask in batches) / sum(len(mask) for _, mask in batches)
        ),
        "one number": lambda batches: d2_flat(batches).mean(),
    },
    "11.3": {
        "stub": stub,
        "over all layers": best_over_all_layers,
        "not normalized": best_with(lambda a, b: a * b),
        "z-score": best_with(lambda a, b: a * (b - b.mean()) / b.std()),
        "by the maximum": best_with(lambda a, b: a * b / b.abs().max()),
        "by the range": best_with(lambda a, b: a * b / (b.max() - b.min())),
        "sum": best_with(lambda a, b: a + minmax(b)),
        "both normalized": best_with(lambda a, b: minmax(a) * minmax(b)),
        "product normalized": best_with(lambda a, b: minmax(a * b)),
        "R2 alone": best_with(lambda a, b: a),
        "D2 alone": best_with(lambda a, b: b),
        "the lowest": best_with(lambda a, b: -a * minmax(b)),
        "k in each layer": best_in_each(lambda k, layers: k),
        "k shared out": best_in_each(lambda k, layers: k // layers),
        "the pruned ones": lambda *a: [~mask for mask in best_by_sort(*a)],
        "one tensor": lambda *a: torch.cat(best_by_sort(*a)),
        "scores": lambda R2, D2, k: [a * minmax(b) for a, b in zip(R2, D2, strict=True)],
        "one too few": lambda R2, D2, k: best_by_sort(R2, D2, k - 1),
    },
}

#: Exercise -> wrong answer -> what its author reads; None: only what differs, and where.
SAID = {
    "11.1": {
        "no root": "the root is missing$",
        "without the 2": r"2 sigma\^2",
        "not squared": "squared distance$",
        "signed change": "stops after one step",
        "absolute value of the sum": "a sum of absolute values",
        "the step before": "before the last step",
        "starts at ones": "starts at 1 / N$",
        "starts at 1": "not at the identity$",
        "2 sigma": "not by 2 sigma$",
        "mean change": "not by the number of its entries$",
        "linear kernel": None,
    },
    "11.2": {
        "padding counted": "padding is included$",
        "padding in the divisor": "counted in the number of tokens$",
        "mean of batches": "divide the total sum once",
        "mean of sentences": "every token counts alike",
        "absolute values": "signed mean$",
        "by sentence": "not of tokens$",
    },
    "11.3": {
        "over all layers": "within each layer, not over all layers$",
        "not normalized": "D2 is not normalized$",
        "z-score": "this is a z-score",
        "by the maximum": "by its largest entry",
        "sum": "multiplied, not added$",
        "both normalized": "R2 is not$",
        "product normalized": "before the product",
        "k in each layer": "one pool of k neurons",
        "k shared out": "not k / layers in each$",
        "the lowest": "expected the highest$",
        "scores": "mask 0 has dtype",
    },
}
