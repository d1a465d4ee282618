"""What a pruned model can be asked between two steps of training, without disturbing them.

Functions get the pruned matrices of an attached `Pruner` and batches; weights that they change are restored.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from mvp_lite.forward import evaluating, without_labels
from mvp_lite.masks import top_v
from mvp_lite.matrices import PrunedMatrix
from mvp_lite.scores import taylor

__all__ = [
    "between_inputs", "by_layer", "centered", "first_order", "gradients", "lowest", "map_shares", "mean_loss",
    "readable", "sign_alignment", "spectral_norm", "states_and_entropies", "weights_replaced", "with_random_signs",
]  # fmt: skip

Batches = Sequence[Mapping[str, Tensor]]


@contextmanager
def weights_replaced(matrices: Sequence[PrunedMatrix], weights: Sequence[Tensor]) -> Iterator[None]:
    """Let the model compute with these weights; afterwards with W * M again, as the pruner wrote it."""
    try:
        for matrix, W in zip(matrices, weights, strict=True):
            matrix.weight.data.copy_(W)
        yield
    finally:
        for matrix in matrices:
            matrix.write_masked()


@contextmanager
def centered(matrices: Sequence[PrunedMatrix]) -> Iterator[None]:
    """Let each map add nothing but its bias for the mean token of a batch: only what differs between tokens passes."""

    def center(module: Any, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        without_bias = output if module.bias is None else output - module.bias
        return output - without_bias.flatten(0, -2).mean(0)

    handles = [matrix.module.register_forward_hook(center) for matrix in matrices]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def mean_loss(model: nn.Module, batches: Batches) -> float:
    """The loss in evaluation mode, averaged over the batches."""
    with evaluating(model), torch.no_grad():
        return sum(float(model(**batch).loss) for batch in batches) / len(batches)


def gradients(model: nn.Module, parameters: Sequence[Tensor], batches: Batches) -> list[Tensor]:
    """Gradient of `mean_loss` with respect to each parameter; no `.grad` is touched."""
    total = [torch.zeros_like(p) for p in parameters]
    with evaluating(model):
        for batch in batches:
            for sum_, g in zip(total, torch.autograd.grad(model(**batch).loss, list(parameters)), strict=True):
                sum_ += g / len(batches)
    return total


def lowest(importance: Tensor, mask: Tensor, fraction: float) -> Tensor:
    """The kept entries that a further selection removes: that fraction of them, those of lowest importance."""
    kept = int(torch.count_nonzero(mask))
    left = (kept - round(fraction * kept)) / mask.numel()
    return mask & ~top_v(importance.masked_fill(~mask, -math.inf), left)


def first_order(matrices: Sequence[PrunedMatrix], G: Sequence[Tensor], removed: Sequence[Tensor]) -> float:
    r"""Predicted change of the loss when the entries are set to zero: $-\sum G\odot W$ over them."""
    terms = zip(matrices, G, removed, strict=True)
    return sum(float(taylor(g, matrix.weight.detach())[gone].double().sum()) for matrix, g, gone in terms)


def spectral_norm(W: Tensor) -> float:
    """Largest singular value."""
    return float(torch.linalg.matrix_norm(W, 2))


def with_random_signs(W: Tensor, generator: torch.Generator) -> Tensor:
    """The same entries at the same places, each with a sign drawn anew."""
    signs = torch.randint(0, 2, W.shape, generator=generator).to(W.device, W.dtype)
    return W * (2 * signs - 1)


def sign_alignment(W: Tensor, mean_input: Tensor) -> float:
    r"""Mean over rows of $|\sum_jW_{ij}\bar a_j|/\sqrt{\sum_j(W_{ij}\bar a_j)^2}$, rows without entries left out.

    With n entries in a row it lies between 0 and $\sqrt n$; random signs give about 0.8, equal terms $\sqrt n$.
    """
    terms = W.double() * mean_input.double()
    lengths = terms.square().sum(1).sqrt()
    rows = lengths > 0
    return float((terms.sum(1).abs()[rows] / lengths[rows]).mean()) if bool(rows.any()) else 0.0


def between_inputs(h: Tensor) -> float:
    r"""Part of vectors that differs along the first dimension: 0 if all are equal.

    $\overline{\lVert h-\bar h\rVert^2}/\overline{\lVert h\rVert^2}$. The rest, up to 1, is the constant part, as in
    `diagnosis.constant_share`.
    """
    h = h.double()
    return float((h - h.mean(0)).square().sum() / h.square().sum())


def states_and_entropies(model: Any, batches: Batches) -> tuple[list[Tensor], list[float]]:
    """Of each transformer layer: its output (inputs, positions, width), and the mean entropy of its attention.

    Positions are those that all batches have. The entropy is 1 if all tokens get the same, 0 if one gets all.
    """
    before, states, rows = model.config._attn_implementation, list[Any](), list[list[Tensor]]()
    model.set_attn_implementation("eager")  # the others do not return their weights
    try:
        with evaluating(model), torch.no_grad():
            for batch in batches:
                tokens = batch["attention_mask"].bool()
                largest = tokens.sum(1).double().log()[:, None].expand(tokens.shape)[tokens]
                outputs = model(**without_labels(batch), output_hidden_states=True, output_attentions=True)
                states.append(outputs.hidden_states[1:])
                entropies = [torch.special.entr(p.double()).sum(-1).mean(1)[tokens] for p in outputs.attentions]
                rows.append([entropy / largest for entropy in entropies])
    finally:
        model.set_attn_implementation(before)
    positions = min(h[0].shape[1] for h in states)
    together = [torch.cat([h[:, :positions] for h in layer]) for layer in zip(*states, strict=True)]
    return together, [float(torch.cat(layer).mean()) for layer in zip(*rows, strict=True)]


def map_shares(
    model: nn.Module, matrices: Sequence[PrunedMatrix], batches: Batches
) -> list[tuple[Tensor, float, float]]:
    r"""For each map: its mean input $\bar a$, and the constant part of its inputs a and of its outputs $\tilde Wa$.

    Means are over tokens that are not padding; the output is taken without the bias.
    """
    sums: dict[str, list[Any]] = {matrix.name: [0] * 5 for matrix in matrices}
    tokens = torch.empty(0)

    def add(name: str, module: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        a = inputs[0][tokens].double()
        y = (output if module.bias is None else output - module.bias)[tokens].double()
        new = (len(a), a.sum(0), a.square().sum(), y.sum(0), y.square().sum())
        sums[name] = [x + y for x, y in zip(sums[name], new, strict=True)]

    with evaluating(model) as handles, torch.no_grad():
        for matrix in matrices:
            handles.append(matrix.module.register_forward_hook(lambda *x, name=matrix.name: add(name, *x)))
        for batch in batches:
            tokens = batch["attention_mask"].bool()
            model(**without_labels(batch))
    found = []
    for matrix in matrices:
        n, a_sum, a_square, y_sum, y_square = sums[matrix.name]
        shares = (
            float(total.square().sum() / (n * square.clamp(min=1e-300)))
            for total, square in ((a_sum, a_square), (y_sum, y_square))
        )
        found.append((a_sum / n, *shares))
    return found


def readable(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]) -> float:
    """Accuracy in per cent, on test, of a ridge regression on states (n, d) and labels (n,) of train."""
    (h, labels), (h_test, labels_test) = train, test
    mean, scale = h.mean(0), h.std(0).clamp(min=1e-12)
    x, x_test = (((a - mean) / scale).double() for a in (h, h_test))
    targets = nn.functional.one_hot(labels).double()
    gram = x.T @ x + len(x) * 0.1 * torch.eye(x.shape[1], dtype=x.dtype)
    weights = torch.linalg.solve(gram, x.T @ (targets - targets.mean(0)))
    answers = (x_test @ weights + targets.mean(0)).argmax(1)
    return 100 * float((answers == labels_test).double().mean())


def by_layer(matrices: Sequence[PrunedMatrix], values: Sequence[float]) -> list[float]:
    """Means over the matrices of each transformer layer, which the first number in their names counts."""
    layers: dict[int, list[float]] = {}
    for matrix, value in zip(matrices, values, strict=True):
        number = re.search(r"\d+", matrix.name)
        layers.setdefault(int(number[0]) if number else 0, []).append(value)
    return [sum(layer) / len(layer) for _, layer in sorted(layers.items())]
