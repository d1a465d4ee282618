"""Measures of masks against slow counting and against chance."""

import math

import pytest
import torch

from mvp_lite.course import anatomy


def random_mask(*shape, density=0.4, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < density


def test_head_density_counts_rows_of_three_masks_and_columns_of_the_fourth():
    query, key, value, output = (random_mask(6, 6, seed=seed) for seed in range(4))
    got = anatomy.head_density(query, key, value, output, heads=3)
    for head, density in enumerate(got.tolist()):
        mine = [2 * head, 2 * head + 1]
        kept = sum(int(mask[i, j]) for mask in (query, key, value) for i in mine for j in range(6))
        kept += sum(int(output[i, j]) for i in range(6) for j in mine)
        assert density == pytest.approx(kept / 48)
    assert got.dtype == torch.float64 and got.shape == (3,)


def test_concentration_is_one_on_average_for_random_masks():
    noise = torch.Generator().manual_seed(0)
    found = []
    for _ in range(2000):
        mask = torch.zeros(12)
        mask[torch.randperm(12, generator=noise)[:5]] = 1
        found.append(anatomy.concentration(mask.view(3, 4)))
    assert sum(found) / len(found) == pytest.approx(1, abs=0.05)
    whole_rows = torch.tensor([[1, 1], [0, 0]])  # counts 2 and 0: variance 1; by chance 2 * 1/4 * 2/3
    assert anatomy.concentration(whole_rows) == pytest.approx(3)
    assert math.isnan(anatomy.concentration(torch.ones(2, 2)))


def test_overlap_pools_all_masks():
    first, second = [torch.tensor([1, 1, 0]), torch.tensor([1])], [torch.tensor([1, 0, 0]), torch.tensor([1])]
    assert anatomy.overlap(first, second) == pytest.approx(2 / 3)
    assert anatomy.overlap(first, first) == 1
    with pytest.raises(ValueError, match="zip"):
        anatomy.overlap(first, second[:1])
