"""Grids and the command line: resumable, one row a run, rates tuned on rows that are not reported."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mvp_lite.__main__ import _recorded, main
from mvp_lite.experiments import grid as experiments
from mvp_lite.experiments.grid import Grid, read_rows, run_grid
from mvp_lite.paths import data_path
from mvp_lite.tasks.task import load_task

SMALL = Grid(
    model="toy",
    task="toy/sentiment",
    methods=("dense", "movement", "soft_movement"),
    densities=(0.5, 0.1),
    seeds=(0, 1),
    steps=12,
    lrs=(1e-4, 1e-3),
    tune_steps=10,
    holdout=100,
    batch_size=8,
    command="by hand",
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("grid") / "results.csv"
    run_grid(SMALL, out, log=lambda line: None)
    return out


def test_rows_and_their_order(finished):
    rows = read_rows(finished)
    tuning, reported = [r for r in rows if r["split"] == "holdout"], [r for r in rows if r["split"] == "validation"]
    assert len(tuning) == (1 + 2 * 2) * 2
    assert {r["seed"] for r in tuning} == {"100"} and {r["steps"] for r in tuning} == {"10"}
    order = [(r["seed"], r["density"], r["method"]) for r in reported]
    one = [
        ("1.0", "dense"),
        ("0.1", "movement"),
        ("0.1", "soft_movement"),
        ("0.5", "movement"),
        ("0.5", "soft_movement"),
    ]
    assert order == [(seed, *cell) for seed in "01" for cell in one]
    for row in reported:
        assert float(row["kept"]) == pytest.approx(float(row["density"]), rel=0.1)
        assert row["command"] == "by hand" and "torch" in row["versions"] and row["hardware"] and row["precision"]
        assert 0 <= float(row["score"]) <= 100 and float(row["seconds"]) > 0


def test_every_method_uses_the_rate_that_did_best_on_the_held_out_rows(finished):
    rows = read_rows(finished)
    cells = {(r["method"], r["density"]) for r in rows}
    assert len(cells) == 1 + 2 * 2
    for cell in cells:
        mine = [r for r in rows if (r["method"], r["density"]) == cell]
        tried = [r for r in mine if r["split"] == "holdout"]
        assert mine[: len(tried)] == tried and {r["lr"] for r in tried} == {"0.0001", "0.001"}
        best = max(tried, key=lambda r: (float(r["score"]), -float(r["loss"])))
        assert {r["lr"] for r in mine if r["split"] == "validation"} == {best["lr"]}


def test_tuning_never_sees_the_validation_split(monkeypatch, tmp_path):
    """With validation rows that would raise if they were read."""
    seen = []
    real = experiments.fine_prune

    def spy(model, task, *args, **kwargs):
        seen.append(
            (kwargs["seed"], set(task.examples["validation"]["sentence"]), set(task.examples["train"]["sentence"]))
        )
        return real(model, task, *args, **kwargs)

    monkeypatch.setattr(experiments, "fine_prune", spy)
    run_grid(replace(SMALL, methods=("dense",), seeds=(0,)), tmp_path / "x.csv", log=lambda line: None)
    task = load_task("toy/sentiment")
    validation = set(task.examples["validation"]["sentence"])
    assert [seed for seed, *_ in seen] == [100, 100, 0]
    for seed, held_out, train in seen:
        assert not held_out & train
        assert (held_out == validation) == (seed == 0) and (not held_out & validation) == (seed != 0)


def test_a_finished_grid_runs_nothing(finished, monkeypatch):
    monkeypatch.setattr(experiments, "fine_prune", lambda *a, **k: pytest.fail("ran again"))
    before = finished.read_bytes()
    run_grid(SMALL, finished)
    assert finished.read_bytes() == before


def test_a_killed_grid_goes_on(finished, tmp_path):
    lines = finished.read_text().splitlines(keepends=True)
    for whole in (14, 18):  # header and so many rows, and half of one more
        out = tmp_path / f"{whole}.csv"
        out.write_text("".join(lines[: whole + 1]) + lines[whole + 1][:25])
        logged = []
        run_grid(SMALL, out, log=logged.append)
        assert len(logged) == len(lines) - 1 - whole
        for a, b in zip(read_rows(out), read_rows(finished), strict=True):
            assert {k: v for k, v in a.items() if k != "seconds"} == {k: v for k, v in b.items() if k != "seconds"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"methods": ("movment",)}, "movment"),
        ({"methods": ()}, "methods is empty"),
        ({"densities": ()}, "densities is empty"),
        ({"seeds": (100,)}, "100"),
    ],
)
def test_settings_no_run_could_have(change, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        run_grid(replace(SMALL, **change), tmp_path / "x.csv")
    assert not (tmp_path / "x.csv").exists()


def test_a_foreign_file_is_refused(tmp_path):
    out = tmp_path / "x.csv"
    out.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="name another file"):
        run_grid(SMALL, out)
    assert out.read_text() == "a,b\n1,2\n"


def test_recorded_commands_hold_no_paths():
    words = "run --model ../models/mini --model-name org/mini --task sst2 --data-dir /data/sst2 --out /tmp/x.csv --bf16"
    assert _recorded(words.split()) == (
        "python -m mvp_lite run --model org/mini --task sst2 --data-dir DATA_DIR --out x.csv --bf16"
    )
    assert _recorded("run --model a/b --task sst2".split()).endswith("--model a/b --task sst2")


def test_the_command_line(tmp_path, capsys):
    out = tmp_path / "x.csv"
    words = "run --model toy --task toy/qa --methods magnitude --densities 0.5 --seeds 0 --steps 10 --tune-steps 10"
    words += f" --lrs 1e-4,1e-3 --holdout 50 --batch-size 8 --scope global --out {out}"
    assert main(words.split()) == 0
    rows = read_rows(out)
    assert [r["split"] for r in rows] == ["holdout", "holdout", "validation"]
    assert rows[-1]["scope"] == "global" and str(tmp_path) not in out.read_text()
    with pytest.raises(SystemExit) as stop:
        main(["run", "--model", "toy", "--task", "toy/nothing", "--out", str(out)])
    assert stop.value.code == 2 and "toy/nothing" in capsys.readouterr().err


def test_module_is_runnable():
    root = Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-m", "mvp_lite", "--help"], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0 and "run" in done.stdout and "toy" in done.stdout


# --- density as an outcome --------------------------------------------------------------------------------------------


def test_a_sweep_over_lambda_records_what_was_kept_and_goes_on(monkeypatch, tmp_path):
    out, asked = tmp_path / "lambda.csv", []
    real = experiments.fine_prune

    def spy(*args, **kwargs):
        asked.append((kwargs["penalty"], kwargs["score_lr"]))
        return real(*args, **kwargs | {"batch_size": 4})

    monkeypatch.setattr(experiments, "fine_prune", spy)
    fixed = {"steps": 10, "lr": 1e-4, "score_lr": 3.0, "log": lambda line: None}
    experiments.run_lambdas("toy/sentiment", [1e5], out, **fixed)
    experiments.run_lambdas("toy/sentiment", [1.0, 1e5], out, **fixed)
    assert asked == [(1e5, 3.0), (1.0, 3.0)]
    rows = read_rows(out, experiments.LAMBDA_COLUMNS)
    assert [float(row["lam"]) for row in rows] == [1e5, 1.0]
    assert float(rows[0]["kept"]) < float(rows[1]["kept"]) <= 1
    with pytest.raises(ValueError, match="name another file"):
        read_rows(out)


def test_recorded_lambdas_are_what_the_command_says():
    rows = read_rows(data_path("results", "toy_lambda.csv"), experiments.LAMBDA_COLUMNS)
    assert {row["command"] for row in rows} == {"python -m mvp_lite toy lambda"}
    kept = [float(row["kept"]) for row in sorted(rows, key=lambda row: float(row["lam"]))]
    assert len(kept) >= 5 and kept == sorted(kept, reverse=True) and kept[-1] < 0.1 < 0.5 < kept[0]


def test_a_grid_with_a_teacher(finished, tmp_path, monkeypatch):
    """The teacher is dense, tuned as the dense runs are, and never saw what the student is scored on."""
    out, seen = tmp_path / "results.csv", []
    out.write_bytes(finished.read_bytes())
    real = experiments.fine_prune

    def spy(model, task, method, *args, teacher=None, **kwargs):
        result = real(model, task, method, *args, teacher=teacher, **kwargs)
        seen.append(
            (method, kwargs["seed"], kwargs["lr"], task.examples["validation"]["sentence"], result.model, teacher)
        )
        return result

    monkeypatch.setattr(experiments, "fine_prune", spy)
    run_grid(replace(SMALL, methods=("movement",), densities=(0.5,), seeds=(0, 1), distil=True), out)
    before, rows = read_rows(finished), read_rows(out)
    assert rows[: len(before)] == before
    new = [(r["split"], r["distil"], r["seed"]) for r in rows[len(before) :]]
    assert new == [("holdout", "True", "100")] * 2 + [("validation", "True", "0"), ("validation", "True", "1")]
    (dense_rate,) = {float(r["lr"]) for r in before if r["method"] == "dense" and r["split"] == "validation"}
    assert [(method, seed) for method, seed, *_ in seen] == [
        ("dense", 100), ("movement", 100), ("movement", 100), ("dense", 100), ("movement", 0), ("movement", 1),
    ]  # fmt: skip
    for part in (seen[:3], seen[3:]):
        assert part[0][2] == dense_rate and part[0][5] is None
        assert all(teacher is part[0][4] and held_out == part[0][3] for *_, held_out, _, teacher in part[1:])


def test_a_teacher_with_the_rates_chosen_without_one(finished, tmp_path):
    out = tmp_path / "results.csv"
    out.write_bytes(finished.read_bytes())
    grid = replace(SMALL, methods=("movement",), densities=(0.1,), seeds=(0,), distil=True, plain_rates=True)
    run_grid(grid, out)
    (new,) = read_rows(out)[len(read_rows(finished)) :]
    plain = [r for r in read_rows(finished) if r["method"] == "movement" and r["density"] == "0.1"]
    assert (new["split"], new["distil"]) == ("validation", "True")
    assert {new["lr"]} == {r["lr"] for r in plain if r["split"] == "validation"}


def test_entries_kept_of_each_matrix(finished, tmp_path):
    out, layers = tmp_path / "results.csv", tmp_path / "layers.csv"
    out.write_bytes(finished.read_bytes())
    grid = replace(SMALL, densities=(0.1,), seeds=(0,))
    for _ in range(2):  # the second time there is nothing left to do
        run_grid(grid, out, layers=layers)
        assert out.read_bytes() == finished.read_bytes()
    rows = read_rows(layers, experiments.LAYER_COLUMNS)
    reported = {
        r["method"]: r for r in read_rows(out) if (r["split"], r["seed"], r["density"]) == ("validation", "0", "0.1")
    }
    assert {r["method"] for r in rows} == {"movement", "soft_movement"} == set(reported)
    for method, row in reported.items():
        mine = [r for r in rows if r["method"] == method]
        assert len(mine) == len({r["layer"] for r in mine}) == 24
        share = sum(int(r["kept"]) for r in mine) / sum(int(r["numel"]) for r in mine)
        assert share == pytest.approx(float(row["kept"]), rel=1e-4)


def test_a_fixed_sample_of_validation(tmp_path, monkeypatch):
    seen = []
    real = experiments.fine_prune
    monkeypatch.setattr(experiments, "fine_prune", lambda m, task, *a, **k: seen.append(task) or real(m, task, *a, **k))
    grid = replace(SMALL, methods=("dense",), seeds=(0, 1), lrs=(1e-4,), score_rows=40)
    run_grid(grid, tmp_path / "x.csv")
    whole = load_task("toy/sentiment").examples
    assert [task.size("validation") for task in seen] == [100, 40, 40]
    assert seen[1].examples == seen[2].examples and seen[1].examples["train"] == whole["train"]
    pairs = set(zip(whole["validation"]["sentence"], whole["validation"]["label"], strict=True))
    assert (
        set(zip(seen[1].examples["validation"]["sentence"], seen[1].examples["validation"]["label"], strict=True))
        < pairs
    )
    with pytest.raises(ValueError, match="score_rows=0"):
        run_grid(replace(grid, score_rows=0), tmp_path / "y.csv")
