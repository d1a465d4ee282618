"""`save_sparse` and `load_sparse`: a folder with a pruned model in which zeros take almost no space.

The folder has a `config.json`, where the model has a configuration, and one safetensors file. Each tensor NAME of the
model stands in that file as NAME/values, dense or, where this is smaller, its entries that are not zero, with their
NAME/positions (`mvp_lite.storage.positions`). With 8-bit values there are also NAME/scales: one for a sparse matrix,
one for each row of a dense one. The file's metadata hold an index of the tensors with shapes, types and checksums.
"""

from __future__ import annotations

import copy
import os
import shutil
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from mvp_lite.storage.building import build
from mvp_lite.storage.index import DTYPES, FILE, ROUNDED, Entry, Index, json_checksum, read_index, read_json
from mvp_lite.storage.positions import decode, encode
from mvp_lite.structure.limits import Stored
from mvp_lite.structure.units import check_dense

__all__ = ["VALUES", "load_sparse", "save_sparse"]

VALUES = ("exact", "float16", "int8")
_CONFIGS = ("config.json", "generation_config.json")
#: files of other models
_WEIGHTS = (
    ".safetensors",
    ".safetensors.index.json",
    ".bin",
    ".pt",
    ".pth",
    ".ckpt",
    ".h5",
    ".msgpack",
    ".onnx",
    ".gguf",
)
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def save_sparse(
    model: nn.Module, folder: str | Path, values: str = "exact", tokenizer: Any = None, *, overwrite: bool = False
) -> None:
    """Write a pruned model into a small folder, which `load_sparse(folder)` reads.

    The position of an entry costs about as many bits as information theory asks for: 1.6 bytes where 3 % of a matrix
    are kept, 0.6 bytes where 10 % are (see docs/deploy.md). All parameters and buffers are stored; tied ones once.

    Args:
        model: any module, plain (that is, after `pruner.finalize()`).
        folder: made where it does not exist. What this function wrote earlier is replaced; another folder that is not
            empty is not, unless `overwrite` is set.
        values: "exact" keeps every bit of the entries that are not zero; zeros of sparse matrices lose their sign,
            which pruning leaves at random. Matrices that lose nothing in 16 bits, such as frozen embeddings from a
            checkpoint in half precision, are stored in 16 bits. "float16" rounds all floating-point parameters with at
            least two dimensions, dense ones (such as embeddings) included; "int8" rounds them to 255 equidistant
            levels, between minus and plus the largest absolute value of a sparse matrix, or of each row of a dense one.
            A tensor whose values do not fit, for example because one is infinite, is kept exactly.
        tokenizer: saved beside the model.
        overwrite: replace the folder with everything in it.

    Raises:
        FileExistsError: `folder` holds other files or another model, or is a file.
        TypeError: `model` is no module.
        ValueError: unknown `values`, a tensor that is on the meta device or of an unusual type, or a model that
            `to_csr` made.
        OSError: the folder cannot be written.
    """
    from safetensors.torch import save_file

    if values not in VALUES:
        raise ValueError(f"values={values!r}: must be one of {', '.join(VALUES)}")
    check_dense(model, "a module", "save")
    folder = Path(folder).expanduser()
    _check_replaceable(folder, overwrite)
    names, ties = _tensors(model)
    stored: dict[str, Tensor] = {}
    entries: dict[str, Entry] = {}
    for name, tensor in names.items():
        if tensor.device.type == "meta" or _name(tensor.dtype) not in DTYPES:
            raise ValueError(f"model: {name} is of type {tensor.dtype} on {tensor.device} and cannot be stored")
        how = values if isinstance(tensor, nn.Parameter) and tensor.ndim >= 2 else "as is"
        parts, entries[name] = _store(tensor.detach().cpu(), how)
        stored |= {f"{name}/{part}": content for part, content in parts.items()}

    if overwrite and folder.is_dir():
        for path in folder.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != FILE:  # that one is replaced at the end
                path.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    checksums = _save_configs(model, folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    partial = folder / f"{FILE}.partial"
    save_file(stored, partial, metadata=Index(entries, ties, checksums).to_metadata())
    os.replace(partial, folder / FILE)  # a model that was loaded from the old file keeps its memory map


def load_sparse(folder: str | Path, model: nn.Module | None = None) -> Any:
    """The model that `save_sparse` wrote into a folder: of the same class, with the same values, in evaluation mode.

    Classes of transformers are built from `config.json`, shrunk models included, without random initialization. Every
    shape is compared and every checksum verified; nothing of the file is executed.

    Args:
        folder: what `save_sparse` was given.
        model: a module to fill in place, of any class; it must have the same tensors and types. Nothing is changed
            when an error is raised.

    Returns:
        The model; with `model`, that one.

    Raises:
        TypeError: `model` is no module.
        OSError: a file is missing or cannot be read.
        ValueError: a file is damaged, was changed, or does not fit the model; the message names file and problem.
    """
    from safetensors import SafetensorError, safe_open

    if model is not None:
        check_dense(model, "a module to fill, or None", "fill")
    folder = Path(folder).expanduser()
    path = folder / FILE
    if not path.is_file():
        problem = "has no " + FILE if folder.is_dir() else "is no folder"
        raise FileNotFoundError(f"folder={str(folder)!r} {problem}: give one that save_sparse wrote")
    try:
        with safe_open(path, framework="pt") as file:
            index = read_index(path, file.metadata())
            index.check_parts(path, file)
            given = model is not None
            model = _build(folder, index) if model is None else model
            names, ties = _tensors(model)
            index.check_fits(path, names, ties, types=given)
            contents = {name: _restore(path, name, entry, file) for name, entry in index.tensors.items()}
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged or no safetensors file ({error})") from error
    if given:
        with torch.no_grad():
            for name, tensor in names.items():
                tensor.copy_(contents[index.ties.get(name, name)])
        return model
    _assign(model, contents, index.ties)
    return model.eval()


def _tensors(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All parameters and buffers, each once, by their first names; and the first name for each further one."""
    first: dict[int, str] = {}
    names: dict[str, Tensor] = {}
    ties: dict[str, str] = {}
    for found in (model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False)):
        for name, tensor in found:
            if id(tensor) in first:
                ties[name] = first[id(tensor)]
            else:
                names[name] = tensor
                first[id(tensor)] = name
    return names, ties


# --- one tensor ---------------------------------------------------------------------------------------------------


def _bits(flat: Tensor) -> npt.NDArray[Any]:
    """The entries of a flat, contiguous tensor as integers, in an array that shares its memory."""
    bits: npt.NDArray[Any] = flat.view(_BITS[flat.element_size()]).numpy()
    return bits


def _store(x: Tensor, values: str) -> tuple[dict[str, Tensor], Entry]:
    """The parts of the file that hold `x`, and its entry of the index."""
    flat = x.contiguous().reshape(-1)
    # Without the sign bit: a mask times a negative weight is -0.0.
    kept = np.flatnonzero(_bits(flat) << int(flat.is_floating_point()))
    parts: dict[str, Tensor] = {}
    if len(kept) < len(flat):
        code = torch.frombuffer(bytearray(encode(kept)), dtype=torch.uint8)
        width = min(flat.element_size(), {"float16": 2, "int8": 1}.get(values, 8))
        if code.nbytes + width * len(kept) < width * len(flat):
            parts["positions"] = code
    # The kept entries of a sparse matrix have one scale: one for each row would take a fifth more space at 3 %.
    table = flat[torch.from_numpy(kept)][None] if parts else flat.reshape(len(x) if x.ndim and len(flat) else 1, -1)
    rounded, scales = _round(table, values)
    parts |= scales
    parts["values"] = rounded.reshape(-1) if "positions" in parts else rounded.reshape(x.shape).clone()
    count = len(kept) if "positions" in parts else None
    return parts, Entry(tuple(x.shape), _name(x.dtype), _name(rounded.dtype), count, _checksum(parts))


def _round(table: Tensor, values: str) -> tuple[Tensor, dict[str, Tensor]]:
    """The rows in the type in which their values are stored, and their scales where there are any."""
    narrower = ROUNDED.get(_name(table.dtype), ())
    if table.numel() == 0 or (values != "exact" and values not in narrower):
        return table, {}
    if values == "exact":
        for dtype in (torch.float16, torch.bfloat16):
            half = table.to(dtype)
            again = half.to(table.dtype)
            if _name(dtype) in narrower and np.array_equal(_bits(again.reshape(-1)), _bits(table.reshape(-1))):
                return half, {}
        return table, {}
    if values == "float16":
        half = table.half()
        return (half, {}) if bool(half.isfinite().all()) else (table, {})
    rows = table.float()
    scales = rows.abs().amax(dim=1) / 127
    if not bool(scales.isfinite().all()):
        return table, {}
    levels = rows / torch.where(scales > 0, scales, 1.0)[:, None]
    return levels.round().clamp(-127, 127).to(torch.int8), {"scales": scales}


def _restore(path: Path, name: str, entry: Entry, file: Any) -> Tensor:
    """The tensor that `_store` took apart."""
    parts = {part: file.get_tensor(f"{name}/{part}") for part in entry.parts()}
    if _checksum(parts) != entry.crc32:
        raise ValueError(f"{path} is damaged: {name} does not have the checksum in its index")
    values = parts["values"].reshape(-1)
    kept = None
    if entry.kept is not None:
        try:
            kept = decode(parts["positions"].numpy().tobytes(), entry.kept, entry.size)
        except ValueError as error:
            raise ValueError(f"{path}: {name}: {error}") from error
    if "scales" in parts:
        scales = parts["scales"][:, None]
        values = (values.reshape(len(scales), -1).float() * scales).reshape(-1)
    values = values.to(entry.torch_dtype)
    if kept is None:
        dense: Tensor = values.reshape(entry.shape)
        return dense
    found = _bits(values)
    restored = np.zeros(entry.size, dtype=found.dtype)  # in large pages, several times as fast as torch.zeros
    restored[kept] = found
    return torch.from_numpy(restored).view(entry.torch_dtype).reshape(entry.shape)


def _checksum(parts: dict[str, Tensor]) -> int:
    checksum = 0
    for part in sorted(parts):
        content: Any = parts[part].reshape(-1).view(torch.uint8).numpy()
        checksum = zlib.crc32(content, checksum)
    return checksum


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


# --- the folder ---------------------------------------------------------------------------------------------------


def _check_replaceable(folder: Path, overwrite: bool) -> None:
    """Refuse a folder with anything but an earlier sparse save, whose config.json would then be of another model."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise FileExistsError(f"folder={str(folder)!r} is a file: name a folder")
    if overwrite:
        if any(place.resolve().is_relative_to(folder.resolve()) for place in (Path.cwd(), Path.home())):
            raise FileExistsError(f"folder={str(folder)!r} holds the current or the home folder: name one of its own")
        return
    found = {path.name for path in folder.iterdir()}
    ours = {FILE, f"{FILE}.partial"}  # the latter of a save that was interrupted
    others = {name for name in found - ours if name.endswith(_WEIGHTS)} if found & ours else found
    if others:
        raise FileExistsError(
            f"folder={str(folder)!r} holds files that save_sparse did not write ({', '.join(sorted(others)[:3])}): "
            "name another folder, or pass overwrite=True to replace it with everything in it"
        )


# --- configuration and assembly -----------------------------------------------------------------------------------


def _save_configs(model: Any, folder: Path) -> dict[str, int]:
    """Write the configuration files of a transformers model; returns their checksums."""
    config: Any = copy.deepcopy(getattr(model, "config", None))
    if not hasattr(config, "save_pretrained"):
        return {}
    config.architectures = [type(model).__name__]
    config.dtype = _name(model.dtype)
    config.save_pretrained(folder)
    if model.can_generate():
        model.generation_config.save_pretrained(folder)
    written = _CONFIGS if model.can_generate() else _CONFIGS[:1]
    return {name: json_checksum(read_json(folder / name)) for name in written}


def _build(folder: Path, index: Index) -> Any:
    """The empty model of the folder's configuration, on the meta device."""
    if "config.json" not in index.files:
        raise ValueError(f"{folder / FILE} holds a model without config.json: build it, and pass model=")
    contents = {}
    for name, checksum in index.files.items():
        if name not in _CONFIGS:
            raise ValueError(f"{folder / FILE}: {name!r} in the index is no configuration file")
        if not (folder / name).is_file():
            raise FileNotFoundError(f"{folder} has no {name}: restore it, or build the model and pass model=")
        contents[name] = read_json(folder / name)
        if json_checksum(contents[name]) != checksum:
            raise ValueError(
                f"{folder / name} is not what save_sparse wrote: restore it, or build the model and pass model=; to "
                "change the configuration, load, change model.config and save again"
            )
    widest = max((length for entry in index.tensors.values() for length in entry.shape), default=0)
    numbers = sum(entry.size for entry in index.tensors.values())
    stored = Stored(len(index.tensors) + len(index.ties), widest, numbers)
    model = build(contents["config.json"], folder / "config.json", stored)
    model.config.name_or_path = model.name_or_path = str(folder)
    if "generation_config.json" in contents:
        from transformers import GenerationConfig

        try:
            model.generation_config = GenerationConfig.from_dict(contents["generation_config.json"])
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise ValueError(f"{folder / 'generation_config.json'} cannot be used ({error})") from error
    return model


def _assign(model: nn.Module, contents: dict[str, Tensor], ties: dict[str, str]) -> None:
    """Put the tensors in place of those without values; tied ones become one parameter."""
    parameters: dict[str, nn.Parameter] = {}
    for path, module in model.named_modules():
        prefix = f"{path}." if path else ""
        for key, old in module._parameters.items():
            if old is not None:
                name = ties.get(prefix + key, prefix + key)
                if name not in parameters:
                    parameters[name] = nn.Parameter(contents[name], requires_grad=old.requires_grad)
                module._parameters[key] = parameters[name]
        for key, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[key] = contents[ties.get(prefix + key, prefix + key)]
