"""Damage the newest of two checkpoints, as a loss of power or a bad disk does: the run must go on from right numbers.

`python tests/fuzz_checkpoints.py 1000` prints how often the checkpoint was passed over for the one before, or read as
it was saved; tests/test_robustness.py runs some of them.
"""

from __future__ import annotations

import random
import shutil
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from fuzzing import command, fuzz, shorten
from test_checkpoints import SAVE, STOP, Parity, run

from mvp_lite.checkpoints import Checkpoints

OLD, NEW = "checkpoint-4.pt", "checkpoint-8.pt"


def truncate(folder: Path, rng: random.Random) -> None:
    shorten(folder / NEW, rng)


def flip_bits(folder: Path, rng: random.Random) -> None:
    data = bytearray((folder / NEW).read_bytes())
    for _ in range(rng.choice([1, 1, 1, 2, 8])):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    (folder / NEW).write_bytes(data)


def flip_bits_of_the_directory(folder: Path, rng: random.Random) -> None:
    """Of the table at the end of the file, which says where its parts are."""
    data = bytearray((folder / NEW).read_bytes())
    begin = data.index(b"PK\x01\x02")
    for _ in range(rng.choice([1, 1, 1, 2, 8])):
        data[rng.randrange(begin, len(data))] ^= 1 << rng.randrange(8)
    (folder / NEW).write_bytes(data)


def empty_blocks(folder: Path, rng: random.Random) -> None:
    """Blocks of a disk that were never written hold zeros."""
    data = bytearray((folder / NEW).read_bytes())
    block = rng.choice([512, 4096])
    for _ in range(rng.choice([1, 1, 3])):
        at = block * rng.randrange(1 + len(data) // block)
        data[at : at + block] = bytes(len(data[at : at + block]))
    (folder / NEW).write_bytes(data)


def mix_blocks(folder: Path, rng: random.Random) -> None:
    """Blocks of the older checkpoint in the newer one."""
    data, old = bytearray((folder / NEW).read_bytes()), (folder / OLD).read_bytes()
    at = rng.randrange(len(data))
    end = min(len(data), len(old), at + rng.choice([16, 512, 4096, 10**6]))
    data[at:end] = old[at:end]
    (folder / NEW).write_bytes(data)


def swap_files(folder: Path, rng: random.Random) -> None:
    """The older file, or something else altogether, under the newer name."""
    new, state = folder / NEW, torch.load(folder / NEW)
    way = rng.randrange(5)
    if way == 0:
        shutil.copy(folder / OLD, new)
    elif way == 1:
        torch.save(state["parts"], new)
    elif way == 2:
        torch.save([state], new)
    elif way == 3:
        new.unlink()
        new.mkdir()
    else:
        state.pop(rng.choice(sorted(state)))
        torch.save(state, new)


WAYS = (truncate, flip_bits, flip_bits_of_the_directory, empty_blocks, mix_blocks, swap_files)


def same(one: Any, two: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(two, torch.Tensor) and one.dtype == two.dtype and torch.equal(one, two)
    if isinstance(one, dict):
        return isinstance(two, dict) and one.keys() == two.keys() and all(same(one[name], two[name]) for name in one)
    if isinstance(one, list | tuple):
        return type(one) is type(two) and len(one) == len(two) and all(map(same, one, two))
    return bool(one == two)


def run_all(count: int, seed: int, folder: Path) -> tuple[dict[str, Counter[str]], list[str]]:
    """A checkpoint that is passed over counts as refused."""
    intact = folder / "intact"
    try:
        run("l0", Parity(STOP), output_dir=intact, save_steps=SAVE)
    except KeyboardInterrupt:
        pass
    saved = {name: torch.load(intact / name) for name in (OLD, NEW)}

    def read(damaged: Path, which: int) -> bool:
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            state = Checkpoints(damaged, resume=True).load(saved[OLD]["settings"])
        if same(state, saved[NEW]) and not found:
            return True
        if same(state, saved[OLD]) and [str(damaged / NEW) in str(warning.message) for warning in found] == [True]:
            raise ValueError("passed over")
        return False

    return fuzz(count, seed, folder, [intact], WAYS, read, lambda damaged, message: message == "passed over")


if __name__ == "__main__":
    command(run_all, 1000, __doc__)
