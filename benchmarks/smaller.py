"""What zeros and what smaller matrices are worth: dense, masked and shrunk model side by side.

`make bench` writes `benchmarks/smaller.json`: latency, operations, parameters and file size of a model of BERT-base's
size from which heads and neurons were removed until about 60 % of the encoder's operations are left.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from run import about, interleaved
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, BertForSequenceClassification

import mvp_lite as mvp
from mvp_lite.structure.shrinking import sizes
from mvp_lite.structure.units import find_units

HERE = Path(__file__).resolve().parent
KEPT = {"heads": 7, "neurons": 1863}  # of 12 and 3072
SHAPES = ((1, 32), (1, 128), (32, 32), (32, 128))


def models() -> dict[str, Any]:
    torch.manual_seed(0)
    dense = BertForSequenceClassification(BertConfig(num_labels=3)).eval()
    masked = copy.deepcopy(dense)
    for units in find_units(masked):
        dead = torch.randperm(units.count)[KEPT[units.unit_type] :].sort().values
        for part in units.parts:
            part.module.weight.data.index_fill_(part.dim, part.index(dead, units.count), 0.0)
    shrunk = mvp.shrink(masked).eval()
    assert sizes(shrunk) == {kind: [kept] * 12 for kind, kept in KEPT.items()}
    return {"dense": dense, "masked": masked, "shrunk": shrunk}


def operations(model: Any, ids: torch.Tensor) -> int:
    """Counted on the plain attention, since torch's counter does not know the fused one of the CPU."""
    model.set_attn_implementation("eager")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(input_ids=ids)
    model.set_attn_implementation("sdpa")
    return int(counter.get_total_flops())


def closed_form(kept: dict[str, int], batch: int, length: int) -> int:
    """Operations of 12 blocks of width 768 with heads of 64: maps, attention's products, and the classifier's two."""
    width, head = 768, 64
    maps = 2 * batch * length * width * (4 * kept["heads"] * head + 2 * kept["neurons"])
    attention = 2 * 2 * batch * kept["heads"] * length * length * head
    return 12 * (maps + attention) + 2 * batch * width * (width + 3)


def file_mb(model: Any) -> float:
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return round((Path(folder) / "model.safetensors").stat().st_size / 1e6, 1)


def latencies(found: dict[str, Any], batch: int, length: int, rounds: int) -> dict[str, Any]:
    ids = torch.randint(0, 30_000, (batch, length), generator=torch.Generator().manual_seed(1))

    def run(model: Any) -> Callable[[], None]:
        def forward() -> None:
            with torch.no_grad():
                model(input_ids=ids)

        return forward

    work = {name: run(model) for name, model in found.items()}
    for forward in work.values():
        forward()
    times = interleaved(work, rounds)
    counts = {name: operations(model, ids) for name, model in found.items()}
    assert counts["shrunk"] == closed_form(KEPT, batch, length)
    assert counts["masked"] == counts["dense"] == closed_form({"heads": 12, "neurons": 3072}, batch, length)
    fewer = counts["dense"] / counts["shrunk"]
    result: dict[str, Any] = {"dense_ms": round(1000 * statistics.median(times["dense"]), 1)}
    result |= {"operations": counts, "fewer_operations": round(fewer, 3)}
    for name in ("masked", "shrunk"):
        faster = [a / b for a, b in zip(times["dense"], times[name], strict=True)]
        low, middle, high = statistics.quantiles(faster, n=4)
        result[name] = {"speed_up": round(middle, 3), "quartiles": [round(low, 3), round(high, 3)]}
    return result | {"speed_up_over_fewer_operations": round(result["shrunk"]["speed_up"] / fewer, 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--out", type=Path, default=HERE / "smaller.json")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    found = models()
    results: dict[str, Any] = {"about": about(f"benchmarks/smaller.py --rounds {args.rounds}")}
    results["parameters"] = {name: sum(p.numel() for p in model.parameters()) for name, model in found.items()}
    results["parameters"] |= {"masked, not 0": sum(int(p.count_nonzero()) for p in found["masked"].parameters())}
    results["file_mb"] = {name: file_mb(model) for name, model in found.items()}
    for batch, length in SHAPES:
        key = f"BERT-base size, batch {batch}, {length} tokens"
        results[key] = latencies(found, batch, length, max(5, args.rounds // max(1, batch * length // 128)))
        args.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
