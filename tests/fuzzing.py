"""The loop of the programs that damage files: each damaged folder must be refused in words, or read right.

Nothing may crash, hang, fill the memory or run code of the folder.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

#: one odd value of each JSON type, and sizes that no machine has
ODD: list[Any] = [0, 1, -1, 2**31, 2**63, 10**30, 1.5, "x", "", None, True, [], [1], {}, {"a": 1}, float("nan")]
ODD += ["../../x"]
#: seconds that one file may take, on a machine with other work
SECONDS = 60
#: bytes that the address space may grow by
MEMORY = 3 * 2**29

Way = Callable[[Path, random.Random], None]
Counts = dict[str, Counter[str]]


def change_bytes(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    for _ in range(rng.choice([1, 1, 2, 8])):
        # half of the time near the beginning, where a header is
        at = rng.randrange(min(len(data), 6000) if rng.random() < 0.5 else len(data))
        data[at] ^= rng.randrange(1, 256)
    path.write_bytes(data)


def shorten(path: Path, rng: random.Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: rng.randrange(len(data))])


def fuzz(
    count: int, seed: int, folder: Path, intact: Sequence[Path], ways: Sequence[Way],
    read: Callable[[Path, int], bool], named: Callable[[Path, str], bool],
) -> tuple[Counts, list[str]]:  # fmt: skip
    """Damage `count` copies of the `intact` folders, in all `ways` in turn.

    Args:
        read: (folder, number of the intact one) -> was it read, and equal to what was saved? Or ValueError, OSError.
        named: (folder, message) -> does the message say what is wrong?

    Returns:
        For each way how many were refused and read right, and what went wrong.
    """
    counts: Counts = {way.__name__: Counter() for way in ways}
    problems = []
    for number in range(count):
        rng, way = random.Random(f"{seed} {number}"), ways[number % len(ways)]
        which = number // len(ways) % len(intact)
        damaged = folder / "damaged"
        shutil.rmtree(damaged, ignore_errors=True)
        shutil.copytree(intact[which], damaged)
        way(damaged, rng)
        try:
            with at_most(SECONDS), little_memory(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                outcome = "read right" if read(damaged, which) else "READ WRONG"
        except (ValueError, OSError) as error:
            clear = named(damaged, str(error)) and "allocate" not in str(error)
            outcome = "refused" if clear else f"UNCLEAR: {error}"
        except BaseException as error:
            outcome = f"{type(error).__name__}: {error}"
        counts[way.__name__][outcome if outcome in ("refused", "read right") else "wrong"] += 1
        if outcome not in ("refused", "read right"):
            problems.append(f"{way.__name__}, number {number} of seed {seed}: {outcome}")
        if (folder / "ran").exists():
            problems.append(f"{way.__name__}, number {number} of seed {seed}: CODE RAN")
            shutil.rmtree(folder / "ran")
    return counts, problems


class Hangs(BaseException):
    """No handler of errors stops it."""


@contextmanager
def at_most(seconds: int) -> Iterator[None]:
    if not hasattr(signal, "SIGALRM"):  # Windows
        yield
        return

    def stop(*_: Any) -> None:
        raise Hangs(f"more than {seconds} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def little_memory() -> Iterator[None]:
    """A file that asks for gigabytes ends in an error meanwhile; on Linux alone."""
    if sys.platform != "linux":
        yield
        return
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def totals(counts: Mapping[str, Counter[str]]) -> dict[str, int]:
    return {name: sum(count[name] for count in counts.values()) for name in ("refused", "read right", "wrong")}


def command(run: Callable[[int, int, Path], tuple[Counts, list[str]]], count: int, about: str | None) -> None:
    """The command line of a program; the exit status is 1 if anything went wrong."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("count", type=int, nargs="?", default=count)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        counts, problems = run(args.count, args.seed, Path(folder))
    for way, found in counts.items():
        print(f"{way:34}{found['refused']:6} refused {found['read right']:6} read right {found['wrong']:6} wrong")
    print(*problems[:20], sep="\n")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")
    raise SystemExit(bool(problems))
