"""What docs/results.md says of movement pruning in short runs, from the recorded rows."""

import pandas as pd
import pytest
from pages import table, text

import mvp_lite as mvp
from mvp_lite import data_path
from mvp_lite.course.analysis import FROM_MAGNITUDE

SEEDS = (0, 1, 2)
C = {"movement": "0 (the paper)", "movement magnitude_init=0.05": "0.05", FROM_MAGNITUDE: "0.2 (default)"}
C |= {"movement magnitude_init=0.5": "0.5", "movement magnitude_init=2": "2", "magnitude": "magnitude pruning"}
REMEDIES = {
    "random": "random pruning (control)",
    "movement": "none: the paper's movement pruning",
    "frozen": "masks frozen in the cool-down",
    "seldom": "masks renewed every ten steps",
    "leaking": "scores that forget",
    "sensitivity": r"scores that sum up $\lvert G\odot W\rvert$",
    "movement cooldown_steps=30": "cool-down a third as long",
    "movement warmup_steps=90": "warm-up three times as long",
    "movement dense_steps=150": "half of the run dense",
    "movement scope=global": "global scope",
    "movement groups=compensated": "biases compensate for what is pruned",
    "movement groups=centered": "scores learn from centered inputs",
    "movement schedule=cosine": "density falls along a half-cosine",
    FROM_MAGNITUDE: "scores that start from magnitude, $c=0.2$",
    f"{FROM_MAGNITUDE} groups=centered": "the same, and centered inputs",
    f"{FROM_MAGNITUDE} schedule=cosine": "the same, and a half-cosine",
    "magnitude": "*magnitude pruning*",
}
#: the same remedy has other numbers of steps where the run is longer
SAME = {
    "movement dense_steps=250": "movement dense_steps=150",
    "movement cooldown_steps=50": "movement cooldown_steps=30",
}
SST2 = {"magnitude": "magnitude", "movement": "movement (paper)", FROM_MAGNITUDE: "movement from magnitude"}
SST2 |= {"soft_movement": "soft movement"}
TASKS = {"toy/inference": "inference", "toy/paraphrase": "paraphrase", "toy/qa": "qa", "sst2": "SST-2"}


def runs() -> pd.DataFrame:
    """Reported runs of 300 steps on the toy and of 500 on SST-2, without a teacher."""
    names = ("toy", "toy_dial", "toy_remedies", "sst2_dial", "sst2_remedies")
    rows = pd.concat(pd.read_csv(data_path("results", f"{name}.csv")) for name in names)
    rows = rows[(rows["split"] == "validation") & ~rows["distil"] & rows["steps"].isin([300, 500])]
    pooled = rows["scope"].eq("global") & rows["method"].isin(["movement", "magnitude"])
    return rows[~pooled].replace({"method": SAME}).drop_duplicates(["task", "method", "density", "seed"])


def means(density: float, methods: dict[str, str]) -> pd.DataFrame:
    """Mean scores of the seeds 0, 1 and 2 as text, one row for each method; a cell with fewer of them is empty."""
    rows = runs().query(f"density == {density} and seed in {SEEDS}")
    cells = rows.groupby(["method", "task"])["score"].agg(["mean", "count"])
    shown = cells["mean"].map("{:.1f}".format).where(cells["count"] == len(SEEDS), "").unstack("task", fill_value="")
    return shown.reindex(index=list(methods), columns=list(TASKS)).fillna("")


def dial_table() -> str:
    three, ten = means(0.03, C), means(0.1, C)
    rows = [[label, *ten.loc[name], *three.loc[name]] for name, label in C.items()]
    return table(["$c$", *(f"{task}, {kept} %" for kept in (10, 3) for task in TASKS.values())], rows)


def remedies_table() -> str:
    shown = means(0.1, REMEDIES)
    return table(["remedy", *TASKS.values()], [[label, *shown.loc[name]] for name, label in REMEDIES.items()])


def sst2_table() -> str:
    rows = runs().query(f"task == 'sst2' and seed in {SEEDS}")
    cells = rows.groupby(["method", "density"])["score"].agg(["mean", "std", "count"])
    assert (cells.loc[list(SST2)]["count"] == 3).all()
    shown = {key: f"{mean:.1f} ± {std:.1f}" for key, (mean, std, _) in cells.iterrows()}
    return table(["", "10 %", "3 %"], [[label, shown[name, 0.1], shown[name, 0.03]] for name, label in SST2.items()])


@pytest.mark.parametrize("made", [dial_table, remedies_table, sst2_table])
def test_the_page_shows_the_table(made) -> None:
    assert made() in text("results.md"), made()


def test_sums_over_groups_differ_little() -> None:
    """As docs/guide.md says: scores of groups start nearly equal, whatever `magnitude_init`."""
    model = mvp.load_model("toy", mvp.load_task("toy/inference", limit=2))

    def spreads(groups):
        found = [g.magnitude() for g in mvp.Pruner(model, density=0.5, total_steps=10, groups=groups).groups]
        return [float(sums.std() / sums.mean()) for sums in found]

    assert min(spreads("weights")) > 0.7
    for groups in ("rows", "columns", "heads", "neurons", mvp.groups.blocks(8, 8)):
        assert max(spreads(groups)) < 0.15
