"""Heads and FFN neurons of a Hugging Face model: which rows and columns of which matrices belong to them.

A head owns rows of the query, key and value maps and columns of the attention's output map; with grouped-query
attention the heads that share a key and a value are one unit. A neuron owns one row of the FFN's first map (and of its
gate) and one column of the second. What a unit adds to the model's output passes through its columns alone.

T5's first block hands a bias for each head on to the layers behind it: heads of one stack are removed from all its
layers alike, see `Units.stack`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["FAMILIES", "Family", "Slices", "Units", "check_dense", "find_units"]


@dataclass(frozen=True)
class Family:
    """The maps of a transformer block, by their paths in it, and what the model's configuration calls their sizes.

    Attributes:
        attention: for each attention layer its module, the names of its input maps in that module, and the path of its
            output map. Names in brackets are of maps that only some models have.
        ffn: for each form that the FFN may take its first maps and its second one.
        neurons: the configuration's name for the neurons of an FFN.
        heads: its name for the heads of an attention layer, if the size of a head does not follow from it.
    """

    attention: tuple[tuple[str, str, str], ...]
    ffn: tuple[tuple[str, str], ...]
    neurons: str = "intermediate_size"
    heads: str = ""


_BERT = Family((("attention.self", "query key value", "attention.output.dense"),),
               (("intermediate.dense", "output.dense"),))  # fmt: skip
_DEBERTA = Family((("attention.self", "query_proj key_proj value_proj [pos_key_proj] [pos_query_proj]",
                    "attention.output.dense"),), _BERT.ffn)  # fmt: skip
_LLAMA = Family((("self_attn", "q_proj k_proj v_proj", "self_attn.o_proj"),),
                (("mlp.gate_proj mlp.up_proj", "mlp.down_proj"),), heads="num_attention_heads")  # fmt: skip
_T5 = Family(
    (("layer.0.SelfAttention", "q k v", "layer.0.SelfAttention.o"),
     ("layer.1.EncDecAttention", "q k v", "layer.1.EncDecAttention.o")),
    tuple((" ".join(f"layer.{n}.DenseReluDense.{first}" for first in firsts), f"layer.{n}.DenseReluDense.wo")
          for n in (1, 2) for firsts in (("wi",), ("wi_0", "wi_1"))),
    "d_ff", "num_heads",
)  # fmt: skip
#: model type -> where its heads and neurons are
FAMILIES: dict[str, Family] = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "camembert", "electra"), _BERT),
    "deberta-v2": _DEBERTA,
    "distilbert": Family((("attention", "q_lin k_lin v_lin", "attention.out_lin"),),
                         (("ffn.lin1", "ffn.lin2"),), "hidden_dim"),
    "gpt2": Family((("attn", "c_attn", "attn.c_proj"),), (("mlp.c_fc", "mlp.c_proj"),), "n_inner"),
    "vit": Family((("attention", "q_proj k_proj v_proj", "attention.o_proj"),), (("mlp.fc1", "mlp.fc2"),),
                  heads="num_attention_heads"),
    **dict.fromkeys(("llama", "mistral", "qwen2"), _LLAMA),
    **dict.fromkeys(("t5", "mt5"), _T5),
}  # fmt: skip
_WHY_NOT = {
    "deberta": "biases of its attention are no part of a linear map",
    "opt": "its attention writes the number of heads into a shape",
    "albert": "its layers share their matrices",
}

_HEAD_SIZES = ("attention_head_size", "head_dim", "key_value_proj_dim")


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
        """`nn.Linear` has a weight (out, in), GPT-2's `Conv1D` and `nn.Embedding` (in, out)."""
        return hasattr(module, "nf") or isinstance(module, nn.Embedding)

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
            if self.out and getattr(module, "bias", None) is not None:
                bias = module.bias.index_select(0, index.to(module.bias.device))
                module.bias = nn.Parameter(bias, requires_grad=module.bias.requires_grad)
        for name in ("out_features", "nf", "embedding_dim") if self.out else ("in_features", "nx"):
            if hasattr(module, name):
                setattr(module, name, index.numel())


@dataclass(frozen=True)
class Units:
    """The heads of one attention layer (`unit_type` "heads"), or the neurons of one FFN ("neurons").

    `rows` lead into a unit and `columns` out of it. `block` is the path of the transformer block that they are in.
    `owner` is the attention module, whose attributes repeat the sizes. `bias` is a table with a column for each unit.

    Layers of the same `stack` can be shrunk together alone: to the same heads if `in_step`, else to equally many.
    """

    unit_type: str
    name: str
    count: int
    rows: tuple[Slices, ...]
    columns: Slices
    block: str
    owner: Any = None
    bias: Slices | None = None
    stack: str = ""
    in_step: bool = False

    def alive(self) -> Tensor:
        """(count,) boolean: can a unit add anything to the output, that is, is any weight of its columns not 0?"""
        return self.columns.by_unit(self.columns.module.weight, self.count).ne(0).any(dim=1)

    @property
    def parts(self) -> tuple[Slices, ...]:
        """Rows and columns, the weights that belong to a unit."""
        return (*self.rows, self.columns)

    def select(self, units: Tensor) -> None:
        """Shrink the model, in place, to the given units (integers in ascending order, at least one)."""
        for part in (*self.parts, *([self.bias] if self.bias else [])):
            part.select(units, self.count)
        for name in ("num_attention_heads", "num_heads", "n_heads", "all_head_size", "split_size", "inner_dim"):
            if isinstance(getattr(self.owner, name, None), int):
                setattr(self.owner, name, getattr(self.owner, name) * len(units) // self.count)


def check_dense(model: Any, expected: str, verb: str) -> None:
    """Refuse what is no module, and what `mvp_lite.to_csr` made; `expected` and `verb` are for the error."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model={type(model).__name__}: must be {expected}")
    if any(buffer.layout is torch.sparse_csr for buffer in model.buffers()):
        raise ValueError(
            f"model={type(model).__name__}: must be dense, but is converted by to_csr: {verb} the model that it was "
            "made from"
        )


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
    found = [units for name, module in model.named_modules() for units in _of_block(name, module, FAMILIES[family])]
    if not found:
        raise ValueError(f"model={type(model).__name__} of type {family!r} has no block with that family's maps")
    return found


def _of_block(name: str, block: nn.Module, family: Family) -> Iterator[Units]:
    """The units of one transformer block; nothing if the module is none."""
    for path, inputs, output in family.attention:
        names = [f"{path}.{word}" for word in inputs.split() if "[" not in word]
        maps = _maps(block, [*names, output])
        if maps:
            optional = [f"{path}.{word[1:-1]}" for word in inputs.split() if "[" in word]
            maps |= {word: module for word in optional for module in _maps(block, [word]).values()}
            yield _heads(name, path, maps, output, block.get_submodule(path))
    for first, second in family.ffn:
        maps = _maps(block, [*first.split(), second])
        if maps:
            parts = [Slices(f"{name}.{path}", module, path != second, 1) for path, module in maps.items()]
            place = f"{name}.{second.rpartition('.')[0]}".rstrip(".")
            yield Units("neurons", place, _width(maps[second]), tuple(parts[:-1]), parts[-1], name)


def _maps(block: nn.Module, paths: Sequence[str]) -> dict[str, Any]:
    """The modules at these paths; none unless all are there."""
    try:
        return {path: block.get_submodule(path) for path in paths}
    except AttributeError:
        return {}


def _heads(name: str, path: str, maps: dict[str, Any], output: str, owner: Any) -> Units:
    """The heads of the attention layer `owner`, which is at `path` in the block `name`."""
    size = next(getattr(owner, word) for word in _HEAD_SIZES if getattr(owner, word, None))
    shared = getattr(owner, "num_key_value_groups", 1)  # query heads to one key and value
    inputs = [word for word in maps if word != output]
    rows = tuple(
        # The query comes first, and has a head for each that leaves; a fused map holds query, key and value.
        Slices(f"{name}.{word}", maps[word], True, size * (1 if n else shared), 1 if inputs[1:] else 3)
        for n, word in enumerate(inputs)
    )
    columns = Slices(f"{name}.{output}", maps[output], False, size * shared)
    count = _width(maps[output]) // columns.size
    if not hasattr(owner, "has_relative_attention_bias"):
        return Units("heads", f"{name}.{path}", count, rows, columns, name, owner)
    table = getattr(owner, "relative_attention_bias", None)
    bias = None if table is None else Slices(f"{name}.{path}.relative_attention_bias", table, True, 1)
    stack = f"{name.rpartition('.')[0]}.*.{path}"
    return Units("heads", f"{name}.{path}", count, rows, columns, name, owner, bias, stack, "Self" in path)


def _width(module: Any) -> int:
    """The number of a map's inputs."""
    return int(module.weight.shape[Slices("", module, False, 1).dim])
