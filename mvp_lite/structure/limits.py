"""What a `config.json` may ask for, checked before anything is allocated: a few bytes could ask for all memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

__all__ = ["Stored", "build_on_meta", "check_numbers", "read_stored"]

_LARGEST = 2**31
#: a head that a checkpoint lacks; with it, what a model may have more than twice the numbers of its files
_HEAD = 2**24


@dataclass(frozen=True)
class Stored:
    """What files of weights hold.

    Attributes:
        tensors: how many.
        widest: the longest of their dimensions.
        numbers: how many, in all tensors.
        integers: names of the tensors whose numbers are no floating-point numbers.
    """

    tensors: int
    widest: int
    numbers: int
    integers: frozenset[str] = frozenset()


def read_stored(files: Sequence[str | Path]) -> Stored:
    """Read the headers of safetensors files.

    Raises:
        ValueError: not a safetensors file, or a damaged one.
        OSError: a file that cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    shapes: list[list[int]] = []
    integers: set[str] = set()
    for path in files:
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():
                    part = file.get_slice(name)
                    shapes.append(part.get_shape())
                    if not part.get_dtype().startswith(("F", "BF")):
                        integers.add(name)
        except SafetensorError as error:
            raise ValueError(f"{path} is damaged or no safetensors file ({error})") from error
    widest = max((length for shape in shapes for length in shape), default=0)
    return Stored(len(shapes), widest, sum(map(math.prod, shapes)), frozenset(integers))


def check_numbers(data: Any, path: str | Path, stored: Stored, key: str = "") -> None:
    """Refuse numbers with which transformers would fill the memory before any shape can be compared.

    Args:
        data: what `config.json` holds.
        path: where it was read, for messages.
        stored: of the files of weights beside it; it bounds the numbers of labels and of layers.

    Raises:
        ValueError: a number is too large.
    """
    if isinstance(data, dict):
        for inner, value in data.items():
            check_numbers(value, path, stored, inner)
    elif isinstance(data, list):
        for value in data:
            check_numbers(value, path, stored, key)
    elif isinstance(data, int | float) and not isinstance(data, bool):
        layers = stored.tensors + 1000
        most = stored.widest + 1000 if key == "num_labels" else layers if "layer" in key else _LARGEST
        if isinstance(data, int) and abs(data) > most:
            raise ValueError(f"{path}: {key}={data!r} is too large for the tensors of the file, at most {most}")


def build_on_meta(make: Callable[[], Any], stored: Stored) -> Any:
    """The model that `make` builds, on the meta device: shapes without values.

    Raises:
        ValueError: it has many more tensors or numbers than the files, or they hold integers in place of its weights.
    """
    from transformers.initialization import no_init_weights

    registered = 0

    def count(module: nn.Module, name: str, parameter: Any) -> None:
        nonlocal registered
        registered += 1
        if registered > 8 * stored.tensors + 100:
            raise ValueError(f"it has many more than the {stored.tensors} tensors of the file")

    handle = register_module_parameter_registration_hook(count)
    try:
        with torch.device("meta"), no_init_weights():
            model = make()
    finally:
        handle.remove()
    numbers = sum(p.numel() for p in model.parameters())
    # Twice: a file may hold two numbers of 4 bits in one of 8.
    if numbers > 2 * stored.numbers + _HEAD:
        raise ValueError(f"it has {numbers:,} parameters, the file {stored.numbers:,}")
    rounded = [name for name, x in model.state_dict().items() if x.is_floating_point() and name in stored.integers]
    if rounded:
        raise ValueError(f"the weights do not fit: {len(rounded)} tensors of integers, first {rounded[0]}")
    return model
