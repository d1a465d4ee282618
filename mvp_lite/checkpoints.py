"""Checkpoints of a run of `fine_prune`: each is one file, which is there as a whole or not at all."""

from __future__ import annotations

import hashlib
import os
import re
import reprlib
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy._core.multiarray import scalar
from torch import Tensor

__all__ = ["Checkpoints", "digest", "restore", "snapshot"]

_NAME = re.compile(r"checkpoint-(\d+)\.pt")
#: the one before the last is there in case the last is damaged
_KEPT = 2
#: what numbers are made of that somebody took from numpy, such as a learning rate of np.logspace
_NUMPY: list[Any] = [np.dtype, type(np.dtype(np.float64)), type(np.dtype(np.float32)), type(np.dtype(np.int64)), scalar]


class Checkpoints:
    """The checkpoints in a folder: `checkpoint-<step>.pt`, of which the last two are kept.

    Args:
        folder: made if it is not there.
        resume: will the run go on from what is there?

    Raises:
        TypeError: no path.
        FileExistsError: there are checkpoints and `resume` is not set, or `folder` is a file.
    """

    def __init__(self, folder: str | Path, resume: bool) -> None:
        if not isinstance(folder, str | Path):
            raise TypeError(f"output_dir={folder!r}: must be the path of a folder")
        self.folder = Path(folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise FileExistsError(f"output_dir={str(folder)!r}: must be a folder, not a file")
        if self.files() and not resume:
            raise FileExistsError(
                f"output_dir={str(folder)!r} holds {self.files()[0].name} of an earlier run: pass resume=True to go on "
                "from there, or give another folder"
            )
        self.folder.mkdir(parents=True, exist_ok=True)

    def files(self) -> list[Path]:
        """Newest first."""
        found = self.folder.glob("checkpoint-*.pt")
        steps = {path: int(match[1]) for path in found if (match := _NAME.fullmatch(path.name))}
        return sorted(steps, key=steps.__getitem__, reverse=True)

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write the checkpoint under a temporary name, rename it, and delete all but the last two."""
        path = self.folder / f"checkpoint-{step}.pt"
        part = path.with_suffix(".partial")
        with part.open("wb") as file:
            _save(state, file)
            file.flush()
            os.fsync(file.fileno())  # else a power failure could leave the new name with half of the content
        part.replace(path)
        _flush_names(self.folder)  # before the older ones go
        for old in [*self.files()[_KEPT:], *self.folder.glob("checkpoint-*.partial")]:
            old.unlink(missing_ok=True)

    def load(self, settings: Mapping[str, Any]) -> dict[str, Any] | None:
        """The newest whole checkpoint, its tensors on the CPU; None, with a warning, if there is no file.

        Args:
            settings: must equal `state["settings"]`.

        Raises:
            OSError: there are files, and none of them can be read.
            ValueError: the settings differ.
        """
        files = self.files()
        if not files:
            text = f"output_dir={str(self.folder)!r} holds no checkpoint to resume: the run starts from the beginning"
            warnings.warn(text, UserWarning, stacklevel=3)
            return None
        for path in files:
            try:
                with path.open("rb") as file:
                    if broken := zipfile.ZipFile(file).testzip():  # torch.load does not look at the checksums
                        raise zipfile.BadZipFile(f"{broken} does not have its checksum")
                    file.seek(0)
                    with torch.serialization.safe_globals(_NUMPY):
                        state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
                _check_content(path, state)
            except MemoryError:
                raise
            except Exception as error:  # whatever a damaged file leads to
                text = f"{path} is damaged ({str(error).partition(chr(10))[0]}); trying the one before"
                warnings.warn(text, UserWarning, stacklevel=3)
                continue
            self._check(path, state["settings"], settings)
            return state
        raise OSError(f"output_dir={str(self.folder)!r}: none of its {len(files)} checkpoints can be read")

    @staticmethod
    def _check(path: Path, saved: Mapping[str, Any], here: Mapping[str, Any]) -> None:
        names = [name for name in {**saved, **here} if saved.get(name) != here.get(name)]
        if names:
            pairs = ((name, reprlib.repr(saved.get(name)), reprlib.repr(here.get(name))) for name in names)
            what = "; ".join(f"{name}: saved {a}, here {b}" for name, a, b in pairs)
            raise ValueError(f"resume=True: {path} is of another run ({what})")


def _check_content(path: Path, state: Any) -> None:
    """Refuse what `save` did not write under this name: a renamed checkpoint would undo steps, or hide newer ones."""
    parts = {"settings", "history", "evaluations", "seconds", "parts", "random"}
    if not isinstance(state, dict) or not parts <= set(state):
        raise ValueError("not a checkpoint of fine_prune")
    if path.name != f"checkpoint-{len(state['history'])}.pt":
        raise ValueError(f"it holds {len(state['history'])} steps, not those of its name")


def _flush_names(folder: Path) -> None:
    """Write the names of a folder's files to disk; Windows has no such call, and needs none."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _save(state: dict[str, Any], file: IO[bytes]) -> None:
    """`torch.save` with checksums, which it also writes by itself unless somebody turned them off."""
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(True)
    try:
        torch.save(state, file)
    finally:
        torch.serialization.set_crc32_options(before)


def snapshot(parts: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """The states of model, optimizer and so on, and of torch's random numbers on the CPU and on `device`."""
    random = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        random["cuda"] = torch.cuda.get_rng_state(device)
    return {"parts": {name: part.state_dict() for name, part in parts.items()}, "random": random}


def restore(state: Mapping[str, Any], parts: Mapping[str, Any], device: torch.device) -> None:
    """Undo what happened since `snapshot`. Parts are loaded in their order: the model before its optimizer."""
    for name, part in parts.items():
        part.load_state_dict(state["parts"][name])
    torch.set_rng_state(state["random"]["cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state["random"]["cuda"], device)


def digest(tensors: Mapping[str, Any]) -> str:
    """Equal for the same tensors under the same names, and in practice only for these; 16 hexadecimal digits."""
    found = hashlib.sha256()
    for name, tensor in tensors.items():
        if isinstance(tensor, Tensor):
            found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            found.update(tensor.detach().cpu().flatten().contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]
