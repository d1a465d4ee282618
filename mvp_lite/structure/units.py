"""Heads and FFN neurons of a Hugging Face model: which rows and columns of which matrices belong to them.

A head owns rows of the query, key and value maps and columns of the attention's output map; with grouped-query
attention the heads that share a key and a value are one unit. A neuron owns one row of the FFN's first map (and of its
gate) and one column of the second. What a unit adds to the model's output passes through its columns alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["FAMILIES", "Slices", "Units", "find_units"]

_BERT = ("attention.self", "attention.self.", "query key value", "attention.output.dense",
         ("intermediate.dense",), "output.dense")  # fmt: skip
_LLAMA = ("self_attn", "self_attn.", "q_proj k_proj v_proj", "self_attn.o_proj",
          ("mlp.gate_proj", "mlp.up_proj"), "mlp.down_proj")  # fmt: skip
#: model type -> attention, prefix and names of its input maps, its output map; the FFN's first maps and its second one
FAMILIES: dict[str, tuple[str, str, str, str, tuple[str, ...], str]] = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "camembert", "electra"), _BERT),
    "distilbert": ("attention", "attention.", "q_lin k_lin v_lin", "attention.out_lin", ("ffn.lin1",), "ffn.lin2"),
    "gpt2": ("attn", "attn.", "c_attn", "attn.c_proj", ("mlp.c_fc",), "mlp.c_proj"),
    "vit": ("attention", "attention.", "q_proj k_proj v_proj", "attention.o_proj", ("mlp.fc1",), "mlp.fc2"),
    **dict.fromkeys(("llama", "mistral", "qwen2"), _LLAMA),
}
_WHY_NOT = {
    "t5": "its position bias is a table indexed by head",
    "opt": "its attention writes the number of heads into a shape",
    "albert": "its layers share their matrices",
}


@dataclass(frozen=True)
class Slices:
    """The rows (`out`) or columns of one linear map that belong to each unit, `size` of them for one unit.

    A fused map (GPT-2's query, key and value in one matrix) holds `parts` such sets one after the other.
    """

    name: str
    module: Any
    out: bool
    size: int
    parts: int = 1

    @staticmethod
    def transposed(module: nn.Module) -> bool:
        """`nn.Linear` has a weight (out, in), GPT-2's `Conv1D` (in, out)."""
        return hasattr(module, "nf")

    @property
    def dim(self) -> int:
        """The dimension of `module.weight` that runs over the units."""
        return int(self.out) if self.transposed(self.module) else int(not self.out)

    def index(self, units: Tensor, count: int) -> Tensor:
        """Positions, along `dim`, of the given units (integers) out of `count`."""
        part = torch.arange(self.parts, device=units.device)[:, None, None] * count * self.size
        within = torch.arange(self.size, device=units.device)
        return (part + units[:, None] * self.size + within).reshape(-1)

    def by_unit(self, x: Tensor, count: int) -> Tensor:
        """(count, entries of a unit), from a tensor of the weight's shape; a view where the layout allows."""
        return x.movedim(self.dim, 0).reshape(self.parts, count, -1).movedim(0, 1).reshape(count, -1)

    def along_weight(self, values: Tensor) -> Tensor:
        """One value for each unit, (count,), repeated for its entries; broadcasts to the weight's shape."""
        along = values.repeat_interleave(self.size).repeat(self.parts)
        return along[:, None] if self.dim == 0 else along

    def select(self, units: Tensor, count: int) -> None:
        """Shrink the map, in place, to the given units."""
        module, index = self.module, self.index(units, count)
        with torch.no_grad():
            W = module.weight.index_select(self.dim, index.to(module.weight.device))
            module.weight = nn.Parameter(W, requires_grad=module.weight.requires_grad)
            if self.out and module.bias is not None:
                bias = module.bias.index_select(0, index.to(module.bias.device))
                module.bias = nn.Parameter(bias, requires_grad=module.bias.requires_grad)
        for name in ("out_features", "nf") if self.out else ("in_features", "nx"):
            if hasattr(module, name):
                setattr(module, name, index.numel())


@dataclass(frozen=True)
class Units:
    """The heads of one attention layer (`unit_type` "heads"), or the neurons of one FFN ("neurons").

    `rows` lead into a unit and `columns` out of it. `block` is the path of the transformer block that they are in.
    `owner` is the attention module, whose attributes repeat the sizes.
    """

    unit_type: str
    name: str
    count: int
    rows: tuple[Slices, ...]
    columns: Slices
    block: str
    owner: Any = None

    def alive(self) -> Tensor:
        """(count,) boolean: can a unit add anything to the output, that is, is any weight of its columns not 0?"""
        return self.columns.by_unit(self.columns.module.weight, self.count).ne(0).any(dim=1)

    @property
    def parts(self) -> tuple[Slices, ...]:
        """Rows and columns, all that belongs to a unit."""
        return (*self.rows, self.columns)

    def select(self, units: Tensor) -> None:
        """Shrink the model, in place, to the given units (integers in ascending order, at least one)."""
        for part in self.parts:
            part.select(units, self.count)
        for name in ("num_attention_heads", "num_heads", "n_heads", "all_head_size", "split_size"):
            if isinstance(getattr(self.owner, name, None), int):
                setattr(self.owner, name, getattr(self.owner, name) * len(units) // self.count)


def find_units(model: nn.Module) -> list[Units]:
    """Heads and neurons of every block of a model, in its order; attention before FFN.

    Raises:
        ValueError: a model family whose heads and neurons are not known, or a model with cross-attention.
    """
    family = getattr(getattr(model, "config", None), "model_type", None)
    if family not in FAMILIES:
        why = f": {_WHY_NOT[family]}" if family in _WHY_NOT else ""
        raise ValueError(f"model type {family!r} has no known heads and neurons{why}. Known: {', '.join(FAMILIES)}")
    if getattr(model.config, "add_cross_attention", False):
        raise ValueError(f"model type {family!r} with cross-attention: its heads are not known here")
    found = [units for name, module in model.named_modules() for units in _of_block(name, module, *FAMILIES[family])]
    if not found:
        raise ValueError(f"model={type(model).__name__} of type {family!r} has no block with that family's maps")
    return found


def _of_block(
    name: str,
    block: nn.Module,
    attention: str,
    prefix: str,
    inputs: str,
    output: str,
    first: tuple[str, ...],
    second: str,
) -> Iterator[Units]:
    """The units of one transformer block; nothing if the module is none."""
    names = [prefix + word for word in inputs.split()]
    try:
        maps = {path: block.get_submodule(path) for path in (*names, output, *first, second)}
        owner: Any = block.get_submodule(attention)
    except AttributeError:
        return

    def part(path: str, out: bool, size: int, parts: int = 1) -> Slices:
        return Slices(f"{name}.{path}", maps[path], out, size, parts)

    head = getattr(owner, "attention_head_size", None) or owner.head_dim
    shared = getattr(owner, "num_key_value_groups", 1)  # query heads to one key and value
    wide = _width(maps[output], out=False)
    count = wide // (head * shared)
    if len(names) == 1:
        rows: tuple[Slices, ...] = (part(names[0], True, head, 3),)
    else:
        rows = tuple(part(path, True, head * (shared if n == 0 else 1)) for n, path in enumerate(names))
    yield Units("heads", f"{name}.{attention}", count, rows, part(output, False, head * shared), name, owner)
    neurons = _width(maps[second], out=False)
    rows = tuple(part(path, True, 1) for path in first)
    yield Units(
        "neurons", f"{name}.{second.rpartition('.')[0]}".rstrip("."), neurons, rows, part(second, False, 1), name
    )


def _width(module: Any, out: bool) -> int:
    slices = Slices("", module, out, 1)
    return int(module.weight.shape[slices.dim])
