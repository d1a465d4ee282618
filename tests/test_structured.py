"""The grid with groups: equal numbers of weights, tuned learning rates, runs that are not repeated; in miniature."""

from dataclasses import replace

import pytest
import torch

from mvp_lite.__main__ import main
from mvp_lite.experiments import structured
from mvp_lite.experiments.structured import (
    GROUPS,
    STRUCTURED_COLUMNS,
    StructuredGrid,
    group_density,
    kept_of_encoder,
    run_structured,
)
from mvp_lite.experiments.table import read_rows
from mvp_lite.models import load_model
from mvp_lite.paths import data_path
from mvp_lite.pruner import Pruner
from mvp_lite.tasks.loading import load_task

GRID = StructuredGrid(
    tasks=("toy/sentiment",),
    groups=("heads+neurons", "neurons"),
    densities=(0.5, 0.1),
    seeds=(0,),
    steps=10,
    lrs=(1e-4, 1e-3),
    holdout=100,
    batch_size=8,
)


@pytest.mark.parametrize("name", GROUPS)
@pytest.mark.parametrize("density", [0.7, 0.5, 0.3, 0.125, 0.1])
def test_every_choice_of_groups_keeps_as_many_weights(name, density):
    if name == "neurons" and density <= 1 / 3:
        with pytest.raises(ValueError, match=f"density={density}: neurons alone leave the attention"):
            group_density(name, density)
        return
    model = load_model("toy", load_task("toy/sentiment", limit=2))
    pruner = Pruner(model, "magnitude", density=group_density(name, density), total_steps=10, groups=GROUPS[name])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    pruner.attach(optimizer)
    for _ in range(10):
        optimizer.step()
    assert kept_of_encoder(pruner.finalize()) == pytest.approx(density, abs=0.002)


def test_groups_are_tuned_and_not_run_again(monkeypatch, tmp_path):
    grid = replace(GRID, out=tmp_path / "structured.csv")
    whole, scored = load_task("toy/sentiment"), []
    real = structured.fine_prune

    def watch(model, task, *args, **given):
        scored.append((given["seed"], task.examples["validation"] == whole.examples["validation"]))
        return real(model, task, *args, **given)

    monkeypatch.setattr(structured, "fine_prune", watch)
    run_structured(grid, lambda line: None)
    assert set(scored) == {(100, False), (0, True)}  # tuned on examples of train
    rows = read_rows(grid.out, STRUCTURED_COLUMNS)
    seen = {}
    for row in rows:
        seen.setdefault((row["groups"], float(row["density"]), row["method"]), []).append(row)
    assert len(seen) == 6 and ("neurons", 0.1, "movement") not in seen
    for (name, density, _), cell in seen.items():
        assert [row["split"] for row in cell] == ["holdout", "holdout", "validation"]
        assert float(cell[2]["kept"]) == pytest.approx(density, abs=0.002)
        best = max(cell[:2], key=lambda row: (float(row["score"]), -float(row["loss"])))
        assert cell[2]["lr"] == best["lr"] and int(cell[2]["parameters"]) < 900_000
        if (name, density) == (
            "neurons",
            0.5,
        ):  # three quarters of the neurons are gone, each with 2 * 128 + 1 parameters
            dense = sum(p.numel() for p in load_model("toy", load_task("toy/sentiment", limit=2)).parameters())
            assert int(cell[2]["parameters"]) == dense - 4 * 384 * 257
    monkeypatch.setattr(structured, "fine_prune", lambda *a, **k: pytest.fail("run again"))
    run_structured(grid, lambda line: None)
    assert read_rows(grid.out, STRUCTURED_COLUMNS) == rows


def test_a_teacher_is_refused(tmp_path):
    with pytest.raises(ValueError, match="distill=True"):
        run_structured(replace(GRID, distill=True, out=tmp_path / "x.csv"))


def test_unknown_groups_are_named(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["toy", "structured", "--groups", "head", "--out", str(tmp_path / "x.csv")])
    assert "groups='head': must be one of weights, blocks" in capsys.readouterr().err
    assert not (tmp_path / "x.csv").exists()


def test_the_fraction_counts_zeros_of_all_matrices():
    model = load_model("toy", load_task("toy/sentiment", limit=2))
    assert kept_of_encoder(model) == 1.0
    model.bert.encoder.layer[1].intermediate.dense.weight.data[:, :64] = 0.0  # half of one of 4 * 3 shares
    model.bert.encoder.layer[1].intermediate.dense.bias.data.zero_()
    model.bert.embeddings.word_embeddings.weight.data.zero_()
    assert kept_of_encoder(model) == pytest.approx(1 - 0.5 / 12)


def test_recorded_runs_are_complete_and_used_the_best_learning_rates():
    rows = read_rows(data_path("results", "toy_structured.csv"), STRUCTURED_COLUMNS)
    cells = {}
    for row in rows:
        cells.setdefault((row["task"], row["groups"], row["method"], float(row["density"])), []).append(row)
    assert len(cells) >= 4
    for (_, name, _, density), mine in cells.items():
        tried = [row for row in mine if row["split"] == "holdout"]
        reported = [row for row in mine if row["split"] == "validation"]
        assert sorted(row["seed"] for row in reported) == ["0", "1", "2"]
        assert sorted(float(row["lr"]) for row in tried) == [1e-4, 3e-4, 1e-3] and {r["seed"] for r in tried} == {"100"}
        best = max(tried, key=lambda row: (float(row["score"]), -float(row["loss"])))
        assert {row["lr"] for row in reported} == {best["lr"]}
        assert all(float(row["kept"]) == pytest.approx(density, abs=0.002) for row in mine)
        if name == "heads+neurons":  # all that is pruned is removed: one size for all runs
            assert len({row["parameters"] for row in mine}) == 1
    assert all(row["command"].startswith("python -m mvp_lite toy structured") for row in rows)
