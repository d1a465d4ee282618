"""Which modules of a model are pruned: the linear maps that `target` names, or those of the encoder."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

__all__ = ["find_targets", "some_names"]

_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def find_targets(model: nn.Module, target: str | None = None) -> dict[str, Any]:
    """The linear modules of a model whose names match `target`, by name.

    Args:
        model: any module.
        target: regular expression searched in module names; default: everything inside numbered blocks
            (`nn.ModuleList`), which in a transformer is the encoder without embeddings, pooler and head; without such
            blocks every linear map but the last, the head, if containers (`nn.Sequential`) show which is the last.

    Raises:
        TypeError: `model` is no module; `target` is neither a string nor None.
        ValueError: no match, no default, a pattern that is no regular expression; a weight that is tied, sharded,
            parametrized, quantized, not yet initialized, or part of an adapter (PEFT).
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model={type(model).__name__}: must be a torch.nn.Module")
    if not (target is None or isinstance(target, str)):
        raise TypeError(f"target={target!r}: must be a regular expression (a string) or None")
    linear = {name: module for name, module in _modules(model).items() if _is_linear(module)}
    if not linear:
        raise ValueError(
            "nothing to prune: the model has no linear map (nn.Linear, Conv1D of GPT-2); convolutions, embeddings and "
            "quantized layers are not pruned"
        )
    chosen = _default(model, linear) if target is None else _matching(linear, target)
    _check_adapters(model, chosen)
    _check_weights(model, chosen)
    return chosen


def some_names(names: Sequence[str]) -> str:
    """The first names of a list, and how many there are, for a message."""
    if not names:
        return "none"
    return ", ".join(names[:6]) + (f" … ({len(names)} in all)" if len(names) > 6 else "")


def _modules(model: nn.Module) -> dict[str, nn.Module]:
    """All modules, each once, under the names that they have without a compiled or data-parallel wrapper."""
    names = {name: name.replace("_orig_mod.", "") for name, _ in model.named_modules()}
    if len(list(model.children())) == 1:
        names = {name: clean.removeprefix("module.") for name, clean in names.items()}
    return {names[name]: module for name, module in model.named_modules()}


def _is_linear(module: nn.Module) -> bool:
    # GPT-2's Conv1D is a linear map with weight (in, out); by name, so that transformers need not be imported.
    return isinstance(module, nn.Linear) or (type(module).__name__ == "Conv1D" and hasattr(module, "nf"))


def _matching(linear: dict[str, nn.Module], target: str) -> dict[str, nn.Module]:
    try:
        pattern = re.compile(target)
    except re.error as error:
        raise ValueError(f"target={target!r} is not a regular expression: {error}") from None
    chosen = {name: module for name, module in linear.items() if pattern.search(name)}
    if not chosen:
        raise ValueError(f"target={target!r} matches no linear module; the model has {some_names(list(linear))}")
    return chosen


def _default(model: nn.Module, linear: dict[str, nn.Module]) -> dict[str, nn.Module]:
    lists = [name for name, module in _modules(model).items() if isinstance(module, nn.ModuleList)]
    inside = {n: m for n, m in linear.items() if any(not block or n.startswith(f"{block}.") for block in lists)}
    if inside:
        return inside
    *others, head = linear  # in the order in which they were defined
    if not others:
        raise ValueError(
            f"the model's only linear map, {head or 'the model itself'}, may be its head: pass "
            f'target=r"^{re.escape(head)}$" to prune it; convolutions and embeddings are not pruned'
        )
    last = _last(model)
    if last is None:
        raise ValueError(
            "no linear map inside numbered blocks (nn.ModuleList), and the order of the others is not known: pass "
            f'target=r"{_pattern(linear, others)}" to prune all but {head}, if that is the head; the model has '
            f"{some_names(list(linear))}"
        )
    return {name: module for name, module in linear.items() if module is not last}


def _last(module: nn.Module) -> nn.Module | None:
    """The linear map that is called last, or None where only the code of a `forward` says which that is."""
    if _is_linear(module):
        return module
    children = [c for c in module._modules.values() if c is not None and any(map(_is_linear, c.modules()))]
    if isinstance(module, nn.Sequential) or len(children) == 1:
        return _last(children[-1])
    return None


def _pattern(linear: dict[str, nn.Module], names: Sequence[str]) -> str:
    """A short regular expression that matches `names` and no other linear map."""
    parts: dict[str, None] = {}
    for name in names:
        prefix = f"{name.partition('.')[0]}."
        whole = "." in name and all(other in names for other in linear if other.startswith(prefix))
        parts[re.escape(prefix) if whole else f"{re.escape(name)}$"] = None
    return f"^({'|'.join(parts)})" if len(parts) > 1 else f"^{next(iter(parts))}"


def _check_adapters(model: nn.Module, chosen: dict[str, nn.Module]) -> None:
    """PEFT's layers hold a frozen matrix and small trained ones; their sum is dense, whatever is pruned."""
    adapters = [name for name, module in _modules(model).items() if _is_adapter(module)]
    found = [name for name in chosen if any(name.startswith(f"{adapter}.") for adapter in adapters)]
    if found:
        raise ValueError(
            f"{some_names(found[:1])} is part of a PEFT adapter ({len(found)} such matrices): the base weights are "
            "frozen, and a pruned lora_A or lora_B merges into a dense weight. Train and merge the adapter first, then "
            "prune while fine-tuning everything: model = model.merge_and_unload().requires_grad_(True)"
        )


def _is_adapter(module: nn.Module) -> bool:
    return any(base.__name__ == "BaseTunerLayer" for base in type(module).__mro__)  # by name: peft is not needed here


def _check_weights(model: nn.Module, chosen: dict[str, Any]) -> None:
    owners: dict[int, list[str]] = {}
    for name, module in model.named_modules():  # each module once: one that is called in several places is fine
        for key, parameter in module.named_parameters(recurse=False):
            owners.setdefault(id(parameter), []).append(f"{name}.{key}")
    for name, module in chosen.items():
        weight = module.weight
        if nn.parameter.is_lazy(weight) or weight.is_meta:
            raise ValueError(
                f"{name}.weight has no values yet (lazy module or meta device): initialize the model first"
            )
        if hasattr(weight, "ds_id") or type(weight).__name__ in ("DTensor", "FlatParameter"):
            raise ValueError(f"{name}.weight is sharded (FSDP, DeepSpeed ZeRO) or parametrized: not supported")
        if weight.dtype not in _DTYPES or "bitsandbytes" in type(weight).__module__:
            raise ValueError(
                f"{name}.weight is quantized ({type(weight).__name__}, {weight.dtype}) and cannot be trained: load the "
                "model in float32 or bfloat16, prune it, and quantize it afterwards"
            )
        if not isinstance(weight, nn.Parameter):
            raise ValueError(f"{name}.weight is sharded (FSDP, DeepSpeed ZeRO) or parametrized: not supported")
        if len(owners[id(weight)]) > 1:
            names = ", ".join(owners[id(weight)])
            raise ValueError(f"{name}.weight is tied ({names}): prune an untied copy, or leave it out")
