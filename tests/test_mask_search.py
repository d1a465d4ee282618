"""Masks from labels: gradients by three routes, search, rearrangement and swaps against brute force, and refusals."""

import copy
import itertools

import pytest
import torch
from test_gradient_free import CLOSE, ONE_LENGTH, best_scales
from test_shrink import inputs, make, output

import mvp_lite as mvp
from mvp_lite.gradient_free import operations, prune_neurons
from mvp_lite.gradient_free.mask_search import fisher_importance, mask_gradients, rearrange, search, swap
from mvp_lite.structure.shrinking import sizes
from mvp_lite.structure.units import FAMILIES, find_units

CHAT = ("gpt2", "llama", "mistral", "qwen2")
#: families that compute the loss, or a norm, in float32 whatever the model's dtype
FLOAT32 = (*CHAT, "deberta-v2", "t5", "mt5")


def labeled(model, seed=0):
    """The batch of `inputs` with labels of the model's type."""
    batch = inputs(model)
    if model.config.is_encoder_decoder:
        return batch | {"labels": batch["decoder_input_ids"]}
    if model.config.model_type in CHAT:
        return batch | {"labels": batch["input_ids"]}
    if model.config.model_type == "distilbert":  # a head for spans
        return batch | {"start_positions": torch.tensor([1, 2]), "end_positions": torch.tensor([3, 2])}
    return batch | {"labels": torch.tensor([1, 0])}


def gradients(batches, n, seed=0):
    return torch.randn(batches, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def scaled(model, units, m):
    """A copy whose units' columns are multiplied by m: what a gate does, without a gate."""
    changed = copy.deepcopy(model)
    (same,) = [one for one in find_units(changed) if one.name == units.name and one.unit_type == units.unit_type]
    along = m.repeat_interleave(same.columns.size)
    same.columns.module.weight.data *= along[:, None] if same.columns.dim == 0 else along
    return changed


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_finite_differences_and_those_of_the_columns(family):
    """dL/dm is the slope when a unit's columns are scaled, and the sum over its columns of gradient times weight."""
    model = make(family)
    batch = labeled(model)
    found = mask_gradients(model, [batch], heads=True)
    assert len(found) == len(find_units(model)) and all(p.grad is None for p in model.parameters())
    for units, g in zip(find_units(model), found, strict=True):
        assert g.shape == (1, units.count)
        wiggle = torch.linspace(-1, 1, units.count, dtype=torch.float64)
        step = 1e-2 if family in FLOAT32 else 1e-5
        with torch.no_grad():
            up, down = (float(scaled(model, units, 1 + h * wiggle)(**batch).loss) for h in (step, -step))
        slack = 1e-3 if family in FLOAT32 else 1e-8
        assert float(g[0] @ wiggle) == pytest.approx((up - down) / (2 * step), rel=1e-4, abs=slack)
    by_weights = copy.deepcopy(model)
    by_weights(**batch).loss.backward()
    for units, g in zip(find_units(by_weights), found, strict=True):
        W = units.columns.module.weight
        expected = units.columns.by_unit(W * W.grad, units.count).sum(1)
        torch.testing.assert_close(g[0], expected, rtol=1e-6, atol=1e-6 * expected.abs().max().item())


def test_one_row_of_gradients_for_each_batch_and_neurons_alone_by_default():
    model = make("bert")
    whole = labeled(model)
    apart = [{name: value[i : i + 1] for name, value in whole.items()} for i in range(2)]
    (first, second), both = mask_gradients(model, apart)[0], mask_gradients(model, [whole])
    assert len(both) == 3
    torch.testing.assert_close(both[0][0], (first + second) / 2, rtol=1e-9, atol=1e-12)  # the loss is a mean
    importance = fisher_importance(torch.stack([first, second]))
    torch.testing.assert_close(importance, first**2 + second**2)
    assert float((fisher_importance(both[0]) - importance).abs().max()) > 1e-3 * float(importance.max())


def test_padding_is_not_seen():
    model = make("bert")
    row = {name: value[1:2] for name, value in labeled(model).items()}  # five tokens and two of padding
    short = {name: value[:, :5] if value.ndim == 2 else value for name, value in row.items()}
    for a, b in zip(*(mask_gradients(model, [batch], heads=True) for batch in (row, short)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_the_model_is_left_alone():
    model = make("bert")
    model.train()
    model.bert.encoder.layer[0].eval()
    for p in model.bert.embeddings.parameters():
        p.requires_grad_(False)
    modes, before = [module.training for module in model.modules()], copy.deepcopy(model.state_dict())
    with torch.no_grad():
        first, second = (mask_gradients(model, [labeled(model)], heads=True) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))  # no dropout
    assert [module.training for module in model.modules()] == modes and all(p.grad is None for p in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    with pytest.raises(ValueError, match="lacks labels"):
        mask_gradients(model, [inputs(model)])
    assert not any(module._forward_pre_hooks for module in model.modules())


def best_by_hand(neurons, per_neuron, budget, heads, per_head, floor):
    """Largest importance of any choice of units within the budget; with `floor` at least one in each layer."""
    pools = [*neurons, *heads]
    importance = torch.cat(pools)
    cost = torch.cat([torch.full_like(pool, per_neuron) for pool in neurons]
                     + [torch.full_like(pool, per_head) for pool in heads])  # fmt: skip
    every = torch.tensor(list(itertools.product([0.0, 1.0], repeat=len(importance))), dtype=torch.float64)
    counts = torch.stack([layer.sum(1) for layer in every.split([len(pool) for pool in pools], dim=1)], dim=1)
    allowed = every @ cost <= budget + 1e-9
    if floor:
        allowed &= (counts >= 1).all(1)
    return float((every @ importance)[allowed].max())


@pytest.mark.parametrize("per_head", [1.0, 2.5, 4.0])
def test_search_is_the_best_choice_there_is(per_head):
    fewer_than_layers = 0
    for seed in range(4):
        neurons = [gradients(1, n, seed + 10 * n)[0].square() for n in (3, 3)]
        heads = [gradients(1, n, seed + 70 * n)[0].square() * 2 for n in (2, 2)]
        for budget in (1.0, per_head, 2 + 2 * per_head, 4 + 2 * per_head, 3 + 3 * per_head, 6 + 4 * per_head):
            for density in (0.0, 0.3):  # 0.3 of either type of layer is one unit
                if density and budget < 2 + 2 * per_head:
                    continue
                kept, kept_heads = search(neurons, 1.0, budget, heads, per_head, density)
                got = sum(float(p[m].sum()) for p, m in zip([*neurons, *heads], [*kept, *kept_heads], strict=True))
                counts = [sum(int(m.sum()) for m in masks) for masks in (kept, kept_heads)]
                assert counts[0] + per_head * counts[1] <= budget + 1e-9
                expected = best_by_hand(neurons, 1.0, budget, heads, per_head, floor=density > 0)
                assert got == pytest.approx(expected)
                fewer_than_layers += min(counts) < 2
                if density:
                    assert all(bool(m.any()) for m in [*kept, *kept_heads])
    assert fewer_than_layers >= 8  # without min_density a layer may lose all its units


def test_search_of_neurons_alone_and_its_errors():
    neurons = [torch.tensor([5.0, 1.0, 3.0]), torch.tensor([4.0, 2.0, 0.5])]
    masks, none = search(neurons, 2.0, 7.0)
    assert none == [] and [mask.tolist() for mask in masks] == [[True, False, True], [True, False, False]]
    everything = search(neurons, 2.0, 100.0, [torch.zeros(2), torch.zeros(2)], 1.0)
    assert all(bool(mask.all()) for part in everything for mask in part)  # heads without importance stay if they can
    weak = [torch.tensor([5.0, 4.0, 3.0]), torch.tensor([0.1, 0.3, 0.2])]
    assert [mask.tolist() for mask in search(weak, 1.0, 3.0)[0]] == [[True] * 3, [False] * 3]
    floored = search(weak, 1.0, 3.0, min_density=0.3)[0]
    assert [mask.tolist() for mask in floored] == [[True, True, False], [False, True, False]]
    assert [mask.tolist() for mask in search(neurons, 2.0, 3.0)[0]] == [[True, False, False], [False] * 3]
    with pytest.raises(ValueError, match=r"budget=3: the units that min_density=0\.3 guarantees take 4"):
        search(neurons, 2.0, 3.0, min_density=0.3)
    with pytest.raises(ValueError, match=r"budget=5: .* take 8"):
        search(neurons, 2.0, 5.0, min_density=0.6)
    with pytest.raises(ValueError, match="min_density=2"):
        search(neurons, 2.0, 5.0, min_density=2.0)
    with pytest.raises(ValueError, match="NaN"):
        search([torch.full((3,), torch.nan)], 1.0, 5.0)


def objective(mask, g):
    return float(g[:, ~mask].sum(1).square().sum())


def test_rearranging_is_the_greedy_walk():
    for seed in range(20):
        g = gradients(3, 9, seed)
        rising = g.square().sum(0).argsort().tolist()
        pruned = rising[:4]
        for unit in rising[4:]:
            sets = [[one for one in [*pruned, unit] if one != out] for out in [*pruned, unit]]
            pruned = min(sets, key=lambda gone: float(g[:, gone].sum(1).square().sum()))
        mask = torch.ones(9, dtype=torch.bool)
        mask[rising[:4]] = False
        found = rearrange(mask, g)
        assert sorted(pruned) == (~found).nonzero()[:, 0].tolist()


def test_rearranging_never_does_worse_and_finds_a_pair_that_cancels():
    better = 0
    for seed in range(40):
        g, n = gradients(2, 8, seed), 1 + seed % 6
        start = torch.rand(8, generator=torch.Generator().manual_seed(seed)).argsort() < n
        found = rearrange(start, g)
        best = min(objective(torch.tensor([i in kept for i in range(8)]), g)
                   for kept in itertools.combinations(range(8), n))  # fmt: skip
        assert int(found.sum()) == n and best - 1e-12 <= objective(found, g) <= objective(start, g) + 1e-12
        better += objective(found, g) < objective(start, g) - 1e-9
    assert better > 20
    g = torch.tensor([[1.0, 1.1, 3.0, -3.0]])
    start = torch.tensor([False, False, True, True])  # the smallest ones; the two large ones add up to 0
    assert objective(rearrange(start, g), g) < objective(start, g)
    one = gradients(5, 6)
    weakest = one.square().sum(0) > one.square().sum(0).min()
    assert torch.equal(rearrange(weakest, one), weakest)  # for one unit the diagonal is all there is
    everything = torch.ones(6, dtype=torch.bool)
    assert torch.equal(rearrange(everything, one), everything)
    with pytest.raises(ValueError, match="booleans"):
        rearrange(everything.float(), one)


@pytest.mark.parametrize("by", ["magnitude", "gradient", "loss"])
def test_swaps_raise_the_total_until_one_would_not(by):
    criterion = {"magnitude": torch.abs, "gradient": lambda g: g, "loss": lambda g: -g}[by]
    for seed in range(20):
        g = [gradients(2, n, seed + n) for n in (6, 5)]
        scores = [gradients(1, n, seed + 50 + n)[0] for n in (6, 5)]
        masks = [score > 0 for score in scores]
        w, score, kept = criterion(torch.cat(g, 1).sum(0)), torch.cat(scores), torch.cat(masks)
        going, coming = kept.nonzero()[:, 0].tolist(), (~kept).nonzero()[:, 0].tolist()
        going.sort(key=lambda i: float(score[i]))
        coming.sort(key=lambda i: -float(w[i]))
        expected = kept.clone()
        for out, new in zip(going, coming, strict=False):
            if w[new] <= w[out]:
                break
            before = float(w[expected].sum())
            expected[out], expected[new] = False, True
            assert float(w[expected].sum()) > before
        found = swap(masks, scores, g, by)
        assert torch.equal(torch.cat(found), expected) and [len(mask) for mask in found] == [6, 5]
    with pytest.raises(ValueError, match="by='weight': must be one of magnitude, gradient, loss"):
        swap(masks, scores, g, "weight")


def test_units_with_equal_gradients_are_not_exchanged():
    """An exchange has to raise the total; the first that does not is the last that is tried."""
    mask, score = torch.tensor([True, True, False, False]), torch.tensor([2.0, 1.0, 0.5, 0.0])
    for g, expected in (
        ([3.0, 3.0, 3.0, 3.0], [True, True, False, False]),
        ([3.0, 1.0, 1.0, 1.0], [True, True, False, False]),
        ([3.0, 1.0, 3.0, 1.0], [True, False, True, False]),  # and then 3 against 1
        ([3.0, 1.0, 3.0, 3.0], [True, False, True, False]),  # and then 3 against 3
        ([2.0, 3.0, 3.0, 3.0], [True, True, False, False]),  # the second would raise it, the first does not
    ):
        assert torch.cat(swap([mask], [score], [torch.tensor([g])])).tolist() == expected
    batches = torch.tensor([[1.0, 1.0, 5.0, 0.0], [1.0, 1.0, -3.0, 0.0]])  # 2, 2, 2 and 0 in sum
    assert torch.equal(swap([mask], [score], [batches])[0], mask)


@pytest.mark.parametrize("family", ONE_LENGTH)
@pytest.mark.parametrize("heads", [False, True])
def test_fisher_keeps_its_budget_and_can_be_shrunk(family, heads):
    model = make(family)
    before = copy.deepcopy(model.state_dict())
    pruned = prune_neurons(
        model, [inputs(model)], 0.8, "fisher", labeled=[labeled(model)], heads=heads, min_density=0.1
    )
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    costs = operations(model, pruned.length)
    total = costs["heads"] + costs["neurons"]
    assert 0.8 - costs["per_neuron"][0] / total < pruned.flops <= 0.8 + 1e-9
    small = mvp.shrink(pruned.model)
    kept = {"neurons": [int(m.sum()) for m in pruned.masks], "heads": [int(m.sum()) for m in pruned.heads]}
    assert sizes(small) == kept and pruned.report["heads"].tolist() == kept["heads"]
    assert float((output(small) - output(pruned.model)).abs().max()) < 1e-12
    left = operations(small, pruned.length)
    assert (left["heads"] + left["neurons"]) / total == pytest.approx(pruned.flops)
    if not heads:
        assert kept["heads"] == sizes(model)["heads"]
    for scale, mask in zip([*pruned.scales, *pruned.head_scales], [*pruned.masks, *pruned.heads], strict=True):
        assert bool((scale != 0).eq(mask).all())


def test_fisher_is_search_then_rearrangement_in_each_layer():
    model = make("bert")
    batches = [{name: value[i : i + 1] for name, value in labeled(model).items()} for i in range(2)]
    pruned = prune_neurons(model, [inputs(model)], 0.8, "fisher", labeled=batches, heads=True, min_density=0.1)
    g = mask_gradients(model, batches, heads=True)
    costs = operations(model, pruned.length)
    importance = [fisher_importance(x) for x in g]
    budget = 0.8 * (costs["heads"] + costs["neurons"])
    found = search(importance[1::2], costs["per_neuron"][0], budget, importance[::2], costs["per_head"][0], 0.1)
    changed = 0
    for masks, expected, layers in zip((pruned.masks, pruned.heads), found, (g[1::2], g[::2]), strict=True):
        for mask, searched, x in zip(masks, expected, layers, strict=True):
            assert torch.equal(mask, rearrange(searched, x))
            changed += not torch.equal(mask, searched)
    assert changed


def test_fisher_prunes_heads_where_they_matter_least():
    model = make("bert")
    units = find_units(model)
    units[2].columns.module.weight.data[:, : 2 * units[2].columns.size] *= 1e-4  # the second layer's first two heads
    given = {"labeled": [labeled(model)], "min_density": 0.05}
    pruned = prune_neurons(model, [inputs(model)], 0.9, "fisher", heads=True, **given)
    assert pruned.heads[1].tolist() == [False, False, True, True]
    alone = prune_neurons(model, [inputs(model)], 0.9, "fisher", **given)
    assert sum(int(m.sum()) for m in alone.masks) < sum(int(m.sum()) for m in pruned.masks)
    importance = map(fisher_importance, mask_gradients(model, given["labeled"]))
    assert all(torch.equal(a, b) for a, b in zip(importance, alone.scores, strict=True))


def test_scales_of_heads_are_least_squares():
    """In block 0 both models see the same input: brute force over what each head adds."""
    model = make("bert")
    given = {"labeled": [labeled(model)], "heads": True, "min_density": 0.05, "ridge": 1e-9}
    pruned = prune_neurons(model, [inputs(model)], 0.6, "fisher", **given)
    units, mask = find_units(model)[0], pruned.heads[0]
    assert not bool(mask.all())
    seen = {}
    units.columns.module.register_forward_pre_hook(lambda module, args: seen.update(H=args[0]))
    output(model)
    H = seen["H"][inputs(model)["attention_mask"].bool()].view(-1, units.count, units.columns.size)
    W = units.columns.by_unit(units.columns.module.weight.detach(), units.count).view(units.count, H.shape[2], -1)
    parts = torch.einsum("tns,nsd->ntd", H, W).reshape(units.count, -1)
    expected = torch.linalg.lstsq(parts[mask].T, parts.sum(0)).solution
    torch.testing.assert_close(pruned.head_scales[0][mask].double(), expected, **CLOSE)
    plain = prune_neurons(model, [inputs(model)], 0.6, "fisher", **given, scale=False)
    assert all(bool((scale[mask] == 1).all()) for scale, mask in zip(plain.head_scales, plain.heads, strict=True))


@pytest.mark.parametrize("family", ["bert", "distilbert", "gpt2", "llama"])
def test_every_layers_scales_account_for_those_before(family):
    """Heads and neurons, residual included: that of heads is the block's own input, which differs from block 1 on."""
    model = make(family)
    given = {"labeled": [labeled(model)], "heads": True, "min_density": 0.05, "ridge": 1e-9}
    pruned = prune_neurons(model, [inputs(model)], 0.7, "fisher", **given)
    assert any(not bool(mask.all()) for mask in pruned.heads[1:])
    for n, layer in enumerate(pruned.layers):
        torch.testing.assert_close(layer.scales[layer.mask].double(), best_scales(model, pruned, n), **CLOSE)


def test_labels_change_which_neurons_kcm_keeps():
    model = make("bert")
    plain, helped = (
        prune_neurons(model, [inputs(model)], 0.8, labeled=given, min_density=0.0) for given in (None, [labeled(model)])
    )
    g = mask_gradients(model, [labeled(model)])
    assert all(torch.equal(a, b) for a, b in zip(helped.masks, swap(plain.masks, plain.scores, g), strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(helped.masks, plain.masks, strict=True))
    assert helped.flops == plain.flops and any(bool((scale != 1).any()) for scale in helped.scales)


def test_a_trained_classifier_and_a_span_model_can_be_pruned(device):
    """Real batches, padding and all; on the toy's two kinds of task."""
    for name in ("toy/inference", "toy/qa"):
        task = mvp.load_task(name, limit=64)
        model = mvp.load_model("toy", task).to(device)
        batches = list(task.encode(mvp.tokenizer_for(model)).batches("train", 16, seed=0, steps=2, device=device))
        pruned = prune_neurons(model, batches, 0.7, "fisher", labeled=batches, heads=True)
        assert pruned.flops == pytest.approx(0.7, abs=0.005) and pruned.model.device == model.device


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "fisher"}, "labeled=None: method='fisher' needs batches with labels"),
        ({"method": "fisher", "labeled": []}, "labeled is empty"),
        ({"method": "r2", "labeled": "real"}, "labeled: method='r2' has no use for labels"),
        ({"method": "kcm", "labeled": "none"}, "labeled: batch 0 gives no loss; it holds input_ids, attention_mask"),
        ({"method": "kcm", "labeled": "nan"}, "labeled: batch 0 has a loss of nan"),
        ({"method": "kcm", "heads": True}, "heads=True: method='kcm' scores neurons alone"),
        ({"method": "fisher", "labeled": "real", "flops": 0.3}, r"flops=0\.3: without pruning heads at least 0\.7"),
        ({"method": "fisher", "labeled": "real", "heads": True, "flops": 0.1}, r"flops=0\.1: with one head in each"),
        (
            {"method": "kcm", "labeled": "real", "swap_by": "luck"},
            "swap_by='luck': must be one of magnitude, gradient, loss",
        ),
        ({"method": "fisher", "labeled": "real", "min_density": 0.9}, r"min_density=0\.9"),
    ],
)
def test_bad_input_is_named(options, message):
    model = make("bert")
    if options.get("labeled") == "nan":
        model.classifier.bias.data[:] = torch.nan
    batches = {"real": [labeled(model)], "none": [inputs(model)], "nan": [labeled(model)]}
    given = {"flops": 0.8, "min_density": 0.05} | options
    if given.get("labeled"):
        given["labeled"] = batches[given["labeled"]]
    with pytest.raises(ValueError, match=message):
        prune_neurons(model, [inputs(model)], **given)


def test_layers_without_heads_are_refused():
    model = make("bert")
    find_units(model)[2].columns.module.weight.data.mul_(1e-6)
    given = {"method": "fisher", "labeled": [labeled(model)], "heads": True}
    with pytest.raises(ValueError, match=r"layer\.1\.attention\.self would lose all its heads at flops=0\.6: give min"):
        prune_neurons(model, [inputs(model)], 0.6, **given)
    kept = prune_neurons(model, [inputs(model)], 0.6, **given, min_density=0.05).heads
    assert int(kept[1].sum()) == 1


def test_an_exchange_leaves_what_a_layer_is_guaranteed():
    """All gradients are outside the first layer, so every exchange would take a unit from it."""
    masks = [torch.tensor([True, True, True, False]), torch.tensor([True, False, False, False])]
    scores = [torch.tensor([0.3, 0.2, 0.1, 0.0]), torch.tensor([0.9, 0.5, 0.4, 0.3])]
    g = [torch.zeros(1, 4), torch.tensor([[0.0, 3.0, 2.0, 1.0]])]
    assert [int(mask.sum()) for mask in swap(masks, scores, g)] == [0, 4]
    assert [mask.tolist() for mask in swap(masks, scores, g, min_density=0.25)] == [
        [True, False, False, False], [True, True, True, False]
    ]  # fmt: skip
