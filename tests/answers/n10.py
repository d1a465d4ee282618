"""Answers to the exercises of notebook 10: two right ones for each, and wrong ones that the checks must reject."""

import math

import torch


def head_gradient_by_reshape(G, W, heads):
    product = G * W
    return torch.cat([product[:3], product[3].T[None]]).reshape(4, heads, -1).sum(dim=(0, 2))


def head_gradient_by_loop(G, W, heads):
    size = G.shape[1] // heads
    found = torch.zeros(heads, dtype=G.dtype)
    for head in range(heads):
        mine = slice(head * size, (head + 1) * size)
        for matrix in range(3):
            found[head] += (G[matrix, mine] * W[matrix, mine]).sum()
        found[head] += (G[3][:, mine] * W[3][:, mine]).sum()
    return found


def heads_with(arrange, reduce=lambda x: x.sum(dim=(0, 2))):
    def gradient(G, W, heads):
        stacked = arrange(G, W)
        return reduce(stacked.reshape(len(stacked), heads, -1))

    return gradient


def turned(product):
    return torch.cat([product[:3], product[3].T[None]])


def strided(G, W, heads):
    product = turned(G * W)
    return product.reshape(4, -1, heads, G.shape[1]).sum(dim=(0, 1, 3))


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


def most_by_formula(width, head_size, heads, neurons, length, budget):
    h = torch.arange(1, heads + 1, dtype=torch.float64)
    head = 2 * length * width * 4 * head_size + 4 * length**2 * head_size
    neuron = 4 * length * width
    room = budget * (heads * head + neurons * neuron) - h * head
    return torch.where(room < 0, -1.0, (room / neuron).floor().clamp(max=neurons)).long()


def most_by_loop(width, head_size, heads, neurons, length, budget):
    def cost(h, n):
        return 2 * length * width * (4 * head_size * h + 2 * n) + 4 * length**2 * head_size * h

    allowed, found = budget * cost(heads, neurons), []
    for h in range(1, heads + 1):
        n = -1
        while n < neurons and cost(h, n + 1) <= allowed:
            n += 1
        found.append(n)
    return found


def most(head=None, neuron=None, round=math.floor, cap=True, floor=-1, first=1, share=None):
    def answer(width, head_size, heads, neurons, length, budget):
        h_cost = (head or (lambda w, d, s: 8 * s * w * d + 4 * s * s * d))(width, head_size, length)
        n_cost = neuron(width, length) if neuron else 4 * length * width
        dense = (share or (lambda a, b: a + b))(heads * h_cost, neurons * n_cost)
        found = []
        for h in range(first, first + heads):
            room = budget * dense - h * h_cost
            n = round(room / n_cost)
            n = min(n, neurons) if cap else n
            found.append(floor if room < 0 else n)
        return torch.tensor(found)

    return answer


def stub(*_):
    return None


RIGHT = {
    "10.1": [head_gradient_by_reshape, head_gradient_by_loop],
    "10.2": [shrink_by_index, shrink_by_loop],
    "10.3": [most_by_formula, most_by_loop],
}

WRONG = {
    "10.1": {
        "stub": stub,
        "output by rows": heads_with(lambda G, W: G * W),
        "all by columns": heads_with(lambda G, W: (G * W).transpose(1, 2)),
        "rows and columns exchanged": heads_with(lambda G, W: torch.cat([(G * W)[:3].transpose(1, 2), (G * W)[3:]])),
        "output forgotten": heads_with(lambda G, W: (G * W)[:3]),
        "output alone": heads_with(lambda G, W: (G * W)[3].T[None]),
        "every heads-th row": strided,
        "mean": heads_with(lambda G, W: turned(G * W), lambda x: x.mean(dim=(0, 2))),
        "mean of the matrices": heads_with(lambda G, W: turned(G * W), lambda x: x.sum(dim=2).mean(dim=0)),
        "G alone": heads_with(lambda G, W: turned(G)),
        "W alone": heads_with(lambda G, W: turned(W)),
        "sign": lambda G, W, heads: -head_gradient_by_reshape(G, W, heads),
        "each matrix": heads_with(lambda G, W: turned(G * W), lambda x: x.sum(dim=2)),
        "in place": lambda G, W, heads: head_gradient_by_reshape(G.mul_(W), torch.ones_like(W), heads),
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
        "no products of attention": most(head=lambda w, d, s: 8 * s * w * d),
        "rounded up": most(round=math.ceil),
        "nearest": most(round=round),
        "not capped": most(cap=False),
        "0 over the budget": most(floor=0),
        "one matrix a neuron": most(neuron=lambda w, s: 2 * s * w),
        "of the neurons alone": most(share=lambda a, b: b),
        "from 0 heads": most(first=0),
        "three maps a head": most(head=lambda w, d, s: 6 * s * w * d + 4 * s * s * d),
        "one product of attention": most(head=lambda w, d, s: 8 * s * w * d + 2 * s * s * d),
        "a number": lambda *_: 5,
    },
}
