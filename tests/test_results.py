"""What the front page says of our runs and of the paper's, against the committed rows."""

import json
import math
import re
from pathlib import Path

import pandas as pd
import pytest

from mvp_lite.__main__ import main
from mvp_lite.course import analysis, tables
from mvp_lite.paths import data_path

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
OURS = sorted(data_path("results").glob("small_*.csv"))
PAPER = data_path("paper", "movement_tables.csv")


@pytest.mark.parametrize("name, options", [("beside the paper", []), ("with a teacher", ["--distil"])])
def test_the_front_page_shows_the_tables_of_the_rows(name, options, capsys):
    found = re.search(rf"<!-- table: {name} -->\n\n((?:\|.*\n)+)", README)
    assert main(["table", *options]) == 0
    assert found and found[1] in capsys.readouterr().out, "run `python -m mvp_lite table` and paste"


def test_the_table_holds_means_and_spreads(tmp_path):
    columns = "split,task,method,density,scope,distil,seed,score"
    rows = ["validation,sst2,dense,1.0,,False,0,90", "validation,sst2,magnitude,0.1,local,False,0,80",
            "validation,sst2,magnitude,0.1,local,False,1,84", "validation,sst2,magnitude,0.1,global,False,0,10",
            "validation,sst2,l0,0.1,global,False,0,70", "validation,sst2,l0,0.1,global,True,0,99",
            "holdout,sst2,movement,0.1,local,False,100,60"]  # fmt: skip
    path = tmp_path / "small_sst2.csv"
    path.write_text("\n".join([columns, *rows]) + "\n")
    first = tables.beside_the_paper([path], PAPER).iloc[0].to_dict()
    assert first == {
        "task": "SST-2", "model": "MiniLM, ours", "kept": "10 %", "dense": "90.0", "magnitude": "82.0 ± 2.8",
        "L0": "70.0", "movement": "", "soft movement": "",
    }  # fmt: skip
    taught = tables.beside_the_paper([path], PAPER, distil=True)
    assert taught.iloc[0]["L0"] == "99.0" and taught.iloc[0]["magnitude"] == ""
    assert set(taught[taught["task"] == "MNLI"]["magnitude"]) == {"78.3", "69.4"}


def test_what_the_front_page_says_of_sst2():
    rows = pd.concat(pd.read_csv(path) for path in OURS)
    rows = rows[(rows["split"] == "validation") & (rows["task"] == "sst2") & ~rows["distil"]]
    assert set(rows["seed"]) == {0}
    scores = rows.set_index(["density", "method"])["score"]
    for density in (0.1, 0.03):
        assert scores[density].idxmax() == "soft_movement"
    assert scores[0.03]["movement"] - scores[0.03]["magnitude"] == pytest.approx(1.4, abs=0.05)
    assert scores[0.1]["movement"] < 51
    (long,) = pd.read_csv(data_path("results", "sst2_long.csv")).to_dict("records")
    assert (long["method"], long["density"], long["steps"], long["lr"]) == ("movement", 0.1, 4500, 3e-5)
    assert long["score"] < 51
    errors = [100 * math.sqrt(p * (1 - p) / 872) for p in scores / 100]
    assert min(errors) > 1.05 and max(errors) < 1.75
    assert scores[0.03]["soft_movement"] - max(scores[0.03].drop("soft_movement")) > 2 * 1.5


def test_what_the_front_page_says_of_mnli_and_squad():
    rows = pd.concat(pd.read_csv(path) for path in OURS)
    rows = rows[(rows["split"] == "validation") & rows["task"].isin(["mnli", "squad"]) & ~rows["distil"]]
    assert set(rows["seed"]) == {0} and set(rows["steps"]) == {1200} and set(rows["batch_size"]) == {8}
    for task, scored in (("mnli", 5000), ("squad", 2000)):
        assert rows.loc[rows["task"] == task, "command"].str.contains(f"--score-rows {scored} ").all()
    scores = rows.set_index(["task", "density", "method"])["score"]
    pruned = scores.drop(1.0, level="density")
    assert scores["mnli", 1.0, "dense"] > pruned["mnli"].max() + 15
    assert scores["squad", 1.0, "dense"] > pruned["squad"].max() + 20
    learnt = pruned["mnli"][pruned["mnli"] > 33]
    assert set(learnt.index) == {(0.03, "soft_movement"), (0.03, "l0")} and learnt.min() > 42
    for density in (0.03, 0.1):
        first, second = pruned["squad", density].nlargest(2).items()
        assert first[0] == "soft_movement" and first[1] - second[1] > 18


def test_what_the_front_page_says_of_a_teacher():
    rows = pd.concat(pd.read_csv(path) for path in OURS)
    rows = rows[(rows["split"] == "validation") & (rows["density"] < 1)]
    key = ["task", "density", "method", "scope", "seed", "steps", "batch_size"]
    score = rows.pivot(index=key, columns="distil", values="score").droplevel(key[3:])
    lr = rows.pivot(index=key, columns="distil", values="lr")
    assert len(score) == 24 and score.notna().all(axis=None) and lr[True].equals(lr[False])
    gain, sst2 = score[True] - score[False], score.loc["sst2"] / 100
    errors = 100 * ((sst2 * (1 - sst2)).sum(axis=1) / 872) ** 0.5
    assert (gain["sst2"].abs() < errors).all()
    stays = (0.1, "movement")
    assert gain["mnli"].drop(stays).between(4.55, 17.65).all()
    at_guess = score.loc["mnli"] < 33
    assert at_guess.sum().to_dict() == {False: 6, True: 1} and at_guess[True][stays]
    learnt = gain["squad"].drop([(0.03, "magnitude"), (0.03, "l0")])
    assert learnt.between(4.75, 17.25).all() and gain["squad"][0.03][["magnitude", "l0"]].abs().max() < 1
    assert gain["squad"].xs("soft_movement", level="method").round().to_dict() == {0.03: 12, 0.1: 13}
    assert round(gain["squad", 0.1, "magnitude"]) == 17
    assert all(score[True]["squad", density].idxmax() == "soft_movement" for density in (0.03, 0.1))
    assert [round(score[True][task][stays], 1) for task in ("sst2", "mnli", "squad")] == [50.9, 32.2, 10.4]


def test_what_the_front_page_says_of_the_toy():
    runs = analysis.comparable(pd.read_csv(data_path("results", "toy.csv")))
    mean = analysis.average_over_tasks(runs).groupby(["density", "method"])["score"].mean()
    tasks = runs.groupby(["density", "task", "method"])["score"].mean().unstack()
    lead = tasks["movement"] - tasks["magnitude"]
    order = mean[0.03].drop("random", errors="ignore").sort_values(ascending=False)
    assert list(order.index) == ["soft_movement", "magnitude", "movement", "l0"] and order["l0"] < 47
    assert (lead[0.03] > 0).sum() == 2 and (lead[0.1] < 0).all() and (lead[0.7].abs() < 2).sum() == 3
    assert mean[0.1].nlargest(2).index.tolist() == ["magnitude", "soft_movement"]
    assert mean[0.1]["magnitude"] - mean[0.1]["soft_movement"] == pytest.approx(8, abs=0.5)
    assert lead[0.1]["toy/inference"] == pytest.approx(-20, abs=0.5)
    assert lead[0.1]["toy/paraphrase"] == pytest.approx(-27, abs=0.5)


def test_the_front_page_shows_the_measured_speed():
    measured = json.loads((Path(__file__).parents[1] / "benchmarks" / "smaller.json").read_text())
    found = re.search(r"<!-- table: smaller -->\n\n.*\n.*\n((?:\|.*\n)+)", README)
    assert found
    for line, (name, row) in zip(
        found[1].splitlines(), [item for item in measured.items() if item[0].startswith("BERT")], strict=True
    ):
        batch, tokens = re.findall(r"\d+", name)
        masked, shrunk = row["masked"]["speed_up"], row["shrunk"]["speed_up"]
        quotient = row["speed_up_over_fewer_operations"]
        cells = f"{batch} x {tokens} | {row['dense_ms']:.0f} | {masked:.2f}x | {shrunk:.2f}x | {quotient:.2f}"
        assert line == f"| {cells} |"
        assert 0.97 < masked < 1.03 and quotient >= 0.9
    assert measured["about"]["hardware"] in README


def test_the_front_page_says_how_long_pruning_without_labels_takes():
    measured = json.loads((Path(__file__).parents[1] / "benchmarks" / "gradient_free.json").read_text())
    sizes, whole = measured["sizes"], measured["KCM, 0.6 of the operations"]
    said = re.search(r"with ([\d,]+) sequences of (\d+) tokens on average, takes (\d+) s on two cores", README)
    assert said and int(said[1].replace(",", "")) == sizes["sequences"]
    assert int(said[2]) == round(sizes["real_tokens"] / sizes["sequences"])
    assert int(said[3]) == round(whole["seconds"]) and "--threads 2" in measured["about"]["command"]
    assert f"{round(measured['R2, all blocks']['seconds'])} s of it for R2" in README
    assert measured["about"]["hardware"] in README
