"""Small dense encoders of the toy language, on the same axis as its pruned ones.

Each size is pretrained as the toy's own encoder is, on the same text for the same number of steps, and fine-tuned on
the four tasks as the dense runs of `experiments` are. Both are resumable. One thing differs: the pretraining's rate
grows as the width shrinks. (After 900 steps the narrowest had a loss of 2.79 with the toy's rate, of 2.17 with 2e-3.)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from mvp_lite.experiments.grid import Grid, run_grid, task_grids
from mvp_lite.tasks import toy

__all__ = ["SIZES", "encoder_parameters", "matrix_entries", "pretrained_encoder", "run_sizes"]

TOY = toy.Recipe()
#: name -> layers, width; their matrices hold 3, 11 and 32 per cent of the entries of the toy's (4 layers of width 128).
SIZES = {"2x32": (2, 32), "3x48": (3, 48), "4x72": (4, 72)}


def matrix_entries(layers: int, width: int) -> int:
    """Entries of the matrices that pruning counts: of each layer four (width, width) and two (width, 4 width)."""
    return 12 * layers * width**2


def encoder_parameters(layers: int, width: int, kept: float = 1.0) -> float:
    """Non-zero parameters of a whole BERT encoder of the toy language, a fraction `kept` of its matrices' entries left.

    Biases, layer norms and embeddings are never pruned; pooler and head, which belong to a task, are not counted.
    """
    embeddings = len(toy.vocabulary()) + toy.MAX_LENGTH + 2
    return kept * matrix_entries(layers, width) + 13 * layers * width + (embeddings + 2) * width


def pretrained_encoder(folder: Path, recipe: toy.Recipe, *, progress: bool = True) -> Path:
    """Pretrain an encoder of `recipe` below `folder` if it is not there yet; a killed run goes on. Returns its folder.

    Raises ValueError if the one that is there was made by another recipe.
    """
    about = folder / "manifest.json"
    if not about.exists():
        toy.build(folder, recipe, progress=progress)
    found = json.loads(about.read_text(encoding="utf-8"))["recipe"]
    if found != asdict(recipe):
        raise ValueError(f"{folder} belongs to recipe {found}, not {asdict(recipe)}; remove it to start anew")
    return folder / "encoder"


def run_sizes(
    grid: Grid,
    tasks: Sequence[str],
    folder: Path,
    out: Path,
    *,
    sizes: Mapping[str, tuple[int, int]] = SIZES,
    recipe: toy.Recipe = TOY,
    log: Callable[[str], None] = print,
) -> None:
    """For each size pretrain an encoder below `folder`, then run the dense part of `grid` on all tasks into `out`."""
    for name, (layers, width) in sizes.items():
        mine = replace(recipe, layers=layers, width=width, lr=recipe.lr * recipe.width / width)
        encoder = pretrained_encoder(folder / name, mine, progress=False)
        log(f"{name}: pretrained, {matrix_entries(layers, width)} entries in its matrices")
        dense = replace(grid, model=str(encoder), model_name=f"toy {name}", methods=("dense",), densities=(1.0,))
        for part in task_grids(dense, tasks):
            run_grid(part, out, log)
