"""Notebook 15, reading gradient-free pruning: errors planted in its equations, and what its text claims."""

import pandas as pd
import torch
from in_notebook import Claims, development_examples

import mvp_lite as mvp
from mvp_lite.gradient_free import r2_scores

claims = Claims()
MODELS = ["bert-base", "distilbert"]


@claims.planted("15.1")
def _(percent, dense, lost):
    return {
        "points": lost[0.6].tolist(),
        "of the pruned score": (100 * lost[0.6] / (dense - lost[0.6])).tolist(),
        "what is left": (100 - percent).tolist(),
        "the other budget": (100 * lost[0.7] / dense).tolist(),
    }


@claims.planted("15.2")
def _(runs):
    return {
        "one run": torch.full((24,), 408 / 1e4),
        "three decimals": runs * 408 / 1e5,
        "one example more": runs * 409 / 1e4,
    }


@claims.planted("15.3")
def _(a, b):
    return {
        "not divided by k": (a**2 + b**2) ** 0.5,
        "added without squares": (a + b) / 10**0.5,
        "k - 1": ((a**2 + b**2) / 9) ** 0.5,
        "one of the two": a / 10**0.5,
    }


@claims.planted("15.4")
def _(f, v):
    return {
        "attention pruned too": torch.full((3,), 1 / v),
        "the fraction removed": 1 / (1 - f + f * (1 - v)),
        "shares exchanged": 1 / (f + (1 - f) * v),
        "the fraction, not its inverse": 1 - f + f * v,
    }


@claims.planted("15.5")
def _(printed):
    return {
        "not divided": 1 / printed - 0.6,
        "speed-up for time": (printed - 0.6) / 0.4,
        "divided by the budget": (1 / printed - 0.6) / 0.6,
    }


@claims.claim("What we have is the 194 numbers of their Tables 2 to 10.")
def _(kcm):
    assert len(kcm) == 194 and sorted(kcm["table"].unique()) == list(range(2, 11))


@claims.claim("Tables 3 and 4 have eight tasks each.")
def _(wide):
    assert wide.groupby("model").size().to_dict() == {"bert-base": 8, "distilbert": 8}


@claims.claim("On five of eight with BERT-base, and on four of eight with DistilBERT.", above=True)
def _(lost):
    assert [int((lost.loc[model, 0.6] < 4).sum()) for model in MODELS] == [5, 4]


@claims.claim(
    "The largest loss is 8.8 points. With 70 % of the operations, all losses are below 3.4 points.", above=True
)
def _(lost):
    assert round(lost.max().max(), 1) == 8.8 and 3.3 < lost[0.7].max() < 3.4


@claims.claim("QQP, QNLI, SST-2 and MRPC on BERT-base, where the largest loss is 3.62", above=True)
def _(kcm):
    second = kcm[(kcm["table"] == 2) & (kcm["method"] == "kcm")]
    assert set(second["task"]) == {"qqp", "qnli", "sst2", "mrpc"} and set(second["model"]) == {"bert-base"}
    assert second["value"].min() == -3.62


@claims.claim("MNLI and both SQuADs are in Table 3.", above=True)
def _(kcm, lost):
    assert {"mnli", "squad1.1", "squad2.0"} <= set(kcm[kcm["table"] == 3]["task"])
    above = lost.loc["bert-base", 0.6]
    assert set(above[above >= 4].index) == {"mnli", "squad1.1", "squad2.0"}


@claims.claim("A score below 100 makes $p>\\ell$")
def _(percent, lost, dense):
    assert dense.max() < 100 and (percent > lost[0.6]).all()


@claims.claim("No reading gives all eight.", above=True)
def _(readings):
    assert (readings < 4).groupby("model").sum().to_numpy().tolist() == [[5, 5, 6], [4, 4, 6]]


@claims.claim('"less than 4 points on all tasks, at 70 % of the operations"', above=True)
def _(lost):
    assert lost[0.7].max() < 4 and all(lost.loc[model, 0.6].max() >= 4 for model in MODELS)


@claims.claim("MRPC has $n=408$ development examples and SST-2 has 872")
def _(wide, possible):
    found = development_examples()
    assert (found["mrpc"], found["sst2"]) == (408, 872)
    for score in wide["dense", 1.0].xs("mrpc", level="task"):
        assert f"{score:.2f}" in possible(1)  # of 10,000 printed numbers, 408 would be


@claims.claim("If $kn$ is smaller, not all of them can be such means.")
def _(possible):
    assert len(possible(24)) == 24 * 408 < 1e4 < 25 * 408 and len(possible(25)) == 1e4


@claims.claim("Tables 3 to 5 have twelve means on MRPC.")
def _(kcm, mrpc):
    assert len(mrpc) == 12 and set(kcm.loc[mrpc.index, "table"]) == {3, 4, 5}


@claims.claim("All twelve. By chance five would be, and all twelve about once in 50,000 times.", above=True)
def _(found, counted):
    assert found[9] == 12 and round(12 * float(counted[9])) == 5 and 45_000 < float(counted[9]) ** -12 < 55_000


@claims.claim("No other number of runs below 20 passes; from there on, almost any printed number does.", above=True)
def _(found, counted):
    assert [k for k, passing in enumerate(found, 1) if passing == 12 and k < 20] == [10]
    assert counted[19:].min() > 0.8 and min(found[19:]) >= 11


@claims.claim("no accuracy on SST-2's 872 examples rounds to 93.57, printed for the dense BERT-base", above=True)
def _(possible, dense, sst2):
    assert dense["bert-base", "sst2"] == 93.57 and "93.57" not in possible(1, 872)
    assert "91.40" in possible(1, 872) and all(f"{score:.2f}" in possible(10, 872) for score in sst2)


@claims.claim("816 right answers are 93.578 %.", above=True)
def _():
    assert f"{100 * 816 / 872:.3f}" == "93.578"


@claims.claim("On how many of the 32 pairs of cells is KCM ahead?")
def _(ahead):
    assert ahead.size == 32


@claims.claim("On two, both DistilBERT on SQuAD 2.0.", above=True)
def _(ahead):
    above = ahead.stack()
    assert set(above[above > 0].index) == {("distilbert", "squad2.0", 0.6), ("distilbert", "squad2.0", 0.7)}


@claims.claim("Only one of the 32 differences is within two standard errors of 0.", above=True)
def _(ahead, errors):
    near = (ahead.abs() < 2 * errors).stack()
    assert list(near[near].index) == [("bert-base", "mrpc", 0.6)]


@claims.claim("$k$ drops out of (15.3), and four differences are", above=True)
def _(ahead, errors):
    assert int((ahead.abs() < 2 * 10**0.5 * errors).sum().sum()) == 4


@claims.claim("On MRPC (BERT-base, 60 %), ± is 0.44 points.", above=True)
def _(deviation):
    assert deviation.loc[("bert-base", "mrpc"), ("kcm", 0.6)] == 0.44


@claims.claim("408 examples give an accuracy of 84 % a standard error of 1.8", above=True)
def _():
    assert round(100 * (0.84 * 0.16 / 408) ** 0.5, 1) == 1.8


@claims.claim("At 90 %, scaled weight magnitude is only 1.3 points behind KCM.", above=True)
def _(large):
    at = large[large["flops"] == 0.9].set_index("method")["score"]
    assert round(at["kcm"] - at["weight_magnitude_scaled"], 1) == 1.3


@claims.claim("Below 80 % it collapses, and KCM does not.", above=True)
def _(large):
    table = large.pivot(index="flops", columns="method", values="score")
    assert table.loc[0.8, "weight_magnitude_scaled"] > 80 > 30 > table.loc[0.7, "weight_magnitude_scaled"]
    assert table["kcm"].min() > 85


@claims.claim("The highest number printed is 93.17, with 1,000 labels at 90 %.", above=True)
def _(kcm, large):
    table = kcm[kcm["model"] == "bert-large"]
    best = table.loc[table["value"].idxmax()]
    assert (best["value"], best["labels"], best["flops"]) == (93.17, 1000, 0.9)
    assert "dense" not in set(table["method"]) and set(large["labels"]) == {0, 1000}


@claims.claim("Measured from this number, KCM without labels loses 7.3 points at 60 %.", above=True)
def _(large):
    table = large.pivot(index="flops", columns="method", values="score")
    assert round(93.17 - table.loc[0.6, "kcm"], 1) == 7.3


@claims.claim("other text changes the score by less than 0.6 points, mostly for the better", above=True)
def _(by_text):
    assert by_text["difference"].abs().max() < 0.6 and (by_text["difference"] > 0).sum() == len(by_text) - 1


def kcm_at_60(*tasks):
    """KCM without labels and with its defaults, of the first three samples: mean score by task and source of text."""
    found = pd.concat(pd.read_csv(mvp.data_path("results", f"unlabeled_{name}.csv")) for name in ("toy", "sst2"))
    chosen = found["method"].eq("kcm") & found["flops"].eq(0.6) & found["labelled"].eq(0) & found["options"].isna()
    found = found[chosen & (found["sequences"] == 512)]
    return found.groupby(["task", "source"])["score"].mean().round(1).unstack().loc[list(tasks)]


@claims.claim("text of *another task* changes scores by −30 to +8 points on the toy", above=True)
def _():
    tasks = ["toy/inference", "toy/paraphrase", "toy/qa"]
    table = kcm_at_60(*tasks)
    change = table.sub([table.loc[task, task] for task in tasks], axis=0).stack().dropna()
    change = change[[task != source for task, source in change.index]]
    assert len(change) == 9 and (round(change.min()), round(change.max())) == (-30, 8)


@claims.claim("On SST-2, MNLI's text gives 84.4 in place of 82.1.", above=True)
def _():
    assert kcm_at_60("sst2").loc["sst2", ["mnli", "sst2"]].tolist() == [84.4, 82.1]


@claims.claim("So 60 % of the operations means about 40 % of the *neurons*.", above=True)
def _(f):
    assert all(0.37 < 1 - 0.4 / share < 0.41 for share in f.tolist())


@claims.claim("Even without any neurons, BERT-base would be less than three times as fast", above=True)
def _(f):
    assert (1 / (1 - f)).max() < 3 and (2 * 768 + 3072) / (2 * 768) == 3  # for any number of tokens


@claims.claim("The ideal is 1.67 at 60 %.")
def _(printed):
    assert round(1 / 0.6, 2) == 1.67 and len(printed) == 8


@claims.claim("1.44 to 1.59, so 7 to 24 % of the time did not shrink", above=True)
def _(printed, r):
    assert (printed.min(), printed.max()) == (1.44, 1.59)
    assert [round(100 * float(share)) for share in (r.min(), r.max())] == [7, 24]


@claims.claim("On one CPU thread we measured 1.61 to 1.68, almost the ideal.", above=True)
def _(ours, smaller):
    assert (round(min(ours), 2), round(max(ours), 2)) == (1.61, 1.68) and "one thread" in smaller["about"]["how"]
    for name, case in smaller.items():
        if name.startswith("BERT-base size"):
            assert round(case["operations"]["shrunk"] / case["operations"]["dense"], 4) in (0.5983, 0.5984, 0.5987)


@claims.claim("With zeros in their place nothing is gained.", above=True)
def _(smaller):
    masked = [case["masked"]["speed_up"] for name, case in smaller.items() if name.startswith("BERT-base size")]
    assert len(masked) == 4 and all(0.99 < speed < 1.03 for speed in masked)


@claims.claim("our code took 105 seconds on two CPU threads", above=True)
def _(folder):
    text = (folder / "gradient_free.json").read_text()
    assert '"sequences": 2000' in text and '"seconds": 105.1' in text and "--threads 2" in text


@claims.claim("By equation 11.6, the first $\\delta$ is at most 0, whatever the weights.")
def _(layers):
    for W in layers:
        K = torch.exp(-torch.cdist(W, W).square() / 2)
        assert (K / K.mean(1, keepdim=True)).sqrt().mean() <= 1 + 1e-12  # the sum of C after a step; before it is 1


@claims.claim(
    'Always one. So the printed rule is hardly the one that was run; with $|\\delta|$, "fewer than 20"', above=True
)
def _(steps):
    assert set(steps["printed"]) == {1} and max(steps["absolute"]) < 20 < max(steps["entrywise"])


@claims.claim("three toy tasks and SST-2, three samples each")
def _(change, ones):
    assert set(change["task"]) == {"toy/inference", "toy/paraphrase", "toy/qa", "sst2"}
    assert (ones[ones["seed"] < 3].groupby(["options", "task"]).size() == 3).all()


@claims.claim("One such choice can cost 17 points or gain 8, and which is best differs between tasks.", above=True)
def _(change):
    assert (round(change["score"].min()), round(change["score"].max())) == (-17, 8)
    assert change.loc[change.groupby("task")["score"].idxmax(), "option"].nunique() > 1


@claims.claim("On MNLI and SQuAD the paper's methods are in the paper's order.", above=True)
def _(points):
    single = points.loc[["r2_scaled", "d2_scaled"]]
    for task in ("mnli", "squad"):
        table = points[task]
        assert table["fisher"] < table["kcm"] < single[task].min() <= single[task].max()
        assert single[task].max() < table["weight_magnitude_scaled"] < table["weight_magnitude"]


def behind(real, other):
    """By task, KCM's points lost minus those of `other`, and the standard error (15.3)."""
    lost = (real["dense_score"] - real["score"]).groupby([real["name"], real["task"]])
    mean, error = lost.mean().unstack(), (lost.var() / lost.size()).unstack()
    return mean.loc["kcm"] - mean.loc[other], (error.loc["kcm"] + error.loc[other]) ** 0.5


@claims.claim("scaled D2 alone loses 1.2 points less than KCM, and scaled *output* magnitude", above=True)
def _(real):
    for name, points in (("d2_scaled", 1.2), ("output_magnitude_scaled", 2.9)):
        gap, error = behind(real, name)
        assert round(gap["sst2"], 1) == points and gap["sst2"] > 3 * error["sst2"]


@claims.claim("On MNLI and SQuAD output magnitude and KCM are too close to rank with three samples.", above=True)
def _(real):
    gap, error = behind(real, "output_magnitude_scaled")
    assert (gap.abs() < 2.2 * error)[["mnli", "squad"]].all()  # a 95 % interval of 2 + 2 degrees of freedom: 2.8 errors
    sizes = real[real["name"].isin(["kcm", "d2_scaled", "output_magnitude_scaled"])].groupby(["name", "task"]).size()
    assert (sizes == 3).all()


@claims.claim("five differ, by 0.12 at most", above=True)
def _(kcm, lost, wide, dense):
    second = kcm[(kcm["table"] == 2) & (kcm["flops"] == 0.6) & kcm["method"].isin(["kcm", "mask_tuning"])]
    gaps = [
        row.value - (wide.loc[("bert-base", row.task), (row.method, 0.6)] - dense["bert-base", row.task])
        for row in second.itertuples()
    ]
    assert len(gaps) == 8 and sum(abs(gap) > 0.005 for gap in gaps) == 5 and round(max(map(abs, gaps)), 2) == 0.12


@claims.claim("| R2 stops | $\\delta\\le\\alpha$ | after one step, always | by $\\lvert\\delta\\rvert$", above=True)
def _():
    W = torch.randn(30, 6)
    assert r2_scores(W)[1] == r2_scores(W, stop="absolute")[1] and r2_scores(W, stop="printed")[1] == 1
