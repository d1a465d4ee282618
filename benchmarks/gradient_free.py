"""What pruning without labels costs on a model of BERT-base's size: KCM and each of its steps, on 2,000 sequences.

`make bench` writes `benchmarks/gradient_free.json`: seconds and peak memory, on random weights; the time depends on
shapes and on the number of R2's iterations alone.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import torch
from run import about
from transformers import BertConfig, BertForSequenceClassification

from mvp_lite.gradient_free import kcm, methods, pruning, r2_scores
from mvp_lite.structure.units import find_units

HERE = Path(__file__).resolve().parent
LENGTHS = (25, 40)  # real tokens of a sequence


def batches(sequences: int, size: int) -> list[dict[str, torch.Tensor]]:
    """Random tokens; lengths drawn evenly from LENGTHS, sequences of similar length in one batch."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(LENGTHS[0], LENGTHS[1] + 1, (sequences,), generator=generator).sort().values
    found = []
    for part in lengths.split(size):
        ids = torch.randint(1000, 30_000, (len(part), int(part.max())), generator=generator)
        mask = (torch.arange(ids.shape[1]) < part[:, None]).long()
        found.append({"input_ids": ids * mask, "attention_mask": mask})
    return found


def peak_mb() -> float:
    """Largest resident memory since the last call, where the kernel reports it (Linux)."""
    status = Path("/proc/self/status")
    if not status.exists():
        return float("nan")
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    Path("/proc/self/clear_refs").write_text("5")
    return round(int(line.split()[1]) / 1024, 1)


class Measured:
    """`with Measured() as m:` then m.row: seconds on the clock, of the processor, and memory above what was in use."""

    def __enter__(self) -> Measured:
        peak_mb()
        self.base = peak_mb()
        self.clock, self.processor = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        clock, processor = time.perf_counter() - self.clock, time.process_time() - self.processor
        self.row = {"seconds": round(clock, 1), "processor_seconds": round(processor, 1)}
        self.row["peak_mb_above_start"] = round(peak_mb() - self.base, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sequences", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--flops", type=float, default=0.6)
    parser.add_argument("--note", default="", help="what else to say of the machine, for instance that it was busy")
    parser.add_argument("--out", type=Path, default=HERE / "gradient_free.json")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig()).eval()  # google-bert/bert-base-uncased's sizes
    inputs = batches(args.sequences, 32)
    ffns = [units for units in find_units(model) if units.unit_type == "neurons"]
    how = f"{args.threads} threads; one run; seconds on the clock and of the processor, summed over threads"
    results: dict[str, Any] = {
        "about": about(f"benchmarks/gradient_free.py --sequences {args.sequences} --threads {args.threads}")
        | {"how": how, "note": args.note},
        "sizes": {"blocks": len(ffns), "width": 768, "neurons": ffns[0].count, "sequences": args.sequences,
                  "real_tokens": int(sum(int(batch["attention_mask"].sum()) for batch in inputs))},
    }  # fmt: skip

    def timed(name: str, work: Any) -> Any:
        def call(*given: Any, **options: Any) -> Any:
            with Measured() as measured:
                found = work(*given, **options)
            rows.setdefault(name, []).append(measured.row)
            return found

        return call

    rows: dict[str, list[dict[str, float]]] = {}
    for module, function, name in (
        (methods, "r2_scores", "R2, all blocks"),
        (pruning, "observe_activations", "statistics for D2, dense hidden states"),
        (pruning, "fit_scales", "scales"),
    ):
        setattr(module, function, timed(name, getattr(module, function)))
    clock, processor = time.perf_counter(), time.process_time()
    pruned = kcm(model, inputs, args.flops)
    clock, processor = time.perf_counter() - clock, time.process_time() - processor
    matrix_mb = round(4 * ffns[0].count ** 2 / 2**20, 1)
    results[f"KCM, {args.flops:g} of the operations"] = {
        "seconds": round(clock, 1), "processor_seconds": round(processor, 1), "left": round(pruned.flops, 4),
        "kept": [int(mask.sum()) for mask in pruned.masks], "R2_iterations": pruned.report["iterations"].tolist(),
    }  # fmt: skip
    for name, found in rows.items():
        total = {key: round(sum(row[key] for row in found), 1) for key in ("seconds", "processor_seconds")}
        results[name] = total | {"peak_mb_above_start": max(row["peak_mb_above_start"] for row in found)}
    results["R2, all blocks"]["one_n_by_n_matrix_mb"] = matrix_mb
    W = ffns[0].columns.by_unit(ffns[0].columns.module.weight.detach(), ffns[0].count)
    with Measured() as measured:
        r2_scores(W, sigma=0.5, stop="entrywise", alpha=0.0, max_iterations=10)
    results["R2, one block, 10 iterations"] = measured.row | {"one_n_by_n_matrix_mb": matrix_mb}
    args.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
