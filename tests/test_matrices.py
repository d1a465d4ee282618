"""One pruned matrix: what the model holds between steps, what a step lends and takes back, what others may change."""

import pytest
import torch
from torch import nn

from mvp_lite.matrices import find_matrices

W = torch.tensor([[1.0, -2.0], [3.0, 4.0]])
MASK = torch.tensor([[True, False], [True, True]])


def matrix(mask=MASK):
    """The second of two linear layers, with known weights, masked."""
    net = nn.ModuleDict({"other": nn.Linear(2, 2), "linear": nn.Linear(2, 2)})
    net["linear"].weight.data.copy_(W)
    (found,) = find_matrices(net, "linear")
    assert found.module is net["linear"] and found.weight is net["linear"].weight and found.name == "linear"
    found.mask = mask
    found.write_masked()
    return found


def test_found_matrices_are_dense_copies():
    net = nn.ModuleDict({"linear": nn.Linear(3, 2)})
    (found,) = find_matrices(net, "linear")
    assert found.mask.dtype == torch.bool and found.mask.shape == (2, 3) and bool(found.mask.all())
    assert torch.equal(found.master, found.weight) and not found.master.requires_grad
    assert found.master.data_ptr() != found.weight.data_ptr()


@pytest.mark.parametrize("mask", [MASK, torch.tensor([[0.5, 0.0], [1.0, 0.25]])])
def test_the_model_holds_masked_weights(mask):
    found = matrix(mask)
    assert torch.equal(found.weight.detach(), W * mask) and torch.equal(found.master, W)
    assert not found.changed_outside()


def test_an_optimizer_moves_the_dense_weights():
    found = matrix()
    held = found.weight.data_ptr()
    found.lend_master()
    assert torch.equal(found.weight.detach(), W)
    with torch.no_grad():
        found.weight.add_(1.0)
    found.take_back_master()
    found.restore_masked()
    assert torch.equal(found.master, W + 1.0)
    assert found.weight.data_ptr() == held and torch.equal(found.weight.detach(), W * MASK)
    assert found._version == found.weight._version, "the step was no write by others"
    found.weight.data = torch.zeros(2, 2)
    found.restore_masked()
    assert torch.equal(found.weight.detach(), torch.zeros(2, 2)), "there is nothing to give back any more"


def test_a_master_from_a_checkpoint_is_a_copy_in_the_weights_dtype():
    found, loaded = matrix(), torch.full((2, 2), 7.0)
    found.replace_master(loaded.double())
    assert found.master.dtype == torch.float32 and torch.equal(found.master, loaded)
    found.replace_master(loaded)
    loaded.zero_()
    assert bool((found.master == 7.0).all())
    found.weight = nn.Parameter(torch.ones(2, 2, device="meta"))
    found.replace_master(loaded)
    assert found.master.device.type == "meta"


def test_master_and_mask_follow_the_weight_to_another_device():
    found = matrix()
    found.to_device()
    assert torch.equal(found.master, W)
    found.weight = nn.Parameter(torch.ones(2, 2, device="meta"))
    found.to_device()
    assert found.master.device.type == found.mask.device.type == "meta"


def test_a_gradient_is_new_once():
    found = matrix()
    assert found.new_gradient() is None
    found.mark_processed()
    found.weight.grad = G = torch.ones(2, 2)
    assert found.new_gradient() is G and found.new_gradient() is G
    found.mark_processed()
    assert found.new_gradient() is None
    G.add_(1.0)
    assert found.new_gradient() is G, "a second backward pass has added to it"
    found.mark_processed()
    found.weight.grad = other = G.clone()
    assert found.new_gradient() is other
    found.mark_processed()
    found.weight.grad = None
    found.mark_processed()
    assert found.new_gradient() is None and found._processed is None


@pytest.mark.parametrize("begin", [lambda x: x.take_back_master(), lambda x: x.replace_master(W)])
def test_after_a_step_or_a_checkpoint_the_gradient_counts_as_new(begin):
    found = matrix()
    found.weight.grad = torch.ones(2, 2)
    found.mark_processed()
    begin(found)
    assert found.new_gradient() is found.weight.grad
    assert found._processed is None, "no gradient is held"


def test_other_values_are_noticed_and_equal_ones_are_not():
    found = matrix()
    with torch.no_grad():
        found.weight.copy_(W * MASK)
    assert not found.changed_outside()
    with torch.no_grad():
        found.weight.mul_(2.0)
    assert found.changed_outside()
    found.write_masked()
    found.weight.data.fill_(9.0)
    assert not found.changed_outside(), "a write through .data leaves no trace"


def test_weights_from_outside_reach_the_kept_entries():
    found = matrix()
    with torch.no_grad():
        found.weight.mul_(3.0)
    found.accept_external_weights()
    assert found.master.tolist() == [[3.0, -2.0], [9.0, 12.0]]
    assert found._version == found.weight._version
    found.accept_external_weights()
    assert found.master.tolist() == [[3.0, -2.0], [9.0, 12.0]]


def test_weights_from_outside_are_divided_by_their_gates():
    found = matrix(torch.tensor([[0.5, 0.0], [1.0, 0.25]], dtype=torch.float64))
    with torch.no_grad():
        found.weight.mul_(2.0)
    found.accept_external_weights()
    assert found.master.tolist() == [[2.0, -2.0], [6.0, 8.0]] and found.master.dtype == torch.float32


def test_weights_from_outside_must_respect_the_mask():
    found = matrix()
    with torch.no_grad():
        found.weight[0, 1] = 0.1
    with pytest.raises(ValueError, match=r"linear\.weight was changed from outside: pruned entries are not zero"):
        found.accept_external_weights()
    assert torch.equal(found.master, W)


def test_another_parameter_or_dtype_is_refused():
    found = matrix()
    found.module.weight = nn.Parameter(torch.ones(2, 2))
    with pytest.raises(ValueError, match=r"linear\.weight was replaced"):
        found.accept_external_weights()
    found = matrix()
    del found.module.weight
    with pytest.raises(ValueError, match=r"linear\.weight was replaced"):
        found.accept_external_weights()
    found = matrix()
    found.weight.data = found.weight.data.double()
    with pytest.raises(ValueError, match="changed its dtype"):
        found.accept_external_weights()
