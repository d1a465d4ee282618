"""What is measured inside a run: each quantity against a slow computation, a small study, and the recorded ones."""

import csv
import math
from dataclasses import replace
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from nets import Net, batch, make
from torch import nn

from mvp_lite import diagnosis
from mvp_lite.experiments import mechanism, probes
from mvp_lite.experiments.mechanism import FRACTIONS, MECHANISM_COLUMNS, Mechanism, long_table, run_mechanism
from mvp_lite.experiments.table import read_rows
from mvp_lite.models import load_model, tokenizer_for
from mvp_lite.paths import data_path
from mvp_lite.tasks.loading import load_task
from mvp_lite.train import fine_prune


class Model(nn.Module):
    """The net as a model of a batch: it returns its loss."""

    def __init__(self):
        super().__init__()
        self.net = Net(dtype=torch.float64)

    def forward(self, x, labels):
        return SimpleNamespace(loss=nn.functional.cross_entropy(self.net(x), labels))


BATCHES = [dict(zip(("x", "labels"), batch(i, torch.float64), strict=True)) for i in (0, 1)]


@pytest.fixture
def attached():
    model = Model()
    _, _, pruner = make(net=model, dtype=torch.float64, optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
    return model, pruner


# Probes


def test_weights_are_replaced_and_come_back(attached):
    model, pruner = attached
    before = [matrix.weight.detach().clone() for matrix in pruner.matrices]
    loss = probes.mean_loss(model, BATCHES)
    with probes.weights_replaced(pruner.matrices, [torch.zeros_like(W) for W in before]):
        assert all(not matrix.weight.any() for matrix in pruner.matrices)
        assert probes.mean_loss(model, BATCHES) != loss
    assert all(torch.equal(matrix.weight, W) for matrix, W in zip(pruner.matrices, before, strict=True))
    assert not any(matrix.changed_outside() for matrix in pruner.matrices) and model.training


def test_gradients_are_those_of_the_mean_loss(attached):
    model, pruner = attached
    weights = [matrix.weight for matrix in pruner.matrices]
    found = probes.gradients(model, weights, BATCHES)
    assert all(W.grad is None for W in weights)
    (sum(model(**b).loss for b in BATCHES) / 2).backward()
    for g, W in zip(found, weights, strict=True):
        torch.testing.assert_close(g, W.grad)


def test_first_order_is_the_slope_of_the_loss(attached):
    """Removing a small part of the weights changes the loss by that part of the prediction."""
    model, pruner = attached
    matrices, loss = pruner.matrices, probes.mean_loss(model, BATCHES)
    G = probes.gradients(model, [matrix.weight for matrix in matrices], BATCHES)
    gone = [torch.rand_like(matrix.weight) < 0.3 for matrix in matrices]
    slow = -sum(float(g[i, j] * m.weight.detach()[i, j]) for g, m, x in zip(G, matrices, gone, strict=True)
                for i, j in x.nonzero().tolist())  # fmt: skip
    predicted = probes.first_order(matrices, G, gone)
    assert predicted == pytest.approx(slow, rel=1e-9)
    step = 1e-5
    shorter = [m.weight.detach() * (1 - step * x.double()) for m, x in zip(matrices, gone, strict=True)]
    with probes.weights_replaced(matrices, shorter):
        assert (probes.mean_loss(model, BATCHES) - loss) / step == pytest.approx(predicted, rel=1e-3)


def test_the_lowest_of_the_kept_entries_are_removed():
    importance = torch.tensor([[5.0, -9.0, 2.0, 4.0], [1.0, 0.0, 3.0, -8.0]])
    mask = torch.tensor([[True, False, True, True], [True, True, True, False]])
    assert importance[probes.lowest(importance, mask, 0.5)].tolist() == [2.0, 1.0, 0.0]
    assert not probes.lowest(importance, mask, 0.05).any()
    large, kept = torch.randn(50, 40), torch.rand(50, 40) < 0.4
    gone = probes.lowest(large, kept, 0.2)
    assert int(gone.sum()) == round(0.2 * int(kept.sum())) and not (gone & ~kept).any()
    assert large[gone].max() < large[kept & ~gone].min()


def test_spectral_norm_is_the_largest_singular_value():
    for shape in ((7, 4), (4, 7), (5, 5)):
        W = torch.randn(shape, dtype=torch.float64)
        assert probes.spectral_norm(W) == pytest.approx(float(torch.linalg.svdvals(W)[0]))
    signed = probes.with_random_signs(W, torch.Generator().manual_seed(0))
    assert torch.equal(signed.abs(), W.abs()) and 0 < int((signed != W).sum()) < W.numel()


def test_sign_alignment():
    mean = torch.tensor([1.0, -2.0, 0.5, 3.0])
    aligned = mean.sign() / mean.abs()  # four equal terms
    assert probes.sign_alignment(aligned[None], mean) == pytest.approx(2.0)
    assert probes.sign_alignment((aligned * torch.tensor([1.0, -1.0, 1.0, -1.0]))[None], mean) < 1e-6
    assert probes.sign_alignment(torch.stack([aligned, 0 * aligned]), mean) == pytest.approx(2.0), "no entry: left out"
    random = probes.sign_alignment(torch.randn(4000, 64), torch.ones(64))
    assert random == pytest.approx(math.sqrt(2 / math.pi), abs=0.03)


def test_states_that_differ_between_inputs():
    h = torch.randn(20, 6, dtype=torch.float64) + 3
    total, mean = sum(float(x @ x) for x in h), sum(h) / 20
    differing = sum(float((x - mean) @ (x - mean)) for x in h)
    assert probes.between_inputs(h) == pytest.approx(differing / total)
    assert probes.between_inputs(h[:1].expand(5, 6)) == 0


def test_a_span_task_agrees_with_the_diagnosis():
    task = load_task("toy/qa", limit=40)
    model = load_model("toy", task, seed=0)
    batches = list(task.encode(tokenizer_for(model)).batches("train", 8, seed=0, steps=2))
    last = probes.states_and_entropies(model, batches)[0][-1]
    over_all_pairs = 1 - probes.between_inputs(last)  # each input with itself too
    expected = (16 * over_all_pairs - 1) / 15
    assert diagnosis.constant_share(model, batches) == pytest.approx(expected, rel=1e-6)


@pytest.fixture(scope="module")
def toy():
    task = load_task("toy/inference", limit=60)
    model = load_model("toy", task, seed=0)
    encoded = task.encode(tokenizer_for(model))
    return model, encoded, list(encoded.batches("train", 8, seed=0, steps=2))


def matrices_of(model):
    pruner = mechanism.Pruner(model, "magnitude", density=0.5, total_steps=10)
    return pruner.matrices


def test_shares_of_a_map(toy):
    model, _, batches = toy
    matrices = matrices_of(model)
    inputs = []
    chosen = matrices[9]  # its input is computed, not looked up
    handle = chosen.module.register_forward_pre_hook(lambda module, a: inputs.append(a[0].detach().double()))
    found = probes.map_shares(model, matrices, batches)
    handle.remove()
    a = torch.cat([x[b["attention_mask"].bool()] for x, b in zip(inputs, batches, strict=True)])
    y = a @ chosen.weight.detach().double().T
    mean, share_in, share_out = found[9]
    torch.testing.assert_close(mean, a.mean(0))
    for share, values in ((share_in, a), (share_out, y)):
        assert share == pytest.approx(1 - probes.between_inputs(values), rel=1e-4)


def test_a_centered_map_passes_no_constant(toy):
    model, _, batches = toy
    matrices, outputs = matrices_of(model), []
    with probes.centered(matrices):
        handle = matrices[0].module.register_forward_hook(lambda module, a, y: outputs.append(y.detach()))
        model.eval()(**batches[0])
        handle.remove()
    mean = outputs[0].flatten(0, 1).mean(0)
    torch.testing.assert_close(mean, matrices[0].module.bias.detach(), atol=1e-5, rtol=1e-4)
    outputs.clear()
    model(**batches[0])
    assert not outputs, "hooks are gone"


def test_attention_entropy(toy):
    model, _, batches = toy
    before = model.config._attn_implementation
    _, found = probes.states_and_entropies(model, batches)
    assert len(found) == 4 and all(0 < entropy < 1 for entropy in found)
    assert model.config._attn_implementation == before
    with torch.no_grad():
        query = model.bert.encoder.layer[0].attention.self.query
        saved = [p.clone() for p in query.parameters()]
        for p in query.parameters():
            p.zero_()  # no token is preferred
        assert probes.states_and_entropies(model, batches)[1][0] == pytest.approx(1, abs=1e-5)
        for p, value in zip(query.parameters(), saved, strict=True):
            p.copy_(value)


def test_what_a_linear_fit_reads():
    labels = torch.arange(200) % 2
    h = torch.randn(200, 5, generator=torch.Generator().manual_seed(0))
    assert probes.readable((h, labels), (h, labels)) < 75
    h[:, 3] += 1e-4 * labels  # hardly any
    h[:, 4] = 7 + 1e-3 * labels
    assert probes.readable((h[:100], labels[:100]), (h[100:], labels[100:])) == 100


def test_means_over_the_matrices_of_a_layer(toy):
    matrices = matrices_of(toy[0])
    assert probes.by_layer(matrices, [float(i) for i in range(24)]) == [2.5, 8.5, 14.5, 20.5]


# A study


SMALL = Mechanism(task="toy/inference", steps=12, batch_size=8, batches=2, holdout=60, densities=(0.1,),
                  recipes=("movement", "random"))  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    study = replace(SMALL, out=tmp_path_factory.mktemp("mechanism") / "results.csv")
    run_mechanism(study, log=lambda line: None)
    return study


def test_rows_of_a_study(finished):
    rows = read_rows(finished.out, MECHANISM_COLUMNS)
    steps = mechanism.recorded_steps(12)
    assert steps[0] == 1 and steps[-1] == 12 and mechanism.recorded_steps(500)[:4] == [50, 55, 60, 80]
    assert [(row["recipe"], int(row["step"])) for row in rows] == [
        (recipe, step) for recipe in finished.recipes for step in steps
    ]
    for row in rows:
        last, step = row["step"] == "12", int(row["step"])
        assert float(row["kept"]) == pytest.approx(1.0 if step == 1 else 0.1, abs=1e-6 if step in (1, 12) else 1)
        assert len(row["score"].split()) == len(row["baseline"].split()) == len(row["readable"].split()) == last
        assert len(row["between"].split()) == len(row["spectral_random"].split()) == 4
        removals = len(FRACTIONS) if float(row["kept"]) > 0.5 else 0
        assert len(row["predicted_scores"].split()) == len(row["actual_random"].split()) == removals
        assert all(math.isfinite(float(x)) for x in row["between"].split() + row["actual_scores"].split())
    random = [row for row in rows if row["recipe"] == "random"]
    assert {row["returned"] for row in random} == {"0"} and float(random[-1]["kept"]) == pytest.approx(0.1, rel=1e-3)


def test_a_run_is_one_of_fine_prune(finished):
    """Looking at a run does not change it."""
    task = load_task("toy/inference").holdout(60, seed=100)
    model = load_model("toy", task, seed=100)
    result = fine_prune(model, task, "movement", 0.1, steps=12, lr=1e-4, batch_size=8, seed=100, progress=False,
                        magnitude_init=0.0, device=mechanism.default_device())  # fmt: skip
    rows = [row for row in read_rows(finished.out, MECHANISM_COLUMNS) if row["recipe"] == "movement"]
    losses, start = result.history["loss"], 0
    for row in rows:
        assert float(row["train_loss"]) == pytest.approx(losses[start : int(row["step"])].mean(), rel=2e-3)
        start = int(row["step"])
    assert float(rows[-1]["score"]) == pytest.approx(result.score, abs=2)


def test_a_finished_study_runs_nothing_and_a_killed_one_goes_on(finished, tmp_path, monkeypatch):
    copy = replace(finished, out=tmp_path / "results.csv")
    text = finished.out.read_text()
    lines = text.splitlines(keepends=True)
    copy.out.write_text("".join(lines[:-3]) + lines[-3][:50])
    run_mechanism(copy, log=lambda line: None)
    assert [row["step"] for row in read_rows(copy.out, MECHANISM_COLUMNS)] == [
        row["step"] for row in read_rows(finished.out, MECHANISM_COLUMNS)
    ]
    monkeypatch.setattr(mechanism, "_run", lambda *a: pytest.fail("ran again"))
    run_mechanism(copy)


@pytest.mark.parametrize(
    ("change", "message"), [({"recipes": ("l0",)}, "l0"), ({"recipes": ("dense",)}, "dense"), ({"batches": 3}, "even")]
)
def test_settings_that_no_study_could_have(change, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        run_mechanism(replace(SMALL, out=tmp_path / "x.csv", **change))
    assert not (tmp_path / "x.csv").exists()


def test_a_long_table(finished):
    table = long_table(finished.out)
    text = list(csv.DictReader(finished.out.read_text().splitlines()))
    (row,) = [row for row in text if row["recipe"] == "movement" and row["step"] == "1"]
    run = table[(table["recipe"] == "movement") & (table["step"] == 1)].set_index("quantity")
    assert run.loc["between", "value"].tolist() == [float(x) for x in row["between"].split()]
    assert run.loc["between", "layer"].tolist() == [0, 1, 2, 3] and run.loc["between", "fraction"].isna().all()
    assert run.loc["actual_scores", "value"].tolist() == [float(x) for x in row["actual_scores"].split()]
    assert run.loc["actual_scores", "fraction"].tolist() == list(FRACTIONS)
    assert run.loc["actual_scores", "layer"].isna().all() and run.loc["loss", "value"] == float(row["loss"])
    assert set(run["kept"]) == {1.0}
    assert len(table) == sum(len(row[name].split()) for row in text for name in table["quantity"].unique())


# What the recorded runs show


RESULTS = {name: long_table(data_path("results", f"mechanism_{name}.csv")) for name in ("toy", "sst2")}


def values(name, quantity, recipe="movement", density=0.1, task=None, seed=100, precision=None):
    """One quantity of one recorded run: a row for each step, a column for each layer or fraction."""
    table = RESULTS[name]
    keep = (table["quantity"] == quantity) & (table["recipe"] == recipe) & (table["density"] == density)
    keep &= (table["seed"] == seed) & (table["task"] == (task or {"toy": "toy/inference", "sst2": "sst2"}[name]))
    keep &= table["precision"] == (precision or {"toy": "float32", "sst2": "bf16 autocast"}[name])
    found = table[keep]
    assert not found.empty, (name, quantity, recipe, density)
    places = found["fraction"] if found["fraction"].notna().any() else found["layer"].fillna(0)
    return found.assign(place=places.astype(float)).pivot(index="step", columns="place", values="value")


def last(name, quantity, **run):
    """The same at the last layer, by step."""
    return values(name, quantity, **run).iloc[:, -1]


@pytest.mark.parametrize("name", ["toy", "sst2"])
def test_recorded_rows_are_complete(name):
    path = data_path("results", f"mechanism_{name}.csv")
    rows = read_rows(path, MECHANISM_COLUMNS)
    assert path.stat().st_size < 300_000
    runs = {}
    for row in rows:
        key = (row["task"], row["recipe"], row["density"], row["seed"], row["precision"])
        runs.setdefault(key, []).append(int(row["step"]))
        assert row["threads"] == "1" and "torch" in row["versions"]
    assert all(steps == mechanism.recorded_steps(steps[-1]) for steps in runs.values())


def test_on_sst2_movement_is_at_chance_with_10_percent_and_learns_with_3():
    assert last("sst2", "score").iloc[-1] == last("sst2", "baseline").iloc[-1] == 55.9
    assert last("sst2", "score", density=0.03).iloc[-1] > 82


def test_on_sst2_both_runs_lose_what_differs_between_inputs_and_only_one_gets_it_back():
    ten, three = last("sst2", "between"), last("sst2", "between", density=0.03)
    for run in (ten, three):
        assert run[50] > 0.6 and run[55] < 1e-6 and run[[110, 155, 200]].max() < 1e-9
    assert ten[[275, 350, 425, 500]].max() < 1e-9
    assert three[275] > 1e-4 and three[350] > 0.5
    # it is there again before the loss falls, and where less is kept than in the other run
    loss = last("sst2", "loss", density=0.03)
    assert loss[275] > 0.68 and loss[350] < 0.6 and loss[500] < 0.45
    kept = RESULTS["sst2"].query("recipe == 'movement' and density == 0.03").groupby("step")["kept"].first()
    assert kept[200] > 0.15 and kept[275] < 0.05


def test_on_sst2_aligned_signs_take_it_away():
    """At the end of the run that fails: the same entries with random signs, fewer of them, or centered maps."""
    end = {what: values("sst2", f"{what}between").loc[500] for what in ("", "signs_", "thinned_", "centered_")}
    assert end[""].iloc[-1] < 1e-9 and (end[""].iloc[2:].pct_change().dropna() < -0.98).all(), "layer by layer"
    assert end["signs_"].iloc[-1] > 1e-3 and end["thinned_"].iloc[-1] > 1e-4 and end["centered_"].iloc[-1] > 0.9
    alignment = last("sst2", "alignment")
    assert alignment[50] < 1.1 and alignment[155] > 4 and alignment[500] > 2.5
    norms = {which: last("sst2", f"spectral_{which}") / last("sst2", f"spectral_signs_{which}")
             for which in ("scores", "magnitude", "random")}  # fmt: skip
    assert norms["scores"][155] > 2.5 and norms["magnitude"][155] < 1.5 and norms["random"][155] < 1.2
    assert (values("sst2", "map_out").loc[500].iloc[3:] > 0.99).all()


def test_on_sst2_a_run_without_constant_outputs_learns_with_10_percent():
    centered = "movement, centered"
    assert last("sst2", "score", recipe=centered).iloc[-1] > 65
    assert last("sst2", "between", recipe=centered).min() > 0.01


def test_on_sst2_attention_does_not_saturate():
    """It becomes uniform: tokens look alike."""
    assert (values("sst2", "entropy").loc[500].iloc[3:] > 0.99).all()
    assert (values("sst2", "token_between").loc[500].iloc[3:] < 1e-3).all()


def test_first_order_fails_for_weights_chosen_by_movement_and_holds_for_others():
    """Just before pruning starts. The squared length of what is removed is that of random weights."""
    for name, step in (("toy", 30), ("sst2", 50)):
        predicted, actual = (values(name, f"{what}_scores").loc[step] for what in ("predicted", "actual"))
        chance, chance_actual = (values(name, f"{what}_random").loc[step] for what in ("predicted", "actual"))
        length = values(name, "length_scores").loc[step] / values(name, "length_random").loc[step]
        assert (length.between(0.99, 1.2)).all()
        assert ((actual - predicted).abs() > 0.5).all() and ((chance_actual - chance).abs() < 0.3).all()
        assert (predicted.abs() > 20 * chance.abs()).all(), "one steep direction"
        assert (actual[[0.05, 0.1, 0.2]] > 0.35).all()
    gain = values("toy", "predicted_scores")
    assert (gain.loc[30] < -0.6).all() and (gain.loc[[33, 36, 48]] > 0).all().all(), "the slope reverses"
    assert (values("sst2", "predicted_scores").loc[50] > 1.5).all(), "no gain is promised to begin with"


def test_the_error_of_first_order_does_not_grow_with_the_square():
    for name, step in (("toy", 30), ("sst2", 50)):
        error = (values(name, "actual_scores") - values(name, "predicted_scores")).loc[step].abs()
        assert error[0.2] / error[0.02] < 15 < (0.2 / 0.02) ** 2


def test_scores_that_start_from_magnitude_remove_little():
    started = "movement magnitude_init=0.2"
    for name, step in (("toy", 30), ("sst2", 50)):
        length = values(name, "length_scores", recipe=started).loc[step]
        assert (length < 0.1 * values(name, "length_scores").loc[step]).all()
        assert (
            values(name, "actual_scores", recipe=started).loc[step] < values(name, "actual_scores").loc[step]
        ).sum() > 2
    assert (values("toy", "actual_scores", recipe=started).loc[30] < 0.01).all()
    assert last("toy", "score", recipe=started).iloc[-1] > last("toy", "score").iloc[-1] + 10
    assert last("sst2", "score", recipe=started).iloc[-1] > 80
    assert last("sst2", "between", recipe=started).min() > 0.2 and last("sst2", "alignment", recipe=started).max() < 1.5


def test_the_toys_inference_keeps_what_differs_between_inputs():
    """Its states do not collapse, and it has no gap between the two densities."""
    for density in (0.1, 0.03):
        assert last("toy", "between", density=density).min() > 0.05
    assert last("toy", "score").iloc[-1] > last("toy", "score", density=0.03).iloc[-1] > 70


def test_the_toys_sentiment_loses_it_in_float32_too():
    run = {"name": "toy", "task": "toy/sentiment"}
    between = last(quantity="between", **run)
    assert between[48] > 0.9 and between[93] < 1e-6 and between[300] < 1e-4
    assert last(quantity="score", **run).iloc[-1] == last(quantity="baseline", **run).iloc[-1] == 50
    assert last(quantity="loss", **run)[48] < 0.01, "the task was learned"
    end = {what: last(quantity=f"{what}_between", **run)[300] for what in ("signs", "thinned", "centered")}
    assert end["signs"] > 5 * between[300] and end["centered"] > 0.1
    assert end["thinned"] < 2 * between[300], "fewer entries alone do not help here"
    started = run | {"recipe": "movement magnitude_init=0.2"}
    assert last(quantity="between", **started).min() > 0.01 and last(quantity="score", **started).iloc[-1] > 95


def test_the_toys_sentiment_gets_it_back_with_3_percent():
    run = {"name": "toy", "task": "toy/sentiment", "density": 0.03}
    between, loss = last(quantity="between", **run), last(quantity="loss", **run)
    assert between[93] < 1e-5 and between[165] > 5e-3 and between[210] > 0.1
    assert loss[165] > math.log(2) and loss[210] < 0.3 and last(quantity="score", **run).iloc[-1] > 90


def test_the_numbers_in_notebook_05():
    """What its last section says of the run on SST-2, at 10 % unless said otherwise."""
    actual = {which: values("sst2", f"actual_{which}").loc[50, 0.05] for which in ("scores", "random")}
    assert round(actual["scores"], 2) == 0.69 and abs(actual["random"]) < 0.04
    kept = RESULTS["sst2"].query("recipe == 'movement' and density == 0.1").groupby("step")["kept"].first()
    assert kept[50] == 1 and 0.95 < kept[55] < 0.96
    centered = last("sst2", "score", recipe="movement, centered")
    assert round(centered.iloc[-1]) == 69 and round(last("sst2", "baseline").iloc[-1]) == 56
    dial = pd.read_csv(data_path("results", "sst2_dial.csv"))
    other = dial.query("method == 'movement' and density == 0.03 and split == 'validation' and seed == 0").iloc[0]
    assert other["lr"] == 1e-4 and other["score"] == other["baseline"]
