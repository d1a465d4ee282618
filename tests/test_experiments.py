"""The table of runs, grids and the command line: resumable, learning rates tuned on held-out examples."""

import csv
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import pytest

import mvp_lite
from mvp_lite.__main__ import build_parser, main
from mvp_lite.experiments import grid as grids
from mvp_lite.experiments import lambdas, mechanism, unlabeled
from mvp_lite.experiments.grid import COLUMNS, KEY, LAYER_COLUMNS, Grid, ToyGrid, run_grid
from mvp_lite.experiments.lambdas import LAMBDA_COLUMNS, LambdaSweep, run_lambdas
from mvp_lite.experiments.mechanism import Mechanism
from mvp_lite.experiments.settings import Settings
from mvp_lite.experiments.sizes import SizesGrid
from mvp_lite.experiments.structured import StructuredGrid
from mvp_lite.experiments.subsets import random_subset
from mvp_lite.experiments.table import Table, read_rows
from mvp_lite.experiments.unlabeled import Study
from mvp_lite.paths import data_path
from mvp_lite.tasks.loading import load_task

ROOT = Path(__file__).parent.parent
SMALL = Grid(
    model="toy",
    tasks=("toy/sentiment",),
    methods=("dense", "movement", "soft_movement"),
    densities=(0.5, 0.1),
    seeds=(0, 1),
    steps=12,
    lrs=(1e-4, 1e-3),
    tune_steps=10,
    holdout=100,
    batch_size=8,
)


def examples(task, split):
    """Sentences of a sentiment task with their labels, in their order."""
    return list(zip(task.examples[split]["sentence"], task.examples[split]["label"], strict=True))


def settings_of(command):
    """What a recorded command is parsed into."""
    start, words = shlex.split(command)[:3], shlex.split(command)[3:]
    assert start == ["python", "-m", "mvp_lite"]
    arguments = build_parser().parse_args(words)
    return arguments.settings.from_arguments(arguments)


# The table


def test_a_table_knows_its_runs_again(tmp_path):
    columns, path = ["split", "density", "lr", "score", "note"], tmp_path / "new" / "x.csv"
    table = Table(path, columns, ["split", "density"])
    assert not path.parent.exists() and table.rows == []
    table.append({"split": "holdout", "density": 0.1, "lr": 1e-4, "score": 3, "other": "left out"})
    table.append(
        {"split": "validation", "density": 1.0, "lr": 1e-4, "note": None}, {"split": "validation", "density": 2}
    )
    for found in (table, Table(path, columns, ["split", "density"])):
        assert found.has({"split": "holdout", "density": "0.10", "lr": "0.0001"})
        assert not found.has({"split": "holdout", "density": 0.1, "lr": 1e-3})
        assert found.has({"split": "validation", "density": 1})  # whatever learning rate was chosen
        assert found.row({"split": "validation", "density": 2})["lr"] == "" == found.rows[1]["note"]
    assert table.rows == read_rows(path, columns)
    assert (
        path.read_text()
        == "split,density,lr,score,note\nholdout,0.1,0.0001,3,\nvalidation,1.0,0.0001,,\nvalidation,2,,,\n"
    )


def test_a_half_written_last_line_is_removed(tmp_path):
    path, complete = tmp_path / "x.csv", 'a,b\n1,"ü, 2"\n'
    for text, kept in (
        (complete + '2,"thr', complete),
        (complete, complete),
        ("a,b\n", "a,b\n"),
        ("a,", ""),
        ("", ""),
    ):
        path.write_text(text)
        assert read_rows(path, ["a", "b"]) == ([{"a": "1", "b": "ü, 2"}] if kept == complete else [])
        assert path.read_text() == kept
        Table(path, ["a", "b"], ["a"]).append({"a": 5, "b": 6})
        assert read_rows(path, ["a", "b"])[-1] == {"a": "5", "b": "6"} and path.read_text().count("a,b\n") == 1


@pytest.mark.parametrize("text", ["c,d\n1,2\n", "c,d\n", "c,d\n1,2\n3", "c", "b,a\n1,2\n", "a,b,c\n1,2,3\n"])
def test_a_foreign_file_is_refused_and_left_as_it_is(text, tmp_path):
    path = tmp_path / "x.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match="name another file"):
        Table(path, ["a", "b"], ["a"])
    assert path.read_text() == text
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="name another file"):
        run_grid(replace(SMALL, out=path))
    assert path.read_text() == "a,b\n1,2\n"


# Grids


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    grid = replace(SMALL, out=tmp_path_factory.mktemp("grid") / "results.csv")
    run_grid(grid, log=lambda line: None)
    return grid


@pytest.fixture
def copy(finished, tmp_path):
    """The finished grid with a results file of its own."""
    grid = replace(finished, out=tmp_path / "results.csv")
    grid.out.write_bytes(finished.out.read_bytes())
    return grid


def rows_of(grid):
    return read_rows(grid.out, COLUMNS)


def test_rows_and_their_order(finished):
    rows = rows_of(finished)
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
        assert "torch" in row["versions"] and row["hardware"] and row["precision"]
        assert row["command"] == replace(finished, methods=(row["method"],)).command()
        assert 0 <= float(row["score"]) <= 100 and float(row["seconds"]) > 0


def test_every_method_uses_the_learning_rate_that_did_best_on_held_out_examples(finished):
    rows = rows_of(finished)
    cells = {(r["method"], r["density"]) for r in rows}
    assert len(cells) == 1 + 2 * 2
    for cell in cells:
        mine = [r for r in rows if (r["method"], r["density"]) == cell]
        tried = [r for r in mine if r["split"] == "holdout"]
        assert mine[: len(tried)] == tried and {r["lr"] for r in tried} == {"0.0001", "0.001"}
        best = max(tried, key=lambda r: (float(r["score"]), -float(r["loss"])))
        assert {r["lr"] for r in mine if r["split"] == "validation"} == {best["lr"]}


def test_the_learning_rate_has_the_best_mean_score_and_the_lowest_loss_where_scores_tie(tmp_path):
    grid, task = ToyGrid(tune_seeds=(100, 101), lrs=(1.0, 2.0, 3.0)), SimpleNamespace(name="t", max_length=8)
    outcomes = {(1.0, 100): (90, 1), (1.0, 101): (50, 1), (2.0, 100): (80, 3), (2.0, 101): (70, 3),
                (3.0, 100): (75, 2), (3.0, 101): (75, 3)}  # fmt: skip
    table = Table(tmp_path / "x.csv", COLUMNS, KEY)

    def record(cell):
        score, loss = outcomes.pop((cell["lr"], cell["seed"]))
        table.append(cell | {"score": score, "loss": loss})

    tuning = grids.tuning_runs(grid, task, "movement", 0.1)
    assert grids.choose_lr(table, tuning, record) == 3.0 == grids.choose_lr(table, tuning, record)
    assert outcomes == {}


def test_tuning_never_sees_the_validation_split(monkeypatch, tmp_path):
    seen = []
    real = grids.fine_prune

    def spy(model, task, *args, **kwargs):
        seen.append((kwargs["seed"], examples(task, "validation"), examples(task, "train")))
        return real(model, task, *args, **kwargs)

    monkeypatch.setattr(grids, "fine_prune", spy)
    run_grid(replace(SMALL, methods=("dense",), seeds=(0,), out=tmp_path / "x.csv"), log=lambda line: None)
    validation = examples(load_task("toy/sentiment"), "validation")
    assert [seed for seed, *_ in seen] == [100, 100, 0]
    for seed, held_out, train in seen:
        assert not set(held_out) & set(train)
        assert (held_out == validation) == (seed == 0) and (not set(held_out) & set(validation)) == (seed != 0)


def test_a_finished_grid_runs_nothing(finished, monkeypatch):
    monkeypatch.setattr(grids, "fine_prune", lambda *a, **k: pytest.fail("ran again"))
    before = finished.out.read_bytes()
    run_grid(finished)
    run_grid(replace(finished, lrs=finished.lrs[::-1]))
    assert finished.out.read_bytes() == before


def test_a_row_with_a_learning_rate_that_is_not_chosen_any_more_is_named(finished, copy, monkeypatch):
    monkeypatch.setattr(grids, "fine_prune", lambda *a, **k: pytest.fail("ran again"))
    copy.out.write_bytes(finished.out.read_bytes())
    said = []
    run_grid(replace(copy, lrs=(0.5,)), log=said.append)
    reported = [row for row in rows_of(copy) if row["split"] == "validation"]
    assert len(said) == len(reported) and all(
        "0.5 is chosen now: delete its row to run it again" in line for line in said
    )
    assert copy.out.read_bytes() == finished.out.read_bytes()


def test_a_killed_grid_goes_on(finished, copy):
    lines = finished.out.read_text().splitlines(keepends=True)
    for whole in (14, 18):  # the header, this many rows, and half of one more
        copy.out.write_text("".join(lines[: whole + 1]) + lines[whole + 1][:25])
        logged = []
        run_grid(copy, log=logged.append)
        assert len(logged) == len(lines) - 1 - whole
        for a, b in zip(rows_of(copy), rows_of(finished), strict=True):
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
def test_settings_that_no_run_could_have(change, message, tmp_path):
    grid = replace(SMALL, out=tmp_path / "x.csv", **change)
    with pytest.raises(ValueError, match=message):
        run_grid(grid)
    assert not grid.out.exists()


def test_several_tasks_in_one_file(tmp_path):
    grid = ToyGrid(tasks=("toy/sentiment", "toy/qa"), methods=("dense",), seeds=(0,), steps=10, lrs=(1e-3,), holdout=50,
                   batch_size=8, out=tmp_path / "x.csv")  # fmt: skip
    run_grid(grid, log=lambda line: None)
    found = [(row["task"], row["split"], row["steps"]) for row in rows_of(grid)]
    assert found == [(task, "validation", "10") for task in grid.tasks], "one learning rate needs no tuning run"
    assert {row["command"] for row in rows_of(grid)} == {grid.command()}


def test_a_grid_with_a_teacher(finished, copy, monkeypatch):
    """The teacher is dense, tuned as the dense runs are, and never saw what the student is scored on."""
    seen, real = [], grids.fine_prune

    def spy(model, task, method, *args, teacher=None, **kwargs):
        result = real(model, task, method, *args, teacher=teacher, **kwargs)
        seen.append((method, kwargs["seed"], kwargs["lr"], examples(task, "validation"), result.model, teacher))
        return result

    monkeypatch.setattr(grids, "fine_prune", spy)
    run_grid(replace(copy, methods=("movement",), densities=(0.5,), seeds=(0, 1), distill=True))
    before, rows = rows_of(finished), rows_of(copy)
    assert rows[: len(before)] == before
    new = [(r["split"], r["distil"], r["seed"]) for r in rows[len(before) :]]
    assert new == [("holdout", "True", "100")] * 2 + [("validation", "True", "0"), ("validation", "True", "1")]
    (dense_lr,) = {float(r["lr"]) for r in before if r["method"] == "dense" and r["split"] == "validation"}
    assert [(method, seed) for method, seed, *_ in seen] == [
        ("dense", 100), ("movement", 100), ("movement", 100), ("dense", 100), ("movement", 0), ("movement", 1),
    ]  # fmt: skip
    for part in (seen[:3], seen[3:]):
        assert part[0][2] == dense_lr and part[0][5] is None
        assert all(teacher is part[0][4] and held_out == part[0][3] for *_, held_out, _, teacher in part[1:])


def test_a_teacher_with_the_learning_rates_chosen_without_one(finished, copy):
    run_grid(replace(copy, methods=("movement",), densities=(0.1,), seeds=(0,), distill=True, plain_lrs=True))
    (new,) = rows_of(copy)[len(rows_of(finished)) :]
    plain = [r for r in rows_of(finished) if r["method"] == "movement" and r["density"] == "0.1"]
    assert (new["split"], new["distil"]) == ("validation", "True")
    assert {new["lr"]} == {r["lr"] for r in plain if r["split"] == "validation"}


def test_entries_kept_of_each_matrix(finished, copy, tmp_path):
    layers = tmp_path / "layers.csv"
    grid = replace(copy, densities=(0.1,), seeds=(0,), layers=layers)
    for _ in range(2):  # the second time there is nothing left to do
        run_grid(grid)
        assert copy.out.read_bytes() == finished.out.read_bytes()
    rows = read_rows(layers, LAYER_COLUMNS)
    reported = {
        r["method"]: r for r in rows_of(copy) if (r["split"], r["seed"], r["density"]) == ("validation", "0", "0.1")
    }
    assert {r["method"] for r in rows} == {"movement", "soft_movement"} == set(reported)
    for method, row in reported.items():
        mine = [r for r in rows if r["method"] == method]
        assert len(mine) == len({r["layer"] for r in mine}) == 24
        share = sum(int(r["kept"]) for r in mine) / sum(int(r["numel"]) for r in mine)
        assert share == pytest.approx(float(row["kept"]), rel=1e-4)


def test_all_reported_runs_are_scored_on_the_same_subset(tmp_path, monkeypatch):
    seen, real = [], grids.fine_prune
    monkeypatch.setattr(grids, "fine_prune", lambda m, task, *a, **k: seen.append(task) or real(m, task, *a, **k))
    grid = replace(SMALL, methods=("dense",), lrs=(1e-4,), score_examples=40, out=tmp_path / "x.csv")
    run_grid(grid)
    whole = load_task("toy/sentiment")
    assert [task.size("validation") for task in seen] == [40, 40]
    assert examples(seen[0], "validation") == examples(seen[1], "validation")
    assert set(examples(seen[0], "validation")) < set(examples(whole, "validation"))
    assert examples(seen[1], "train") == examples(whole, "train")
    with pytest.raises(ValueError, match="score_examples=0: from 1 to the 500 examples of toy/sentiment's validation"):
        run_grid(replace(grid, score_examples=0, out=tmp_path / "y.csv"))


def test_random_subsets_are_nested_and_keep_their_order():
    task = load_task("toy/sentiment", limit=200)
    small, large, other = (
        examples(random_subset(task, "train", count, seed=seed, argument="n"), "train")
        for count, seed in ((20, 0), (50, 0), (20, 1))
    )
    assert (len(small), len(large), len(other)) == (20, 50, 20) and set(small) <= set(large) and small != other
    places = [examples(task, "train").index(example) for example in large]
    assert places == sorted(places)
    with pytest.raises(ValueError, match="n=201: from 1 to the 200 examples of toy/sentiment's train split"):
        random_subset(task, "train", 201, seed=0, argument="n")


# Density as an outcome


def test_a_sweep_over_lambda_records_what_was_kept_and_goes_on(monkeypatch, tmp_path):
    asked, real = [], lambdas.fine_prune

    def spy(*args, **kwargs):
        asked.append((kwargs["penalty"], kwargs["score_lr"]))
        return real(*args, **kwargs | {"batch_size": 4})

    monkeypatch.setattr(lambdas, "fine_prune", spy)
    sweep = LambdaSweep(task="toy/sentiment", lambdas=(1e5,), steps=10, score_lr=3.0, out=tmp_path / "lambda.csv")
    run_lambdas(sweep, log=lambda line: None)
    run_lambdas(replace(sweep, lambdas=(1.0, 1e5)), log=lambda line: None)
    assert asked == [(1e5, 3.0), (1.0, 3.0)]
    rows = read_rows(sweep.out, LAMBDA_COLUMNS)
    assert [float(row["lam"]) for row in rows] == [1e5, 1.0]
    assert float(rows[0]["kept"]) < float(rows[1]["kept"]) <= 1
    assert rows[0]["command"] == sweep.command() != rows[1]["command"]
    with pytest.raises(ValueError, match="name another file"):
        read_rows(sweep.out, COLUMNS)


def test_recorded_lambdas_are_what_the_command_says():
    rows = read_rows(data_path("results", "toy_lambda.csv"), LAMBDA_COLUMNS)
    assert {row["command"] for row in rows} == {LambdaSweep().command()} == {"python -m mvp_lite toy lambda"}
    assert [float(row["lam"]) for row in rows] == list(LambdaSweep().lambdas)
    kept = [float(row["kept"]) for row in sorted(rows, key=lambda row: float(row["lam"]))]
    assert len(kept) >= 5 and kept == sorted(kept, reverse=True) and kept[-1] < 0.1 < 0.5 < kept[0]


# Settings and the command line


@pytest.mark.parametrize(
    "settings",
    [
        SMALL,
        replace(SMALL, distill=True, plain_lrs=True, scope="global", bf16=True, score_examples=7, tune_seeds=(1, 2)),
        Grid(model="org/mini", tasks=("squad",), max_length=96, doc_stride=32, tune_steps=0, out=Path("x.csv")),
        ToyGrid(),
        ToyGrid(tasks=("toy/qa",), lrs=(3e-5,), steps=7, layers=Path("layers.csv")),
        LambdaSweep(task="toy/qa", lambdas=(2.5, 1e3), lr=1e-5, seed=3, steps=9),
        SizesGrid(sizes=("2x32",), seeds=(4,)),
        StructuredGrid(groups=("neurons",), densities=(0.5,)),
        Study(task="sst2", methods=("d2+scale",), options="sigma=median stop=entrywise", source="mnli", labels=3),
        Study(task="toy/qa", model="a/b", flops=(0.5, 0.25), lr=2e-5, seeds=()),
        Mechanism(task="sst2", model="a/b", recipes=("movement scope=global",), center=True, lr=1e-3, batches=2),
    ],
    ids=lambda settings: settings.command_name,
)
def test_a_command_gives_its_settings_back(settings):
    assert settings_of(settings.command()) == settings == settings.public()


def test_recorded_commands_hold_no_paths(tmp_path):
    grid = Grid(model=str(tmp_path), tasks=("sst2",), data_dir="/data/sst2", out=tmp_path / "x.csv",
                layers=tmp_path / "y.csv", bf16=True)  # fmt: skip
    assert replace(grid, model_name="org/mini").command() == (
        "python -m mvp_lite run --model org/mini --data-dir DATA_DIR --bf16 --task sst2 --layers y.csv --out x.csv"
    )
    assert f"--model {tmp_path.name} " in grid.command()
    sizes, study = SizesGrid(folder=tmp_path), Study(task="sst2", source_dir=str(tmp_path), folder=tmp_path)
    assert sizes.command() == "python -m mvp_lite toy sizes"
    assert study.command() == "python -m mvp_lite unlabeled --task sst2 --source-dir SOURCE_DIR"
    for settings in (grid, replace(grid, model_name="org/mini"), sizes, study):
        assert settings_of(settings.command()) == settings.public() == settings.public().public()


def test_the_settings_of_every_recorded_row_plan_it(tmp_path):
    """Each distinct command in data/results parses, and its rows are among the runs that its settings ask for."""
    seen = set()
    for path in sorted(data_path("results").glob("*.csv")):
        rows = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
        for command in dict.fromkeys(row["command"] for row in rows if "command" in row):
            if command.startswith("python benchmarks/"):
                script = (data_path("results").parents[1] / command.split()[1]).read_text(encoding="utf-8")
                assert all(f'"{word}"' in script for word in command.split() if word.startswith("--"))
                continue
            settings, mine = settings_of(command), [row for row in rows if row["command"] == command]
            assert isinstance(settings, Settings) and settings_of(settings.command()) == settings
            seen.add(type(settings))
            if isinstance(settings, Study):
                cells = [
                    unlabeled.planned(settings, method, flops, seed)
                    for seed, method, flops in unlabeled.run_order(settings)
                ]
                table = Table(tmp_path / f"{len(list(tmp_path.iterdir()))}", rows[0], unlabeled.UNLABELED_KEY)
            elif isinstance(settings, Mechanism):
                runs = product(settings.recipes, settings.densities, settings.seeds)
                cells = [cell for run in runs for cell in mechanism.planned(settings, settings.max_length or 32, *run)]
                table = Table(tmp_path / f"{len(list(tmp_path.iterdir()))}", rows[0], mechanism.MECHANISM_KEY)
            elif isinstance(settings, Grid):
                cells = [cell for task in settings.tasks for cell in planned_cells(settings, task)]
                key = [name for name in (*KEY, "groups") if name in rows[0]]
                table = Table(tmp_path / f"{len(list(tmp_path.iterdir()))}", rows[0], key)
            else:
                assert {float(row["lam"]) for row in mine} <= set(settings.lambdas)
                assert {row["task"] for row in mine} == {settings.task}
                continue
            table.append(*cells)
            assert all(table.has(row) for row in mine), (path.name, command)
    assert seen == {Grid, ToyGrid, LambdaSweep, Mechanism, SizesGrid, StructuredGrid, Study}


def planned_cells(grid, name):
    task = SimpleNamespace(name=name, max_length=grid.max_length or 32)
    variants = [grid]
    if isinstance(grid, SizesGrid):
        variants = [replace(grid, model_name=f"toy {size}") for size in grid.sizes]
    for one in variants:
        for seed, density, method in grids.run_order(one):
            tuning = grids.tuning_runs(one, task, method, density)
            reported = [grids.planned(one, task, "validation", method, density, seed, lr) for lr in one.lrs]
            for groups in getattr(one, "groups", [""]):
                yield from (cell | {"groups": groups} for cell in (*tuning, *reported))


def test_documented_commands_parse():
    found = []
    for name in ("README.md", "data/README.md", "data/results/README.md"):
        found += re.findall(r"python -m mvp_lite ([^`\n;]+)", (ROOT / name).read_text(encoding="utf-8"))
    assert len(found) > 15
    for words in found:
        assert build_parser().parse_args(shlex.split(words)).func


def test_both_spellings_are_read():
    old = "run --model m --task t --distil --plain-rates --score-rows 5"
    new = "run --model m --task t --distill --plain-lrs --score-examples 5"
    assert settings_of(f"python -m mvp_lite {old}") == settings_of(f"python -m mvp_lite {new}")
    sweeps = [settings_of(f"python -m mvp_lite toy lambda --{name} 1,2") for name in ("lams", "lambdas")]
    assert sweeps[0] == sweeps[1] == LambdaSweep(lambdas=(1.0, 2.0))


def test_the_command_line(tmp_path, capsys):
    out = tmp_path / "x.csv"
    words = "run --model toy --task toy/qa --methods magnitude --densities 0.5 --seeds 0 --steps 10 --tune-steps 10"
    words += f" --lrs 1e-4,1e-3 --holdout 50 --batch-size 8 --scope global --out {out}"
    assert main(words.split()) == 0
    rows = read_rows(out, COLUMNS)
    assert [r["split"] for r in rows] == ["holdout", "holdout", "validation"]
    assert rows[-1]["scope"] == "global" and str(tmp_path) not in out.read_text()
    with pytest.raises(SystemExit) as stop:
        main(["run", "--model", "toy", "--task", "toy/nothing", "--out", str(out)])
    assert stop.value.code == 2 and "toy/nothing" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["run"], ["toy"], [], ["run", "--model", "m", "--task", "t", "--seeds", "a"]])
def test_an_incomplete_command_is_refused(words, capsys):
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2 and "usage:" in capsys.readouterr().err


def test_results_files_have_names_of_their_own():
    found = [Grid(model="m", tasks=("toy/qa",)), Grid(model="m", tasks=("sst2",)), ToyGrid(), SizesGrid(),
             Study(task="toy/qa"), Study(task="mnli")]  # fmt: skip
    assert [settings.results_path().name for settings in found] == [
        "small_toy_qa.csv", "small_sst2.csv", "toy.csv", "toy_sizes.csv", "unlabeled_toy.csv", "unlabeled_mnli.csv",
    ]  # fmt: skip
    assert ToyGrid(out=Path("x.csv")).results_path() == Path("x.csv")


def test_module_is_runnable():
    for option, expected in (("--help", ("run", "toy")), ("--version", (f"mvp_lite {mvp_lite.__version__}",))):
        command = [sys.executable, "-m", "mvp_lite", option]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0 and all(text in done.stdout for text in expected)
