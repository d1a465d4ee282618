"""R2, D2, KCM: each formula against a slow way, budgets, padding, every family, and what is refused."""

import copy
import math
import re

import pytest
import torch
import transformers as hf
from test_shrink import COMMON, inputs, make, output
from torch.utils.flop_counter import FlopCounterMode

import mvp_lite as mvp
from mvp_lite.gradient_free import (
    METHODS,
    Ranking,
    d2_scores,
    kcm,
    operations,
    prune_neurons,
    r2_scores,
    scaling,
    solve_scales,
)
from mvp_lite.gradient_free.batches import real_tokens
from mvp_lite.gradient_free.d2 import NORMALIZATIONS
from mvp_lite.gradient_free.layer import find_layers, of_type
from mvp_lite.structure.shrinking import sizes
from mvp_lite.structure.units import FAMILIES, find_units

#: families whose layers all read sequences of one length
ONE_LENGTH = [family for family in FAMILIES if family not in ("t5", "mt5")]
#: the fit's tolerance
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def rows(n, d, seed=0):
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def ffns(model):
    return [units for units in find_units(model) if units.unit_type == "neurons"]


def passing(model):
    """Of each layer of `find_units`, in one forward pass: H enters its outgoing map, `total` is the sum behind it."""
    model = copy.deepcopy(model)
    layers = find_units(model)
    seen = [{} for _ in layers]
    for units, found in zip(layers, seen, strict=True):

        def first(module, args, found=found):
            found["x"] = args[0]

        def outgoing(module, args, out, found=found):
            found["H"], found["out"] = args[0], out

        def block(module, args, kwargs, out, found=found):
            found["before"] = args[0] if args else kwargs["hidden_states"]
            found["after"] = out[0] if isinstance(out, tuple) else out

        units.rows[0].module.register_forward_pre_hook(first)
        units.columns.module.register_forward_hook(outgoing)
        model.get_submodule(units.block).register_forward_hook(block, with_kwargs=True)
    output(model)
    for units, found in zip(layers, seen, strict=True):
        if units.unit_type == "heads":
            found["total"] = found["before"] + found["out"]
        elif model.config.model_type in ("gpt2", "vit", "llama", "mistral", "qwen2"):
            found["total"] = found["after"]
        else:
            found["total"] = found["x"] + found["out"]
    return seen


def best_scales(model, pruned, n):
    """Least squares over what each unit of layer n that stays adds, residual included, by brute force."""
    layer, units = pruned.layers[n], find_units(model)[n]
    dense, small = passing(model)[n], passing(pruned.model)[n]
    real = real_tokens(small["H"], inputs(model))
    H = small["H"][real].view(int(real.sum()), units.count, -1)  # (tokens, n, size)
    W = units.columns.by_unit(units.columns.module.weight.detach(), units.count).view(units.count, H.shape[2], -1)
    added = torch.einsum("tns,nsd->ntd", H, W).reshape(units.count, -1)
    missing = (dense["total"] - small["total"])[real].reshape(-1) + layer.scales.double() @ added
    return torch.linalg.lstsq(added[layer.mask].T, missing).solution


def slow_r2(W, sigma, alpha, stop, half):
    """Algorithm 2 entry by entry."""
    N = len(W)
    scale = 2 * sigma**2 if half else sigma**2
    K = [[math.exp(-float((W[i] - W[j]).square().sum()) / scale) for j in range(N)] for i in range(N)]
    C = [[1 / N] * N for _ in range(N)]
    for steps in range(1, 1000):
        KC = [[sum(K[i][k] * C[k][j] for k in range(N)) for j in range(N)] for i in range(N)]
        new = [[C[i][j] * math.sqrt(K[i][j] / KC[i][j]) for j in range(N)] for i in range(N)]
        old_sum, new_sum = (sum(map(sum, M)) for M in (C, new))
        moved = sum(abs(new[i][j] - C[i][j]) for i in range(N) for j in range(N))
        C = new
        change = {"printed": new_sum - old_sum, "absolute": abs(new_sum - old_sum), "entrywise": moved}[stop] / old_sum
        if change <= alpha:
            return torch.tensor([C[i][i] for i in range(N)], dtype=torch.float64), steps


@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize("stop", ["printed", "absolute", "entrywise"])
def test_r2_is_the_algorithm(stop, half):
    for sigma in (0.7, 2.0):
        W = rows(7, 3)
        found, steps = r2_scores(W, sigma=sigma, stop=stop, half=half, alpha=0.02)
        expected, slow_steps = slow_r2(W, sigma, 0.02, stop, half)
        assert steps == slow_steps
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-13)


def test_the_printed_rule_ends_after_one_step():
    """Each column's sum falls in the first step, for any kernel: by Jensen's inequality."""
    for seed in range(200):
        sigma = 10 ** (seed / 100 - 1)
        found, steps = r2_scores(rows(12, 4, seed), sigma=sigma, stop="printed")
        assert steps == 1
        K = torch.exp(-torch.cdist(rows(12, 4, seed), rows(12, 4, seed)).square() / (2 * sigma**2))
        torch.testing.assert_close(found, 1 / (12 * K.mean(1).sqrt()), rtol=1e-9, atol=0)


def test_run_to_its_end_every_score_is_one():
    found, _ = r2_scores(rows(10, 6), sigma=1.0, alpha=0.0, max_iterations=5000)
    torch.testing.assert_close(found, torch.ones_like(found), rtol=0, atol=1e-2)


def test_copies_score_lower():
    W = rows(20, 6)
    W[10:] = W[:1] + 1e-3 * W[10:]
    found, _ = r2_scores(W)
    assert found[1:10].min() > found[10:].max()


def test_sigma_by_default_is_the_median_distance():
    W = rows(9, 4)
    distances = [float((W[i] - W[j]).norm()) for i in range(9) for j in range(9) if i != j]
    middle = sorted(distances)[(len(distances) - 1) // 2]
    torch.testing.assert_close(r2_scores(W, sigma=None)[0], r2_scores(W, sigma=middle)[0], rtol=1e-12, atol=0)
    far, _ = r2_scores(W.float(), sigma=1e-3)  # the kernel underflows to the identity
    assert bool(far.isfinite().all())


@pytest.mark.parametrize(
    ("W", "options", "message"),
    [
        (torch.zeros(1, 3), {}, "at least 2 rows"),
        (torch.full((3, 3), math.nan), {}, "finite"),
        (torch.zeros(3, 3), {"sigma": 0.0}, r"sigma=0\.0"),
        (torch.zeros(3, 3), {"stop": "never"}, "stop='never'"),
    ],
)
def test_bad_arguments_of_r2(W, options, message):
    with pytest.raises(ValueError, match=message):
        r2_scores(W, **options)


def test_d2_is_the_mean_over_real_tokens():
    model, batch = make("bert"), inputs(make("bert"))
    seen = []
    for units in ffns(model):
        units.columns.module.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    output(model)
    real = batch["attention_mask"].bool()
    for statistic, f in {"mean": lambda h: h.mean(0), "abs": lambda h: h.abs().mean(0)}.items():
        for found, H in zip(d2_scores(model, [batch], statistic=statistic), seen[:3], strict=True):
            torch.testing.assert_close(found, f(H[real]))
    rms = d2_scores(model, [batch], statistic="rms")
    torch.testing.assert_close(rms[0], seen[0][real].square().mean(0).sqrt())
    with pytest.raises(ValueError, match="statistic='median'"):
        d2_scores(model, [batch], statistic="median")


def test_padding_and_batching_change_nothing():
    model, batch = make("bert"), inputs(make("bert"))
    apart = [{name: value[i : i + 1] for name, value in batch.items()} for i in range(2)]
    short = {name: value[:, :5] for name, value in apart[1].items()}  # its last two tokens are padding
    found = [prune_neurons(model, given, flops=0.8) for given in ([batch], apart, [apart[0], short])]
    for other in found[1:]:
        assert other.length == found[0].length == 6.0
        for a, b in zip(found[0].masks, other.masks, strict=True):
            assert torch.equal(a, b)
        for a, b in zip(found[0].scales, other.scales, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_operations_are_those_a_counter_finds(family):
    if family == "bert":
        model = hf.BertModel(hf.BertConfig(**COMMON, attn_implementation="eager"), add_pooling_layer=False)
    else:
        model = hf.LlamaModel(hf.LlamaConfig(**COMMON, num_key_value_heads=2, attn_implementation="eager"))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(input_ids=torch.zeros(2, 11, dtype=torch.long))
    count = operations(model, 11)
    # Angles of positions are products of matrices in some versions of transformers; they belong to no block.
    angles = sum(counter.get_flop_counts().get("LlamaModel.rotary_emb", {}).values())
    assert counter.get_total_flops() - angles == 2 * 2 * (count["heads"] + count["neurons"])
    assert sum(count["per_neuron"]) * COMMON["intermediate_size"] == count["neurons"]


def test_scales_are_least_squares():
    A, b = rows(40, 6), rows(40, 1, 3)[:, 0]
    found = solve_scales(A.T @ A, A.T @ b, ridge=1e-12)
    torch.testing.assert_close(found, torch.linalg.lstsq(A, b).solution, rtol=1e-8, atol=1e-8)
    assert solve_scales(A.T @ A, A.T @ b, ridge=1e9) == pytest.approx(torch.ones(6), abs=1e-5)
    rho = 0.5 * float((A.T @ A).diagonal().mean())
    wide = torch.cat([A, rho**0.5 * torch.eye(6, dtype=A.dtype)])
    long = torch.cat([b, rho**0.5 * torch.ones(6, dtype=A.dtype)])
    torch.testing.assert_close(solve_scales(A.T @ A, A.T @ b, ridge=0.5), torch.linalg.lstsq(wide, long).solution)


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
def test_the_first_layers_scales_are_the_best_there_are(family):
    """In block 0 both models see the same input, so that the sum of all neurons is what those that stay rebuild."""
    model = make(family)
    pruned = prune_neurons(model, [inputs(model)], flops=0.8, method="random", scale=True, ridge=1e-9)
    seen = passing(model)[1]
    units, mask = ffns(model)[0], pruned.masks[0]
    H = seen["H"][real_tokens(seen["H"], inputs(model))]
    W = units.columns.by_unit(units.columns.module.weight.detach(), units.count)
    A = torch.stack([torch.outer(H[:, i], W[i]).reshape(-1) for i in mask.nonzero()[:, 0]], dim=1)
    expected = torch.linalg.lstsq(A, (H @ W).reshape(-1)).solution
    torch.testing.assert_close(pruned.scales[0][mask].double(), expected, **CLOSE)


@pytest.mark.parametrize("family", ONE_LENGTH)
def test_every_layers_scales_account_for_those_before(family):
    """In each block the pruned model brings the hidden states that the scaled blocks before it have left."""
    model = make(family)
    pruned = prune_neurons(model, [inputs(model)], flops=0.8, method="random", scale=True, ridge=1e-9)
    for n, layer in enumerate(pruned.layers):
        if layer.units.unit_type == "neurons":
            torch.testing.assert_close(layer.scales[layer.mask].double(), best_scales(model, pruned, n), **CLOSE)


@pytest.mark.parametrize("family", ONE_LENGTH)
@pytest.mark.parametrize("method", [method for method in METHODS if method != "fisher"])  # it needs labels
def test_a_budget_is_kept(family, method):
    model = make(family)
    before = copy.deepcopy(model.state_dict())
    pruned = prune_neurons(model, [inputs(model)], flops=0.8, method=method, min_density=0.1)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    kept, count = [int(mask.sum()) for mask in pruned.masks], operations(model, pruned.length)
    total = count["heads"] + count["neurons"]
    assert 0.8 - count["per_neuron"][0] / total < pruned.flops <= 0.8 + 1e-9
    assert pruned.report["kept"].tolist() == kept and min(kept) >= 2
    small = mvp.shrink(pruned.model)
    assert sizes(small)["neurons"] == kept and sizes(small)["heads"] == sizes(model)["heads"]
    assert float((output(small) - output(pruned.model)).abs().max()) < 1e-12
    left = operations(small, pruned.length)
    assert (left["heads"] + left["neurons"]) / total == pytest.approx(pruned.flops)
    assert all(bool((scale != 0).eq(mask).all()) for scale, mask in zip(pruned.scales, pruned.masks, strict=True))
    for units, mask in zip(ffns(pruned.model), pruned.masks, strict=True):
        for part in units.parts:
            assert torch.equal(part.by_unit(part.module.weight, units.count).ne(0).any(dim=1), mask)
    if method != "kcm":
        assert all(bool((scale[mask] == 1).all()) for scale, mask in zip(pruned.scales, pruned.masks, strict=True))
    for scores, mask in zip(pruned.scores, pruned.masks, strict=True):
        assert mask.all() or scores[mask].min() >= scores[~mask].max()


def test_nothing_pruned_nothing_changed():
    model = make("bert")
    pruned = prune_neurons(model, [inputs(model)], flops=1.0)
    assert pruned.flops == 1.0 and all(mask.all() for mask in pruned.masks)
    torch.testing.assert_close(output(pruned.model), output(model), rtol=1e-5, atol=1e-6)


def test_scaling_helps_on_a_trained_model(device):
    """With scales the toy, half of its neurons pruned at random, comes closer to its dense hidden states."""
    task = mvp.load_task("toy/inference", limit=400)
    dense = mvp.fine_prune(
        mvp.load_model("toy", task), task, "dense", steps=20, batch_size=16, lr=3e-4, progress=False
    ).model.eval()
    encoded = task.encode(mvp.tokenizer_for(dense))
    batches = list(encoded.batches("train", 64, seed=0, steps=3, device=device))
    unseen = next(encoded.batches("validation", 128, seed=1, device=device))
    distances = []
    for scale in (False, True):
        pruned = prune_neurons(dense, batches, flops=0.7, method="random", scale=scale).model.eval()
        with torch.no_grad():
            hidden = [m.bert(unseen["input_ids"], unseen["attention_mask"])[0] for m in (dense, pruned)]
        distances.append(float((hidden[0] - hidden[1])[unseen["attention_mask"].bool()].norm()))
    assert distances[1] < 0.9 * distances[0]


def test_modes_hooks_and_labels_are_left_alone():
    model = make("bert")
    model.train()
    model.bert.encoder.layer[0].eval()
    modes = [module.training for module in model.modules()]
    with_labels = inputs(model) | {"labels": torch.tensor([0, 99])}  # 99 would raise, were it used
    prune_neurons(model, [with_labels], flops=0.8)
    d2_scores(model, [with_labels])
    assert [module.training for module in model.modules()] == modes
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inputs": []}, "inputs is empty"),
        ({"flops": 0.2}, r"flops=0\.2: without pruning heads at least 0\.\d+ of the operations stay"),
        ({"flops": 0.0}, r"flops=0\.0"),
        ({"flops": 1.2}, r"flops=1\.2"),
        ({"method": "kmc"}, "method='kmc': must be one of kcm"),
        ({"normalization": "rank"}, "normalization='rank': must be one of minmax, max, zscore, none"),
        ({"statistic": "median"}, "statistic='median': must be one of mean, abs, rms"),
        ({"stop": "soon"}, "stop='soon'"),
        ({"min_density": 0.9}, r"min_density=0\.9"),
    ],
)
def test_bad_input_is_named(options, message):
    model = make("bert")
    given = {"inputs": [inputs(model)], "flops": 0.8} | options
    with pytest.raises(ValueError, match=message):
        prune_neurons(model, **given)


def test_a_layer_without_neurons_is_refused():
    model = make("bert")
    ffns(model)[1].columns.module.weight.data.mul_(1e-6)
    with pytest.raises(ValueError, match=r"layer\.1.* would lose all its neurons at flops=0\.8: give min_density"):
        prune_neurons(model, [inputs(model)], flops=0.8, method="weight_magnitude")
    kept = prune_neurons(model, [inputs(model)], flops=0.8, method="weight_magnitude", min_density=0.05).masks
    assert int(kept[1].sum()) == 1


def test_families_that_cannot_be_pruned_are_refused():
    albert = hf.AlbertModel(hf.AlbertConfig(vocab_size=20, hidden_size=8, num_attention_heads=2, intermediate_size=8))
    with pytest.raises(ValueError, match="'albert'"):
        prune_neurons(albert, [{"input_ids": torch.zeros(1, 3, dtype=torch.long)}])
    t5 = make("t5")
    for refused in (lambda: prune_neurons(t5, [inputs(t5)], method="random"), lambda: operations(t5, 7.0)):
        with pytest.raises(ValueError, match=r"'t5'.*encoder and decoder.*Pruner"):
            refused()
    mixed = make("deberta-v2", conv_kernel_size=3)
    with pytest.raises(ValueError, match="conv_kernel_size=3"):
        prune_neurons(mixed, [inputs(mixed)], 0.8)
    pruned = prune_neurons(mixed, [inputs(mixed)], 0.8, scale=False)
    assert float((output(mvp.shrink(pruned.model)) - output(pruned.model)).abs().max()) < 1e-12


@pytest.mark.parametrize("method", ["kcm", "random"])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, "inputs of type NoneType: inputs must be a list"),
        ("some text", "inputs of type str: inputs must be a list"),
        (torch.ones(2, 3), "inputs of type Tensor: inputs must be a list"),
        ({"input_ids": torch.ones(2, 3)}, r"inputs is one batch, with input_ids: give a list, \[batch\]"),
        (["some text"], "inputs: batch 0 is of type str: inputs must be a list"),
        ([{"input_ids": [[1, 2]]}], "inputs: batch 0 has input_ids of type list: must be a tensor"),
    ],
)
def test_inputs_that_are_no_batches_of_tensors(method, given, message):
    with pytest.raises(TypeError, match=message) as error:
        prune_neurons(make("bert"), given, 0.8, method)
    assert "\n" not in str(error.value)


def test_labeled_that_are_no_batches_of_tensors():
    model = make("bert")
    with pytest.raises(TypeError, match="labeled is one batch, with input_ids, attention_mask: give a list"):
        prune_neurons(model, [inputs(model)], 0.8, "fisher", labeled=inputs(model))


@pytest.mark.parametrize("method", [method for method in METHODS if method != "fisher"])
def test_uniform_keeps_as_many_neurons_in_each_layer(method, tmp_path):
    """The best of each layer by the same scores; what is shrunk is then read by stock transformers."""
    model = make("bert")
    pooled = prune_neurons(model, [inputs(model)], flops=0.85, method=method, scale=False, min_density=0.1)
    pruned = prune_neurons(model, [inputs(model)], flops=0.85, method=method, scale=False, uniform=True)
    (count,) = {int(mask.sum()) for mask in pruned.masks}
    assert pruned.flops <= 0.85 + 1e-9 and sum(int(mask.sum()) for mask in pooled.masks) - 3 * count in range(3)
    for a, b, mask in zip(pooled.scores, pruned.scores, pruned.masks, strict=True):
        assert torch.equal(a, b) and b[mask].min() >= b[~mask].max()
    mvp.shrink(pruned.model).save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path, dtype=torch.float64).eval()
    assert again.config.intermediate_size == count
    assert float((output(again) - output(pruned.model)).abs().max()) < 1e-12


def test_uniform_with_labels_and_with_heads():
    model = make("bert")
    labels = [inputs(model) | {"labels": torch.tensor([1, 0])}]
    for method in ("kcm", "fisher"):
        pruned = prune_neurons(model, [inputs(model)], 0.85, method, labeled=labels, uniform=True)
        assert len({int(mask.sum()) for mask in pruned.masks}) == 1
    with pytest.raises(ValueError, match="uniform=True: not with heads=True"):
        prune_neurons(model, [inputs(model)], 0.85, "fisher", labeled=labels, heads=True, uniform=True)


def test_a_pruning_in_one_line_and_its_progress(capsys):
    model = make("bert")
    quiet = prune_neurons(model, [inputs(model)], 0.85, "kcm")
    assert not capsys.readouterr().err
    kept = sum(int(mask.sum()) for mask in quiet.masks)
    expected = rf"NeuronPruning\(BertForSequenceClassification: {kept} of 60 neurons and 12 of 12 heads kept, 8\d\.\d %"
    assert re.match(expected, repr(quiet)) and "\n" not in repr(quiet)
    loud = prune_neurons(model, [inputs(model)], 0.85, "kcm", progress=True)
    shown = capsys.readouterr().err
    assert all(word in shown for word in ("activations", "scores", "scales"))
    assert all(torch.equal(a, b) for a, b in zip(quiet.masks, loud.masks, strict=True))


@pytest.mark.parametrize("family", ONE_LENGTH)
def test_dense_hidden_states_recorded_or_computed_again_give_the_same_scales(family, monkeypatch):
    model = make(family)
    found = []
    for limit in (2**30, 2500, 0):  # all fit; too little for all of them; nothing is recorded
        monkeypatch.setattr(scaling, "LIMIT", limit)
        found.append(prune_neurons(model, [inputs(model)], flops=0.8, method="random", scale=True).scales)
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("family", ["bert", "gpt2"])
def test_recorded_states_are_those_behind_each_ffn_up_to_a_limit(family):
    model = make(family)
    expected = [seen["total"] for seen in passing(model)[1::2]]
    size = expected[0].nbytes
    for limit, complete in ((3 * size, True), (3 * size - 1, False), (0, False)):
        with scaling.recorded_states(model, of_type("neurons", find_layers(model)), limit) as states:
            output(model)
        assert bool(states) == complete
        for (found,), total in zip(states, expected, strict=complete):
            torch.testing.assert_close(found, total)
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_kcm_is_r2_times_normalized_d2_the_best_of_all_layers_then_scaled():
    model = make("bert")
    d2 = d2_scores(model, [inputs(model)])
    scores = []
    for units, mean in zip(ffns(model), d2, strict=True):
        r2, _ = r2_scores(units.columns.module.weight.T)
        scores.append(r2 * (mean - mean.min()) / (mean.max() - mean.min()))
    pruned = kcm(model, [inputs(model)], 0.8)
    for found, expected in zip(pruned.scores, scores, strict=True):
        torch.testing.assert_close(found, expected)
    k = sum(pruned.report["kept"])
    lowest = torch.cat(scores).topk(k).values.min()
    assert all(torch.equal(mask, score >= lowest) for mask, score in zip(pruned.masks, scores, strict=True))
    same, plain = prune_neurons(model, [inputs(model)], 0.8), prune_neurons(model, [inputs(model)], 0.8, "r2d2")
    for a, b, mask in zip(pruned.scales, same.scales, plain.masks, strict=True):
        torch.testing.assert_close(a, b)
        assert torch.equal(a != 0, mask)
    assert any(bool((scale[mask] != 1).all()) for scale, mask in zip(pruned.scales, pruned.masks, strict=True))


def test_d2_is_normalized_within_a_layer():
    x = torch.tensor([-1.0, 0.5, 2.0, 6.5], dtype=torch.float64)
    deviation = math.sqrt(sum((v - 2.0) ** 2 for v in x.tolist()) / 3)  # with n - 1
    expected = {"minmax": (x + 1) / 7.5, "max": x / 6.5, "zscore": (x - 2.0) / deviation, "none": x}
    assert list(expected) == list(NORMALIZATIONS)
    for name, values in expected.items():
        torch.testing.assert_close(NORMALIZATIONS[name](x), values)
        assert bool(NORMALIZATIONS[name](torch.full((3,), 2.0)).isfinite().all())  # all equal: a division by 0
    model = make("bert")
    r2, d2, found = (
        prune_neurons(model, [inputs(model)], 0.8, method, normalization="zscore").scores
        for method in ("r2", "d2", "kcm")
    )
    for a, b, c in zip(r2, d2, found, strict=True):
        torch.testing.assert_close(c, a * (b - b.mean()) / b.var(correction=1).sqrt())


def test_output_magnitude_is_the_mean_norm_of_what_a_neuron_adds():
    model = make("bert")
    batch = inputs(model)
    found = prune_neurons(model, [batch], 0.8, "output_magnitude").scores
    for units, seen, scores in zip(ffns(model), passing(model)[1::2], found, strict=True):
        H, W = seen["H"][batch["attention_mask"].bool()], units.columns.module.weight
        added = torch.stack([torch.outer(H[:, i], W[:, i]).norm(dim=1).mean() for i in range(units.count)])
        torch.testing.assert_close(scores, added)
        assert float((H.mean(0).abs() - H.abs().mean(0)).abs().max()) > 0.01  # signs matter here


def test_random_scores_differ_from_layer_to_layer_and_by_seed():
    model = make("bert")
    first, again, other = (
        prune_neurons(model, [inputs(model)], 0.8, "random", min_density=0.1, seed=seed).scores for seed in (0, 0, 1)
    )
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    every = [*first, *other]
    assert all(not torch.equal(a, b) for n, a in enumerate(every) for b in every[:n])


def test_a_ranking_of_ones_own():
    class First(Ranking):
        def score(self, layer):
            return torch.arange(layer.units.count, 0, -1) - layer.number

    model = make("bert")
    pruned = prune_neurons(model, [inputs(model)], 0.8, First())
    kept = pruned.report["kept"].tolist()
    assert kept[0] > kept[1] > kept[2] > 0 and all(mask[:k].all() for mask, k in zip(pruned.masks, kept, strict=True))
    assert all(torch.equal(scale, mask.float()) for scale, mask in zip(pruned.scales, pruned.masks, strict=True))
    with pytest.raises(ValueError, match="labeled: method='First' has no use for labels"):
        prune_neurons(model, [inputs(model)], 0.8, First(), labeled=[inputs(model)])
    with pytest.raises(TypeError, match="sigma: an instance of First has its options already"):
        prune_neurons(model, [inputs(model)], 0.8, First(), sigma=2.0)


def test_options_that_no_method_has_are_refused_and_others_methods_ignored():
    model = make("bert")
    given = {"flops": 0.8, "min_density": 0.1}
    a, b = (prune_neurons(model, [inputs(model)], method="d2", **given, **extra) for extra in ({}, {"sigma": 9.0}))
    assert all(torch.equal(x, y) for x, y in zip(a.masks, b.masks, strict=True))
    with pytest.raises(TypeError, match="width: no method has this option; there are alpha, half, normalization"):
        prune_neurons(model, [inputs(model)], 0.8, width=2.0)
