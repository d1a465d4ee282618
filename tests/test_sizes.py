"""Small dense encoders: pretrained by the toy's recipe, fine-tuned, counted in closed form; in miniature."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mvp_lite.__main__ import main
from mvp_lite.experiments import sizes
from mvp_lite.experiments.grid import COLUMNS
from mvp_lite.experiments.sizes import SizesGrid
from mvp_lite.experiments.table import read_rows
from mvp_lite.paths import data_path
from mvp_lite.tasks import toy

SHAPES = {"1x8": (1, 8), "2x16": (2, 16)}
GRID = SizesGrid(
    sizes=tuple(SHAPES), tasks=("toy/sentiment",), seeds=(0,), steps=10, lrs=(1e-4, 1e-3), holdout=100, batch_size=8
)


def test_small_dense_encoders_are_pretrained_fine_tuned_and_not_run_again(monkeypatch, tmp_path):
    grid = replace(GRID, folder=tmp_path / "encoders", out=tmp_path / "sizes.csv")
    miniature = replace(toy.TINY, width=32)
    asked = {"sizes": SHAPES, "recipe": miniature, "log": lambda line: None}
    sizes.run_sizes(grid, **asked)
    rows = read_rows(grid.out, COLUMNS)
    assert [(r["model"], r["method"], r["split"]) for r in rows] == [
        (f"toy {name}", "dense", split) for name in ("1x8", "2x16") for split in ("holdout", "holdout", "validation")
    ]
    assert {row["command"] for row in rows} == {grid.command()}
    about = json.loads((tmp_path / "encoders" / "2x16" / "manifest.json").read_text())["recipe"]
    assert (about["layers"], about["width"], about["lr"]) == (2, 16, 2 * miniature.lr)
    monkeypatch.setattr(sizes.toy, "build", lambda *a, **k: pytest.fail("pretrained again"))
    sizes.run_sizes(grid, **asked)
    assert read_rows(grid.out, COLUMNS) == rows
    with pytest.raises(ValueError, match="remove it to start anew"):
        sizes.pretrained_encoder(tmp_path / "encoders" / "1x8", miniature)


@pytest.mark.parametrize(("layers", "width"), [(1, 8), (4, 128)])
def test_sizes_are_counted_as_the_model_has_them(layers, width):
    model = toy.new_model(replace(toy.Recipe(), layers=layers, width=width)).bert
    matrices = [w for name, w in model.encoder.named_parameters() if w.ndim == 2]
    assert sizes.matrix_entries(layers, width) == sum(w.numel() for w in matrices)
    assert sizes.encoder_parameters(layers, width) == sum(w.numel() for w in model.parameters())
    for w in matrices:
        w.data[1:] = 0  # one row stays
    kept = sum(w.shape[1] for w in matrices)
    others = sum(w.numel() for w in model.parameters()) - sum(w.numel() for w in matrices)
    counted = sizes.encoder_parameters(layers, width, kept / sizes.matrix_entries(layers, width))
    assert counted == pytest.approx(others + kept)


def test_an_unknown_size_is_named(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["toy", "sizes", "--only", "9x9", "--out", str(tmp_path / "x.csv")])
    assert "9x9" in capsys.readouterr().err


def test_the_folder_of_the_encoders_is_not_recorded():
    grid = SizesGrid(sizes=("2x32",), folder=Path("somewhere"), out=Path("x/toy_sizes.csv"))
    assert grid.command() == "python -m mvp_lite toy sizes --sizes 2x32 --out toy_sizes.csv"


def test_recorded_sizes_are_complete_and_used_the_best_learning_rates():
    rows = read_rows(data_path("results", "toy_sizes.csv"), COLUMNS)
    names = {row["model"].removeprefix("toy ") for row in rows}
    assert {"2x32", "3x48"} <= names <= set(sizes.SIZES)
    for name in names:
        for task in ("sentiment", "inference", "paraphrase", "qa"):
            mine = [r for r in rows if (r["model"], r["task"]) == (f"toy {name}", f"toy/{task}")]
            tried = [r for r in mine if r["split"] == "holdout"]
            best = max(tried, key=lambda r: (float(r["score"]), -float(r["loss"])))
            reported = [r for r in mine if r["split"] == "validation"]
            assert {r["seed"] for r in reported} == set("01234") and len(mine) == 3 + 5
            assert {r["lr"] for r in reported} == {best["lr"]} and {r["method"] for r in mine} == {"dense"}
    assert all(row["command"].startswith("python -m mvp_lite toy sizes") for row in rows)


def test_the_sizes_hold_what_their_comment_says():
    whole = sizes.matrix_entries(toy.Recipe().layers, toy.Recipe().width)
    shares = [round(100 * sizes.matrix_entries(*shape) / whole) for shape in sizes.SIZES.values()]
    assert shares == [3, 11, 32]
