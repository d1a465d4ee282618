"""Answers to the exercises of notebook 10: two right ones for each, and wrong ones that the checks must reject."""

import torch


def gradient_by_index(parts, count):
    total = torch.zeros(count, dtype=parts[0][0].dtype)
    for G, W, group in parts:
        total.index_add_(0, group.reshape(-1), (G * W).reshape(-1))
    return total


def gradient_by_loop(parts, count):
    return torch.stack([sum((G * W)[group == g].sum() for G, W, group in parts) for g in range(count)])


def gradient_with(product=lambda G, W: G * W, parts=lambda parts: parts, end=lambda total, parts: total):
    def gradient(given, count):
        chosen = [(product(G, W), torch.ones_like(W), group) for G, W, group in parts(given)]
        return end(gradient_by_index(chosen, count), given)

    return gradient


def gradient_by_assignment(parts, count):
    total = torch.zeros(count, dtype=parts[0][0].dtype)
    for G, W, group in parts:
        total[group] += G * W
    return total


def gradient_sums_first(parts, count):
    G, W = (gradient_with(product)(parts, count) for product in (lambda G, W: G, lambda G, W: W))
    return G * W


def gradient_counted(parts, count):
    return gradient_by_loop(parts, 1 + max(int(group.max()) for _, _, group in parts))


def gradient_in_place(parts, count):
    for G, W, _ in parts:
        G *= W
    return gradient_with(lambda G, W: G)(parts, count)


def members(parts, count):
    return gradient_with(lambda G, W: torch.ones_like(W))(parts, count).clamp(min=1)


def shrink_by_index(W1, b1, W2):
    alive = W2.ne(0).any(dim=0)
    return W1[alive], b1[alive], W2[:, alive]


def shrink_by_loop(W1, b1, W2):
    alive = [n for n in range(len(W1)) if any(entry != 0 for entry in W2[:, n].tolist())]
    return torch.stack([W1[n] for n in alive]), b1[alive], torch.stack([W2[:, n] for n in alive], dim=1)


def broken_shrink(W1, b1, W2):
    alive = W1.ne(0).any(dim=1)
    return W1[alive], b1[: alive.sum()], W2[:, alive]


def shrink_with(choose, biases=lambda b1, alive: b1[alive]):
    def shrink(W1, b1, W2):
        alive = choose(W1, W2)
        return W1[alive], biases(b1, alive), W2[:, alive]

    return shrink


def columns(W1, W2):
    return W2.ne(0).any(dim=0)


def zeroed(W1, b1, W2):
    alive = W2.ne(0).any(dim=0)
    W1 *= alive[:, None]
    return W1[alive], b1[alive], W2[:, alive]


def attention_by_mask(W, b, W_O, heads):
    alive = W_O.ne(0).any(dim=0).view(heads, -1).any(dim=1)
    kept = alive.repeat_interleave(W_O.shape[1] // heads)
    return W[:, kept], b[:, kept], W_O[:, kept]


def attention_by_loop(W, b, W_O, heads):
    size, rows = W_O.shape[1] // heads, []
    for h in range(heads):
        mine = list(range(h * size, (h + 1) * size))
        if W_O[:, mine].abs().max() > 0:
            rows += mine
    return torch.stack([w[rows] for w in W]), torch.stack([one[rows] for one in b]), W_O[:, rows]


def attention_with(alive=None, kept=None, end=lambda W, b, W_O, kept: (W[:, kept], b[:, kept], W_O[:, kept])):
    """The right answer with a part of it replaced: which heads are alive, which rows those are, what is returned."""

    def shrink(W, b, W_O, heads):
        size = W_O.shape[1] // heads
        columns = W_O.view(len(W_O), heads, size)
        found = alive(W, columns, heads) if alive else columns.ne(0).any(dim=2).any(dim=0)
        return end(W, b, W_O, kept(found, W_O, size) if kept else found.repeat_interleave(size))

    return shrink


def values(W, heads):
    return W[2].ne(0).view(heads, -1).any(dim=1)


def attention_in_place(W, b, W_O, heads):
    b *= W_O.ne(0).any(dim=0)
    return attention_by_mask(W, b, W_O, heads)


def stub(*_):
    return None


RIGHT = {
    "10.1": [gradient_by_index, gradient_by_loop],
    "10.2": [shrink_by_index, shrink_by_loop],
    "10.3": [attention_by_mask, attention_by_loop],
}

WRONG = {
    "10.1": {
        "stub": stub,
        "mean": lambda parts, count: gradient_by_index(parts, count) / members(parts, count),
        "G alone": gradient_with(lambda G, W: G),
        "W alone": gradient_with(lambda G, W: W),
        "absolute products": gradient_with(lambda G, W: (G * W).abs()),
        "sums first": gradient_sums_first,
        "one weight a group": gradient_by_assignment,
        "sign": lambda parts, count: -gradient_by_index(parts, count),
        "first matrix": gradient_with(parts=lambda parts: parts[:1]),
        "last matrix": gradient_with(parts=lambda parts: parts[-1:]),
        "mean of the matrices": gradient_with(end=lambda total, parts: total / len(parts)),
        "groups that occur": gradient_counted,
        "of each weight": lambda parts, count: parts[0][0] * parts[0][1],
        "a list": lambda parts, count: gradient_by_index(parts, count).tolist(),
        "in place": gradient_in_place,
        "parts consumed": lambda parts, count: gradient_by_index([parts.pop() for _ in range(len(parts))], count),
    },
    "10.2": {
        "stub": stub,
        "as it was": broken_shrink,
        "rows": shrink_with(lambda W1, W2: W1.ne(0).any(dim=1)),
        "rows and columns": shrink_with(lambda W1, W2: W1.ne(0).any(dim=1) & W2.ne(0).any(dim=0)),
        "columns that do not sum to 0": shrink_with(lambda W1, W2: W2.sum(dim=0).ne(0)),
        "small columns": shrink_with(lambda W1, W2: W2.abs().amax(dim=0) > 1e-3),
        "the first output": shrink_with(lambda W1, W2: W2[0].ne(0)),
        "any zero": shrink_with(lambda W1, W2: W2.ne(0).all(dim=0)),
        "rows or columns": shrink_with(lambda W1, W2: W1.ne(0).any(dim=1) | W2.ne(0).any(dim=0)),
        "nothing removed": lambda W1, b1, W2: (W1, b1, W2),
        "first biases": shrink_with(columns, lambda b1, alive: b1[: alive.sum()]),
        "whole bias": shrink_with(columns, lambda b1, alive: b1),
        "no biases": shrink_with(columns, lambda b1, alive: torch.zeros(int(alive.sum()), dtype=b1.dtype)),
        "two of three": lambda W1, b1, W2: shrink_by_index(W1, b1, W2)[:2],
        "transposed": lambda W1, b1, W2: (*shrink_by_index(W1, b1, W2)[:2], shrink_by_index(W1, b1, W2)[2].T),
        "the dead": shrink_with(lambda W1, W2: W2.eq(0).all(dim=0)),
        "in place": zeroed,
    },
    "10.3": {
        "stub": stub,
        "nothing removed": lambda W, b, W_O, heads: (W, b, W_O),
        "single columns": attention_with(kept=lambda alive, W_O, size: W_O.ne(0).any(dim=0)),
        "any zero column": attention_with(lambda W, columns, heads: columns.ne(0).any(dim=0).all(dim=1)),
        "any zero": attention_with(lambda W, columns, heads: columns.ne(0).all(dim=2).all(dim=0)),
        "values": attention_with(lambda W, columns, heads: values(W, heads)),
        "values and columns": attention_with(
            lambda W, columns, heads: values(W, heads) & columns.ne(0).any(dim=2).any(dim=0)
        ),
        "the dead": attention_with(lambda W, columns, heads: columns.eq(0).all(dim=2).all(dim=0)),
        "columns that do not sum to 0": attention_with(
            lambda W, columns, heads: columns.sum(dim=0).ne(0).any(dim=1),
        ),
        "rows of the output": attention_with(
            lambda W, columns, heads: columns.reshape(heads, -1).ne(0).any(dim=1),
        ),
        "repeat": attention_with(kept=lambda alive, W_O, size: alive.repeat(size)),
        "first biases": attention_with(end=lambda W, b, W_O, kept: (W[:, kept], b[:, : kept.sum()], W_O[:, kept])),
        "first rows": attention_with(end=lambda W, b, W_O, kept: (W[:, : kept.sum()], b[:, kept], W_O[:, kept])),
        "whole bias": attention_with(end=lambda W, b, W_O, kept: (W[:, kept], b, W_O[:, kept])),
        "no biases": attention_with(end=lambda W, b, W_O, kept: (W[:, kept], 0 * b[:, kept], W_O[:, kept])),
        "rows of W_O": attention_with(end=lambda W, b, W_O, kept: (W[:, kept], b[:, kept], W_O[kept])),
        "inputs removed": attention_with(end=lambda W, b, W_O, kept: (W[:, :, kept], b[:, kept], W_O[:, kept])),
        "two of three": lambda *a: attention_by_mask(*a)[:2],
        "in place": attention_in_place,
    },
}

#: Exercise -> wrong answer -> what its author reads; None: only what differs, and where.
SAID = {
    "10.1": {
        "mean": "the mean over each group, expected the sum$",
        "G alone": "multiply by W before you add$",
        "one weight a group": "adds only one weight of each group",
        "first matrix": "only the first matrix is counted$",
        "last matrix": "only the last matrix is counted$",
        "mean of the matrices": "the mean over the matrices: add them$",
        "sums first": "multiply each G by its own W",
        "groups that occur": r"has shape \(4,\), expected \(5,\)",
        "in place": "argument number 1 in place",
        "parts consumed": "argument number 1 in place",
    },
    "10.2": {
        "rows": "select by columns of W2",
        "rows and columns": "it stays$",
        "any zero": r"\*all\* entries of its column",
        "first biases": "the first biases, not those of the neurons that stay$",
        "no biases": "the biases are missing$",
        "nothing removed": "all 7 neurons are still there",
        "rows or columns": "also if its row of W1 is not$",
        "columns that do not sum to 0": "compare its entries with 0, not their sum$",
        "small columns": "expected only exact zeros to go$",
        "the dead": "the dead neurons, expected the others$",
    },
    "10.3": {
        "nothing removed": "all 5 heads are still there",
        "single columns": "a head stays or goes as a whole",
        "any zero column": r"\*all\* of its columns are zero",
        "values": "still adds a constant$",
        "values and columns": "still adds a constant$",
        "the dead": "the dead heads, expected the others$",
        "columns that do not sum to 0": "compare its entries with 0, not their sum$",
        "inputs removed": "leave out rows of W and columns of W_O$",
        "repeat": "repeat_interleave, not repeat$",
        "first biases": "the first biases, not those of the heads that stay$",
        "first rows": "the first rows of W, not those of the heads that stay$",
        "no biases": "the biases are missing$",
        "rows of W_O": r"W_O has shape \(9, 15\), expected \(15, 9\)",
    },
}
