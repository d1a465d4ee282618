"""A checksum inside a safetensors file, which every other reader of such files passes over.

The file begins with the length of its header (8 bytes, little-endian), then the header: JSON with the dtype, shape and
place of each tensor, and free `__metadata__`. The checksum is a SHA-256 over the tensors' entries and all that follows
the header; it is one of the metadata, so that it moves and is replaced with the file.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
from pathlib import Path
from typing import Any, BinaryIO

__all__ = ["NAME", "add_checksum", "check_checksum"]

#: of the checksum in the metadata
NAME = "mvp_lite_sha256"
_CHUNK = 2**20
#: safetensors reads no longer header
_LONGEST = 100_000_000


def add_checksum(file: str | Path) -> str:
    """Write the checksum of a safetensors file into its metadata; the tensors stay as they are. Returns the checksum.

    Raises:
        ValueError: not a safetensors file.
        OSError: the file cannot be read, or its folder not written to.
    """
    file = Path(file)
    part = file.with_name(file.name + ".part")
    with file.open("rb") as source:
        header = _header(file, source)
        begin = source.tell()
        digest = _digest(header, source)
        header["__metadata__"] = {**header.get("__metadata__", {}), NAME: digest}
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8 bytes
        source.seek(begin)
        with part.open("wb") as target:
            target.write(struct.pack("<Q", len(text)) + text)
            shutil.copyfileobj(source, target, _CHUNK)
    shutil.copymode(file, part)
    os.replace(part, file)
    return digest


def check_checksum(file: str | Path) -> bool:
    """Compare a safetensors file with the checksum in it. False: it holds none.

    Raises:
        ValueError: not a safetensors file, or one that has changed since the checksum was written.
        OSError: the file cannot be read.
    """
    file = Path(file)
    with file.open("rb") as source:
        header = _header(file, source)
        metadata = header.get("__metadata__", {})
        if NAME not in metadata:
            return False
        if (digest := _digest(header, source)) != metadata[NAME]:
            raise ValueError(f"{file}: its content has the SHA-256 {digest}, its checksum is {metadata[NAME]}: damaged")
    return True


def _header(file: Path, source: BinaryIO) -> dict[str, Any]:
    """The header as it is; the next byte of `source` is the first of the tensors."""
    start = source.read(8)
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else -1
    if not 2 <= length <= min(_LONGEST, file.stat().st_size - 8):
        raise ValueError(f"{file}: not a safetensors file, or one that is not complete")
    try:
        header = json.loads(source.read(length))
    except ValueError as error:
        raise ValueError(f"{file}: damaged header: {error}") from error
    if not isinstance(header, dict) or not isinstance(header.get("__metadata__", {}), dict):
        raise ValueError(f"{file}: damaged header: not a table of tensors")
    return header


def _digest(header: dict[str, Any], source: BinaryIO) -> str:
    tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
    digest = hashlib.sha256(json.dumps(tensors, sort_keys=True).encode())
    while chunk := source.read(_CHUNK):
        digest.update(chunk)
    return digest.hexdigest()
