"""The index of a file of `save_sparse`: what it holds, and every check that needs no tensor in memory."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping, Set
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = ["DTYPES", "FILE", "ROUNDED", "Entry", "Index", "json_checksum", "read_index", "read_json"]

FILE = "sparse.safetensors"
_FORMAT = "mvp_lite sparse 1"
#: types that a tensor may have, and the names that safetensors has for them
DTYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
}  # fmt: skip
#: types whose values may be stored in a narrower type, and which
_NARROWER = ("float16", "bfloat16", "int8")
ROUNDED = {"float64": _NARROWER, "float32": _NARROWER, "float16": ("int8",), "bfloat16": ("int8",)}
# Zeros are stored in no space: without a limit, a file of a few bytes could ask for all memory.
_EXPANSION, _ALWAYS = 1000, 2**26


@dataclass(frozen=True)
class Entry:
    """One tensor: its shape and type, the type of its stored values, how many are kept (None: dense), a checksum."""

    shape: tuple[int, ...]
    dtype: str
    values: str
    kept: int | None
    crc32: int

    def __post_init__(self) -> None:
        self._require(isinstance(self.shape, tuple), "shape")
        for length in (*self.shape, self.crc32, *(() if self.kept is None else (self.kept,))):
            self._require(type(length) is int and 0 <= length < 2**63, "numbers")
        self._require(isinstance(self.dtype, str) and self.dtype in DTYPES, "dtype")
        self._require(self.values in (self.dtype, *ROUNDED.get(self.dtype, ())), "values")
        self._require(self.values == self.dtype or len(self.shape) >= 2, "values")
        self._require(self.size * self.torch_dtype.itemsize < 2**63, "shape")
        self._require(self.kept is None or self.kept <= self.size, "kept")

    def _require(self, holds: bool, field: str) -> None:
        if not holds:
            raise ValueError(f"its {field} in the index is not possible")

    @property
    def size(self) -> int:
        """Number of entries."""
        return math.prod(self.shape)

    @property
    def torch_dtype(self) -> torch.dtype:
        found: torch.dtype = getattr(torch, self.dtype)
        return found

    def parts(self) -> dict[str, tuple[str, tuple[int, ...] | None]]:
        """Type and shape of each part in the file; the code of the positions has any length."""
        parts: dict[str, tuple[str, tuple[int, ...] | None]] = {}
        if self.kept is not None:
            parts["positions"] = ("uint8", None)
        if self.values == "int8" != self.dtype:
            parts["scales"] = ("float32", self.shape[:1] if self.kept is None else (1,))
        return parts | {"values": (self.values, self.shape if self.kept is None else (self.kept,))}


@dataclass(frozen=True)
class Index:
    """All tensors; for each further name of a tied one its first; checksums of the configuration files."""

    tensors: dict[str, Entry]
    ties: dict[str, str]
    files: dict[str, int]

    def to_metadata(self) -> dict[str, str]:
        text = json.dumps(asdict(self))
        return {"format": _FORMAT, "index": text, "crc32": str(zlib.crc32(text.encode()))}

    def check_parts(self, path: Path, file: Any) -> None:
        """Compare names, types and shapes of what is stored with the index. `file` is an open safetensors file."""
        parts = [(name, *part) for name, entry in self.tensors.items() for part in entry.parts().items()]
        expected = {f"{name}/{part}": what for name, part, what in parts}
        _same_names(path, expected.keys(), set(file.keys()), "index")
        for name, (dtype, shape) in expected.items():
            part = file.get_slice(name)
            found = tuple(part.get_shape())
            if part.get_dtype() != DTYPES[dtype] or (found != shape if shape is not None else len(found) != 1):
                raise ValueError(f"{path}: {name} is {part.get_dtype()} {found}, by its index {DTYPES[dtype]} {shape}")

    def check_fits(self, path: Path, names: Mapping[str, Tensor], ties: Mapping[str, str], types: bool) -> None:
        """Compare the tensors of a model with the index; `types`: exactly, not only floating-point or not."""
        expected, stored = names.keys() | ties.keys(), self.tensors.keys() | self.ties.keys()
        _same_names(path, expected, stored, "model")
        for name in expected:
            tensor, entry = names[ties.get(name, name)], self.tensors[self.ties.get(name, name)]
            if tuple(tensor.shape) != entry.shape:
                raise ValueError(f"{path}: {name} has shape {entry.shape}, in the model {tuple(tensor.shape)}")
            same = tensor.dtype == entry.torch_dtype
            floating = tensor.is_floating_point() and entry.torch_dtype.is_floating_point
            if not same and (types or not floating):
                raise ValueError(f"{path}: {name} is of type {entry.dtype}, in the model of {tensor.dtype}")
        for name, first in ties.items():
            if self.ties.get(name, name) != self.ties.get(first, first):
                raise ValueError(f"{path}: {name} and {first} are one tensor in the model, and two in the file")
        total = sum(entry.size * entry.torch_dtype.itemsize for entry in self.tensors.values())
        if total > max(_ALWAYS, _EXPANSION * path.stat().st_size):
            raise ValueError(f"{path} would need {total:,} bytes of memory, more than {_EXPANSION} times its own size")


def read_index(path: Path, metadata: Mapping[str, str] | None) -> Index:
    """The index in the metadata of a file.

    Raises:
        ValueError: there is none, it is of another version, or it is damaged.
    """
    if metadata is None or metadata.get("format") != _FORMAT:
        raise ValueError(f"{path} was not written by this version of save_sparse: its metadata lack {_FORMAT!r}")
    text = metadata.get("index", "")
    if str(zlib.crc32(text.encode())) != metadata.get("crc32"):
        raise ValueError(f"{path} is damaged: its index does not have the checksum written beside it")
    name = "index"
    try:
        data = json.loads(text)
        entries = {}
        for name, fields in data["tensors"].items():
            entries[name] = Entry(**(fields | {"shape": tuple(fields["shape"])}))
        index = Index(entries, dict(data["ties"]), dict(data["files"]))
        for name, first in index.ties.items():
            if name in entries or first not in entries:
                raise ValueError("its tie in the index is not possible")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path}: {name}: {error} (the index cannot be used)") from error
    return index


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; ValueError names it if it is none."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON ({error})") from error
    if not isinstance(data, dict):
        raise ValueError(f"{path} is not a JSON object")
    return data


def json_checksum(data: Any) -> int:
    """Of what a JSON file says; line ends and spaces do not matter."""
    return zlib.crc32(json.dumps(data, sort_keys=True).encode())


def _same_names(path: Path, expected: Set[str], found: Set[str], where: str) -> None:
    lacking, further = expected - found, found - expected
    for problem, names in ((f"lacks, of its {where},", lacking), (f"has, not in its {where},", further)):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise ValueError(f"{path} {problem} the tensor {min(names)!r}{more}")
