"""Speed and memory as ratios, measured interleaved in one process: `make bench` writes `benchmarks/results.json`."""

from __future__ import annotations

import argparse
import datetime
import functools
import gc
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from transformers import BertConfig, BertForSequenceClassification

from mvp_lite.masks import top_v
from mvp_lite.methods import METHODS
from mvp_lite.pruner import Pruner

HERE = Path(__file__).resolve().parent
VARIANTS = ("dense", *METHODS)
TOP_V = ("magnitude", "movement", "random")


def bert() -> BertForSequenceClassification:
    config = BertConfig(
        hidden_size=256, num_hidden_layers=4, num_attention_heads=4, intermediate_size=1024, num_labels=3
    )
    return BertForSequenceClassification(config).train()


def stepper(variant: str, batch: int, length: int) -> Callable[[], None]:
    """One fine-tuning step (forward, backward, clip, AdamW), in the middle of its schedule, of one variant."""
    torch.manual_seed(0)
    model = bert()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
    pruner = None
    if variant != "dense":
        pruner = Pruner(model, variant, density=0.3, total_steps=10_000, warmup_steps=0, cooldown_steps=0)
        pruner.attach(optimizer)
    ids = torch.randint(0, 30_000, (batch, length))
    labels = torch.randint(0, 3, (batch,))

    def step() -> None:
        model(input_ids=ids, labels=labels).loss.backward()
        if pruner is None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        else:
            pruner.clip_grad_norm_(1.0)
        optimizer.step()
        optimizer.zero_grad()

    step()
    if pruner is not None:
        pruner.steps_done = 5000
    step()
    return step


def interleaved(work: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Process seconds (all threads) of every piece of work, one after the other in each round."""
    times: dict[str, list[float]] = {name: [] for name in work}
    for _ in range(rounds):
        for name, run in work.items():
            start = time.process_time()
            run()
            times[name].append(time.process_time() - start)
    return times


def ratios(times: dict[str, list[float]], base: str) -> dict[str, Any]:
    """Per piece of work: median over rounds of its time over the base's in the same round, and the quartiles."""
    result: dict[str, Any] = {f"{base}_ms": round(1000 * statistics.median(times[base]), 3)}
    for name, values in times.items():
        if name != base:
            quotients = [a / b for a, b in zip(values, times[base], strict=True)]
            low, middle, high = statistics.quantiles(quotients, n=4)
            result[name] = {"ratio": round(middle, 3), "quartiles": [round(low, 3), round(high, 3)]}
    return result


def steps(rounds: int) -> dict[str, Any]:
    found = {}
    for batch, length in ((16, 64), (8, 32)):
        work = {variant: stepper(variant, batch, length) for variant in VARIANTS}
        found[f"step over dense, 4x256 BERT, {batch}x{length}"] = ratios(interleaved(work, rounds), "dense")
        del work
        gc.collect()
    return found


def selections(rounds: int) -> dict[str, Any]:
    found = {}
    for rows, columns in ((256, 256), (3072, 768)):
        scores = torch.randn(rows, columns)
        k = round(0.3 * scores.numel())

        def kthvalue(scores: torch.Tensor = scores, k: int = k) -> torch.Tensor:
            return scores > scores.view(-1).kthvalue(scores.numel() - k).values

        def sort(scores: torch.Tensor = scores, k: int = k) -> torch.Tensor:
            mask = torch.zeros(scores.numel(), dtype=torch.bool)
            mask[scores.view(-1).argsort(descending=True)[:k]] = True
            return mask.view_as(scores)

        def ours(scores: torch.Tensor = scores) -> torch.Tensor:
            return top_v(scores, 0.3)

        assert torch.equal(ours(), kthvalue()) and torch.equal(ours(), sort())
        times = interleaved({"top_v": ours, "kthvalue": kthvalue, "sort": sort}, rounds)
        found[f"exact selection of {rows}x{columns}, over top_v"] = ratios(times, "top_v")
    return found


def imports(rounds: int) -> dict[str, Any]:
    def start(line: str) -> Callable[[], None]:
        return lambda: subprocess.run([sys.executable, "-c", line], check=True) and None

    work = {"torch": start("import torch"), "mvp_lite": start("import mvp_lite")}
    times: dict[str, list[float]] = {name: [] for name in work}
    for round_ in range(rounds + 1):
        for name, run in work.items():
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            run()
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            if round_:  # the first one warms the file cache
                times[name].append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return {"import mvp_lite over import torch": ratios(times, "torch")}


#: what a step is counted for: method, its options, and whether the cool-down has begun
COUNTED = {
    **{f"{name}, {scope}": (name, {"scope": scope}) for name in TOP_V for scope in ("local", "global")},
    **{f"{name}, {groups}": (name, {"groups": groups}) for name in TOP_V for groups in ("rows", "neurons")},
    **{
        f"{name}, {said}": (name, {"penalty": penalty})
        for name in ("soft_movement", "l0")
        for said, penalty in (("fixed penalty", 1.0), ("feedback", "feedback"))
    },
    **{f"{name}, feedback, cool-down": (name, {"penalty": "feedback"}) for name in ("soft_movement", "l0")},
}


class Reads(TorchDispatchMode):
    """Counts how often the host reads what a device holds. "meta" stands for a GPU: its tensors have no values."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is torch.ops.aten._local_scalar_dense.default and args[0].is_meta:
            self.count += 1
            return 1.0 if args[0].is_floating_point() else 1
        target = kwargs.get("device")
        if function is torch.ops.aten._to_copy.default and args[0].is_meta and target and target.type == "cpu":
            self.count += 1
            numbers = range(args[0].numel()) if args[0].is_floating_point() else [0] * args[0].numel()
            with _disable_current_modes():
                return torch.tensor(numbers, dtype=args[0].dtype).view(args[0].shape)
        # What else would wait (nonzero, selecting by a mask, equal) has no result without values, and raises.
        return function(*args, **kwargs)


def _without_generator(method: Any, scores: torch.Tensor, _: Any) -> torch.Tensor:
    return type(method).sample(method, scores, None)


def reads(method: str, options: dict[str, Any], step: int) -> int:
    """How often the pruner waits for a GPU around one optimizer step, clipping included."""
    config = BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, num_labels=3
    )
    with torch.no_grad(), Reads() as counter:
        with torch.device("meta"):
            model = BertForSequenceClassification(config)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)
        with patch("mvp_lite.targets._check_weights"):  # which refuses weights without values
            pruner = Pruner(model, method, density=0.3, total_steps=1000, warmup_steps=0, cooldown_steps=300, **options)
        pruner.attach(optimizer)
        for pool in pruner.pools:  # "meta" has no generator of random numbers
            pool.method.sample = functools.partial(_without_generator, pool.method)
        pruner.steps_done = step - 1
        for _ in range(2):  # some is read only once in a run
            counter.count = 0
            if pruner.method.stochastic:
                with patch("torch.Generator"):
                    pruner._sample()
            for p in model.parameters():
                p.grad = torch.ones_like(p)
            pruner.clip_grad_norm_(1.0)
            optimizer.step()
    return counter.count


def synchronizations() -> dict[str, Any]:
    found = {name: reads(*what, step=810 if "cool-down" in name else 410) for name, what in COUNTED.items()}
    return {"reads of a GPU around a step, 12 matrices": found}


def memory() -> dict[str, Any]:
    """Peak resident memory above dense, each variant in a process of its own, and bytes saved for backward."""
    found: dict[str, dict[str, float]] = {}
    # glibc then returns what is freed to the system, so that the peak is what is in use and not what is fragmented.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    for variant in VARIANTS:
        line = f"import sys; sys.path.insert(0, {str(HERE)!r}); import run; run.print_memory({variant!r})"
        done = subprocess.run([sys.executable, "-c", line], env=environment, check=True, capture_output=True, text=True)
        found[variant] = json.loads(done.stdout)
    matrices = found["dense"]["matrices_mb"]
    dense = found["dense"]
    rows = {
        name: {
            "peak_above_dense_mb": round(row["peak_mb"] - dense["peak_mb"], 1),
            "over_matrices": round((row["peak_mb"] - dense["peak_mb"]) / matrices, 2),
            "saved_for_backward_above_dense_mb": round(row["saved_mb"] - dense["saved_mb"], 3),
        }
        for name, row in found.items()
        if name != "dense"
    }
    return {"memory, 4x256 BERT, 16x64": {"dense_peak_mb": dense["peak_mb"], "pruned_matrices_mb": matrices, **rows}}


def print_memory(variant: str) -> None:
    step = stepper(variant, 16, 64)
    step()
    saved = 0

    def count(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal saved
        saved += tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        step()
    matrices = sum(p.numel() * 4 for n, p in bert().named_parameters() if ".layer." in n and p.ndim == 2)
    # Not getrusage: on Linux its maximum is inherited from the parent.
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024
    print(json.dumps({"peak_mb": round(peak, 1), "saved_mb": saved / 2**20, "matrices_mb": round(matrices / 2**20, 1)}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--out", type=Path, default=HERE / "results.json")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # for the children
    torch.set_num_threads(1)
    results: dict[str, Any] = {"about": about(f"benchmarks/run.py --rounds {args.rounds}")}
    for part in (
        lambda: imports(min(args.rounds, 10)),
        lambda: selections(args.rounds),
        lambda: steps(args.rounds),
        synchronizations,
        memory,
    ):
        results |= part()
        args.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(results, indent=1))


def about(script: str) -> dict[str, str]:
    return {
        "command": f"make bench (python {script})",
        "date": datetime.date.today().isoformat(),
        "versions": f"python {platform.python_version()}, torch {torch.__version__}",
        "hardware": cpu_name(),
        "how": "one thread; process CPU time; variants interleaved; median and quartiles of ratios within rounds",
    }


def cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":")[1].strip() for line in lines if "model name" in line), platform.machine())


if __name__ == "__main__":
    main()
