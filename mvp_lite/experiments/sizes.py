"""Small dense encoders of the toy language, on the same axis as its pruned ones.

Each size is pretrained as the toy's own encoder is, on the same text for the same number of steps, and fine-tuned on
the four tasks as the dense runs of `mvp_lite.experiments.grid` are. Both are resumable. One thing differs: the learning
rate of the pretraining grows as the width shrinks. (After 900 steps the narrowest had a loss of 2.79 with the toy's, of
2.17 with 2e-3.)
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import ClassVar

from mvp_lite.experiments.grid import Log, ToyGrid, run_grid
from mvp_lite.experiments.settings import option, words
from mvp_lite.tasks import toy

__all__ = ["SIZES", "SizesGrid", "encoder_parameters", "matrix_entries", "pretrained_encoder", "run_sizes"]

TOY = toy.Recipe()
#: name -> layers, width; their matrices hold 3, 11 and 32 per cent of the entries of the toy's (4 layers of width 128).
SIZES = {"2x32": (2, 32), "3x48": (3, 48), "4x72": (4, 72)}
FOLDER = Path("build/toy_sizes")


@dataclass(frozen=True, kw_only=True)
class SizesGrid(ToyGrid):
    """Dense runs of small encoders on the toy's tasks: `python -m mvp_lite toy sizes`."""

    command_name: ClassVar[str] = "toy sizes"
    results_name: ClassVar[str] = "toy_sizes.csv"
    methods: Sequence[str] = ("dense",)
    densities: Sequence[float] = (1.0,)
    sizes: Sequence[str] = option(
        tuple(SIZES), read=words, flags=("--sizes", "--only"), help="sizes to run: layers x width"
    )
    folder: Path = option(  # noqa: RUF009, a field
        FOLDER, read=Path, public=lambda folder: FOLDER, help="folder for the pretrained encoders"
    )


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

    Raises:
        ValueError: the one that is there was made by another recipe.
    """
    about = folder / "manifest.json"
    if not about.exists():
        toy.build(folder, recipe, progress=progress)
    found = json.loads(about.read_text(encoding="utf-8"))["recipe"]
    if found != asdict(recipe):
        raise ValueError(f"{folder} belongs to recipe {found}, not {asdict(recipe)}; remove it to start anew")
    return folder / "encoder"


def run_sizes(
    grid: SizesGrid,
    log: Log = print,
    *,
    sizes: Mapping[str, tuple[int, int]] = SIZES,
    recipe: toy.Recipe = TOY,
) -> None:
    """For each of the grid's sizes pretrain an encoder below its folder, then run the dense grid with it.

    Raises:
        ValueError: a size that `sizes` does not name, or a setting that no run could have.
    """
    grid.check()
    for name in grid.sizes:
        if name not in sizes:
            raise ValueError(f"sizes={name!r}: must be one of {', '.join(sizes)}")
    for name in grid.sizes:
        layers, width = sizes[name]
        mine = replace(recipe, layers=layers, width=width, lr=recipe.lr * recipe.width / width)
        encoder = pretrained_encoder(grid.folder / name, mine, progress=False)
        log(f"{name}: pretrained, {matrix_entries(layers, width)} entries in its matrices")
        run_grid(replace(grid, model=str(encoder), model_name=f"toy {name}"), log)
