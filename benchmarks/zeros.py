"""What zeros gain on a CPU: sparse matrices, 8 bits, ONNX Runtime and shrinking, each over the dense model.

`python benchmarks/zeros.py` writes `benchmarks/zeros.json`: speed-ups of two encoders with random weights, of the sizes
of MiniLM-L6 and BERT-base, and of CSR over dense products for random zeros, by density and number of tokens.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import torch
from run import about
from transformers import BertConfig, BertForSequenceClassification

from mvp_lite import latency
from mvp_lite.matrices import find_matrices
from mvp_lite.structure.units import find_units

HERE = Path(__file__).resolve().parent
MODELS: dict[str, dict[str, int]] = {
    "MiniLM-L6 size": {
        "hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536,
    },
    "BERT-base size": {
        "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
    },
}  # fmt: skip
BATCHES, LENGTHS = (1, 8), (32, 128)
TOKENS = (32, 128, 1024, 4096)
#: what is kept -> the variants that profit from it
VARIANTS = {
    "10 % of the weights": ("masked", "csr", "int8", "onnx"),
    "3 % of the weights": ("csr",),
    "a quarter of the heads and neurons": ("shrunk", "int8 shrunk", "onnx shrunk"),
}


def pruned(size: dict[str, int], kept: str) -> Any:
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(**size)).eval()
    if kept.endswith("neurons"):
        for units in find_units(model):
            dead = torch.randperm(units.count)[round(units.count / 4) :].sort().values
            for part in units.parts:
                part.module.weight.data.index_fill_(part.dim, part.index(dead, units.count), 0.0)
        return model
    for matrix in find_matrices(model):
        W = matrix.weight.data
        W *= torch.rand_like(W) < float(kept.split()[0]) / 100
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=90, help="for one model, batch size and length")
    parser.add_argument("--out", type=Path, default=HERE / "zeros.json")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    command = f"python benchmarks/zeros.py --rounds {args.rounds} --seconds {args.seconds:g}"
    results: dict[str, Any] = {"about": about(command) | {"command": command}}
    for name, size in MODELS.items():
        found: dict[str, Any] = results.setdefault(name, {})
        for kept, variants in VARIANTS.items():
            model = pruned(size, kept)
            table = latency.measure(
                model, batch=BATCHES, length=LENGTHS, variants=variants, rounds=args.rounds, seconds=args.seconds
            )
            assert not table.attrs["missing"], table.attrs["missing"]
            for row in table.to_dict("records"):
                cell = found.setdefault(f"{row['batch']} x {row['length']}", {})
                if row["variant"] == "dense":
                    cell.setdefault("dense_ms", round(row["ms"], 1))
                else:
                    quartiles = [round(row["low"], 3), round(row["high"], 3)]
                    measured = {"speed_up": round(row["speed_up"], 3), "quartiles": quartiles, "rounds": row["rounds"]}
                    cell.setdefault(kept, {})[row["variant"]] = measured
            args.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        sweep = latency.break_even(model, tokens=TOKENS, rounds=min(args.rounds, 11))
        found["csr over dense by tokens and density"] = {
            str(tokens): {f"{row.density:g}": round(row.speed_up, 3) for row in part.itertuples()}
            for tokens, part in sweep.groupby("tokens")
        }
        found["break-even density by tokens"] = {
            str(tokens): None if density is None else round(density, 2)
            for tokens, density in latency.crossings(sweep).items()
        }
        args.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
