"""What README.md and docs/ say of measured runs and of published ones, against the committed rows."""

import json
import math
import re
from functools import cache
from itertools import combinations
from typing import Any

import pandas as pd
import pytest
from pages import README, ROOT, rows_of, said, table, text
from test_unlabeled import TOY, plain

import mvp_lite as mvp
from mvp_lite.__main__ import main
from mvp_lite.course import analysis, tables
from mvp_lite.paths import data_path

OURS = sorted(data_path("results").glob("small_*.csv"))
PAPER = data_path("paper", "movement_tables.csv")
LABELS = {"magnitude": "magnitude", "movement": "movement", "soft_movement": "soft movement", "l0": "L0"}
OURS_MOVEMENT = analysis.FROM_MAGNITUDE
TOY_LABELS = {"magnitude": "magnitude", OURS_MOVEMENT: "movement from magnitude", "movement": "movement from 0"}
TOY_LABELS |= {"soft_movement": "soft movement"}
DENSITIES = (0.03, 0.1, 0.7)


@cache
def recorded(pattern: str) -> pd.DataFrame:
    return pd.concat(pd.read_csv(path) for path in sorted(data_path("results").glob(pattern)))


@cache
def benchmark(name: str) -> dict:
    return json.loads((ROOT / "benchmarks" / name).read_text())


def toy_runs() -> pd.DataFrame:
    return analysis.comparable(recorded("toy.csv"))


def real_runs(split: str = "validation") -> pd.DataFrame:
    rows = recorded("small_*.csv")
    return rows[rows["split"] == split]


def published() -> pd.DataFrame:
    return pd.read_csv(data_path("paper", "released_runs.csv"))


def toy_table() -> str:
    runs = toy_runs()
    runs = pd.concat([runs, analysis.average_over_tasks(runs).assign(task="toy/*mean*")])
    mean = runs[runs["seed"] < 5].groupby(["density", "task", "method"])["score"].mean().unstack()
    whole = mean.loc[1.0]
    rows = []
    for task in ("inference", "paraphrase", "qa", "sentiment", "*mean*"):
        for density in DENSITIES:
            dense = [f"{whole.loc[f'toy/{task}', name]:.1f}" for name in ("dense", "scratch")]
            scores = mean.loc[(density, f"toy/{task}")].reindex(list(TOY_LABELS))
            rows.append([task, f"{100 * density:.0f} %", *dense, *best_in_bold(scores)])
    return table(["task", "kept", "dense", "dense, not pretrained", *TOY_LABELS.values()], rows)


def best_in_bold(scores) -> list[str]:
    shown = {name: "" if math.isnan(score) else f"{score:.1f}" for name, score in dict(scores).items()}
    best = max(filter(None, shown.values()), key=float)
    return [f"**{score}**" if score == best else score for score in shown.values()]


def test_the_toys_tables() -> None:
    assert toy_runs().groupby(["task", "density", "method"])["seed"].nunique().eq(5).all()
    assert toy_table() in text("results.md")
    average = [
        [row[1], *row[4:]] for row in rows_of("results.md", "| task | kept | dense | dense, not") if "mean" in row[0]
    ]
    assert rows_of(README, "| weights kept | magnitude") == average


def test_what_is_said_of_the_toy() -> None:
    runs = toy_runs()
    mean = analysis.average_over_tasks(runs).groupby(["density", "method"])["score"].mean()
    tasks = runs.groupby(["density", "task", "method"])["score"].mean().unstack()
    lead, old_lead = (tasks[name] - tasks["magnitude"] for name in (OURS_MOVEMENT, "movement"))
    assert mean[0.03].nlargest(2).index.tolist() == [OURS_MOVEMENT, "soft_movement"]
    assert mean[0.1].nlargest(2).index.tolist() == ["magnitude", OURS_MOVEMENT]
    leads = analysis.leads(runs)
    found = said(
        "results.md", r"movement is best on average, ([\d.]+) points \(± ([\d.]+)\) ahead of magnitude and ahead"
    )
    assert found == tuple(f"{leads.loc[(OURS_MOVEMENT, 0.03), name]:.1f}" for name in ("lead", "error"))
    assert leads.loc[(OURS_MOVEMENT, 0.03), "ahead"] == 5 and (lead[0.03] >= 0).all()
    found = said(
        "results.md", r"movement is ([\d.]+) points \(± ([\d.]+)\) behind magnitude on average, and level or ahead"
    )
    assert found == (
        f"{-leads.loc[(OURS_MOVEMENT, 0.1), 'lead']:.1f}",
        f"{leads.loc[(OURS_MOVEMENT, 0.1), 'error']:.1f}",
    )
    assert (lead[0.1].drop("toy/qa") >= 0).all() and lead[0.1]["toy/qa"] < 0
    solved = {
        name: int((pairs["score"] > 90).sum()) for name, pairs in many_seeds_of_qa().groupby("method")
    }  # fmt: skip
    found = said("results.md", r"(\d+) of (\d+) runs of movement solve it, and (\d+) of magnitude")
    assert tuple(map(int, found)) == (solved[OURS_MOVEMENT], 15, solved["magnitude"])
    assert (old_lead[0.1] < 0).all()
    (points,) = said(
        "results.md", r"With scores from 0, movement is behind magnitude on all four tasks at 10 %, by (\d+) points on"
    )
    assert old_lead[0.1].mean() == pytest.approx(-int(points), abs=0.5)
    assert set(runs[runs["method"].isin(["magnitude", "movement"])]["scope"]) == {"local"}
    assert "Magnitude and movement have local scope" in " ".join(text("results.md").split())
    (one,) = said("results.md", r"one of the five dense runs ended at ([\d.]+)\. The others reached 100")
    dense = runs[(runs["task"] == "toy/qa") & (runs["method"] == "dense")]["score"]
    assert sorted(dense.round(1)) == [float(one), *[100.0] * 4] and tasks["magnitude"][0.7, "toy/qa"] == 100
    assert mean[0.7]["magnitude"] - mean[0.7][OURS_MOVEMENT] < 1
    assert set(runs["steps"]) == {300} and set(runs["batch_size"]) == {32}


def test_what_is_said_of_l0_on_the_toy() -> None:
    runs = recorded("toy_l0.csv").query("split == 'validation'")
    assert set(runs["lr"]) == {1e-3} and len(runs) == 9 and runs["task"].nunique() == 3
    span = runs.groupby("density")["score"].agg(["min", "max"]).round(1).sort_index(ascending=False)
    found = said(
        "results.md",
        r"scores ([\d.]+) to ([\d.]+) at 70 %, ([\d.]+) to ([\d.]+) at 10 % and ([\d.]+) to ([\d.]+) at 3 %",
    )
    assert list(map(float, found)) == span.to_numpy().ravel().tolist()


def many_seeds_of_qa() -> pd.DataFrame:
    """Magnitude and movement on question answering at 10 %: five seeds of the grid, and ten more."""
    rows = pd.concat([toy_runs(), analysis.comparable(recorded("toy_dial.csv"))])
    rows = rows[
        (rows["task"] == "toy/qa") & (rows["density"] == 0.1) & rows["method"].isin([OURS_MOVEMENT, "magnitude"])
    ]
    assert set(rows.groupby("method")["seed"].nunique()) == {15} and set(rows["lr"]) == {1e-3}
    return rows


def test_what_is_said_of_longer_runs_of_the_toy() -> None:
    long = analysis.comparable(recorded("toy_long.csv"))
    assert set(long["steps"]) == {900} and set(long["density"]) == {0.1} and set(long["seed"]) == {0, 1, 2}
    mean = long.groupby(["task", "method"])["score"].mean()
    shown = said("results.md", r"three seeds: ([\d.]+) and ([\d.]+) on inference, ([\d.]+) and ([\d.]+) on paraphrase")
    cells = [(f"toy/{task}", method) for task in ("inference", "paraphrase") for method in ("magnitude", "movement")]
    assert set(mean.index) == set(cells) and [f"{mean[cell]:.1f}" for cell in cells] == list(shown)
    assert (mean.xs("movement", level="method") - mean.xs("magnitude", level="method")).abs().max() < 1
    short = toy_runs().groupby(["task", "density", "method"])["score"].mean()
    before, after = said(
        "guide.md", r"at 10 % went from (\d+) to (\d+) % on paraphrase when it had 900 steps instead of 300"
    )
    assert int(before) == round(short["toy/paraphrase", 0.1, "movement"])
    assert int(after) == round(mean["toy/paraphrase", "movement"])


def test_runs_either_solve_a_task_or_stay_at_chance_level() -> None:
    runs = toy_runs()
    for task in ("toy/paraphrase", "toy/qa"):
        scores = runs[(runs["task"] == task) & (runs["density"] == 0.03) & (runs["method"] == "soft_movement")]["score"]
        assert scores.max() > 95 and scores.min() < 60, task


def test_the_quick_start_is_a_recorded_setting() -> None:
    runs = toy_runs()
    runs = runs[runs["task"] == "toy/inference"]
    mine = runs[(runs["method"] == "soft_movement") & (runs["density"] == 0.03)]
    assert 'method="soft_movement", density=0.03, lr=1e-3)' in text(README) and set(mine["lr"]) == {1e-3}
    low, high, dense = said(README, r"accuracy of ([\d.]+) to ([\d.]+) %; the dense model reaches ([\d.]+) %")
    assert len(mine) == 5 and [f"{x:.1f}" for x in (mine["score"].min(), mine["score"].max())] == [low, high]
    assert f"{runs[runs['method'] == 'dense']['score'].mean():.1f}" == dense
    seconds = said(README, r"took (\d+) to (\d+) seconds each, in one thread on a machine that had other work")
    assert [round(x) for x in (mine["seconds"].min(), mine["seconds"].max())] == [int(x) for x in seconds]
    assert set(mine["threads"]) == {1}


def test_density_as_an_outcome() -> None:
    runs = recorded("toy_lambda.csv")
    assert set(runs["task"]) == {"toy/inference"} and set(runs["score_lr"]) == {0.1}
    lams, kept, scores = runs["lam"], 100 * runs["kept"], runs["score"]
    rows = [["weights kept (%)", *(f"{x:.1f}" for x in kept)], ["score (%)", *(f"{x:.1f}" for x in scores)]]
    assert table([r"$\lambda$", *(f"{x:.0f}" for x in lams)], rows) in text("guide.md")


def test_soft_movement_ends_a_little_high() -> None:
    toy = toy_runs()
    toy = toy[(toy["method"] == "soft_movement") & (toy["density"] == 0.03)]["kept"]
    sst2 = real_runs().query("task == 'sst2' and method == 'soft_movement' and density == 0.03 and not distil")["kept"]
    shown = [f"{100 * kept:.2f}" for kept in (toy.min(), toy.max(), sst2.item())]
    for page in ("guide.md", "results.md"):
        assert list(said(page, r"([\d.]+) to ([\d.]+) % on the toy and ([\d.]+) % on SST-2")) == shown
    rest = toy_runs()
    rest = rest[(rest["density"] == 0.03) & ~rest["method"].isin(["soft_movement", "random"])]
    assert all(f"{100 * kept:.2f}" == "3.00" for kept in rest["kept"])


@pytest.mark.parametrize("options", [[], ["--distil"]])
def test_the_page_shows_the_tables_of_the_rows(options, capsys) -> None:
    assert main(["table", *options]) == 0
    assert capsys.readouterr().out.rstrip() in text("results.md"), "run `python -m mvp_lite table` and paste"


def test_the_table_holds_means_and_spreads(tmp_path):
    columns = "split,task,method,density,scope,distil,seed,score"
    rows = ["validation,sst2,dense,1.0,,False,0,90", "validation,sst2,magnitude,0.1,local,False,0,80",
            "validation,sst2,magnitude,0.1,local,False,1,84", "validation,sst2,magnitude,0.1,global,False,0,10",
            "validation,sst2,l0,0.1,global,False,0,70", "validation,sst2,l0,0.1,global,True,0,99",
            "holdout,sst2,movement,0.1,local,False,100,60"]  # fmt: skip
    path = tmp_path / "small_sst2.csv"
    path.write_text("\n".join([columns, *rows]) + "\n")
    first = tables.compare_with_paper([path], PAPER).iloc[0].to_dict()
    assert first == {
        "task": "SST-2", "model": "MiniLM, ours", "kept": "10 %", "dense": "90.0", "magnitude": "82.0 ± 2.8",
        "L0": "70.0", "movement": "", "soft movement": "",
    }  # fmt: skip
    taught = tables.compare_with_paper([path], PAPER, distill=True)
    assert taught.iloc[0]["L0"] == "99.0" and taught.iloc[0]["magnitude"] == ""
    assert set(taught[taught["task"] == "MNLI"]["magnitude"]) == {"78.3", "69.4"}


def test_what_is_said_of_sst2():
    rows = real_runs()
    rows = rows[(rows["task"] == "sst2") & ~rows["distil"]]
    assert set(rows["seed"]) == {0} and set(rows["steps"]) == {1500} and set(rows["batch_size"]) == {32}
    scores = rows.set_index(["density", "method"])["score"]
    for density in (0.1, 0.03):
        assert scores[density].idxmax() == "soft_movement"
    (lead,) = said("results.md", r"Hard movement is ([\d.]+) points \(before rounding\) ahead of magnitude at 3 %")
    assert scores[0.03]["movement"] - scores[0.03]["magnitude"] == pytest.approx(float(lead), abs=0.05)
    assert scores[0.1]["movement"] < 51
    (long,) = pd.read_csv(data_path("results", "sst2_long.csv")).to_dict("records")
    assert (long["method"], long["density"], long["steps"], long["lr"]) == ("movement", 0.1, 4500, 3e-5)
    assert long["score"] < 51
    errors = [100 * math.sqrt(p * (1 - p) / 872) for p in scores / 100]
    low, high = said("results.md", r"standard error of a score is ([\d.]+) to ([\d.]+) points, .* examples \(872\)")
    assert (f"{min(errors):.1f}", f"{max(errors):.1f}") == (low, high)
    variance = scores / 100 * (1 - scores / 100) / 872
    pairs = {
        (density, *pair): 100 * variance[density][list(pair)].sum() ** 0.5
        for density in (0.1, 0.03)
        for pair in combinations(LABELS, 2)
    }
    low, high = said(
        "results.md", r"a difference between two pruning methods is ([\d.]+) to ([\d.]+) points if their errors"
    )
    assert (f"{min(pairs.values()):.1f}", f"{max(pairs.values()):.1f}") == (low, high)
    far = {key for key, error in pairs.items() if abs(scores[key[0]][key[1]] - scores[key[0]][key[2]]) > 3 * error}
    assert far == {key for key in pairs if key[0] == 0.1 and "movement" in key}
    (lead,) = said("results.md", r"soft movement's lead over L0 at 3 % \(([\d.]+) points\) is not")
    assert f"{scores[0.03]['soft_movement'] - scores[0.03]['l0']:.1f}" == lead


def test_what_is_said_of_mnli_and_squad():
    rows = real_runs()
    rows = rows[rows["task"].isin(["mnli", "squad"]) & ~rows["distil"]]
    assert set(rows["seed"]) == {0} and set(rows["steps"]) == {1200} and set(rows["batch_size"]) == {8}
    for task, scored in (("mnli", 5000), ("squad", 2000)):
        assert rows.loc[rows["task"] == task, "command"].str.contains(f"--score-rows {scored} ").all()
    scores = rows.set_index(["task", "density", "method"])["score"]
    pruned = scores.drop(1.0, level="density")
    assert scores["mnli", 1.0, "dense"] > pruned["mnli"].max() + 15
    assert scores["squad", 1.0, "dense"] > pruned["squad"].max() + 20
    learned = pruned["mnli"][pruned["mnli"] > 33]
    assert set(learned.index) == {(0.03, "soft_movement"), (0.03, "l0")} and learned.min() > 42
    (lead,) = said("results.md", r"soft movement is more than (\d+) F1 ahead of the other methods at both densities")
    for density in (0.03, 0.1):
        first, second = pruned["squad", density].nlargest(2).items()
        assert first[0] == "soft_movement" and first[1] - second[1] > int(lead) == 18
    assert pruned["mnli", 0.03].idxmax() == "soft_movement"


def test_what_is_said_of_a_teacher():
    rows = real_runs()
    rows = rows[rows["density"] < 1]
    key = ["task", "density", "method", "scope", "seed", "steps", "batch_size"]
    score = rows.pivot(index=key, columns="distil", values="score").droplevel(key[3:])
    lr = rows.pivot(index=key, columns="distil", values="lr")
    assert len(score) == 24 and score.notna().all(axis=None) and lr[True].equals(lr[False])
    gain, sst2 = score[True] - score[False], score.loc["sst2"] / 100
    errors = 100 * ((sst2 * (1 - sst2)).sum(axis=1) / 872) ** 0.5
    assert (gain["sst2"].abs() < errors).all()
    stays = (0.1, "movement")
    low, high = map(float, said("results.md", r"all but hard movement at 10 % gain ([\d.]+) to ([\d.]+) points"))
    assert gain["mnli"].drop(stays).between(4.55, 17.65).all() and (low, high) == (4.6, 17.6)
    at_chance = score.loc["mnli"] < 33
    assert at_chance.sum().to_dict() == {False: 6, True: 1} and at_chance[True][stays]
    learned = gain["squad"].drop([(0.03, "magnitude"), (0.03, "l0")])
    assert learned.between(4.75, 17.25).all() and gain["squad"][0.03][["magnitude", "l0"]].abs().max() < 1
    found = said("results.md", r"soft movement gains (\d+) F1 at 3 % and (\d+) at 10 %.* Magnitude gains (\d+) at 10 %")
    assert [int(points) for points in found] == [12, 13, 17]
    assert gain["squad"].xs("soft_movement", level="method").round().to_dict() == {0.03: 12, 0.1: 13}
    assert round(gain["squad", 0.1, "magnitude"]) == 17
    assert all(score[True]["squad", density].idxmax() == "soft_movement" for density in (0.03, 0.1))
    assert [round(score[True][task][stays], 1) for task in ("sst2", "mnli", "squad")] == [50.9, 32.2, 10.4]


def test_movement_from_zero_at_ten_per_cent_stays_near_chance_level() -> None:
    scores = real_runs().query("method == 'movement' and density == 0.1").set_index("task")["score"]
    assert set(scores.index) == {"sst2", "mnli", "squad"}
    assert scores["sst2"].max() < 51 and scores["mnli"].max() < 33 and scores["squad"].max() < 11
    assert "for SQuAD we call an F1 below 10 near chance level" in " ".join(text("results.md").split())
    assert scores["squad"].min() < 10
    short = analysis.comparable(recorded("sst2_dial.csv"))
    mean = short.groupby(["density", "method"])["score"].agg(["mean", "count"])
    names = ["movement", OURS_MOVEMENT, "magnitude"]
    assert all(mean.loc[(density, name), "count"] == 3 for density in (0.03, 0.1) for name in names)
    shown = said(README, r"accuracy of ([\d.]+) %, where our default reaches ([\d.]+) % and magnitude ([\d.]+) %")
    assert shown == tuple(f"{mean.loc[(0.1, name), 'mean']:.1f}" for name in names)
    shown = said(README, r"At 3 % the three reach ([\d.]+), ([\d.]+) and ([\d.]+) %")
    assert shown == tuple(f"{mean.loc[(0.03, name), 'mean']:.1f}" for name in names)
    at_chance = short.query("method == 'movement' and density == 0.1")
    assert (at_chance["score"] == at_chance["baseline"]).all()


def test_what_is_said_of_the_published_runs() -> None:
    runs = published()
    moved = runs[runs["method"] == "movement"]
    least = int((moved["warmup_steps"] * moved["initial_warmup"]).min())
    for page in (README, "results.md"):
        assert said(page, r"[Tt]he published (?:runs|ones) train for at least ([\d,]+) steps") == (f"{least:,}",)
    assert sorted(set(runs["epochs"])) == [6, 10] and "for 6 or 10 epochs" in text("results.md")
    found = said("results.md", r"\(6 layers, ([\d.]+) million weights.* BERT-base \(([\d.]+) million\)")
    weights = [layers * (4 * width**2 + 2 * width * ffn) for layers, width, ffn in ((6, 384, 1536), (12, 768, 3072))]
    assert [f"{n / 1e6:.1f}" for n in weights] == list(found)
    printed = pd.read_csv(PAPER)
    printed = printed[printed["method"].isin(["movement", "magnitude"])]
    lead = printed.pivot(index=["table", "task", "kept"], columns="method", values="score")
    assert len(lead) == 12 and (lead["movement"] > lead["magnitude"]).all()


def published_lr(method: str) -> str:
    """Of the runs that end near 3 %; movement and soft movement have another one on QQP, at every density."""
    runs = published()
    runs = runs[(runs["method"] == method) & runs["kept"].between(0.02, 0.045)]
    found = {task: set(lrs) for task, lrs in runs.groupby("task")["lr"]}
    assert len(found) == 3 and all(len(lrs) == 1 for lrs in found.values())
    assert found["mnli"] == found["squad1.1"] == {3e-5}
    return "3e-5" if found["qqp"] == {3e-5} else "3e-5 (QQP: 3e-6)" if found["qqp"] == {3e-6} else str(found)


def test_learning_rates_in_the_guide() -> None:
    labels = TOY_LABELS | {"l0": "L0"}

    def span(rows: pd.DataFrame) -> list[str]:
        found = rows.groupby("method")["lr"].agg(["min", "max"]).reindex(list(labels))
        plain = [["" if math.isnan(lr) else f"{lr:.0e}".replace("e-0", "e-") for lr in row] for row in found.to_numpy()]
        return [low if low == high else f"{low} to {high}" for low, high in plain]

    toy, short, real = toy_runs(), analysis.comparable(recorded("sst2_dial.csv")), real_runs().query("task == 'sst2'")
    rows = []
    for kept, density in (("10 %", 0.1), ("3 %", 0.03)):
        rows += [[f"toy, 300 steps of 32, {kept}", *span(toy[toy["density"] == density])]]
        rows += [[f"MiniLM on SST-2, 500 steps of 32, {kept}", *span(short[short["density"] == density])]]
        rows += [[f"MiniLM on SST-2, 1,500 steps of 32, {kept}", *span(real[real["density"] == density])]]
    published = {name: published_lr(name) for name in LABELS}
    rows += [["BERT-base, published, 6 or 10 epochs, 3 %", *(published.get(name, "") for name in labels)]]
    made = table(["", *labels.values()], rows).replace("|  |", "| |", 1)
    assert made in text("guide.md"), made
    tried = recorded("toy.csv").query("split == 'holdout'").groupby(["task", "method", "density"])["lr"].nunique()
    assert tried.min() == 3


def test_what_is_said_of_tuning() -> None:
    dense = real_runs("holdout").query("task == 'mnli' and method == 'dense'").set_index("lr")
    assert set(dense["steps"]) == {400} and set(dense["batch_size"]) == {8}
    found = said("guide.md", r"dense MiniLM reached ([\d.]+) % after 400 steps with 1e-4, and ([\d.]+) %, .* with 3e-4")
    assert found == (f"{dense['score'][1e-4]:.1f}", f"{dense['score'][3e-4]:.1f}")
    tuning = real_runs("holdout").query("task == 'mnli' and density < 1")
    chosen = real_runs().query("task == 'mnli' and density < 1 and not distil")
    bad, all_ = said("results.md", r"on MNLI, (\d+) of (\d+) tuning runs with pruning were at chance level")
    assert (int(bad), int(all_)) == ((tuning["score"] < 35).sum(), len(tuning)) == (19, 24)
    assert ((chosen["lr"] == 3e-4).sum(), len(chosen)) == (3, 8)
    assert "was chosen for three of eight cells" in text("results.md")


def test_what_is_missing_from_the_toys_runs() -> None:
    """As data/results/README.md lists it."""
    rows, taught = (recorded(f"{name}.csv").query("split == 'validation'") for name in ("toy", "toy_three_lrs"))
    assert 0.01 not in set(rows["density"]) and not rows["distil"].any()
    pooled = rows[(rows["scope"] == "global") & rows["method"].isin(["magnitude", "movement"])]
    taught = taught[taught["distil"]]
    for part in (pooled, taught):
        assert set(part["task"]) == {"toy/inference", "toy/paraphrase"} and set(part["seed"]) == {0, 1, 2}
        assert set(part["density"]) == {0.03, 0.1}
    assert "l0" not in set(taught["method"])
    assert set(real_runs()["seed"]) == {0} and set(real_runs()["density"]) == {0.03, 0.1, 1.0}


def test_what_is_said_of_the_files_of_results() -> None:
    """In data/results/README.md."""
    page = data_path("results", "README.md")
    without = {path.name for path in page.parent.glob("*.csv") if "command" not in pd.read_csv(path, nrows=1)}
    assert without == {"toy_search.csv", "toy_layers.csv"}
    assert said(page, r"Every file but `(.*?)` was written by a command") == ("toy_search.csv",)
    sizes = (
        recorded("toy_sizes.csv").query("split == 'validation'").groupby(["task", "model"])["score"].mean().unstack()
    )
    assert said(page, r"On (\w+) tasks the widest scored below the middle one; on sentiment both reach 100")
    below = sizes["toy 4x72"] < sizes["toy 3x48"]
    assert set(sizes.index[below]) == {"toy/inference", "toy/paraphrase", "toy/qa"}
    assert set(sizes.loc["toy/sentiment", ["toy 3x48", "toy 4x72"]]) == {100.0}


def test_the_runs_come_from_two_processors() -> None:
    toy, real = recorded("toy.csv").query("split == 'validation'"), real_runs().query("task == 'sst2'")
    toy = toy[toy["method"] != "l0"]
    second = toy["scope"].eq("global") & (~toy["method"].eq("soft_movement") | toy["density"].gt(0.03))
    groups = [toy[~second], toy[second], real[~real["distil"]], real[real["distil"]]]
    first, other, *sst2 = ({name.partition(",")[0] for name in rows["hardware"]} for rows in groups)
    assert sst2 == [first, other] and len(first) == len(other) == 1 and first != other


def groups_table() -> str:
    grouped = recorded("toy_structured.csv").query("split == 'validation' and density == 0.1")
    single = analysis.comparable(recorded("toy_three_lrs.csv")).query("density == 0.1")
    single = single.assign(groups="weights", parameters=0)
    runs = pd.concat([grouped, single[single["method"].isin(grouped["method"])]])
    cells = runs.groupby(["task", "method", "groups"])
    assert set(cells.size().loc[list(set(grouped["task"]))]) == {3}
    score, parameters = cells["score"].mean(), cells["parameters"].mean()
    rows = []
    for task in ("toy/inference", "toy/paraphrase"):
        for method in ("magnitude", "movement"):
            shown = [f"{score[task, method, name]:.1f}" for name in ("weights", "blocks", "heads+neurons")]
            left = [f"{round(parameters[task, method, name]):,}" for name in ("blocks", "heads+neurons")]
            rows.append([task.removeprefix("toy/"), method, *shown, *left])
    header = ["task", "method", "single weights", "blocks of 8 × 8", "heads and neurons"]
    return table([*header, "parameters, blocks", "parameters, heads and neurons"], rows)


def test_what_is_said_of_groups() -> None:
    assert groups_table() in text("results.md")
    rows = [row[2:5] for row in rows_of("results.md", "| task | method | single weights")]
    scores = [list(map(float, row)) for row in rows]
    for magnitude, movement in (scores[:2], scores[2:]):
        assert min(movement[1:]) > movement[0] + 10  # movement gains from groups
        assert magnitude[1] < magnitude[0] - 10 and abs(magnitude[2] - magnitude[0]) < 2
    whole = mvp.load_model("toy", mvp.load_task("toy/inference", limit=2)).num_parameters()
    assert said("results.md", r"after `mvp.shrink`, of ([\d,]+) before") == (f"{whole:,}",)
    found = said(
        "deploy.md", r"pruned by movement score ([\d.]+) and ([\d.]+), against ([\d.]+) and ([\d.]+) for single "
        r"weights pruned by movement and ([\d.]+) and ([\d.]+) for single weights pruned by magnitude"
    )  # fmt: skip
    cells = [(scores[i + 1][2], scores[i + 1][0], scores[i][0]) for i in (0, 2)]
    assert list(map(float, found)) == [x for pair in zip(*cells, strict=True) for x in pair]
    before, after = said("deploy.md", r"shrinks from ([\d.]+) to ([\d.]+) million parameters")
    left = recorded("toy_structured.csv").query("groups == 'heads+neurons' and density == 0.1")["parameters"]
    assert (f"{whole / 1e6:.2f}", f"{left.max() / 1e6:.2f}") == (before, after) and left.max() - left.min() < 1000


def unlabeled_table() -> str:
    names = {
        "random": "random", "weight_magnitude": "weight magnitude", "output_magnitude": "output magnitude",
        "output_magnitude+scale": "output magnitude, scaled", "r2d2": "R2D2", "kcm": "KCM",
        "kcm+labels": "KCM, with labels", "fisher": "Fisher, with labels",
    }  # fmt: skip
    rows, all_ = [], recorded("unlabeled_*.csv")
    labels = {"sst2": "SST-2", "mnli": "MNLI", "squad": "SQuAD"}
    for task in ("sst2", "mnli", "squad", *TOY):
        mean = plain(all_, task, 0.6).groupby("name").mean()
        dense = all_[all_["task"] == task]["dense_score"].iloc[0]
        shown = [f"{x:.1f}" for x in (dense, *mean[list(names)])]
        rows.append([labels.get(task, task.replace("toy/", "toy, ")), *shown])
    return table(["task", "dense", *names.values()], rows)


def test_the_table_of_pruning_without_labels() -> None:
    """The sentences below it are asserted in test_unlabeled.py, from the same rows."""
    assert unlabeled_table() in text("results.md")


def test_the_dense_models_that_are_pruned_without_labels() -> None:
    sentence = r"for ([\d,]+) steps of (\d+) \(SST-2\), ([\d,]+) of (\d+) \(MNLI\) and ([\d,]+) of (\d+) \(SQuAD\)"
    scored = r", and scored on ([\d,]+), ([\d,]+) and ([\d,]+) validation examples"
    found = [int(x.replace(",", "")) for x in said("results.md", sentence + scored)]
    rows = recorded("unlabeled_*.csv")
    options = []
    for task in ("sst2", "mnli", "squad"):
        commands = " ".join(set(rows[rows["task"] == task]["command"]))
        for name, default in (("steps", "none"), ("batch-size", "32"), ("score-rows", "872")):
            (value,) = set(re.findall(rf"--{name} (\d+)", commands)) or {default}
            options.append(int(value))
    assert [*options[0:2], *options[3:5], *options[6:8], *options[2::3]] == found


METHODS = ("magnitude", "movement", "soft_movement", "l0", "random")


def step_table() -> str:
    found = benchmark("results.json")
    sizes = {
        "16 × 64": found["step over dense, 4x256 BERT, 16x64"],
        "8 × 32": found["step over dense, 4x256 BERT, 8x32"],
    }
    rows = []
    for size, row in sizes.items():
        cells = [f"{row[m]['ratio']:.2f} ({row[m]['quartiles'][0]:.2f}–{row[m]['quartiles'][1]:.2f})" for m in METHODS]
        rows.append([size, f"{row['dense_ms']:.0f}", *cells])
    return table(["batch × tokens", "dense (ms)", *({**LABELS, "random": "random"}[m] for m in METHODS)], rows)


def selection_table() -> str:
    found = {key: row for key, row in benchmark("results.json").items() if key.endswith("over top_v")}
    rows = []
    for key, row in found.items():
        height, width = re.findall(r"\d+", key)
        rows.append(
            [f"{height} × {width}", f"{row['top_v_ms']:.1f}", *(f"{row[n]['ratio']:.1f}" for n in ("kthvalue", "sort"))]
        )
    return table(["matrix", "ours (ms)", "`torch.kthvalue`", "sorting"], rows)


def memory_table() -> str:
    found = benchmark("results.json")["memory, 4x256 BERT, 16x64"]
    rows = [
        ["peak above dense (MB)", *(f"{found[m]['peak_above_dense_mb']:.0f}" for m in METHODS)],
        ["in multiples of the pruned matrices", *(f"{found[m]['over_matrices']:.1f}" for m in METHODS)],
    ]
    assert all(found[m]["saved_for_backward_above_dense_mb"] == 0 for m in METHODS)
    return table(["", *({**LABELS, "random": "random"}[m] for m in METHODS)], rows).replace("|  |", "| |", 1)


def smaller_table() -> str:
    rows = []
    for name, row in benchmark("smaller.json").items():
        if name.startswith("BERT"):
            batch, tokens = re.findall(r"\d+", name)
            masked, shrunk = row["masked"]["speed_up"], row["shrunk"]["speed_up"]
            quotient = row["speed_up_over_fewer_operations"]
            assert 0.97 < masked < 1.03 and quotient >= 0.9
            rows.append(
                [f"{batch} × {tokens}", f"{row['dense_ms']:.0f}", f"{masked:.2f}", f"{shrunk:.2f}", f"{quotient:.2f}"]
            )
    return table(["batch × tokens", "dense (ms)", "masked", "shrunk", "per operation saved"], rows)


ENCODERS = ("MiniLM-L6 size", "BERT-base size")
FORMS = {  # column -> what is left, and the variant of `mvp_lite.latency`
    "masked": ("10 % of the weights", "masked"),
    "CSR, 10 %": ("10 % of the weights", "csr"),
    "CSR, 3 %": ("3 % of the weights", "csr"),
    "int8": ("10 % of the weights", "int8"),
    "ONNX": ("10 % of the weights", "onnx"),
    "shrunk": ("a quarter of the heads and neurons", "shrunk"),
    "shrunk, int8": ("a quarter of the heads and neurons", "int8 shrunk"),
    "shrunk, ONNX": ("a quarter of the heads and neurons", "onnx shrunk"),
}


def zeros_rows() -> list[dict[str, Any]]:
    found = benchmark("zeros.json")
    shapes = [(encoder, shape) for encoder in ENCODERS for shape in found[encoder] if re.fullmatch(r"\d+ x \d+", shape)]
    return [
        {"encoder": encoder, "shape": shape.replace("x", "×"), "dense_ms": found[encoder][shape]["dense_ms"]}
        | {form: found[encoder][shape][kept][variant]["speed_up"] for form, (kept, variant) in FORMS.items()}
        for encoder, shape in shapes
    ]


def zeros_table() -> str:
    rows = [
        [row["encoder"], row["shape"], f"{row['dense_ms']:.0f}", *(f"{row[form]:.2f}" for form in FORMS)]
        for row in zeros_rows()
    ]
    return table(["encoder", "batch × tokens", "dense (ms)", *FORMS], rows)


def csr_table() -> str:
    found = benchmark("zeros.json")["BERT-base size"]
    rows, crossing = found["csr over dense by tokens and density"], found["break-even density by tokens"]
    densities = list(next(iter(rows.values())))
    lines = [[f"{int(n):,}", *(f"{row[d]:.2f}" for d in densities), f"{crossing[n]:.2f}"] for n, row in rows.items()]
    return table(["tokens in a batch", *(f"{float(d):.0%}".replace("%", " %") for d in densities), "break-even"], lines)


@pytest.mark.parametrize("make", [step_table, selection_table, memory_table, smaller_table, zeros_table, csr_table])
def test_tables_of_speed(make) -> None:
    assert make() in text("speed.md")


def test_what_is_said_of_training_speed() -> None:
    found = benchmark("results.json")
    assert found["about"]["hardware"] in text("speed.md") and found["about"]["how"].startswith("one thread")
    memory = found["memory, 4x256 BERT, 16x64"]
    matrices, dense = said("speed.md", r"with ([\d.]+) MB of weights in the pruned matrices.*\(dense: (\d+) MB\)")
    assert (float(matrices), int(dense)) == (memory["pruned_matrices_mb"], round(memory["dense_peak_mb"]))
    (times,) = said("speed.md", r"`import mvp_lite` takes ([\d.]+) times as long as `import torch`")
    assert times == f"{found['import mvp_lite over import torch']['mvp_lite']['ratio']:.2f}"


def test_what_is_said_of_reads() -> None:
    found = benchmark("results.json")["reads of a GPU around a step, 12 matrices"]
    numbers = said(
        "speed.md", r"soft movement reads (\d) times and L0 (\d) times,\s+and in the cool-down (\d) and (\d) times"
    )
    shown = [f"{name}, feedback{end}" for end in ("", ", cool-down") for name in ("soft_movement", "l0")]
    assert list(map(int, numbers)) == [found.pop(name) for name in shown]
    assert found.pop("soft_movement, fixed penalty") == 1 and set(found.values()) == {0}


def test_what_is_said_of_smaller_models() -> None:
    found = benchmark("smaller.json")
    shapes = [row for name, row in found.items() if name.startswith("BERT")]
    assert found["about"]["hardware"] in text("speed.md") and found["about"]["how"].startswith("one thread")
    fewer, before, after = said("speed.md", r"factor in operations, ([\d.]+)\..* the file falls from (\d+) to (\d+) MB")
    assert {f"{row['fewer_operations']:.2f}" for row in shapes} == {fewer}
    sizes = found["file_mb"]
    assert sizes["masked"] == sizes["dense"] and (round(sizes["dense"]), round(sizes["shrunk"])) == (
        int(before),
        int(after),
    )
    zeros, low, high = said(
        "deploy.md",
        r"\(about (\d+) % of the parameters of a .* model\), we measured ([\d.]+) to ([\d.]+) times",
    )
    parameters, speed = found["parameters"], [row["masked"]["speed_up"] for row in shapes]
    assert int(zeros) == round(100 - 100 * parameters["masked, not 0"] / parameters["dense"])
    assert (f"{min(speed):.2f}", f"{max(speed):.2f}") == (low, high)


def test_what_is_said_of_zeros() -> None:
    found = benchmark("zeros.json")
    assert found["about"]["hardware"] in text("speed.md") and found["about"]["how"].startswith("one thread")
    for row in zeros_rows():
        assert 0.9 < row["masked"] < 1.1 and row["CSR, 3 %"] > row["CSR, 10 %"] > 1 and row["int8"] > 1
        assert min(row["shrunk, int8"], row["shrunk, ONNX"]) > row["shrunk"] > 1
    sentence = (
        r"CSR is (\S+) to (\S+) times as fast at 10 %, and (\S+) to (\S+) times at 3 %.* int8 is (\S+) to (\S+) times"
    )
    ranges = [f(row[form] for row in zeros_rows()) for form in ("CSR, 10 %", "CSR, 3 %", "int8") for f in (min, max)]
    assert said("speed.md", sentence) == tuple(f"{value:.1f}" for value in ranges)
    for encoder in ENCODERS:
        assert min(found[encoder]["break-even density by tokens"].values()) > 0.15


def test_how_long_pruning_without_labels_takes() -> None:
    measured = benchmark("gradient_free.json")
    sizes, whole = measured["sizes"], measured["KCM, 0.6 of the operations"]
    found = said(
        "speed.md",
        r"with ([\d,]+) sequences of (\d+) tokens on average, in (\d+) s on two cores of an (.*?); (\d+) s of",
    )
    assert int(found[0].replace(",", "")) == sizes["sequences"]
    assert int(found[1]) == round(sizes["real_tokens"] / sizes["sequences"])
    assert int(found[2]) == round(whole["seconds"]) and "--threads 2" in measured["about"]["command"]
    assert found[3] == measured["about"]["hardware"]
    assert int(found[4]) == round(measured["R2, all blocks"]["seconds"])
    assert whole["left"] == 0.6 and set(measured["about"]["how"].split("; ")) >= {"2 threads", "one run"}
