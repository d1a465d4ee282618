"""Files of `save_sparse`: how small, how fast to load, and what rounded values do to the score.

Without `--task`, `benchmarks/sparse_files.json` is written: a model of BERT-base's size with random weights, of which 3
or 10 % of the encoder's matrices are kept, as a dense file, zipped, and sparse; and the time to load it and read every
weight once, over the same for `from_pretrained` and the dense file, with the files in the page cache and without.

With `--task`, a model is pruned by `mvp_lite.fine_prune`, and each way to store it adds a row to `--out`.
"""

from __future__ import annotations

import argparse
import csv
import gc
import json
import math
import os
import platform
import statistics
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from run import about
from transformers import AutoModelForSequenceClassification, BertConfig, BertForSequenceClassification

import mvp_lite as mvp
from mvp_lite.paths import data_path
from mvp_lite.storage.index import FILE, read_index
from mvp_lite.storage.sparse import VALUES

HERE = Path(__file__).resolve().parent
DENSITIES = (0.1, 0.03)
WIDTH = {"exact": 4, "float16": 2, "int8": 1}


def over_least(path: Path, values: str) -> float:
    """Bytes of the sparse matrices over those of their values and of log2 C(n, k) bits for their positions."""
    from safetensors import safe_open

    stored, least = 0, 0.0
    with safe_open(path, "pt") as file:
        for name, entry in read_index(path, file.metadata()).tensors.items():
            if entry.kept and len(entry.shape) == 2:
                stored += sum(file.get_tensor(f"{name}/{part}").nbytes for part in entry.parts())
                n, k = entry.size, entry.kept
                least += (math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)) / math.log(2) / 8
                least += WIDTH[values] * k
    return stored / least


def store(model: Any, folder: Path) -> dict[str, tuple[Path, float, float]]:
    """Way to store -> its folder, the megabytes of its file, and `over_least` (0 where nothing is sparse)."""
    model.save_pretrained(folder / "dense")
    path = folder / "dense" / "model.safetensors"
    found = {"dense": (path.parent, path.stat().st_size / 1e6, 0.0)}
    found["zip"] = (path.parent, len(zlib.compress(path.read_bytes())) / 1e6, 0.0)
    for values in VALUES:
        mvp.save_sparse(model, folder / values, values)
        path = folder / values / FILE
        found[values] = (path.parent, path.stat().st_size / 1e6, over_least(path, values))
    return found


def forget(folder: Path) -> None:
    """Take the folder's files out of the page cache."""
    for path in folder.iterdir():
        number = os.open(path, os.O_RDONLY)
        os.fsync(number)
        os.posix_fadvise(number, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(number)


def loading(folders: dict[str, Path], rounds: int, cached: bool) -> dict[str, Any]:
    """Seconds to load and to read each weight once; the ways in turn in each round; median and quartiles of ratios."""
    loaders: dict[str, Callable[[Path], Any]] = {
        "dense": BertForSequenceClassification.from_pretrained,
        "exact": mvp.load_sparse,
    }
    times: dict[str, list[float]] = {name: [] for name in loaders}
    for _ in range(rounds + 1):
        for name, load in loaders.items():
            gc.collect()
            if not cached:
                forget(folders[name])
            start = time.perf_counter()
            model = load(folders[name])
            with torch.no_grad():
                sum(float(p.sum()) for p in model.parameters())
            times[name].append(time.perf_counter() - start)
            del model
    quotients = [b / a for a, b in zip(times["dense"][1:], times["exact"][1:], strict=True)]
    low, middle, high = statistics.quantiles(quotients, n=4)
    return {
        "dense_ms": round(1000 * statistics.median(times["dense"][1:])),
        "sparse_ms": round(1000 * statistics.median(times["exact"][1:])),
        "ratio": round(middle, 3),
        "quartiles": [round(low, 3), round(high, 3)],
    }


def measure_files(rounds: int, out: Path) -> None:
    results: dict[str, Any] = {"about": about("")}
    results["about"]["command"] = f"python benchmarks/sparse_files.py --rounds {rounds}"
    results["about"]["how"] = (
        "one thread; wall time; variants interleaved; median and quartiles of ratios within rounds"
    )
    with tempfile.TemporaryDirectory(dir=HERE) as name:
        for density in DENSITIES:
            torch.manual_seed(0)
            model = BertForSequenceClassification(BertConfig(num_labels=3))
            with torch.no_grad():
                for path, p in model.named_parameters():
                    if p.ndim == 2 and ".layer." in path:
                        p *= torch.rand_like(p) < density
            stored = store(model, Path(name))
            results[f"file_mb, {density}"] = {way: round(mb, 1) for way, (_, mb, _) in stored.items()}
            results[f"over the least, {density}"] = {way: round(stored[way][2], 4) for way in VALUES}
        folders = {way: folder for way, (folder, _, _) in stored.items()}
        for cached in (True, False):
            key = f"loading at {DENSITIES[-1]}, {'in' if cached else 'not in'} the page cache"
            results[key] = loading(folders, rounds, cached)
    out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(results, indent=1))


def measure_scores(args: argparse.Namespace) -> None:
    task = mvp.load_task(args.task, args.data_dir, max_length=args.max_length)
    options = f"--model {args.public_name or args.model} --steps {args.steps} --lr {args.lr:g} --seeds {args.seeds}"
    command = f"python benchmarks/sparse_files.py --task {args.task} {options}"
    command += f" --data-dir DATA_DIR --max-length {args.max_length} --bf16" if args.data_dir else ""
    versions = f"python {platform.python_version()}, torch {torch.__version__}, transformers {transformers.__version__}"
    place = {"device": "cpu", "threads": torch.get_num_threads(), "hardware": about("")["hardware"]}
    for density in DENSITIES:
        for seed in map(int, args.seeds.split(",")):
            kept = args.models and args.models / f"{args.task.replace('/', '_')}_{density}_{seed}"
            if kept and kept.is_dir():
                model: Any = AutoModelForSequenceClassification.from_pretrained(kept)
            else:
                model = mvp.load_model(args.model, task, seed=seed)
                model.config.name_or_path = str(args.model)
                mvp.fine_prune(
                    model,
                    task,
                    density=density,
                    steps=args.steps,
                    lr=args.lr,
                    seed=seed,
                    bf16=args.bf16,
                    device="cpu",
                    progress=False,
                )
            encoded = task.encode(mvp.tokenizer_for(model))
            with tempfile.TemporaryDirectory() as name:
                stored = store(model.eval(), Path(name))
                for way, (folder, mb, least) in stored.items():
                    again = type(model).from_pretrained(folder) if way in ("dense", "zip") else mvp.load_sparse(folder)
                    score = encoded.evaluate(again, "validation", device=torch.device("cpu"))["score"]
                    row = {"task": args.task, "model": args.public_name or args.model, "method": "movement"}
                    row |= {"density": density, "seed": seed, "steps": args.steps, "lr": args.lr}
                    row |= {
                        "batch_size": 32,  # fine_prune's default
                        "stored": way,
                        "file_mb": f"{mb:.3f}",
                        "over_least": f"{least:.4f}" if least else "",
                        "score": f"{score:.4f}",
                    }
                    write_row(args.out, row | place | {"versions": versions, "command": command})


def write_row(out: Path, row: dict[str, Any]) -> None:
    begin = not out.exists()
    with out.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        if begin:
            writer.writeheader()
        writer.writerow(row)
    print(row["task"], row["density"], row["seed"], row["stored"], row["file_mb"], row["score"], flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--task", help="measure scores on this task instead of files and loading")
    parser.add_argument("--model", default="toy")
    parser.add_argument("--public-name", help="of a model read from a local folder, for the rows")
    parser.add_argument("--data-dir")
    parser.add_argument("--max-length", type=int)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--models", type=Path, help="take pruned models that are here, as TASK_DENSITY_SEED")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    if args.task:
        args.out = args.out or data_path("results", "sparse_files.csv")
        measure_scores(args)
    else:
        measure_files(args.rounds, args.out or HERE / "sparse_files.json")


if __name__ == "__main__":
    main()
