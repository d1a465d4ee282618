"""Budgets: what density counts, who shares it, densities by pattern, and options that nothing would use."""

import copy
import csv
import json
import warnings

import numpy as np
import pytest
import torch
from nets import Net, layers, used
from nets import make as make_net
from nets import train as train_net
from test_groups import GROUPS, attached, train
from test_shrink import make

import mvp_lite as mvp
from mvp_lite import groups, methods
from mvp_lite.experiments.recipes import Recipe
from mvp_lite.masks import keep_count

LONGER = {"total_steps": 40, "warmup_steps": 4, "cooldown_steps": 14}
UNITS = groups.mixed("heads", "neurons")


def pruned(method, chosen, density=0.5, model=None, **options):
    """A pruner at the end of a run on a tiny BERT: 3 layers of 4 heads and 20 neurons."""
    model = make("bert") if model is None else model
    options = LONGER | options
    return train(model, *attached(model, method, groups=chosen, density=density, **options), options["total_steps"])


def kept(pruner, word):
    return [int(group.mask.count_nonzero()) for group in pruner.groups if word in group.name]


# --- who shares a budget ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("density", [0.25, 0.5])
@pytest.mark.parametrize("method", ["magnitude", "movement", "random", "soft_movement", "l0"])
def test_heads_and_neurons_each_keep_their_budget(method, density):
    """Whatever the size of a head's score, which is a sum over 576 weights; that of a neuron is over 48."""
    pruner = pruned(method, UNITS, density, scope="global")
    heads, neurons = kept(pruner, "heads"), kept(pruner, "neurons")
    assert sum(neurons) == keep_count(60, density)
    if method == "soft_movement":  # which keeps a group of each layer in any case
        assert min(heads) >= 1 and sum(heads) - keep_count(12, density) in (0, 1)
    else:
        assert sum(heads) == keep_count(12, density) and pruner.density == pytest.approx(density)


def test_every_pool_has_a_penalty_of_its_own():
    pruner = pruned("soft_movement", UNITS, total_steps=20)
    heads, neurons = pruner.pools
    assert heads.method is not neurons.method and heads.method.penalty != neurons.method.penalty
    assert pruner.penalty == (heads.method.penalty + neurons.method.penalty) / 2
    assert [pool.count for pool in pruner.pools] == [12, 60]


@pytest.mark.parametrize("name", ["weights", "heads", "neurons", "blocks"])
def test_groups_of_one_size_are_one_pool(name):
    (pool,) = attached(make("bert"), "soft_movement", groups=name if name == "weights" else GROUPS[name])[0].pools
    assert pool.groups and pool.method.settings.density == 0.5


def test_a_fixed_penalty_has_no_budget_and_one_pool():
    pruner, _ = attached(make("bert"), "soft_movement", groups=UNITS, penalty=10.0)
    assert len(pruner.pools) == 1 and pruner.penalty == pruner.method.penalty


def test_random_scores_of_two_pools_differ():
    pruner, _ = attached(make("bert"), "random", groups=UNITS)
    first = [pool.groups[0].scores[:4] for pool in pruner.pools]
    assert not torch.equal(*first)


@pytest.mark.parametrize("method", ["soft_movement", "l0"])
def test_several_pools_resume_bit_equal(method):
    whole = pruned(method, UNITS)
    half = make("bert")
    first, optimizer = attached(half, method, groups=UNITS, **LONGER)
    train(half, first, optimizer, steps=30)
    saved = copy.deepcopy((half.state_dict(), optimizer.state_dict()))
    other = make("bert", seed=5)
    other.load_state_dict(saved[0])
    second, optimizer = attached(other, method, groups=UNITS, **LONGER)
    optimizer.load_state_dict(saved[1])
    train(other, second, optimizer, steps=10)
    assert [p.method.penalty for p in whole.pools] == [p.method.penalty for p in second.pools]
    assert all(torch.equal(a.scores, b.scores) for a, b in zip(whole.groups, second.groups, strict=True))


# --- what density counts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["magnitude", "movement", "soft_movement", "l0"])
@pytest.mark.parametrize("name", GROUPS)
def test_density_is_the_fraction_of_weights_for_all_groups(name, method):
    pruner = pruned(method, GROUPS[name], 0.4, **({} if method in ("soft_movement", "l0") else {"scope": "global"}))
    total = sum(layer.weight.numel() for layer in layers(pruner))
    whole_groups = sum(max(group.weights_each for group in pool.groups) for pool in pruner.pools)
    guard = 0.01 * total if method == "soft_movement" else 0  # it keeps a group of each matrix in any case
    assert abs(pruner.density - 0.4) * total <= whole_groups / 2 + guard + 1e-6
    assert pruner.report().kept.sum() / total == pruner.density


def test_no_groups_at_all():
    with pytest.raises(ValueError, match="groups: the matrices of target have none"):
        attached(make("bert"), groups=groups.mixed(ffn="rows"), target="attention")


def test_heads_alone_count_the_attention():
    pruner = pruned("movement", "heads")
    assert pruner.density == 0.5 and not any("intermediate" in name for name in pruner.report().layer)


# --- densities by pattern -----------------------------------------------------------------------------------------

BY_LAYER = {r"layer\.0\.": 0.5, "intermediate": 0.25, ".*": 0.1}


def asked_of(name):
    return 0.5 if ".layer.0." in name else 0.25 if "intermediate" in name else 0.1


@pytest.mark.parametrize("method", ["magnitude", "movement", "random"])
def test_densities_by_pattern_with_local_scope(method):
    model = make("bert")
    pruner, optimizer = attached(model, method, density=BY_LAYER, initial_density=0.9)
    assert {group.name: pool.method.density(10**6) for pool in pruner.pools for group in pool.groups} == {
        layer.name: asked_of(layer.name) for layer in layers(pruner)
    }
    train(model, pruner, optimizer, steps=9)
    now = pruner.report().set_index("layer").density
    for layer in layers(pruner):
        expected = pruner.schedule.value(9, 0.9, asked_of(layer.name))
        assert now[layer.name] == pytest.approx(expected, abs=1e-3), "each follows the schedule to its own end"
    train(model, pruner, optimizer, steps=15).finalize()
    for row in pruner.report().itertuples():
        assert row.kept == keep_count(row.shape[0] * row.shape[1], asked_of(row.layer))


@pytest.mark.parametrize("method", ["magnitude", "movement", "soft_movement", "l0"])
def test_densities_by_pattern_with_pools(method):
    options = {} if method in ("soft_movement", "l0") else {"scope": "global"}
    pruner = pruned(method, "weights", BY_LAYER, **options)
    table = pruner.report()
    table["total"], table["asked"] = table["shape"].map(np.prod), table.layer.map(asked_of)
    assert len(pruner.pools) == 3
    for asked, rows in table.groupby("asked"):
        assert rows.kept.sum() == pytest.approx(asked * rows.total.sum(), rel=0.02)
        assert options == {} or rows.density.nunique() > 1, "within a set matrices compete"


def test_densities_of_heads_and_neurons():
    pruner = pruned("soft_movement", UNITS, {"heads": 0.75, "neurons": 0.25})
    assert [sum(kept(pruner, word)) for word in ("heads", "neurons")] == [9, 15]


def test_one_pattern_for_all_is_one_density():
    results = [pruned("l0", "weights", density, seed=3) for density in (0.3, {".*": 0.3})]
    for a, b in zip(*(pruner.groups for pruner in results), strict=True):
        assert torch.equal(a.scores, b.scores) and torch.equal(a.mask, b.mask)


@pytest.mark.parametrize(
    ("density", "error", "message"),
    [
        ({"decoder": 0.5, ".*": 0.1}, ValueError, r"'decoder': …\} matches none of the groups blocks\.0, blocks\.1"),
        ({r"blocks\.0": 0.5}, ValueError, r"no pattern matches blocks\.1; add '\.\*' as the last one"),
        ({"blocks": 0.5, r"blocks\.0": 0.1}, ValueError, r"patterns before it match all that it does; put it first"),
        ({"([": 0.5, ".*": 0.1}, ValueError, r"'\(\[': …\} is not a regular expression"),
        ({}, ValueError, r"density=\{\}: must have at least one pattern"),
        ({".*": 0.0}, ValueError, r"'\.\*': 0\.0\}: must be a fraction kept in \(0, 1\]"),
        ({".*": "0.1"}, TypeError, r"'\.\*': '0\.1'\}: must be a regular expression and a number"),
        ({1: 0.1}, TypeError, r"\{1: 0\.1\}: must be a regular expression and a number"),
        ([0.1, 0.2], TypeError, r"density=\[0\.1, 0\.2\]: must be a number, or a dict"),
    ],
)
def test_patterns_that_make_no_sense(density, error, message):
    with pytest.raises(error, match=message):
        mvp.Pruner(Net(), density=density, total_steps=20)


def test_patterns_and_other_options():
    with pytest.raises(ValueError, match=r"with penalty=5\.0 densities are an outcome"):
        mvp.Pruner(Net(), "soft_movement", density={".*": 0.1}, total_steps=20, penalty=5.0)
    with pytest.raises(ValueError, match=r"initial_density=0\.3: .*not below the final"):
        mvp.Pruner(Net(), density={"0": 0.5, ".*": 0.1}, total_steps=20, initial_density=0.3)
    with pytest.raises(ValueError, match=r"min_density=0\.2: must lie in \[0, density=0\.1\]"):
        mvp.Pruner(Net(), density={"0": 0.5, ".*": 0.1}, total_steps=20, min_density=0.2, scope="global")
    with pytest.raises(ValueError, match=r"finalize\(\) after 0 of 20 steps: the density is 1, not yet 0\.3;"):
        make_net(density={"0": 0.5, "1": 0.1})[2].finalize()
    covered = mvp.Pruner(Net(), density={"0": 0.5, "1": 0.1, ".*": 0.2}, total_steps=20)
    assert len(covered.pools) == 2, "a default that nothing needs is no mistake"


def test_a_saved_state_knows_its_patterns():
    net, optimizer, _ = make_net(density={"0": 0.5, ".*": 0.1})
    train_net(net, optimizer, range(12))
    state = copy.deepcopy(optimizer.state_dict())
    make_net(density={"0": 0.5, ".*": 0.1})[1].load_state_dict(state)
    for other in ({"0": 0.5, ".*": 0.2}, 0.1):
        with pytest.raises(ValueError, match=r"final_density: saved \{'0': 0\.5, '\.\*': 0\.1\}, here"):
            make_net(density=other)[1].load_state_dict(state)
    state = make_net(density={"0": 0.5, "blocks": 0.1})[1].state_dict()
    state["mvp_lite"]["settings"]["final_density"] = {"blocks": 0.1, "0": 0.5}
    with pytest.raises(ValueError, match=r"\(order of the patterns in density: saved"):
        make_net(density={"0": 0.5, "blocks": 0.1})[1].load_state_dict(state)


@pytest.fixture(scope="module")
def task():
    return mvp.load_task("toy/inference", limit=64)


def short(task, method="movement", density=0.1, **options):
    options = {"steps": 10, "batch_size": 8, "lr": 1e-4, "progress": False} | options
    return mvp.fine_prune(mvp.load_model("toy", task), task, method, density, **options)


def test_fine_prune_takes_patterns(task):
    result = short(task, density={"attention": np.float64(0.5), ".*": torch.tensor(0.25)}, score_lr=np.float32(0.01))
    for row in result.report.itertuples():
        assert row.density == (0.5 if "attention" in row.layer else 0.25)
    assert result.density == pytest.approx((0.5 + 2 * 0.25) / 3)
    again = json.loads(json.dumps(result.settings))
    assert again["density"] == again["final_density"] == {"attention": 0.5, ".*": 0.25}


# --- a fixed penalty, n:m -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["soft_movement", "l0"])
@pytest.mark.parametrize(
    ("penalty", "message"), [(0.0, "has pruned nothing: raise penalty"), (1e4, "has pruned every score: lower penalty")]
)
def test_a_fixed_penalty_that_prunes_all_or_nothing_warns(method, penalty, message):
    net, optimizer, pruner = make_net(method, penalty=penalty, score_lr=0.4 if penalty else 1e-4)
    train_net(net, optimizer, range(20))
    assert pruner.density == 1.0 if penalty == 0.0 else pruner.density < 0.02
    with pytest.warns(UserWarning, match=rf"penalty={penalty:g} with score_lr=\S+ {message}") as seen:
        pruner.finalize()
    assert len(seen) == 1


def test_no_warning_where_a_penalty_did_its_work_or_the_run_was_stopped():
    for steps, penalty, score_lr, early in ((20, 10.0, 0.5, False), (5, 0.0, 1e-4, True)):
        net, optimizer, pruner = make_net("soft_movement", penalty=penalty, threshold=0.3, score_lr=score_lr)
        train_net(net, optimizer, range(steps))
        assert 0.02 < pruner.density and (pruner.density == 1.0) == early
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            pruner.finalize(early=early)


@pytest.mark.parametrize(
    ("m", "density", "near"),
    [(4, 0.3, "0.25 and 0.5"), (4, 0.2, "0.25"), (8, 0.9, "0.875 and 1"), (3, 0.5, "0.333333 and 0.666667")],
)
def test_n_of_m_needs_an_integer_n(m, density, near):
    message = rf"density={density}: n_of_m\({m}\) keeps .*; the nearest densities are {near}$"
    net = torch.nn.Linear(24, 8)
    with pytest.raises(ValueError, match=message):
        mvp.Pruner(net, "magnitude", density=density, total_steps=10, target="", groups=groups.n_of_m(m))
    with pytest.raises(ValueError, match=message):
        mvp.Pruner(net, "magnitude", density={".*": density}, total_steps=10, target="", groups=groups.n_of_m(m))


@pytest.mark.parametrize("density", [1 / 3, 2 / 3, 0.333333333])
def test_n_of_m_takes_rounded_fractions(density):
    net = torch.nn.Linear(24, 8)
    pruner = mvp.Pruner(net, "magnitude", density=density, total_steps=10, target="", groups=groups.n_of_m(3))
    (mask,) = pruner.pools[0].masks(10)
    assert bool((mask.view(-1, 3).sum(1) == round(3 * density)).all())


# --- options that nothing would use -------------------------------------------------------------------------------

OTHERS = {"threshold": 0.3, "penalty": 5.0, "score_lr": 0.3, "score_init": 1.0, "magnitude_init": 0.3,
          "initial_density": 0.9, "min_density": 0.01}  # fmt: skip
UNUSED = {
    "magnitude": {"threshold", "penalty", "score_lr", "score_init", "magnitude_init"},
    "random": {"threshold", "penalty", "score_lr", "score_init", "magnitude_init"},
    "movement": {"threshold", "penalty"},
    "soft_movement": {"initial_density", "min_density"},
    "l0": {"initial_density", "min_density", "threshold"},
}


@pytest.mark.parametrize("option", OTHERS)
@pytest.mark.parametrize("method", UNUSED)
def test_an_option_that_the_method_ignores_is_refused(method, option):
    given = {"density": 0.2, "total_steps": 20, "scope": "global"} | {option: OTHERS[option]}
    if option not in UNUSED[method]:
        mvp.Pruner(Net(), method, **given)
        return
    users = ", ".join(name for name, unused in UNUSED.items() if option not in unused)
    order = [name for name in methods.METHODS if name in users.split(", ")]
    with pytest.raises(ValueError, match=rf"{option}=\S+: method '{method}' ignores it; {', '.join(order)} use"):
        mvp.Pruner(Net(), method, **given)


@pytest.mark.parametrize("method", UNUSED)
def test_defaults_may_be_given(method):
    model = make("bert")
    saved = attached(model, method, scope="global")[0].settings()
    names = ("scope", "initial_density", "threshold", "min_density", "penalty", "magnitude_init", "seed")
    again = attached(make("bert"), method, score_init=None, score_lr=None, **{name: saved[name] for name in names})
    assert again[0].settings() == saved


def test_no_recorded_run_gave_an_option_that_is_refused():
    recorded = set()
    for path in mvp.data_path("results").glob("*.csv"):
        rows = csv.DictReader(path.read_text(encoding="utf-8").splitlines())
        recorded |= {(row["method"], row["scope"]) for row in rows if row.get("scope")}
    assert len(recorded) > 10
    for text, scope in recorded:
        recipe = Recipe.parse(text)
        mvp.Pruner(Net(), recipe.method, density=0.1, total_steps=20, **(recipe.options | {"scope": scope}))


def test_a_method_of_ones_own_may_use_all():
    class Own(methods.Movement):
        ignores = ()

    assert mvp.Pruner(Net(), Own, density=0.2, total_steps=20, threshold=0.3).method.settings.threshold == 0.3
    assert "score_lr" in used("movement", score_lr=1.0) and not used("magnitude", score_lr=1.0)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"score_lr": 0.1}, "score_lr"),
        ({"warmup_steps": 2}, "warmup_steps"),
        ({"cooldown_steps": 2}, "cooldown_steps"),
        ({"density": 0.5}, "density"),
        ({"density": {".*": 0.03}}, "density"),
        ({"scope": "global", "threshold": 0.3}, "scope, threshold"),
        ({"groups": None}, "groups"),
    ],
)
def test_dense_takes_no_pruning_options(task, given, named):
    with pytest.raises(ValueError, match=rf"method='dense' takes no pruning options, got {named}$"):
        short(task, "dense", **({"density": 1.0} | given))


def test_dense_takes_defaults(task):
    assert short(task, "dense", 0.03, steps=2, scope="local", groups="weights", score_lr=None).density == 1.0


# --- values of the wrong type -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"groups": None}, r"groups=None: must be one of weights, .*, or what mvp_lite\.groups makes"),
        ({"groups": 3}, "groups=3: must be one of weights"),
        ({"seed": "x"}, "seed='x': must be an integer"),
        ({"seed": 1.5}, r"seed=1\.5: must be an integer"),
        ({"density": "0.1"}, r"density='0\.1': must be a number"),
        ({"density": torch.ones(2)}, r"density=tensor\(\[1\., 1\.\]\): must be a number"),
        ({"score_lr": "high"}, "score_lr='high': must be a positive learning rate"),
        ({"score_init": "zero"}, "score_init='zero': must be a finite number"),
        ({"score_init": float("nan")}, "score_init=nan: must be a finite number"),
    ],
)
def test_wrong_types_are_named(task, given, message):
    with pytest.raises((TypeError, ValueError), match=message) as one:
        mvp.Pruner(Net(), **({"density": 0.2, "total_steps": 20} | given))
    with pytest.raises(one.type, match=message):
        short(task, **given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"lr": "high"}, "lr='high': must be a positive number"),
        ({"max_norm": None}, "max_norm=None: must be a positive number"),
        ({"batch_size": 8.5}, r"batch_size=8\.5: must be an integer"),
        ({"seed": None}, "seed=None: must be an integer"),
        ({"steps": "ten"}, "steps='ten': must be an integer"),
    ],
)
@pytest.mark.parametrize("method", ["dense", "movement"])
def test_wrong_types_of_the_loop_are_named(task, method, given, message):
    with pytest.raises((TypeError, ValueError), match=message):
        short(task, method, **({"density": 1.0} | given))


def test_numbers_of_numpy_and_torch_are_numbers():
    given = {"density": torch.tensor(0.25), "total_steps": np.int64(20), "warmup_steps": torch.tensor(2),
             "score_lr": np.float32(0.25), "initial_density": np.float64(0.5), "seed": np.int64(7),
             "magnitude_init": torch.tensor(0.5), "score_init": np.float64(1.0)}  # fmt: skip
    plain = {name: value.item() for name, value in given.items()}
    pruners = [mvp.Pruner(Net(), **options) for options in (given, plain)]
    assert pruners[0].settings() == pruners[1].settings()
    assert json.loads(json.dumps(pruners[0].settings())) == pruners[1].settings()
    assert torch.equal(pruners[0].groups[0].scores, pruners[1].groups[0].scores)
