"""Times of a model's variants and of its matrices, as ratios within rounds."""

from __future__ import annotations

import math
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from mvp_lite.latency.variants import VARIANTS, build, load, random_batch
from mvp_lite.matrices import find_matrices
from mvp_lite.storage.csr import CSRLinear

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["break_even", "crossings", "measure"]

#: densities of the random matrices with which `break_even` looks for the one at which sparse and dense are equally fast
DENSITIES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5)


def measure(
    model: Any,
    *,
    batch: Sequence[int] = (1, 8),
    length: Sequence[int] = (32, 128),
    threads: int = 1,
    rounds: int = 20,
    seconds: float = 30.0,
    variants: Sequence[str] = tuple(VARIANTS),
) -> pd.DataFrame:
    """How long each variant of a model takes for a batch, on this machine.

    All variants take turns in one process, in an order that changes, so that what else the machine does hits them
    alike; each speed-up is taken within a round. With one thread the clock counts the processor's time, otherwise the
    time that passes.

    Args:
        model: a model (plain or shrunk), or the folder that holds one.
        batch: numbers of examples.
        length: numbers of tokens in each example.
        threads: of torch and of ONNX Runtime.
        rounds: number of times that each variant runs; fewer (at least 3) where `seconds` do not suffice.
        seconds: for one batch size and length.
        variants: keys of `VARIANTS`.

    Returns:
        A table with the columns `variant`, `batch`, `length`, `ms` (median, in milliseconds), `speed_up` over the
        dense model (median over rounds), `low` and `high` (its quartiles), `rounds`. What was not measured, and why,
        is in `table.attrs["missing"]`.

    Raises:
        ValueError: a setting out of its range, an unknown variant, more tokens than the model takes.
        OSError: no such folder.
    """
    import pandas as pd

    _at_least_one(batch=batch, length=length, threads=[threads], rounds=[rounds])
    unknown = [name for name in variants if name not in VARIANTS]
    if unknown:
        raise ValueError(f"variants={unknown[0]!r}: must be of {', '.join(VARIANTS)}")
    model = load(model) if isinstance(model, str | Path) else model
    batches = {(b, n): random_batch(model, b, n) for b in batch for n in length}
    rows: list[dict[str, Any]] = []
    with _threads(threads) as clock:
        runs, missing = build(model, variants, threads)
        for (b, n), given in batches.items():
            work = {name: partial(run, given) for name, run in runs.items()}
            times = _interleaved(work, clock, rounds, seconds)
            rows += [{"variant": name, "batch": b, "length": n, **_compared(times, name)} for name in runs]
    table = pd.DataFrame(rows)
    table.attrs["missing"] = missing
    return table


def break_even(
    model: Any,
    *,
    tokens: Sequence[int] = (32, 128, 1024),
    densities: Sequence[float] = DENSITIES,
    threads: int = 1,
    rounds: int = 9,
) -> pd.DataFrame:
    """How much faster CSR is than dense, over all matrices of a model's blocks, with random zeros.

    Args:
        model: a model, or the folder that holds one; its weights are not used, only the shapes of its matrices.
        tokens: numbers of tokens in a batch (examples times length).
        densities: fractions of nonzero weights.
        threads: of torch.
        rounds: number of times that each product is taken.

    Returns:
        A table with the columns `tokens`, `density`, `speed_up` over the dense product (median over rounds), `low` and
        `high` (its quartiles).

    Raises:
        ValueError: a setting out of its range, a model without blocks.
        OSError: no such folder.
    """
    import pandas as pd

    _at_least_one(tokens=tokens, threads=[threads], rounds=[rounds])
    for density in densities:
        if not 0 < density <= 1:
            raise ValueError(f"densities={density!r}: must be fractions of weights above 0 and at most 1")
    model = load(model) if isinstance(model, str | Path) else model
    found = find_matrices(model)
    shapes = Counter(tuple(m.weight.T.shape if hasattr(m.module, "nf") else m.weight.shape) for m in found)
    generator = torch.Generator().manual_seed(0)
    rows: list[dict[str, Any]] = []
    with _threads(threads) as clock, torch.inference_mode():
        for n in tokens:
            for density in densities:
                total: dict[str, list[float]] = {"dense": [0.0] * rounds, "csr": [0.0] * rounds}
                for (out, into), count in shapes.items():
                    dense = nn.Linear(into, out)
                    mask = torch.rand(out, into, generator=generator) < density
                    csr = CSRLinear(dense.weight * mask, dense.bias)
                    x = torch.randn(n, into, generator=generator)
                    work = {"dense": partial(dense, x), "csr": partial(csr, x)}
                    for name, times in _interleaved(work, clock, rounds, math.inf).items():
                        total[name] = [a + count * b for a, b in zip(total[name], times, strict=True)]
                rows.append({"tokens": n, "density": density, **_compared(total, "csr")})
    return pd.DataFrame(rows)[["tokens", "density", "speed_up", "low", "high"]]


def crossings(table: pd.DataFrame) -> dict[int, float | None]:
    """The density at which CSR and dense are equally fast, for each number of tokens in a table of `break_even`.

    Between two measured densities the logarithms are interpolated. None: CSR is faster at all densities, or at none.
    """
    found: dict[int, float | None] = {}
    for tokens, part in table.sort_values("density").groupby("tokens"):
        log = [(math.log(d), math.log(s)) for d, s in zip(part["density"], part["speed_up"], strict=True)]
        found[int(str(tokens))] = None
        for (x0, y0), (x1, y1) in pairwise(log):
            if y0 >= 0 > y1:
                found[int(str(tokens))] = math.exp(x0 + (x1 - x0) * y0 / (y0 - y1))
    return found


def _interleaved(
    work: Mapping[str, Callable[[], Any]], clock: Callable[[], float], rounds: int, seconds: float
) -> dict[str, list[float]]:
    """Times of every piece of work in each round, after a first round that does not count.

    The order is shuffled, since what ran before decides what is in the cache.
    """
    times: dict[str, list[float]] = {name: [] for name in work}
    began = time.perf_counter()
    for run in work.values():
        run()
    each, order = time.perf_counter() - began, Random(0)
    for _ in range(int(min(rounds, max(3, seconds / each)))):
        for name in order.sample(list(work), len(work)):
            start = clock()
            work[name]()
            times[name].append(clock() - start)
    return times


def _compared(times: Mapping[str, list[float]], name: str) -> dict[str, Any]:
    faster = [a / max(b, 1e-9) for a, b in zip(times["dense"], times[name], strict=True)]
    low, middle, high = statistics.quantiles(faster, n=4, method="inclusive") if len(faster) > 1 else faster * 3
    ms = 1000 * statistics.median(times[name])
    return {"ms": ms, "speed_up": middle, "low": low, "high": high, "rounds": len(faster)}


def _at_least_one(**settings: Sequence[int]) -> None:
    for name, values in settings.items():
        for value in values or [0]:
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name}={value!r}: must be an integer of at least 1")


@contextmanager
def _threads(count: int) -> Iterator[Callable[[], float]]:
    """That many threads; the clock to use with them."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield time.process_time if count == 1 else time.perf_counter
    finally:
        torch.set_num_threads(before)
