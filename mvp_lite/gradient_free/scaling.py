r"""Scales of the units that stay: least squares, layer by layer, from unlabeled data (Kwon et al. 2022, mask tuning).

Column i of A is what unit i of the pruned model adds to the hidden states of all tokens. The scales m bring the pruned
model's hidden states after the layer, residual included, closest to the dense model's: with e the difference of the
two before scaling, $Am$ is to be $A1+e$.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from mvp_lite.forward import evaluating
from mvp_lite.gradient_free.batches import real_tokens
from mvp_lite.gradient_free.layer import Layer, of_type, scale_units
from mvp_lite.structure.units import Units, find_units

__all__ = ["check_blocks", "fit_scales", "recorded_states", "solve_scales"]

#: bytes of dense hidden states that `recorded_states` holds at most
LIMIT = 4 * 2**30
#: families that normalize what enters the FFN and add its output to the block's: that sum is the block's output
_PRE_NORM = ("gpt2", "vit", "llama", "mistral", "qwen2")


def solve_scales(AtA: Tensor, Atb: Tensor, ridge: float = 1e-3) -> Tensor:
    r"""The m that minimizes $\lVert Am-b\rVert^2+\rho\lVert m-1\rVert^2$, $\rho$ = `ridge` times the mean diagonal.

    AtA: (n, n), Atb: (n,), in float64 inside; returns (n,) in their dtype.
    """
    AtA64, Atb64 = AtA.double(), Atb.double()
    rho = ridge * float(AtA64.diagonal().mean()) or 1.0
    eye = torch.eye(len(AtA), dtype=torch.float64, device=AtA.device)
    ones = torch.ones_like(Atb64)
    m: Tensor = ones + torch.linalg.solve(AtA64 + rho * eye, Atb64 - AtA64 @ ones)
    return m.to(AtA.dtype)


@torch.no_grad()
def fit_scales(
    model: Any,
    layers: Sequence[Layer],
    batches: Sequence[dict[str, Tensor]],
    ridge: float = 1e-3,
    recorded: Sequence[list[Tensor]] = (),
    progress: bool = False,
) -> None:
    """Set the scales of the neurons that stay, and of the heads if any was pruned anywhere.

    A dense model and a pruned copy read the same batches. Each layer is fitted to what the scaled layers before it have
    left in the pruned one, so that later layers correct what earlier ones changed.

    Args:
        model: the dense model; it is left as it is.
        layers: all layers of the model, in the order of `find_units`, with their masks.
        batches: inputs without labels.
        ridge: see `solve_scales`.
        recorded: what `recorded_states` gave for the same batches. Without it, and to fit heads, the dense model runs
            once more.
        progress: show a progress bar over the layers.

    Raises:
        ValueError: a model that computes something between its blocks.
    """
    check_blocks(model)
    pruned = copy.deepcopy(model)
    pairs = list(zip(layers, find_units(pruned), strict=True))
    for layer, units in pairs:
        units.select(layer.kept)
    heads_pruned = any(not bool(layer.mask.all()) for layer in of_type("heads", layers))
    if not heads_pruned:
        pairs = [(layer, units) for layer, units in pairs if units.unit_type == "neurons"]
    inputs = _first_inputs(model, model.get_submodule(layers[0].units.block), batches)
    if heads_pruned or not recorded:
        targets = _states_by_block(model, [layer.units for layer, _ in pairs], inputs)
    else:
        targets = iter(recorded)
    for layer, units in tqdm(pairs, desc="scales", disable=not progress):
        inputs = _fit_layer(pruned, layer, units, inputs, next(targets), ridge)


def check_blocks(model: Any) -> None:
    """Refuse a model whose blocks do not follow each other directly, as those of DeBERTa-v2 XL."""
    if (kernel := getattr(model.config, "conv_kernel_size", 0)) and model.config.model_type == "deberta-v2":
        raise ValueError(f"scale=True: model with a convolution between its blocks, conv_kernel_size={kernel}")


def _fit_layer(
    pruned: Any, layer: Layer, units: Units, inputs: list[BlockInput], targets: Sequence[Tensor], ridge: float
) -> list[BlockInput]:
    """Fit one layer of the pruned model, for which `inputs` enter its block; what enters the next layer's block."""
    block, columns = pruned.get_submodule(units.block), units.columns
    dtype = torch.promote_types(columns.module.weight.dtype, torch.float32)
    W = columns.by_unit(columns.module.weight, len(layer.kept)).to(dtype)  # (n, size * d)
    WWt = W @ W.T
    AtA, Ate = torch.zeros_like(WWt), torch.zeros_like(WWt[0])
    neurons = units.unit_type == "neurons"
    rest = []  # for each batch the hidden states after the FFN without what it adds, and its activations
    with evaluating(pruned) as handles:
        probe = Probe(pruned, units, handles)
        for x, target in zip(inputs, targets, strict=True):
            x.run(block)
            H, error = probe.H[x.real].to(dtype), (target - probe.total)[x.real].to(dtype)
            products = _products_of_neurons(H, W, WWt, error) if neurons else _products_of_heads(H, W, error)
            AtA += products[0]
            Ate += products[1]
            if neurons:
                rest.append((probe.total - probe.out, probe.H))
    m = solve_scales(AtA, AtA.sum(1) + Ate, ridge)
    layer.scales = layer.mask.to(m).masked_scatter(layer.mask, m)
    scale_units(columns, m)
    if not neurons:
        return inputs
    norm = nn.Identity() if _pre_norm(pruned) else _last_norm(block)  # the block again, from its FFN's second map on
    outputs = [norm(residual + columns.module(H)) for residual, H in rest]
    return [replace(x, hidden=output) for x, output in zip(inputs, outputs, strict=True)]


def _products_of_neurons(H: Tensor, W: Tensor, WWt: Tensor, error: Tensor) -> tuple[Tensor, Tensor]:
    r"""A batch's share of $A^\top A=(H^\top H)\circ(WW^\top)$ and $(A^\top e)_i=\sum_th_{ti}\,w_i\cdot e_t$.

    H: (tokens, n), W: (n, d), WWt: (n, n), error: (tokens, d); A, of shape (tokens * d, n), is never built.
    """
    return (H.T @ H) * WWt, (H * (error @ W.T)).sum(0)


def _products_of_heads(H: Tensor, W: Tensor, error: Tensor) -> tuple[Tensor, Tensor]:
    r"""A batch's share of $A^\top A$ and $A^\top e$. H: (tokens, n * size), W: (n, size * d), error: (tokens, d)."""
    n, tokens = len(W), len(H)
    At = torch.einsum("tns,nsd->ntd", H.view(tokens, n, -1), W.view(n, H.shape[1] // n, -1)).reshape(n, -1)
    return At @ At.T, At @ error.reshape(-1)


class Probe:
    """Notes what passes one layer whenever its block runs.

    H: (batch, tokens, n * size), what enters the layer's outgoing map; out: (batch, tokens, d), what leaves it; total:
    (batch, tokens, d), the hidden states after the layer, which are `out` and its residual.
    """

    H: Tensor
    out: Tensor
    total: Tensor

    def __init__(self, model: Any, units: Units, handles: list[Any]) -> None:
        def outgoing(module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
            self.H, self.out = args[0], out

        def behind_heads(module: nn.Module, args: tuple[Tensor, ...], output: Any) -> None:
            self.total = args[0] + self.out  # the residual is the block's own input

        def behind_neurons(total: Tensor) -> None:
            self.total = total

        handles.append(units.columns.module.register_forward_hook(outgoing))
        if units.unit_type == "heads":
            handles.append(model.get_submodule(units.block).register_forward_hook(behind_heads))
        else:
            handles.append(_hook_behind_ffn(model, units, behind_neurons))


def _hook_behind_ffn(model: Any, ffn: Units, note: Callable[[Tensor], None]) -> Any:
    """Hand on the hidden states behind an FFN, residual included, whenever its block runs."""
    block = model.get_submodule(ffn.block)
    if _pre_norm(model):
        return block.register_forward_hook(lambda module, args, output: note(_hidden(output)))
    return _last_norm(block).register_forward_pre_hook(lambda module, args: note(args[0]))


def _pre_norm(model: Any) -> bool:
    return model.config.model_type in _PRE_NORM


def _last_norm(block: nn.Module) -> nn.Module:
    """What a post-norm block does last: it normalizes the sum of residual and FFN."""
    return [module for module in block.modules() if isinstance(module, nn.LayerNorm)][-1]


def _hidden(output: Any) -> Tensor:
    hidden: Tensor = output[0] if isinstance(output, tuple) else output
    return hidden


def _states_by_block(model: Any, layers: Sequence[Units], inputs: list[BlockInput]) -> Iterator[list[Tensor]]:
    """Run the dense model block by block: behind each layer the hidden states (batch, tokens, d) of each batch."""
    for path, members in groupby(layers, key=lambda units: units.block):
        with evaluating(model) as handles:
            probes = [Probe(model, units, handles) for units in members]
            states: list[list[Tensor]] = [[] for _ in probes]
            outputs = []
            for x in inputs:
                outputs.append(x.run(model.get_submodule(path)))
                for found, probe in zip(states, probes, strict=True):
                    found.append(probe.total)
        inputs = [replace(x, hidden=output) for x, output in zip(inputs, outputs, strict=True)]
        yield from states


@contextmanager
def recorded_states(model: Any, ffns: Sequence[Layer], limit: int | None = None) -> Iterator[list[list[Tensor]]]:
    """Record the hidden states (batch, tokens, d) behind each FFN in every forward pass inside.

    D2 runs the dense model anyway, and a second run for the fit would take a third more time in all. Where the
    states take more than `limit` bytes (None: `LIMIT`) none are kept.
    """
    left = LIMIT if limit is None else limit
    states: list[list[Tensor]] = [[] for _ in ffns]

    def record(n: int, total: Tensor) -> None:
        nonlocal left
        left -= total.nbytes
        if left < 0:
            states.clear()
        else:
            states[n].append(total)

    handles = [_hook_behind_ffn(model, ffn.units, partial(record, n)) for n, ffn in enumerate(ffns)]
    try:
        yield states
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True)
class BlockInput:
    """What enters a block on one batch: hidden states (batch, tokens, d), and what all blocks get: masks, positions.

    `real`, (batch, tokens) boolean, is False at padding.
    """

    hidden: Tensor
    real: Tensor
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def run(self, block: nn.Module) -> Tensor:
        return _hidden(block(self.hidden, *self.args, **self.kwargs))


class _Stop(Exception):
    """Ends a forward pass before its first block."""


def _first_inputs(model: Any, block: nn.Module, batches: Sequence[dict[str, Tensor]]) -> list[BlockInput]:
    """What enters the first block on each batch, without caches; no block is computed."""
    found: list[BlockInput] = []

    def no_cache(value: Any) -> Any:
        return None if "Cache" in type(value).__name__ else value

    def catch(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        hidden, *others = [kwargs.pop("hidden_states")] if "hidden_states" in kwargs else args
        names = {name: no_cache(value) for name, value in kwargs.items()}
        found.append(BlockInput(hidden, real_tokens(hidden, batch), tuple(map(no_cache, others)), names))
        raise _Stop

    with evaluating(model) as handles:
        handles.append(block.register_forward_pre_hook(catch, with_kwargs=True))
        for batch in batches:
            with suppress(_Stop):
                model(**batch)
    return found
