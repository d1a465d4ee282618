"""Answers to the exercises of notebook 11: two right ones for each, and wrong ones that the checks must reject."""

import math

import torch


def gaussian(W, sigma, factor=2.0):
    return torch.exp(-torch.cdist(W, W).square() / (factor * sigma**2))


def r2_closed(W, C, sigma):
    K = gaussian(W, sigma)
    return C * (K / (K @ C)).sqrt()


def r2_by_loops(W, C, sigma):
    N, new = len(W), torch.zeros_like(C)
    K = [[math.exp(-float((a - b).square().sum()) / (2 * sigma**2)) for b in W] for a in W]
    for i in range(N):
        for j in range(N):
            new[i, j] = C[i, j] * math.sqrt(K[i][j] / sum(K[i][k] * float(C[k, j]) for k in range(N)))
    return new


def r2_in_place(W, C, sigma):
    C *= (gaussian(W, sigma) / (gaussian(W, sigma) @ C)).sqrt()
    return C


def r2_with(formula, factor=2.0):
    return lambda W, C, sigma: formula(gaussian(W, sigma, factor), C)


def affordable_counted(L, d, N, s, flops, heads=1.0):
    attention, neuron = L * (4 * s * d**2 + 2 * s**2 * d), 2 * s * d
    k = math.floor((flops * (attention + L * N * neuron) - heads * attention) / neuron + 1e-9)
    return min(max(k, 0), L * N)


def affordable_closed(L, d, N, s, flops, heads=1.0):
    k = flops * L * N - (heads - flops) * L * (2 * d + s)
    return min(max(math.floor(k + 1e-9), 0), L * N)


def affordable_with(formula):
    """From the attention's operations, those of its matrices, a neuron's, and the number of neurons."""

    def affordable(L, d, N, s, flops, heads=1.0):
        maps, neuron = L * 4 * s * d**2, 2 * s * d
        k = formula(maps + L * 2 * s**2 * d, maps, neuron, L * N, flops, heads)
        return min(max(math.floor(k + 1e-9), 0), L * N)

    return affordable


def normal_equations(X, W, b, ridge, to=1.0):
    AtA, Atb = (W @ W.T) * (X.T @ X), (X * (b @ W.T)).sum(0)
    rho = ridge * AtA.diagonal().mean()
    return torch.linalg.solve(AtA + rho * torch.eye(len(AtA), dtype=AtA.dtype), Atb + to * rho)


def scales_closed(H, W, mask, real, ridge):
    X = H[real]
    return normal_equations(X[:, mask], W[mask], X @ W, ridge)


def scales_by_columns(H, W, mask, real, ridge):
    X = H[real]
    A = torch.stack([torch.outer(X[:, i], W[i]).flatten() for i in mask.nonzero()[:, 0]], dim=1)
    rho = ridge * A.square().sum(0).mean()
    eye = torch.eye(A.shape[1], dtype=A.dtype)
    rest = (X @ W).flatten() - A.sum(1)
    return 1 + torch.linalg.solve(A.T @ A + rho * eye, A.T @ rest)


def broken_scales(H, W, mask, real, ridge):
    X, W = H[..., mask].flatten(0, 1), W[mask]
    return normal_equations(X, W, X @ W, ridge)


def scales_with_padding(H, W, mask, real, ridge):
    X = H.flatten(0, 1)
    return normal_equations(X[:, mask], W[mask], X @ W, ridge)


def scales_own_target(H, W, mask, real, ridge):
    X = H[real][:, mask]
    return normal_equations(X, W[mask], X @ W[mask], ridge)


def scales_matrix_product(H, W, mask, real, ridge):
    X = H[real]
    left, rows = X[:, mask], W[mask]
    AtA, Atb = (rows @ rows.T) @ (left.T @ left), (left * (X @ W @ rows.T)).sum(0)
    rho = ridge * AtA.diagonal().mean()
    return torch.linalg.solve(AtA + rho * torch.eye(len(AtA), dtype=AtA.dtype), Atb + rho)


def scales_in_place(H, W, mask, real, ridge):
    H[~real] = 0
    return scales_closed(H, W, mask, real, ridge)


def full_length(H, W, mask, real, ridge):
    found = torch.zeros(len(W), dtype=W.dtype)
    found[mask] = scales_closed(H, W, mask, real, ridge)
    return found


def stub(*_):
    return None


RIGHT = {
    "11.1": [r2_closed, r2_by_loops],
    "11.2": [affordable_counted, affordable_closed],
    "11.3": [scales_closed, scales_by_columns],
}

WRONG = {
    "11.1": {
        "stub": stub,
        "no root": r2_with(lambda K, C: C * K / (K @ C)),
        "upside down": r2_with(lambda K, C: C * ((K @ C) / K).sqrt()),
        "C K": r2_with(lambda K, C: C * (K / (C @ K)).sqrt()),
        "C forgotten": r2_with(lambda K, C: (K / (K @ C)).sqrt()),
        "without the 2": r2_with(lambda K, C: C * (K / (K @ C)).sqrt(), factor=1.0),
        "entry by entry": r2_with(lambda K, C: C * (K / (K * C)).sqrt()),
        "constant kernel": lambda W, C, s: r2_with(lambda K, C: C * (K / (K @ C)).sqrt())(torch.zeros_like(W), C, s),
        "linear kernel": lambda W, C, s: C * ((W @ W.T).abs() / ((W @ W.T).abs() @ C)).sqrt(),
        "columns": lambda W, C, s: r2_closed(W.T, C, s) if W.shape[0] == W.shape[1] else r2_closed(W, C, s),
        "diagonal": lambda W, C, s: r2_closed(W, C, s).diagonal(),
        "in place": r2_in_place,
    },
    "11.2": {
        "stub": stub,
        "attention forgotten": affordable_with(lambda a, maps, each, full, flops, heads: flops * full),
        "products forgotten": affordable_with(
            lambda a, maps, each, full, flops, heads: (flops * (maps + full * each) - heads * maps) / each
        ),
        "heads ignored": affordable_with(
            lambda a, maps, each, full, flops, heads: (flops * (a + full * each) - a) / each
        ),
        "budget of the smaller model": affordable_with(
            lambda a, maps, each, full, flops, heads: (flops * (heads * a + full * each) - heads * a) / each
        ),
        "rounded up": affordable_with(
            lambda a, maps, each, full, flops, heads: (flops * (a + full * each) - heads * a) / each + 1
        ),
        "not rounded": lambda L, d, N, s, flops, heads=1.0: flops * L * N - (heads - flops) * L * (2 * d + s) + 0.25,
        "one layer": lambda L, d, N, s, flops, heads=1.0: affordable_counted(L, d, N, s, flops, heads) // L,
        "below nothing": lambda L, d, N, s, flops, heads=1.0: math.floor(
            flops * L * N - (heads - flops) * L * (2 * d + s)
        ),
        "one of two matrices": affordable_with(
            lambda a, maps, each, full, flops, heads: (flops * (a + full * each / 2) - heads * a) / (each / 2)
        ),
        "what goes": lambda L, d, N, s, flops, heads=1.0: L * N - affordable_counted(L, d, N, s, flops, heads),
    },
    "11.3": {
        "stub": stub,
        "as it was": broken_scales,
        "padding counted": scales_with_padding,
        "target of the kept": scales_own_target,
        "matrix product": scales_matrix_product,
        "towards 0": lambda H, W, mask, real, ridge: normal_equations(
            H[real][:, mask], W[mask], H[real] @ W, ridge, to=0.0
        ),
        "no ridge": lambda H, W, mask, real, ridge: scales_closed(H, W, mask, real, 0.0),
        "ridge not relative": lambda H, W, mask, real, ridge: scales_closed(
            H,
            W,
            mask,
            real,
            ridge / float(((W[mask] @ W[mask].T) * (H[real].T @ H[real])[mask][:, mask]).diagonal().mean()),
        ),
        "the pruned ones": lambda H, W, mask, real, ridge: scales_closed(H, W, ~mask, real, ridge),
        "every neuron": full_length,
        "deviations": lambda H, W, mask, real, ridge: scales_closed(H, W, mask, real, ridge) - 1,
        "one for all": lambda H, W, mask, real, ridge: torch.full_like(
            scales_closed(H, W, mask, real, ridge), float(scales_closed(H, W, mask, real, ridge).mean())
        ),
        "in place": scales_in_place,
    },
}
