"""Answers to the exercises of notebook 09: two right ones for each, and wrong ones that the checks must reject."""

import math

import torch


def head_density_by_reshape(query, key, value, output, heads):
    stacked = torch.stack([query, key, value, output.T]).double()  # (4, width, width)
    width = query.shape[0]
    return stacked.reshape(4, heads, width // heads, width).mean(dim=(0, 2, 3))


def head_density_by_loop(query, key, value, output, heads):
    size = len(query) // heads
    found = []
    for head in range(heads):
        mine = slice(head * size, (head + 1) * size)
        kept = sum(int(M[mine].sum()) for M in (query, key, value)) + int(output[:, mine].sum())
        found.append(kept / (4 * size * len(query)))
    return torch.tensor(found, dtype=torch.float64)


def head_density_with(arrange, reduce=lambda x: x.mean(dim=(0, 2, 3))):
    def density(query, key, value, output, heads):
        stacked = torch.stack(arrange(query, key, value, output)).double()
        count, width = stacked.shape[:2]
        return reduce(stacked.reshape(count, heads, width // heads, width))

    return density


def strided_heads(query, key, value, output, heads):
    stacked = torch.stack([query, key, value, output.T]).double()
    width = query.shape[0]
    return stacked.reshape(4, width // heads, heads, width).mean(dim=(0, 1, 3))


def hypergeometric(m, N, K):
    v = K / N
    return m * v * (1 - v) * (N - m) / (N - 1)


def concentration_closed(M):
    kept = M.double().sum(dim=1)
    return kept.var(correction=0) / hypergeometric(M.shape[1], M.numel(), int(M.sum()))


def concentration_by_loop(M):
    rows, columns = M.shape
    counts = [sum(int(entry) for entry in row) for row in M.tolist()]
    mean = sum(counts) / rows
    seen = sum((count - mean) ** 2 for count in counts) / rows
    v = mean / columns
    return seen / (columns * v * (1 - v)) * (M.numel() - 1) / (M.numel() - columns)


def overlap_pooled(first, second):
    A, B = (torch.cat([M.flatten() for M in masks]) for masks in (first, second))
    return float((A & B).sum()) / float((A | B).sum())


def overlap_by_counts(first, second):
    both = sum(int((A & B).sum()) for A, B in zip(first, second, strict=True))
    alone = sum(int(M.sum()) for M in [*first, *second])
    return torch.tensor(both / (alone - both), dtype=torch.float64)


def broken_overlap(first, second):
    return sum((A == B).double().mean() for A, B in zip(first, second, strict=True)) / len(first)


def counted(formula):
    """An overlap from the pooled counts: in both, in the first, in the second, of all."""

    def overlap(first, second):
        A, B = (torch.cat([M.flatten() for M in masks]).double() for masks in (first, second))
        return formula((A * B).sum(), A.sum(), B.sum(), A.numel())

    return overlap


def overlap_in_place(first, second):
    result = overlap_pooled(first, second)
    for A, B in zip(first, second, strict=True):
        A &= B
    return result


def stub(*_):
    return None


RIGHT = {
    "9.1": [head_density_by_reshape, head_density_by_loop],
    "9.2": [concentration_closed, concentration_by_loop],
    "9.3": [overlap_pooled, overlap_by_counts],
}

WRONG = {
    "9.1": {
        "stub": stub,
        "output by rows": head_density_with(lambda q, k, v, o: [q, k, v, o]),
        "all by columns": head_density_with(lambda q, k, v, o: [q.T, k.T, v.T, o.T]),
        "rows and columns exchanged": head_density_with(lambda q, k, v, o: [q.T, k.T, v.T, o]),
        "output forgotten": head_density_with(lambda q, k, v, o: [q, k, v]),
        "key forgotten": head_density_with(lambda q, k, v, o: [q, v, o.T]),
        "every heads-th row": strided_heads,
        "counts": head_density_with(lambda q, k, v, o: [q, k, v, o.T], lambda x: x.sum(dim=(0, 2, 3))),
        "of the whole": lambda *a: head_density_by_reshape(*a) / a[-1],
        "sum of four": lambda *a: 4 * head_density_by_reshape(*a),
        "of what is kept": lambda *a: head_density_by_reshape(*a) / head_density_by_reshape(*a).sum(),
        "each matrix": head_density_with(lambda q, k, v, o: [q, k, v, o.T], lambda x: x.mean(dim=(2, 3))),
        "pruned": lambda *a: 1 - head_density_by_reshape(*a),
        "in place": lambda q, k, v, o, h: head_density_by_reshape(q, k, v, o.logical_not_(), h),
    },
    "9.2": {
        "stub": stub,
        "sample variance": lambda M: concentration_closed(M) * len(M) / (len(M) - 1),
        "binomial": lambda M: concentration_closed(M) * (M.numel() - M.shape[1]) / (M.numel() - 1),
        "columns": lambda M: concentration_closed(M.T),
        "upside down": lambda M: 1 / concentration_closed(M),
        "deviation": lambda M: concentration_closed(M).sqrt(),
        "rows for m": lambda M: (
            M.double().sum(dim=1).var(correction=0) / hypergeometric(len(M), M.numel(), int(M.sum()))
        ),
        "variance alone": lambda M: M.double().sum(dim=1).var(correction=0),
        "over the mean": lambda M: M.double().sum(dim=1).var(correction=0) / M.double().sum(dim=1).mean(),
        "each row": lambda M: (M.double().sum(dim=1) - M.double().sum(dim=1).mean()) ** 2,
        "fractions": lambda M: concentration_closed(M) / M.shape[1] ** 2,
        "nothing left": lambda M: math.nan,
    },
    "9.3": {
        "stub": stub,
        "as it was": broken_overlap,
        "pooled agreement": lambda a, b: counted(lambda both, A, B, n: (n - A - B + 2 * both) / n)(a, b),
        "mean over matrices": lambda a, b: sum(overlap_pooled([A], [B]) for A, B in zip(a, b, strict=True)) / len(a),
        "of all": counted(lambda both, A, B, n: both / n),
        "of the first": counted(lambda both, A, B, n: both / A),
        "of the second": counted(lambda both, A, B, n: both / B),
        "of the sum": counted(lambda both, A, B, n: both / (A + B)),
        "dice": counted(lambda both, A, B, n: 2 * both / (A + B)),
        "distance": lambda a, b: 1 - overlap_pooled(a, b),
        "first matrix alone": lambda a, b: overlap_pooled(a[:1], b[:1]) + 1e-3,
        "counts": counted(lambda both, A, B, n: both),
        "in place": overlap_in_place,
    },
}

SAID = {
    "9.1": {
        "output by rows": "in the output matrix a head has columns, not rows$",
        "rows and columns exchanged": "rows and columns are exchanged",
        "all by columns": "has rows, not columns$",
        "sum of four": "divide by 4$",
        "of what is kept": "not by those kept$",
        "output forgotten": "the output matrix is missing$",
        "key forgotten": None,
        "every heads-th row": "adjacent rows",
        "counts": "number of weights, expected the fraction kept$",
        "of the whole": "divide by the weights of one head",
    },
    "9.2": {
        "sample variance": "number of rows, not by one less$",
        "binomial": "binomial's variance",
        "columns": "sum over dim 1",
        "upside down": "the ratio is inverted",
        "deviation": "ratio of the standard deviations$",
        "variance alone": "the variance alone: divide it by",
        "fractions": "count entries",
        "rows for m": "not the number of rows$",
    },
    "9.3": {
        "as it was": "entries that both prune are counted, and small matrices",
        "pooled agreement": "count only those that are kept$",
        "mean over matrices": "pool the entries of all of them first$",
        "of the first": "not by those of the first$",
        "of the second": "not by those of the second$",
        "of the sum": "holds common entries twice$",
        "dice": "Dice's coefficient",
        "distance": "Jaccard distance",
    },
}
