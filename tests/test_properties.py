"""What must hold for any scores, shapes, densities and schedules, on cases that hypothesis draws.

`pytest tests/test_properties.py --hypothesis-profile thorough` draws twenty times as many.
"""

import math
import tempfile
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers.pytorch_utils import Conv1D

import mvp_lite as mvp
from mvp_lite import groups
from mvp_lite.checkpoints import Checkpoints
from mvp_lite.masks import keep_count, shift_to_density, squeeze_to_density, threshold_mask, top_v
from mvp_lite.matrices import PrunedMatrix
from mvp_lite.schedule import SHAPES, Schedule
from mvp_lite.storage.csr import CSRLinear
from mvp_lite.storage.positions import decode, encode

#: property -> cases that were run
CASES: Counter[str] = Counter()
PROPERTIES: list[str] = []


def holds_for(*strategies):
    """`given`, with the cases counted."""

    def decorate(test):
        PROPERTIES.append(test.__name__)

        @given(st.tuples(*strategies))
        def counted(case):
            CASES[test.__name__] += 1
            test(*case)

        counted.__name__, counted.__doc__ = test.__name__, test.__doc__
        return counted

    return decorate


seeds = st.integers(0, 2**32 - 1)
densities = st.floats(0.001, 1.0) | st.sampled_from([1e-9, 0.03, 0.1, 0.5, 1.0])
thresholds = st.sampled_from([0.05, 0.1, 0.5, 0.9])
shapes = st.lists(st.integers(1, 9), min_size=1, max_size=3).map(tuple)
floating = st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64])


def numbers(shape, seed, levels=None):
    """Normal numbers in double precision; of so many levels, if given, so that many are equal."""
    x = np.asarray(np.random.default_rng(seed).standard_normal(shape))
    return torch.from_numpy(x if levels is None else np.asarray(np.round(x * levels / 4) / 8))


level_counts = st.sampled_from([None, 1, 4, 40])


# --- masks ---------------------------------------------------------------------------------------------------------


@holds_for(shapes, seeds, level_counts, floating, densities)
def test_top_v_is_a_stable_sort(shape, seed, levels, dtype, density):
    """Exactly so many, the highest, and of equal ones those with the lower index."""
    S = numbers(shape, seed, levels).to(dtype)
    mask = top_v(S, density).flatten()
    count = keep_count(S.numel(), density)
    assert count == max(1, math.floor(density * S.numel() + 0.5)) == int(mask.sum())
    order = np.argsort(-S.double().flatten().numpy(), kind="stable")
    assert set(mask.nonzero().flatten().tolist()) == set(order[:count].tolist())


@holds_for(shapes, seeds, level_counts, densities)
def test_top_v_knows_only_the_order(shape, seed, levels, density):
    """A scale, a shift or a rank in place of the scores changes nothing; a permutation moves the mask with them."""
    S = numbers(shape, seed, levels)
    mask = top_v(S, density)
    ranks = torch.unique(S, return_inverse=True)[1].double()
    for same_order in (4.0 * S, ranks, ranks.exp2(), ranks - 1e6):
        assert torch.equal(top_v(same_order.view(S.shape), density), mask)
    distinct = S.flatten() + torch.arange(S.numel()) * 1e-9
    moved = torch.from_numpy(np.random.default_rng(seed).permutation(S.numel()))
    assert torch.equal(top_v(distinct[moved], density), top_v(distinct, density)[moved])


@holds_for(shapes, seeds, level_counts, thresholds, st.sampled_from([0.0, 0.005, 0.2, 1.0]))
def test_a_threshold_keeps_what_is_above_it_or_the_best(shape, seed, levels, threshold, least):
    S = 3.0 * numbers(shape, seed, levels)
    above = torch.sigmoid(S) > threshold
    enough = not least or int(above.sum()) >= keep_count(S.numel(), least)
    assert torch.equal(threshold_mask(S, threshold, least), above if enough else top_v(S, least))


def check_count(before, scores, count, density, threshold):
    """As many are above as asked for; of equal ones all, or, if they are less than a hundredth, as rounding has it."""
    pool = torch.cat([S.flatten() for S in before])
    distinct = len(torch.unique(pool)) == len(pool)
    asked, above = keep_count(len(pool), density), sum(int((torch.sigmoid(S) > threshold).sum()) for S in scores)
    assert count == asked if distinct else count >= asked
    assert abs(above - count) <= (0 if distinct else count / 100)


@holds_for(st.lists(shapes, min_size=1, max_size=3), seeds, level_counts, densities, thresholds)
def test_a_shift_reaches_the_density(parts, seed, levels, density, threshold):
    """One constant for all; as many above as it says, and as asked for unless many are equal."""
    before = [numbers(shape, seed + n, levels) for n, shape in enumerate(parts)]
    scores = [S.clone() for S in before]
    count, total = shift_to_density(scores, density, threshold), sum(S.numel() for S in scores)
    shifts = torch.cat([(S - old).flatten() for S, old in zip(scores, before, strict=True)])
    assert float(shifts.max() - shifts.min()) < 1e-9
    if density == 1.0:
        assert count == total and not bool(shifts.any())
        return
    check_count(before, scores, count, density, threshold)


@holds_for(st.lists(shapes, min_size=1, max_size=3), seeds, level_counts, densities, thresholds)
def test_a_squeeze_reaches_the_density(parts, seed, levels, density, threshold):
    """The order stays, and so do scores a logit away from the threshold on their own side."""
    before = [numbers(shape, seed + n, levels) for n, shape in enumerate(parts)]
    scores = [S.clone() for S in before]
    count, total = squeeze_to_density(scores, density, threshold), sum(S.numel() for S in scores)
    old, new = (torch.cat([S.flatten() for S in part]) for part in (before, scores))
    if density == 1.0:
        assert count == total and torch.equal(old, new)
        return
    check_count(before, scores, count, density, threshold)
    order = torch.argsort(old)
    assert bool((new[order].diff() >= 0).all()) and bool((new[order].diff()[old[order].diff() == 0] == 0).all())
    level = math.log(threshold / (1.0 - threshold))
    kept = torch.sigmoid(new) > threshold
    far = (kept & (old >= level + 1.0)) | (~kept & (old <= level - 1.0))
    assert torch.equal(old[far], new[far])


# --- groups --------------------------------------------------------------------------------------------------------


def made(grouping, rows, columns, height, width, conv):
    """Groups of one matrix of (rows * height, columns * width), and that matrix."""
    out, into = rows * height, columns * width
    module = Conv1D(out, into) if conv else nn.Linear(into, out)
    weight = module.weight
    matrix = PrunedMatrix("m", module, weight, weight.detach().clone(), torch.ones_like(weight).bool())
    maker = {"blocks": groups.blocks(height, width), "n_of_m": groups.n_of_m(width)}.get(grouping)
    (group,) = (maker or groups.GROUPS[grouping])(module, [matrix])
    return group, weight


sizes = st.integers(1, 5)
groupings = st.sampled_from(["weights", "rows", "columns", "blocks"])


@holds_for(groupings, sizes, sizes, sizes, sizes, st.booleans(), seeds)
def test_expand_and_total_are_adjoint(grouping, rows, columns, height, width, conv, seed):
    """<expand(m), x> = <m, total(x)>: the chain rule of a mask that many weights share."""
    group, weight = made(grouping, rows, columns, height, width, conv)
    (part,) = group.parts
    m, x = numbers(tuple(group.mask.shape), seed), numbers(tuple(weight.shape), seed + 1)
    left, right = (part.expand(m) * x).sum(), (m * part.total(x)).sum()
    assert part.expand(m).shape == weight.shape and part.total(x).shape == group.mask.shape
    assert float(left) == pytest.approx(float(right), rel=1e-9, abs=1e-9)


@holds_for(groupings, sizes, sizes, sizes, sizes, st.booleans())
def test_every_weight_is_in_one_group(grouping, rows, columns, height, width, conv):
    group, weight = made(grouping, rows, columns, height, width, conv)
    (part,) = group.parts
    count = group.mask.numel()
    labels = part.expand(torch.arange(count).view(group.mask.shape))
    members = torch.bincount(labels.flatten(), minlength=count)
    assert labels.shape == weight.shape and bool((members == weight.numel() // count).all())
    assert torch.equal(part.total(torch.ones(weight.shape)).flatten().long(), members)
    expected = {"weights": 1, "rows": columns * width, "columns": rows * height, "blocks": height * width}[grouping]
    assert group.weights_each == expected


@holds_for(sizes, sizes, st.integers(1, 6), st.booleans(), seeds, level_counts, st.data())
def test_n_of_m_keeps_n_of_each_m(rows, columns, m, conv, seed, levels, data):
    group, weight = made("n_of_m", rows, columns, 1, m, conv)
    n = data.draw(st.integers(1, m))
    group.scores = nn.Parameter(numbers(tuple(weight.shape), seed, levels))
    group.check_density(n / m)
    mask, S = top_v(group.importance(), n / m), group.scores.detach()
    mask, S = ((x.t() if conv else x).reshape(-1, m) for x in (mask, S))
    assert bool((mask.sum(1) == n).all())
    assert torch.equal(mask, torch.stack([top_v(row, n / m) for row in S]))


# --- schedule ------------------------------------------------------------------------------------------------------

runs = st.tuples(st.integers(0, 40), st.integers(0, 40), st.integers(1, 120)).map(lambda r: (sum(r), r[0], r[1]))


@holds_for(runs, st.sampled_from(sorted(SHAPES)), st.floats(0.0, 1.0), st.floats(0.0, 1.0))
def test_a_schedule_goes_from_one_end_to_the_other(run, shape, initial, final):
    """It begins and ends on time and where it should, never turns back, and never leaves its two ends."""
    total, warmup, cooldown = run
    schedule = Schedule(*run, shape)
    found = [schedule.value(t, initial, final) for t in range(-1, total + 2)]
    assert set(found[: warmup + 2]) == {initial} and set(found[total - cooldown + 1 :]) == {final}
    sign = 1 if final >= initial else -1
    assert all(sign * (b - a) >= -1e-12 for a, b in pairwise(found))
    assert min(initial, final) - 1e-12 <= min(found) and max(found) <= max(initial, final) + 1e-12
    assert [schedule.done(t) for t in (total - cooldown - 1, total - cooldown)] == [False, True]


# --- storage -------------------------------------------------------------------------------------------------------


@holds_for(st.integers(0, 3000), st.floats(0.0, 1.0), seeds)
def test_positions_come_back(size, density, seed):
    found = np.flatnonzero(np.random.default_rng(seed).random(size) < density)
    code = encode(found)
    assert np.array_equal(decode(code, len(found), size), found)
    if len(found):
        for count, most in ((len(found) - 1, size), (len(found) + 1, size), (len(found), int(found[-1]))):
            with pytest.raises(ValueError, match="position"):
                decode(code, count, most)


class Holder(nn.Module):
    """Parameters and buffers of any shape and type."""

    def __init__(self, tensors):
        super().__init__()
        for n, tensor in enumerate(tensors):
            if tensor.is_floating_point():
                self.register_parameter(f"p{n}", nn.Parameter(tensor.clone()))
            else:
                self.register_buffer(f"b{n}", tensor.clone())


stored = st.tuples(
    st.lists(st.integers(0, 9), max_size=3).map(tuple),
    st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64, torch.int8, torch.bool]),
    st.floats(0.0, 1.0) | st.sampled_from([0.0, 0.03, 1.0]),
    seeds,
)


def tensor_of(shape, dtype, density, seed):
    kept = torch.from_numpy(np.asarray(np.random.default_rng(seed).random(shape) < density))
    return (10.0 * numbers(shape, seed + 1) * kept).to(dtype)


@holds_for(st.lists(stored, min_size=1, max_size=4))
def test_a_sparse_file_comes_back(described):
    tensors = [tensor_of(*one) for one in described]
    with tempfile.TemporaryDirectory() as folder:
        mvp.save_sparse(Holder(tensors), folder)
        again = mvp.load_sparse(folder, model=Holder([torch.zeros_like(x) for x in tensors])).state_dict()
    for name, x in Holder(tensors).state_dict().items():
        assert again[name].dtype == x.dtype and torch.equal(again[name], x)


@holds_for(st.lists(stored, min_size=1, max_size=3), st.sampled_from(["float16", "int8"]))
def test_rounded_files_are_close(described, values):
    """16 bits round each value; 8 bits err by at most half a level of a sparse matrix, or of a dense one's row."""
    tensors = [tensor_of(*one) for one in described]
    with tempfile.TemporaryDirectory() as folder:
        mvp.save_sparse(Holder(tensors), folder, values)
        again = mvp.load_sparse(folder, model=Holder([torch.zeros_like(x) for x in tensors])).state_dict()
    for name, x in Holder(tensors).state_dict().items():
        found = again[name]
        if name[0] == "b" or x.ndim < 2 or not x.numel():
            assert torch.equal(found, x)
        elif values == "float16":
            assert torch.equal(found, x if x.dtype == torch.bfloat16 else x.half().to(x.dtype))
        else:
            rounding = float(x.abs().max()) * (0.5 / 127 + torch.finfo(x.dtype).eps)
            assert float((found.double() - x.double()).abs().max()) <= 1.001 * rounding


@holds_for(st.integers(1, 12), st.integers(1, 12), st.integers(0, 300), st.floats(0.0, 1.0), st.booleans(), seeds)
def test_a_sparse_layer_is_the_dense_one(out, into, tokens, density, bias, seed):
    layer = nn.Linear(into, out, bias=bias)
    with torch.no_grad():
        layer.weight.copy_(tensor_of((out, into), torch.float32, density, seed))
        x = numbers((tokens, into), seed + 2).float()
        torch.testing.assert_close(CSRLinear(layer.weight, layer.bias)(x), layer(x), rtol=1e-4, atol=1e-4)


@holds_for(st.lists(stored, min_size=1, max_size=4), st.integers(1, 5))
def test_a_checkpoint_comes_back(described, steps):
    parts = {f"x{n}": tensor_of(*one) for n, one in enumerate(described)}
    state = {"settings": {"lr": 0.1}, "history": [(n, 0.5) for n in range(steps)], "evaluations": [], "seconds": 1.0}
    state |= {"parts": {"model": parts}, "random": {"cpu": torch.get_rng_state()}}
    with tempfile.TemporaryDirectory() as folder:
        for n in range(1, steps + 1):
            Checkpoints(folder, resume=True).save(n, state | {"history": state["history"][:n]})
        again = Checkpoints(folder, resume=True).load({"lr": 0.1})
        assert sorted(path.name for path in Path(folder).iterdir()) == sorted(
            f"checkpoint-{n}.pt" for n in range(max(1, steps - 1), steps + 1)
        )
    assert again["history"] == state["history"] and again["parts"]["model"].keys() == parts.keys()
    for name, x in parts.items():
        assert again["parts"]["model"][name].dtype == x.dtype and torch.equal(again["parts"]["model"][name], x)


# --- how many ------------------------------------------------------------------------------------------------------


def test_there_were_enough_cases(capsys):
    """After the properties above, in the order of the file."""
    with capsys.disabled():
        print(f"\n{sum(CASES.values()):,} cases of {len(CASES)} properties")
    if missing := sorted(set(PROPERTIES) - set(CASES)):
        pytest.skip(f"not run here: {', '.join(missing)}")
    assert min(CASES.values()) >= 75
