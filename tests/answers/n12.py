"""Answers to the exercises of notebook 12: right ones, and wrong ones that the checks must reject."""

import math

import torch


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


def gradient_by_gate(model, linear, batch):
    gate = torch.ones(linear.in_features, dtype=linear.weight.dtype, requires_grad=True)
    handle = linear.register_forward_pre_hook(lambda module, args: (args[0] * gate,))
    loss = model(**batch).loss
    handle.remove()
    return torch.autograd.grad(loss, gate)[0]


def gradient_of_weights(model, linear, batch):
    (G,) = torch.autograd.grad(model(**batch).loss, linear.weight)
    return (G * linear.weight).sum(dim=0)


def gradient_of_activations(model, linear, batch):
    """Each activation times its gradient, summed over batch and tokens."""
    caught = []
    handle = linear.register_forward_pre_hook(lambda module, args: caught.append(args[0]))
    loss = model(**batch).loss
    handle.remove()
    (into,) = torch.autograd.grad(loss, caught)
    return (into * caught[0]).flatten(0, -2).sum(0)


def gate_with(hook, start=1.0, forward=False, finish=lambda found, gate: found):
    """`gradient_by_gate` with another hook."""

    def gradient(model, linear, batch):
        size = linear.out_features if forward else linear.in_features
        gate = torch.full((size,), start, dtype=linear.weight.dtype, requires_grad=True)
        register = linear.register_forward_hook if forward else linear.register_forward_pre_hook
        handle = register(lambda module, args, *out: hook(gate, args, *out))
        loss = model(**batch).loss
        handle.remove()
        return finish(torch.autograd.grad(loss, gate)[0], gate)

    return gradient


def weights_with(formula):
    def gradient(model, linear, batch):
        (G,) = torch.autograd.grad(model(**batch).loss, linear.weight)
        return formula(G, linear.weight)

    return gradient


def hook_left(model, linear, batch):
    gate = torch.ones(linear.in_features, dtype=linear.weight.dtype, requires_grad=True)
    linear.register_forward_pre_hook(lambda module, args: (args[0] * gate,))
    return torch.autograd.grad(model(**batch).loss, gate)[0]


def by_backward(model, linear, batch):
    gate = torch.ones(linear.in_features, dtype=linear.weight.dtype, requires_grad=True)
    handle = linear.register_forward_pre_hook(lambda module, args: (args[0] * gate,))
    model(**batch).loss.backward()
    handle.remove()
    return gate.grad


def summed_loss(model, linear, batch):
    return gradient_by_gate(model, linear, batch) * len(batch["labels"])


def weights_changed(model, linear, batch):
    found = gradient_by_gate(model, linear, batch)
    with torch.no_grad():
        linear.weight.mul_(0.5)
    return found


def stub(*_):
    return None


RIGHT = {
    "12.1": [affordable_counted, affordable_closed],
    "12.2": [scales_closed, scales_by_columns],
    "12.3": [gradient_by_gate, gradient_of_weights, gradient_of_activations],
}

WRONG = {
    "12.1": {
        "stub": stub,
        "attention forgotten": affordable_with(lambda a, maps, each, full, flops, heads: flops * full),
        "products forgotten": affordable_with(
            lambda a, maps, each, full, flops, heads: (flops * (maps + full * each) - heads * maps) / each
        ),
        "heads ignored": affordable_with(
            lambda a, maps, each, full, flops, heads: (flops * (a + full * each) - a) / each
        ),
        "products of all heads": affordable_with(
            lambda a, maps, each, full, flops, heads: (flops * (a + full * each) - heads * maps - (a - maps)) / each
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
    "12.2": {
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
        "ridge times the sum": lambda H, W, mask, real, ridge: scales_closed(H, W, mask, real, ridge * int(mask.sum())),
        "deviations": lambda H, W, mask, real, ridge: scales_closed(H, W, mask, real, ridge) - 1,
        "one for all": lambda H, W, mask, real, ridge: torch.full_like(
            scales_closed(H, W, mask, real, ridge), float(scales_closed(H, W, mask, real, ridge).mean())
        ),
        "in place": scales_in_place,
    },
    "12.3": {
        "stub": stub,
        "hook left": hook_left,
        "by backward": by_backward,
        "gate added": gate_with(lambda gate, args: (args[0] + gate - 1.0,)),
        "behind the map": gate_with(lambda gate, args, out: out * gate, forward=True),
        "nothing returned": gate_with(lambda gate, args: None),
        "at zero": gate_with(lambda gate, args: (args[0] * gate,), start=0.0),
        "tuple": gate_with(lambda gate, args: (args[0] * gate,), finish=lambda found, gate: (found,)),
        "the gate": gate_with(lambda gate, args: (args[0] * gate,), finish=lambda found, gate: gate),
        "descent": gate_with(lambda gate, args: (args[0] * gate,), finish=lambda found, gate: -found),
        "squared": gate_with(lambda gate, args: (args[0] * gate,), finish=lambda found, gate: found.square()),
        "W forgotten": weights_with(lambda G, W: G.sum(0)),
        "absolute values": weights_with(lambda G, W: (G * W).abs().sum(0)),
        "wrong index": weights_with(lambda G, W: (G * W).sum(1)),
        "not summed": weights_with(lambda G, W: G * W),
        "sum over the batch": summed_loss,
        "weights changed": weights_changed,
    },
}

SAID = {
    "12.1": {
        "attention forgotten": "the share of attention in the budget is missing$",
        "products forgotten": "two products of s x s are missing$",
        "heads ignored": "only the fraction `heads`",
        "products of all heads": "its share of the two products",
        "budget of the smaller model": "the whole model with all its heads$",
        "rounded up": "round down",
        "not rounded": "expected an integer",
        "one layer": "this is for one layer",
        "below nothing": "at least 0$",
        "one of two matrices": "two matrices, so 2 s d",
        "what goes": "the neurons that go",
    },
    "12.2": {
        "as it was": "the target is the output of all neurons",
        "padding counted": "padding is included$",
        "target of the kept": "the target is the output of all neurons",
        "matrix product": "entry by entry$",
        "towards 0": "towards 1, not towards 0$",
        "no ridge": "the ridge is missing$",
        "ridge not relative": "the ridge is relative",
        "ridge times the sum": "not its sum$",
        "the pruned ones": "scales of the pruned neurons",
        "every neuron": "an entry for every neuron",
        "deviations": "expected m$",
        "one for all": None,
        "in place": "in place",
    },
    "12.3": {
        "hook left": r"call handle\.remove\(\)",
        "by backward": r"changes \.grad of the weights",
        "gate added": "it is not added to it$",
        "behind the map": "ENTERS",
        "nothing returned": "does not depend on your gate",
        "at zero": "at m = 1, not at m = 0$",
        "tuple": r"take \[0\]",
        "descent": "not the step$",
        "squared": None,
        "W forgotten": "W is missing",
        "absolute values": "with signs$",
        "wrong index": "ENTERS",
        "not summed": "has shape",
        "sum over the batch": "a mean over the batch",
        "weights changed": "changes the model's weights",
    },
}
