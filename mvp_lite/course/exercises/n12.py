"""Checks of notebook 12: the neurons that fit a budget, scales of the kept neurons, gradients of a mask."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from mvp_lite.course.exercises.tools import WrongAnswer, call, close, exercise, normal


@exercise("12.1")
def _affordable(answer: Any) -> None:
    cases = [
        (4, 128, 512, 13, 0.6, 1.0), (12, 768, 3072, 39, 0.7, 1.0), (2, 32, 96, 50, 0.55, 0.5),
        (6, 384, 1536, 24, 0.45, 0.75), (2, 32, 96, 50, 0.3, 1.0), (3, 16, 40, 9, 0.95, 0.25),
    ]  # fmt: skip
    for L, d, N, s, flops, heads in cases:
        neuron = 2 * s * d

        def count(attention: float, kept: float, flops: float = flops, full: float = L * N, each: int = neuron) -> int:
            return math.floor((flops * (attention + full * each) - kept) / each + 1e-9)

        attention, maps = L * (4 * s * d**2 + 2 * s**2 * d), L * 4 * s * d**2
        raw = count(attention, heads * attention)
        expected = min(max(raw, 0), L * N)
        got = answer(L, d, N, s, flops, heads)
        if isinstance(got, Tensor) and got.dim() == 0:
            got = got.item()
        if isinstance(got, bool) or not isinstance(got, int | float) or got != int(got):
            raise WrongAnswer(f"your answer is {got!r}, expected an integer number of neurons")
        if got == expected:
            continue
        where = f"affordable({L}, {d}, {N}, {s}, {flops}, {heads}) is {got:g}, expected {expected}"
        hints = {
            "at most all neurons can be kept, and at least 0": raw,
            "the share of attention in the budget is missing": math.floor(flops * L * N + 1e-9),
            "attention's two products of s x s are missing": count(maps, heads * maps),
            "only the fraction `heads` of the attention remains and counts": count(attention, attention),
            "a head that goes takes its share of the two products with it": count(
                attention, heads * maps + attention - maps
            ),
            "the budget is a fraction of the whole model with all its heads": count(
                heads * attention, heads * attention
            ),
            "a neuron has two matrices, so 2 s d operations": count(attention, heads * attention, each=neuron // 2),
            "round down: a part of a neuron does not count": raw + 1,
            "this is for one layer: the budget is for all": raw // L,
            "these are the neurons that go, expected those that stay": L * N - expected,
        }
        for hint, value in hints.items():
            if got == value != expected:
                raise WrongAnswer(f"{where}: {hint}")
        raise WrongAnswer(where)


@exercise("12.2")
def _fit_scales(answer: Any) -> None:
    for seed, (rows, tokens, N, d, ridge) in enumerate([(2, 6, 5, 3, 1e-3), (3, 5, 8, 6, 0.1), (4, 9, 7, 7, 1e-2)]):
        H, W = normal(rows, tokens, N, seed=seed) + 0.3, normal(N, d, seed=seed + 20)
        mask = torch.arange(N) % 3 != 1
        lengths = torch.arange(rows) % (tokens - 2) + 2
        real = torch.arange(tokens)[None] < lengths[:, None]
        padded = torch.where(real[..., None], H, 3 * H.abs() + 1)

        def fit(X: Tensor, rows: Tensor, target: Tensor, ridge: float = ridge, to: float = 1.0) -> Tensor:
            A = torch.stack([torch.outer(h, w).flatten() for h, w in zip(X.T, rows, strict=True)], dim=1)
            rho = ridge * A.square().sum(0).mean()
            tall = torch.cat([A, rho.sqrt() * torch.eye(A.shape[1], dtype=A.dtype)])
            pull = to * rho.sqrt() * torch.ones(A.shape[1], dtype=A.dtype)
            found: Tensor = torch.linalg.lstsq(tall, torch.cat([target.flatten(), pull])).solution
            return found

        X, everything = padded[real], padded.flatten(0, 1)
        left, kept = X[:, mask], W[mask]
        expected = fit(left, kept, X @ W)
        AtA, matrices = (kept @ kept.T) * (left.T @ left), kept @ kept.T @ (left.T @ left)
        Atb, ones = (left * (X @ W @ kept.T)).sum(0), torch.ones_like(expected)
        eye = torch.eye(len(AtA), dtype=AtA.dtype)
        zeroed = torch.where(real[..., None], padded, 0.0).flatten(0, 1)
        hints = {
            "all ones: the target is the output of all neurons, not of the kept ones": ones,
            "padding is included": fit(everything[:, mask], kept, everything @ W),
            "padding is included in the target too: use real tokens alone": fit(zeroed[:, mask], kept, everything @ W),
            "the ridge pulls towards 1, not towards 0": fit(left, kept, X @ W, to=0.0),
            "the ridge is missing": fit(left, kept, X @ W, ridge=0.0),
            "the ridge is relative: `ridge` times the mean of the diagonal": _solved(AtA, Atb, eye, ridge),
            "the ridge uses the mean of the diagonal, not its sum": fit(left, kept, X @ W, ridge * len(AtA)),
            "these are the deviations m - 1, expected m": expected - 1.0,
            "(W W^T) and (H^T H) are multiplied entry by entry": _solved(
                matrices, Atb, eye, ridge * float(matrices.diagonal().mean())
            ),
        }
        got = call(answer, padded, W, mask, real, ridge)
        if isinstance(got, Tensor) and got.shape == (N,) and int(mask.sum()) != N:
            raise WrongAnswer("your answer has an entry for every neuron, expected the kept ones alone, in their order")
        if isinstance(got, Tensor) and got.shape == (int((~mask).sum()),) != expected.shape:
            raise WrongAnswer("these are scales of the pruned neurons: `mask` is true for the kept ones")
        close(got, expected, mistakes={hint: value.to(expected) for hint, value in hints.items()}, tol=1e-6)


def _solved(AtA: Tensor, Atb: Tensor, eye: Tensor, rho: float) -> Tensor:
    """Scales from the normal equations with a ridge towards 1."""
    found: Tensor = torch.linalg.solve(AtA + rho * eye, Atb + rho)
    return found


class _TwoFFNs(nn.Module):
    """Inputs (batch, tokens, d) through two FFNs with residuals; the loss is a mean over the batch, without padding."""

    def __init__(self, d: int, N: int, seed: int) -> None:
        super().__init__()
        shapes = [(N, d), (d, N), (N, d), (d, N)]
        self.maps = nn.ModuleList(nn.Linear(i, o, bias=o == d).double() for o, i in shapes)
        for n, linear in enumerate(self.maps):
            linear.weight.data = 0.7 * normal(*shapes[n], seed=seed + n)
            if linear.bias is not None:
                linear.bias.data = normal(d, seed=seed + n + 10)

    def forward(self, x: Tensor, attention_mask: Tensor, labels: Tensor) -> Any:
        for first, second in ((self.maps[0], self.maps[1]), (self.maps[2], self.maps[3])):
            x = x + second(nn.functional.gelu(first(x)))
        real = attention_mask.unsqueeze(-1).to(x)
        logits = (x * real).sum(1) / real.sum(1)
        return SimpleNamespace(loss=nn.functional.cross_entropy(logits, labels), logits=logits)


@exercise("12.3")
def _mask_gradient(answer: Any) -> None:
    for seed, (d, N, rows, tokens, place) in enumerate([(3, 5, 4, 6, 1), (4, 7, 3, 5, 3), (2, 6, 5, 4, 1)]):
        model: Any = _TwoFFNs(d, N, 100 * seed)
        linear = model.maps[place]
        real = torch.arange(tokens)[None] < (torch.arange(rows) % (tokens - 1) + 2)[:, None]
        inputs = {"x": normal(rows, tokens, d, seed=seed + 50), "attention_mask": real.long()}
        batch = inputs | {"labels": torch.arange(rows) % d}
        seen = _observed(model, linear, batch)
        G, W = seen["G"].T, linear.weight.detach().T  # (N, d)
        expected = (G * W).sum(1)
        before = {name: value.detach().clone() for name, value in model.named_parameters()}
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)  # a gradient that is there already has to stay

        try:
            got = call(answer, model, linear, dict(batch))
        except RuntimeError as error:
            if "not have been used in the graph" not in str(error):
                raise
            raise WrongAnswer(
                "the loss does not depend on your gate: the hook has to return what enters the map, times the gate"
            ) from None
        if linear._forward_pre_hooks or linear._forward_hooks or linear._backward_hooks:
            raise WrongAnswer("your hook is still in the model: call handle.remove() after the forward pass")
        if any(not torch.equal(before[name], value) for name, value in model.named_parameters()):
            raise WrongAnswer("your function changes the model's weights")
        if any(value.grad is None or not bool((value.grad == 1).all()) for value in model.parameters()):
            raise WrongAnswer(
                "your function changes .grad of the weights: torch.autograd.grad(loss, gate) returns the gradient "
                "and leaves them alone"
            )
        if isinstance(got, tuple | list) and len(got) == 1:
            raise WrongAnswer("your answer is a tuple: torch.autograd.grad returns one entry for each input, take [0]")
        if isinstance(got, Tensor) and got.shape == (d,) != expected.shape:
            raise WrongAnswer(
                "your answer has an entry for each output: the gate multiplies what ENTERS the linear map"
            )
        hints = {
            "the gate multiplies what enters the linear map; it is not added to it": seen["into"].sum((0, 1)),
            "W is missing: the gradient of a gate is a sum of G * W": G.sum(1),
            "absolute values are added, expected the sum with signs": (G * W).abs().sum(1),
            "the sign is wrong: expected the gradient, not the step": -expected,
            "the loss is a mean over the batch, as the model gives it": rows * expected,
            "it is the gradient at m = 1, not at m = 0": seen["at 0"],
            "all gates of the model are one here: the other FFN has gates of its own": seen["both"],
        }
        close(got, expected, mistakes=hints, tol=1e-8)


def _observed(model: Any, linear: Any, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Gradients of the model's loss: of the map's weight (d, N), of what enters it, and of other gates (N,)."""
    caught: list[Tensor] = []
    handle = linear.register_forward_pre_hook(lambda module, args: caught.append(args[0]))
    loss = model(**batch).loss
    handle.remove()
    G, into = torch.autograd.grad(loss, [linear.weight, caught[0]])
    both = [linear] + [m for m in model.maps if m is not linear and m.weight.shape == linear.weight.shape]
    found = {"G": G, "into": into}
    for name, start, gated in (("at 0", 0.0, [linear]), ("both", 1.0, both)):
        gate = torch.full((linear.weight.shape[1],), start, dtype=torch.float64, requires_grad=True)
        handles = [m.register_forward_pre_hook(lambda module, args, gate=gate: (args[0] * gate,)) for m in gated]
        (found[name],) = torch.autograd.grad(model(**batch).loss, gate)
        for handle in handles:
            handle.remove()
    return found
