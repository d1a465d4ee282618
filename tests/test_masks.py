"""Selections, thresholds and gates against loops that anyone can read."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mvp_lite import _selection, masks
from mvp_lite.masks import keep_count, threshold_mask, top_v, top_v_global

INF = float("inf")
# Few distinct values, so that ties are the rule; both zeros, both infinities.
values = st.sampled_from([-INF, -2.0, -0.5, -0.0, 0.0, 0.25, 0.5, 3.0, INF])
shapes = st.tuples(st.integers(1, 7), st.integers(1, 9))
densities = st.floats(0.0, 1.0, exclude_min=True)


@pytest.fixture(autouse=True, scope="module")
def seed():
    torch.manual_seed(0)


@st.composite
def matrices(draw, elements=values):
    rows, columns = draw(shapes)
    flat = draw(st.lists(elements, min_size=rows * columns, max_size=rows * columns))
    return torch.tensor(flat).view(rows, columns)


def slow_count(numel: int, density: float) -> int:
    """Half rounds up, and one entry always stays."""
    exact = density * numel
    whole = int(exact)
    return max(1, whole + (exact - whole >= 0.5))


def slow_top_k(flat: list[float], k: int) -> list[bool]:
    order = sorted(range(len(flat)), key=lambda i: (-flat[i], i))
    kept = [False] * len(flat)
    for i in order[:k]:
        kept[i] = True
    return kept


def slow_top_v(scores: Tensor, density: float) -> Tensor:
    flat = [float(scores[i, j]) for i in range(scores.shape[0]) for j in range(scores.shape[1])]
    return torch.tensor(slow_top_k(flat, slow_count(len(flat), density))).view(scores.shape)


# -- how many ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("numel", "density", "kept"),
    [
        (5, 0.5, 3),
        (7, 0.5, 4),
        (10, 0.25, 3),
        (10, 0.05, 1),
        (1000, 0.0001, 1),
        (4, 1.0, 4),
        (1, 1e-300, 1),
        (100, 0.03, 3),
    ],
)
def test_half_rounds_up_and_one_entry_stays(numel, density, kept):
    assert keep_count(numel, density) == kept == slow_count(numel, density)


def test_half_is_not_rounded_to_even():
    assert (
        [keep_count(n, 0.5) for n in (1, 3, 5, 7, 9)]
        == [1, 2, 3, 4, 5]
        != [max(1, round(n / 2)) for n in (1, 3, 5, 7, 9)]
    )


@pytest.mark.parametrize("density", [0, 0.0, -0.1, 1.1, float("nan"), INF, -INF, np.float64(2.0)])
def test_density_outside_its_range(density):
    for select in (lambda: top_v(torch.randn(3, 4), density), lambda: top_v_global([torch.randn(3, 4)], density)):
        with pytest.raises(ValueError, match=r"density=.*\(0, 1\]"):
            select()


@pytest.mark.parametrize("density", ["0.1", True, None, [0.1], 0.1j])
def test_density_that_is_no_number(density):
    for select in (lambda: top_v(torch.randn(3, 4), density), lambda: top_v_global([torch.randn(3, 4)], density)):
        with pytest.raises(TypeError, match=r"density=.*number in \(0, 1\]"):
            select()


def test_numpy_densities_are_numbers():
    S = torch.randn(4, 5)
    assert torch.equal(top_v(S, np.float64(0.25)), top_v(S, 0.25))
    assert int(top_v(S, np.float32(0.25)).sum()) == 5


# -- top-v ------------------------------------------------------------------------------------------------------------


@given(matrices(), densities)
def test_top_v_is_the_slow_loop(S, density):
    mask = top_v(S, density)
    assert mask.dtype == torch.bool and mask.shape == S.shape
    assert torch.equal(mask, slow_top_v(S, density))


@given(matrices(), st.data())
def test_partition_and_sort_agree(S, data):
    """What a CPU does and what a GPU does, both run here."""
    k = data.draw(st.integers(1, S.numel()))
    flat = S.reshape(-1)
    expected = torch.tensor(slow_top_k(flat.tolist(), k))
    for select in (_selection._by_partition, _selection._by_sorting):
        kept = select(flat, k)
        assert kept.dtype == torch.bool and torch.equal(kept, expected)


def test_a_device_compares_and_counts_for_itself():
    S = torch.tensor([[1.0, 0.5, 0.0], [0.0, 0.25, 1.0]])
    assert int(_selection.count_nonzero(S)) == 4 and _selection.count_nonzero(S).shape == ()
    assert _selection.count_nonzero(S.to("meta")).device.type == "meta"
    assert _selection.above(S.to("meta"), 0.5).device.type == "meta"


def test_numbers_are_read_in_their_order():
    assert _selection.read_together([torch.tensor(3)]) == [3]
    assert _selection.read_together([torch.tensor(0.5), torch.tensor(-2.0, requires_grad=True)]) == [0.5, -2.0]


def test_a_cpu_partitions_and_other_devices_sort(monkeypatch):
    monkeypatch.setattr(_selection, "_by_sorting", lambda scores, k: (scores.device.type, k))
    assert _selection.top_k(torch.arange(4.0), 2).tolist() == [False, False, True, True]
    assert _selection.top_k(torch.empty(4, device="meta"), 2) == ("meta", 2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("density", [0.03, 0.37, 0.5, 1.0])
def test_every_floating_type(dtype, density, device):
    # Coarse types tie often: 600 numbers share a few hundred values.
    S = torch.randn(20, 30, generator=torch.Generator().manual_seed(0)).to(dtype)
    expected = slow_top_v(S.double(), density)
    assert torch.equal(top_v(S.to(device), density).cpu(), expected)
    assert torch.equal(_selection._by_sorting(S.reshape(-1), slow_count(600, density)).view(20, 30), expected)


def test_float64_is_not_rounded_to_float32():
    S = torch.tensor([[1.0, 1.0 + 1e-12, 1.0 + 2e-12]], dtype=torch.float64)
    assert top_v(S, 1 / 3).tolist() == [[False, False, True]]


@pytest.mark.parametrize(
    "view",
    [
        lambda t: t.t(),
        lambda t: t[::2],
        lambda t: t[:, ::3],
        lambda t: t[1:, 2:],
        lambda t: t.flip(0),
        lambda t: t[:1].expand(4, -1),
    ],
)
def test_views_are_read_in_their_own_row_major_order(view, device):
    base = torch.randint(0, 4, (12, 12), generator=torch.Generator().manual_seed(1)).float()
    S = view(base)
    for density in (0.1, 0.5, 0.9):
        expected = slow_top_v(S, density)
        assert torch.equal(top_v(view(base.to(device)), density).cpu(), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_comparing_and_counting_are_those_of_torch(dtype, device):
    S = torch.randn(13, 7).to(dtype).to(device).t()
    for level in (0.0, 0.25, -INF):
        assert torch.equal(_selection.above(S, level), level < S)
    M = S.clamp(min=0.0)
    for mask in (M, M > 0.5, torch.zeros(3, 4, device=device), torch.ones(2, 2, dtype=torch.bool, device=device)):
        assert int(_selection.count_nonzero(mask)) == int(torch.count_nonzero(mask))


def test_other_shapes():
    assert top_v(torch.tensor(3.0), 0.5).tolist() is True
    assert top_v(torch.tensor([1.0, 2.0, 3.0]), 0.34).tolist() == [False, False, True]
    S = torch.randn(2, 3, 4)
    assert torch.equal(top_v(S, 0.4), top_v(S.view(6, 4), 0.4).view(2, 3, 4))


def test_all_equal_keeps_k_first(device):
    mask = top_v(torch.zeros(3, 4, device=device), 0.4)
    assert mask.flatten().tolist() == [True] * 5 + [False] * 7


def test_one_entry():
    assert top_v(torch.tensor([[-5.0]]), 0.01).tolist() == [[True]]


def test_gradients_are_neither_needed_nor_kept():
    mask = top_v(torch.randn(3, 3, requires_grad=True), 0.5)
    assert not mask.requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("density", [0.2, 1.0])
def test_nan_raises(dtype, density, device):
    S = torch.randn(4, 5).to(dtype)
    S[3, 4] = float("nan")
    for select in (
        lambda: top_v(S, density),
        lambda: top_v_global([torch.ones(2, 2, dtype=dtype), S], density),
        lambda: threshold_mask(S.to(device), 0.1),
    ):
        with pytest.raises(ValueError, match="NaN"):
            select()


def test_nan_is_the_largest_where_a_look_for_it_would_wait():
    S = torch.tensor([1.0, float("nan"), 3.0, float("inf")])
    assert _selection._by_sorting(S, 2).tolist() == [False, True, False, True]


def test_empty_raises():
    with pytest.raises(ValueError, match=r"shape \(0, 4\)"):
        top_v(torch.zeros(0, 4), 0.5)


LARGE = 2**16 + 4001  # here a sample brackets the threshold
LARGE_STRIDE = LARGE // 2**13 | 1


@pytest.mark.parametrize(
    "make",
    [
        lambda i, g: torch.randn(LARGE, generator=g),
        lambda i, g: torch.randn(LARGE, generator=g).sort().values,
        lambda i, g: torch.randn(LARGE, generator=g).double().exp().sort(descending=True).values,
        lambda i, g: torch.randint(0, 5, (LARGE,), generator=g).float(),
        lambda i, g: torch.zeros(LARGE),
        lambda i, g: torch.where(i % LARGE_STRIDE == 0, 9.0, torch.randn(LARGE, generator=g)),  # a sample that misleads
        lambda i, g: torch.where(i % LARGE_STRIDE == 0, -9.0, torch.randn(LARGE, generator=g)),
        lambda i, g: torch.where(i % 3 == 0, INF, torch.where(i % 3 == 1, -INF, 0.0)),
    ],
    ids=["normal", "rising", "falling", "ties", "equal", "sample above", "sample below", "infinite"],
)
@pytest.mark.parametrize("fast", [False, True])
def test_large_selections_are_a_stable_sort(make, fast, monkeypatch):
    monkeypatch.setattr(_selection, "_partitions_fast", lambda: fast)
    S = make(torch.arange(LARGE), torch.Generator().manual_seed(0))
    order = np.argsort(-S.numpy(), kind="stable")
    sample = len(range(0, LARGE, LARGE_STRIDE))
    for k in (1, 2, 40, LARGE // 33, LARGE // 2, LARGE - 40, LARGE - 1, LARGE, LARGE - sample, sample, sample + 1):
        expected = np.zeros(LARGE, dtype=bool)
        expected[order[:k]] = True
        assert np.array_equal(_selection._by_partition(S, k).numpy(), expected), k


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize(("n", "part"), [(1000, 1.0), (2**16, 0.13), (2**18 + 11, 0.04)])
def test_a_large_selection_orders_a_small_part_of_the_scores(n, part, share, monkeypatch):
    partition, sizes = np.partition, []

    def watched(values, place):
        sizes.append(values.size)
        return partition(values, place)

    monkeypatch.setattr(np, "partition", watched)
    S = torch.randn(n, generator=torch.Generator().manual_seed(0))
    for fast in (False, True):
        monkeypatch.setattr(_selection, "_partitions_fast", lambda fast=fast: fast)
        assert int(_selection._by_partition(S, int(share * n)).sum()) == int(share * n)
        if fast or n == 1000:
            assert sizes == [n], "a sample would not pay"
        else:
            assert max(sizes) <= part * n, "the sample, and the scores near the threshold"
        sizes.clear()


@pytest.mark.parametrize(("instructions", "fast"), [("AVX2", True), ("AVX512", True), ("DEFAULT", False)])
def test_the_processor_decides_whether_a_sample_pays(instructions, fast, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: instructions)
    assert _selection._partitions_fast() is fast


def test_a_sample_ends_somewhere(monkeypatch):
    """Where the bracket of the threshold reaches the ends of the sample."""
    monkeypatch.setattr(_selection, "_partitions_fast", lambda: False)
    S = torch.randn(2**16, generator=torch.Generator().manual_seed(0))
    ordered = S.sort(descending=True).values
    for k in [*range(1, 400, 4), *range(2**16 - 400, 2**16, 4)]:
        kept = _selection._by_partition(S, k)
        assert int(kept.sum()) == k and float(S[kept].min()) == float(ordered[k - 1])


# -- one pool ---------------------------------------------------------------------------------------------------------


def slow_global(scores: list[Tensor], density: float, min_density: float) -> list[list[bool]]:
    """Every matrix's guaranteed entries first, then the best of the rest; ties by module order, then index."""
    entries = []
    for layer, S in enumerate(scores):
        flat = S.flatten().tolist()
        sure = slow_top_k(flat, slow_count(len(flat), min_density)) if min_density else [False] * len(flat)
        entries += [(not sure[i], 0.0 if sure[i] else -flat[i], layer, i) for i in range(len(flat))]
    kept = [[False] * S.numel() for S in scores]
    for *_, layer, i in sorted(entries)[: slow_count(len(entries), density)]:
        kept[layer][i] = True
    return kept


@given(st.lists(matrices(), min_size=1, max_size=4), densities, st.sampled_from([0.0, 0.1, 0.5, 1.0]))
def test_pool_is_the_slow_loop(scores, density, share):
    selected = top_v_global(scores, density, share * density)
    assert [mask.flatten().tolist() for mask in selected] == slow_global(scores, density, share * density)
    assert [mask.shape for mask in selected] == [S.shape for S in scores]
    assert sum(int(mask.sum()) for mask in selected) == slow_count(sum(S.numel() for S in scores), density)


def test_a_matrix_may_become_empty_unless_guarded():
    scores = [torch.full((4, 5), 1.0) + torch.rand(4, 5), -torch.rand(4, 5)]
    assert [int(m.sum()) for m in top_v_global(scores, 0.25)] == [10, 0]
    guarded = top_v_global(scores, 0.25, 0.1)
    assert [int(m.sum()) for m in guarded] == [8, 2]
    assert torch.equal(guarded[1], top_v(scores[1], 0.1))


def test_the_guard_comes_before_an_infinite_score():
    kept = top_v_global([torch.full((4,), INF), torch.zeros(4)], 0.5, 0.25)
    assert [mask.tolist() for mask in kept] == [[True, True, True, False], [True, False, False, False]]


@pytest.mark.parametrize("min_density", [-0.1, 0.3, float("nan")])
def test_min_density_outside_its_range(min_density):
    with pytest.raises(ValueError, match=r"min_density=.*density=0\.2"):
        top_v_global([torch.randn(3, 4)], 0.2, min_density)


# -- threshold --------------------------------------------------------------------------------------------------------


def slow_threshold(S: Tensor, tau: float, min_density: float) -> Tensor:
    flat = S.flatten().tolist()
    kept = [1.0 / (1.0 + math.exp(-s)) > tau for s in flat]
    if min_density and sum(kept) < slow_count(len(flat), min_density):
        kept = slow_top_k(flat, slow_count(len(flat), min_density))
    return torch.tensor(kept).view(S.shape)


@given(matrices(st.sampled_from([-9.0, -3.0, -2.0, 0.0, 0.5, 4.0])), st.sampled_from([0.0, 0.1, 0.5, 0.9, 0.99]))
def test_threshold_is_the_slow_loop(S, tau):
    assert torch.equal(threshold_mask(S, tau), slow_threshold(S, tau, 0.005))
    assert torch.equal(threshold_mask(S, tau, 0.0), slow_threshold(S, tau, 0.0))


def test_the_threshold_is_for_the_sigmoid_and_not_the_score():
    S = torch.tensor([[0.05, -1.0, -3.0, 0.2]])
    assert threshold_mask(S, 0.1).tolist() == [[True, True, False, True]]


def test_half_a_per_cent_stays_and_ties_go_to_the_first():
    S = torch.full((20, 30), -8.0)  # 600 entries: 3 stay
    S[7, 3] = -7.0
    assert threshold_mask(S, 0.1).nonzero().tolist() == [[0, 0], [0, 1], [7, 3]]
    assert int(threshold_mask(S, 0.1, min_density=0.0).sum()) == 0
    S[9, 9] = S[9, 8] = 5.0  # two pass: fewer than three, so the floor decides
    assert threshold_mask(S, 0.1).nonzero().tolist() == [[7, 3], [9, 8], [9, 9]]
    S[9, 7] = 5.0  # three pass: the threshold decides
    assert threshold_mask(S, 0.1).nonzero().tolist() == [[9, 7], [9, 8], [9, 9]]


# -- hard concrete ----------------------------------------------------------------------------------------------------


def slow_gate(s: float, u: float) -> float:
    z = 1.2 / (1.0 + math.exp(-(math.log(u) - math.log(1.0 - u) + s) * 1.5)) - 0.1
    return min(1.0, max(0.0, z))


def gate_inputs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    S = 2.0 * torch.randn(12, 11, generator=generator, dtype=torch.float64)
    return S, torch.rand(12, 11, generator=generator, dtype=torch.float64)


def test_gate_sample_is_the_slow_loop():
    S, u = gate_inputs()
    M = masks.hard_concrete(S, u)
    slow = torch.tensor([slow_gate(float(s), float(v)) for s, v in zip(S.flatten(), u.flatten(), strict=True)])
    torch.testing.assert_close(M.flatten(), slow.double(), rtol=0, atol=1e-7)
    assert bool((M == 0).any()) and bool((M == 1).any()) and bool(((M > 0) & (M < 1)).any()), "all three cases occur"


def test_gate_gradient_read_off_the_mask_is_autograd():
    S, u = gate_inputs()
    S.requires_grad_()
    M = masks.hard_concrete(S, u)
    (expected,) = torch.autograd.grad(M.sum(), S)
    f = masks.hard_concrete_gradient(M.detach())
    torch.testing.assert_close(f, expected, rtol=1e-11, atol=1e-13)
    clamped = (M == 0) | (M == 1)
    assert bool((f[clamped] == 0).all()) and bool((f[~clamped] > 0).all())


def test_gate_gradient_is_eq_4():
    S, u = gate_inputs()
    gate = torch.sigmoid((torch.log(u) - torch.log(1 - u) + S) * 1.5)
    inside = (1.2 * gate - 0.1 > 0) & (1.2 * gate - 0.1 < 1)
    expected = 1.2 * 1.5 * gate * (1 - gate) * inside
    torch.testing.assert_close(
        masks.hard_concrete_gradient(masks.hard_concrete(S, u)), expected, rtol=1e-10, atol=1e-13
    )


def test_gate_gradient_is_a_finite_difference():
    S, u = gate_inputs()
    h = 1e-6
    difference = (masks.hard_concrete(S + h, u) - masks.hard_concrete(S - h, u)) / (2 * h)
    f = masks.hard_concrete_gradient(masks.hard_concrete(S, u))
    kink = ((masks.hard_concrete(S + h, u) == 0) != (masks.hard_concrete(S - h, u) == 0)) | (
        (masks.hard_concrete(S + h, u) == 1) != (masks.hard_concrete(S - h, u) == 1)
    )
    torch.testing.assert_close(f[~kink], difference[~kink], rtol=1e-7, atol=1e-9)


def test_gate_takes_the_most_extreme_noise():
    u = torch.tensor([torch.finfo(torch.float32).tiny, 1.0 - 2**-24])
    assert masks.hard_concrete(torch.zeros(2), u).tolist() == [0.0, 1.0]


@pytest.mark.parametrize("s", [-3.0, -1.0, 0.0, 2.197])
def test_expected_l0_is_what_sampling_gives(s):
    n = 200_000
    u = torch.rand(n, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    share = float((masks.hard_concrete(torch.full((n,), s, dtype=torch.float64), u) > 0).double().mean())
    assert float(masks.expected_l0(torch.tensor(s, dtype=torch.float64))) == pytest.approx(
        share, abs=5 * 0.5 / math.sqrt(n)
    )


def test_expected_l0_has_no_logarithm_of_the_score():
    assert float(masks.expected_l0(torch.tensor(-1.0))) == pytest.approx(0.6453, abs=1e-4)


def test_gate_for_evaluation():
    S = [-9.0, -2.5, -1.0, 0.0, 1.0, 2.197, 9.0]
    slow = [min(1.0, max(0.0, 1.2 / (1.0 + math.exp(-s)) - 0.1)) for s in S]
    assert masks.hard_concrete_test_mask(torch.tensor(S)).tolist() == pytest.approx(slow, abs=1e-6)
    assert slow[0] == 0.0 and slow[-1] == 1.0 and slow[5] == pytest.approx(0.98, abs=1e-3)


# -- straight through -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("select", "level"), [(masks.TopV, 0.25), (masks.Threshold, 0.5)])
def test_straight_through(select, level):
    S = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    M = select.apply(S, level)
    expected = top_v(S, level) if select is masks.TopV else threshold_mask(S, level)
    assert torch.equal(M, expected.double()) and 0 < M.sum() < 30
    upstream = torch.randn(5, 6, dtype=torch.float64)
    M.backward(upstream)
    assert torch.equal(S.grad, upstream)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 2000), densities)
def test_random_scores_of_any_length(n, density):
    S = torch.randn(n, generator=torch.Generator().manual_seed(n))
    mask = top_v(S, density)
    assert int(mask.sum()) == keep_count(n, density)
    assert bool(mask.all()) or float(S[mask].min()) >= float(S[~mask].max())
