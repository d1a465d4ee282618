"""Scores of groups: against autograd, against the element-wise engine, in every family, and what is refused."""

import copy

import pytest
import torch
from nets import layers
from test_shrink import inputs, make, output, same_weights

import mvp_lite as mvp
from mvp_lite import groups
from mvp_lite.masks import keep_count
from mvp_lite.matrices import find_matrices
from mvp_lite.structure.shrinking import sizes
from mvp_lite.structure.units import find_units

GROUPS = {
    "rows": "rows",
    "columns": "columns",
    "heads": "heads",
    "neurons": "neurons",
    "blocks": groups.blocks(4, 2),
    "mixed": groups.mixed(groups.blocks(2, 4), "neurons"),
    "units": groups.mixed("heads", "neurons"),
}
FAMILIES = ("bert", "distilbert", "gpt2", "llama")


def loss_of(model):
    return model(**inputs(model))[0].square().mean()


def attached(model, method="movement", lr=1e-3, **options):
    options = {"density": 0.5, "total_steps": 24, "warmup_steps": 2, "cooldown_steps": 8} | options
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    return mvp.Pruner(model, method, **options).attach(optimizer), optimizer


def train(model, pruner, optimizer, steps=24):
    model.train()  # l0 samples in training mode only; without dropout, so that runs compare
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    for _ in range(steps):
        loss_of(model).backward()
        optimizer.step()
        optimizer.zero_grad()
    return pruner


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", GROUPS)
def test_gradient_is_that_of_a_continuous_mask(family, name):
    """Autograd of the loss in M, where every weight of a group is multiplied by the same entry of M, at M = 1."""
    model = make(family)
    pruner, _ = attached(model, groups=GROUPS[name])
    loss_of(model).backward()
    found = [group.mask_gradient() for group in pruner.groups]

    twin = make(family)
    M = [torch.ones_like(group.scores, requires_grad=True) for group in pruner.groups]
    replaced = {
        f"{layer.name}.weight": twin.get_submodule(layer.name).weight.detach() * expanded
        for group, m in zip(pruner.groups, M, strict=True)
        for layer, expanded in group.expand(m)
    }
    out = torch.func.functional_call(twin, replaced, kwargs=inputs(twin))[0]
    for grad, m in zip(torch.autograd.grad(out.square().mean(), M), found, strict=True):
        assert grad.shape == m.shape and float(grad.abs().max()) > 0
        torch.testing.assert_close(m, grad, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("name", GROUPS)
def test_every_weight_belongs_to_one_group(name):
    for family in FAMILIES:
        pruner, _ = attached(make(family), groups=GROUPS[name])
        assert len({layer.name for layer in layers(pruner)}) == len(layers(pruner))
        for group in pruner.groups:
            counted = torch.zeros(group.mask.shape, dtype=torch.float64)
            for n in range(group.mask.numel()):
                one = torch.zeros(group.mask.numel(), dtype=torch.bool)
                one[n] = True
                for layer, expanded in group.expand(one.view(group.mask.shape)):
                    assert expanded.shape == layer.weight.shape and expanded.dtype == torch.bool
                    counted.view(-1)[n] += int(expanded.sum())
            assert counted.sum() == sum(layer.weight.numel() for layer, _ in group.expand(group.mask))
            assert counted.min() > 0
        if name in ("heads", "neurons", "units"):
            expected = {"heads": ("heads",), "neurons": ("neurons",), "units": ("heads", "neurons")}[name]
            found = [units for units in find_units(pruner.model) if units.unit_type in expected]
            assert sorted(group.mask.numel() for group in pruner.groups) == sorted(units.count for units in found)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", GROUPS)
def test_magnitude_is_the_sum_of_absolute_weights(family, name):
    for group in mvp.Pruner(make(family), "magnitude", density=0.5, total_steps=10, groups=GROUPS[name]).groups:
        found = group.importance().flatten()
        for n in range(0, found.numel(), 1 + found.numel() // 5):
            one = torch.zeros(found.numel(), dtype=torch.bool)
            one[n] = True
            expected = sum(float(x.weight[mask].abs().sum()) for x, mask in group.expand(one.view(group.mask.shape)))
            assert float(found[n]) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("method", ["magnitude", "movement", "soft_movement", "l0"])
def test_blocks_of_one_weight_are_the_engine_itself(method):
    states = []
    for chosen in ("weights", groups.blocks(1, 1)):
        model = make("bert")
        pruner = train(model, *attached(model, method, groups=chosen, seed=3))
        states.append([(layer.mask.clone(), layer.master.clone(), group.scores) for layer, group in
                       zip(layers(pruner), pruner.groups, strict=True)])  # fmt: skip
    for (mask, master, S), (mask2, master2, S2) in zip(*states, strict=True):
        if method == "l0":  # noise is drawn in the shape of the scores, which here is the same
            torch.testing.assert_close(mask, mask2)
        else:
            assert torch.equal(mask, mask2)
        torch.testing.assert_close(master, master2, rtol=1e-9, atol=1e-12)
        assert (S is None) == (S2 is None)
        if S is not None:
            torch.testing.assert_close(S.detach(), S2.detach(), rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("scope", ["local", "global"])
@pytest.mark.parametrize("method", ["magnitude", "movement", "random"])
@pytest.mark.parametrize("name", GROUPS)
def test_selection_keeps_the_expected_number_of_groups(name, method, scope):
    model = make("bert")
    pruner = train(model, *attached(model, method, groups=GROUPS[name], scope=scope, density=0.3))
    kept, total = [int(group.mask.sum()) for group in pruner.groups], [group.mask.numel() for group in pruner.groups]
    if scope == "local":
        assert kept == [keep_count(n, 0.3) for n in total]
    else:
        sizes = [sum(layer.weight.numel() for layer in g.matrices) // g.mask.numel() for g in pruner.groups]
        for size in set(sizes):  # groups of equally many weights share a budget
            mine = [i for i, other in enumerate(sizes) if other == size]
            assert sum(kept[i] for i in mine) == keep_count(sum(total[i] for i in mine), 0.3)
    for group in pruner.groups:
        ranking = group.importance()
        if scope == "local" and int(group.mask.sum()) < group.mask.numel():
            assert ranking[group.mask].min() >= ranking[~group.mask].max()
        for layer, expanded in group.expand(group.mask):
            assert torch.equal(layer.mask, expanded)
            assert torch.equal(layer.weight.data, layer.master * expanded)
    pruner.finalize()
    assert pruner.density == sum(pruner.report().kept) / sum(layer.weight.numel() for layer in layers(pruner))


@pytest.mark.parametrize("family", FAMILIES)
def test_soft_movement_lands_on_its_share_of_units(family):
    model = make(family)
    options = {"groups": "neurons", "total_steps": 60, "warmup_steps": 5, "cooldown_steps": 20}
    pruner = train(model, *attached(model, "soft_movement", **options), steps=60)
    kept, total = (
        sum(int(group.mask.sum()) for group in pruner.groups),
        sum(group.mask.numel() for group in pruner.groups),
    )
    assert kept == keep_count(total, 0.5)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("method", ["magnitude", "movement", "soft_movement", "l0"])
def test_from_mask_to_smaller_model(family, method, tmp_path):
    model = make(family)
    before = sizes(model)
    pruner = train(model, *attached(model, method, groups="neurons"))
    kept = [max(1, int(group.mask.count_nonzero())) for group in pruner.groups]
    small = mvp.shrink(pruner.finalize().eval())
    assert sizes(small) == {"heads": before["heads"], "neurons": kept}
    assert float((output(small) - output(model)).abs().max()) < 1e-12
    small.save_pretrained(tmp_path)
    loaded = mvp.load_shrunk(tmp_path, dtype=torch.float64).eval()
    assert same_weights(loaded, small)
    assert float((output(loaded) - output(small)).abs().max()) < 1e-12


def test_heads_and_neurons_at_once_shrink():
    model = make("bert")
    train(model, *attached(model, groups=groups.mixed("heads", "neurons"))).finalize()
    assert sizes(mvp.shrink(model)) == {"heads": [2, 2, 2], "neurons": [10, 10, 10]}


@pytest.mark.parametrize("family", ("bert", "gpt2"))
@pytest.mark.parametrize("scope", ["local", "global"])
@pytest.mark.parametrize("method", ["magnitude", "movement"])
def test_two_of_four(family, scope, method):
    model = make(family)
    pruner = train(model, *attached(model, method, groups=groups.n_of_m(4), scope=scope))
    for layer in layers(pruner):
        mask = layer.mask.t() if family == "gpt2" else layer.mask  # (out, in)
        assert bool((mask.reshape(-1, 4).sum(1) == 2).all())
        S = layer.importance().t() if family == "gpt2" else layer.importance()
        inside, kept = S.reshape(-1, 4), mask.reshape(-1, 4)
        lowest, highest = inside.masked_fill(~kept, 9e9).amin(1), inside.masked_fill(kept, -9e9).amax(1)
        assert bool((lowest >= highest).all())


def test_state_goes_on_bit_equal():
    """With groups the optimizer's state carries scores of their own shape and name."""
    chosen = groups.mixed("heads", groups.blocks(4, 4))
    whole = make("bert")
    pruner = train(whole, *attached(whole, groups=chosen))
    half = make("bert")
    first, optimizer = attached(half, groups=chosen)
    train(half, first, optimizer, steps=11)
    saved = copy.deepcopy((half.state_dict(), optimizer.state_dict()))
    other = make("bert", seed=7)
    other.load_state_dict(saved[0])
    second, optimizer = attached(other, groups=chosen)
    optimizer.load_state_dict(saved[1])
    train(other, second, optimizer, steps=13)
    for a, b in zip(pruner.groups, second.groups, strict=True):
        assert torch.equal(a.mask, b.mask) and torch.equal(a.scores, b.scores)
    _, optimizer = attached(make("bert"), groups="rows")
    with pytest.raises(ValueError, match="does not fit"):
        optimizer.load_state_dict(saved[1])


def test_fine_prune_takes_groups(device):
    task = mvp.load_task("toy/inference", limit=200)
    result = mvp.fine_prune(
        mvp.load_model("toy", task),
        task,
        density=0.25,
        steps=20,
        batch_size=8,
        lr=1e-4,
        groups="neurons",
        progress=False,
    )
    before = sizes(mvp.load_model("toy", task))
    small = mvp.shrink(result.model)
    assert sizes(small) == {"heads": before["heads"], "neurons": [n // 4 for n in before["neurons"]]}
    assert result.density == pytest.approx(0.25) and len(result.report) == 2 * len(before["neurons"])
    assert next(small.parameters()).device.type == torch.device(device).type


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": "head"}, r"groups='head': must be one of weights, rows, columns, heads, neurons"),
        ({"groups": groups.blocks(5, 4)}, r"shape \(24, 24\) .*tiled by blocks of 5 x 4"),
        ({"groups": groups.n_of_m(7)}, "1 x 7"),
        ({"groups": groups.n_of_m(4), "method": "soft_movement"}, "n:m patterns need top-v selection"),
        (
            {"groups": "heads", "target": "query"},
            r"groups='heads': .*attention\.self is pruned whole .*attention\.self\.key",
        ),
        ({"groups": "neurons", "target": "query"}, "has no neurons"),
    ],
)
def test_bad_groups_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        attached(make("bert"), **options)


def test_families_without_known_heads_still_have_rows_and_blocks():
    net = torch.nn.ModuleDict({"blocks": torch.nn.ModuleList([torch.nn.Linear(8, 8)])})
    with pytest.raises(ValueError, match="model type None"):
        mvp.Pruner(net, density=0.5, total_steps=10, groups="heads")
    assert mvp.Pruner(net, density=0.5, total_steps=10, groups="rows").groups[0].mask.shape == (8,)
    assert mvp.Pruner(net, density=0.5, total_steps=10, groups=groups.blocks(4, 2)).groups[0].mask.shape == (2, 4)


@pytest.mark.parametrize(
    ("make_groups", "message"),
    [
        (lambda: groups.blocks(0, 4), "height=0: must be an integer of at least 1"),
        (lambda: groups.blocks(4, 2.0), r"width=2\.0: must be an integer of at least 1"),
        (lambda: groups.n_of_m(True), "m=True: must be an integer of at least 1"),
        (lambda: groups.mixed(), r"mixed\(\): give groups for attention, ffn or both"),
    ],
)
def test_groups_that_nothing_could_have(make_groups, message):
    with pytest.raises(ValueError, match=message):
        make_groups()


# -- one matrix, by hand ----------------------------------------------------------------------------------------------


def made_by(maker, W, module=None):
    """The only `WeightGroups` that a maker finds in a model with one linear layer."""
    module = torch.nn.Linear(W.shape[1], W.shape[0]) if module is None else module
    module.weight = torch.nn.Parameter(W)
    net = torch.nn.ModuleDict({"map": module})
    (found,) = maker(net, find_matrices(net, "map"))
    assert found.name == "map"
    return found


@pytest.mark.parametrize("transposed", [False, True])
def test_a_row_is_an_output_and_a_column_an_input(transposed):
    """Whichever way round the weight is stored."""
    W = torch.tensor([[1.0, -2.0, 3.0], [4.0, 5.0, -6.0]])  # two outputs, three inputs
    stored, module = (W.t().contiguous(), make("gpt2").transformer.h[0].mlp.c_fc) if transposed else (W, None)
    assert made_by(groups.rows, stored, module).importance().tolist() == [6.0, 15.0]
    assert made_by(groups.columns, stored, module).importance().tolist() == [5.0, 7.0, 9.0]
    kept = made_by(groups.rows, stored, module).expand(torch.tensor([False, True]))[0][1]
    assert (kept.t() if transposed else kept).tolist() == [[False] * 3, [True] * 3]


def test_a_pattern_ranks_the_best_first_and_equal_ones_by_position():
    W = torch.tensor([[0.3, -0.4, 0.2, 0.5, 0.5, -0.5], [0.0, 0.1, 0.2, -0.3, 0.2, 0.1]], dtype=torch.float64)
    found = made_by(groups.n_of_m(3), W)
    assert found.importance().tolist() == [[-1, 0, -2, 0, -1, -2], [-2, -1, 0, 0, -1, -2]]
    assert found.importance().dtype == torch.float64
    found.scores = -W
    assert found.importance()[1].tolist() == [0, -1, -2, 0, -2, -1], "scores, where there are any"


@pytest.mark.parametrize("density", [0.25, 0.75, 1.0])
def test_a_pattern_takes_every_integer_n(density):
    made_by(groups.n_of_m(4), torch.ones(2, 8)).check_density(density)


def test_a_pattern_needs_one_weight_at_least():
    with pytest.raises(ValueError, match="n_of_m"):
        made_by(groups.n_of_m(4), torch.ones(2, 8)).check_density(1e-8)


def test_blocks_tile_both_sides():
    with pytest.raises(ValueError, match="3 x 1"):
        made_by(groups.blocks(3, 1), torch.ones(4, 6))
    with pytest.raises(ValueError, match="1 x 4"):
        made_by(groups.blocks(1, 4), torch.ones(4, 6))


def test_scores_are_ranked_where_there_are_any():
    found = made_by(groups.weights, torch.ones(2, 2))
    assert found.scores is None
    found.scores = torch.tensor([[3.0, 1.0], [2.0, -1.0]])
    assert torch.equal(found.importance(), found.scores)


def test_without_a_gradient_there_is_none_of_the_mask():
    found = made_by(groups.rows, torch.ones(2, 2))
    found.scores = torch.zeros(2)
    assert found.mask_gradient() is None


def test_gradients_of_masks_have_the_precision_of_the_scores():
    G, W = torch.tensor([[1.01, 0.3]]).bfloat16(), torch.tensor([[1.03, 7.1]]).bfloat16()
    found = made_by(groups.weights, W)
    found.scores = torch.zeros(1, 2)
    found.matrices[0].weight.grad = G
    assert torch.equal(found.mask_gradient(), G.float() * W.float())


def test_gates_take_the_precision_of_the_weight():
    found = made_by(groups.weights, torch.ones(1, 2).bfloat16())
    found.set_mask(torch.tensor([[0.5, 0.0]]))
    assert found.matrices[0].mask.dtype == torch.bfloat16 and found.matrices[0].weight.tolist() == [[0.5, 0.0]]


def test_groups_follow_the_model_to_another_device():
    found = made_by(groups.rows, torch.ones(2, 2))
    (matrix,) = found.matrices
    matrix.weight = torch.nn.Parameter(torch.ones(2, 2, device="meta"))
    found.to_device()
    assert {tensor.device.type for tensor in (found.mask, matrix.master, matrix.mask)} == {"meta"}


def test_a_description_may_leave_out_the_names():
    assert groups.describe(groups.find_described("blocks(4, 8)")) == "blocks(height=4, width=8)"


def test_a_text_that_describes_nothing_is_told_what_would():
    allowed = "one of weights, rows, columns, heads, neurons, or a call of blocks, n_of_m, mixed$"
    with pytest.raises(ValueError, match=f"^groups='cells': must be {allowed}"):
        groups.find_described("cells")
