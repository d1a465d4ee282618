"""How often a training step waits for a GPU, and what is looked for less often for that."""

import copy
import importlib.util
import json
from pathlib import Path

import pytest
import torch
from nets import METHODS, layers, loss_of, make, same, train
from torch import nn

import mvp_lite as mvp
from mvp_lite import _selection
from mvp_lite.pruner import _STEPS_BETWEEN_CHECKS

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def run():
    spec = importlib.util.spec_from_file_location("run", BENCHMARKS / "run.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def recorded():
    return json.loads((BENCHMARKS / "results.json").read_text())["reads of a GPU around a step, 12 matrices"]


def test_reads_are_those_recorded(run):
    (found,) = run.synchronizations().values()
    assert found == recorded()
    assert {count for name, count in found.items() if name.startswith(run.TOP_V)} == {0}
    assert found["l0, fixed penalty"] == 0
    assert max(count for name, count in found.items() if "cool-down" not in name) <= 3


def test_a_read_is_counted(run, monkeypatch):
    observe = mvp.pruner.MaskChanges.observe
    for read, more in ((float, 1), (lambda x: x.cpu(), 1), (lambda x: (bool(x), x.tolist()), 2)):
        monkeypatch.setattr(
            mvp.pruner.MaskChanges, "observe", lambda self, M, read=read: (observe(self, M), read(M[0].sum()))
        )
        assert run.reads("movement", {}, 410) == more
    monkeypatch.setattr(mvp.pruner.MaskChanges, "observe", lambda self, M: M[0].nonzero())
    with pytest.raises(RuntimeError):
        run.reads("movement", {}, 410)


@pytest.mark.parametrize("name", ["magnitude", "movement", "random"])
def test_cuda_agrees(name, device):
    """CUDA itself raises if a step waits, the forward and backward pass included."""
    if not device.startswith("cuda"):
        pytest.skip("needs CUDA")
    net, opt, pruner = make(name, device=device)
    x, y = torch.randn(16, 6, device=device), torch.zeros(16, dtype=torch.long, device=device)
    for step in range(12):
        torch.cuda.set_sync_debug_mode("error" if step > 5 else "default")
        try:
            opt.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            pruner.clip_grad_norm_(1.0)
            opt.step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert pruner.density < 1.0


# -- what a GPU is asked only once in a while --------------------------------------------------------------------------


def as_on_a_gpu(monkeypatch):
    monkeypatch.setattr(mvp.Pruner, "_on_cpu", lambda self: False)
    monkeypatch.setattr(_selection, "_by_partition", _selection._by_sorting)


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_a_run_is_the_same(method, clip, monkeypatch):
    def run():
        net, opt, pruner = make(method, steps=60)
        for step in range(60):
            opt.zero_grad()
            loss_of(net, step).backward()
            if clip:
                pruner.clip_grad_norm_(0.5)
            opt.step()
        return pruner.density, {name: tensor.clone() for name, tensor in net.state_dict().items()}

    density, weights = run()
    as_on_a_gpu(monkeypatch)
    again, found = run()
    assert again == density < 1.0
    assert same(found, weights)


def with_nan(method, monkeypatch):
    """A run in whose fourth step a gradient is NaN, and nothing is said."""
    as_on_a_gpu(monkeypatch)
    net, opt, pruner = make(method, steps=2 * _STEPS_BETWEEN_CHECKS)
    train(net, opt, range(3))
    opt.zero_grad()
    loss_of(net, 3).backward()
    net.blocks[1].weight.grad[0, 0] = torch.nan
    opt.step()
    assert bool(layers(pruner)[1].master.isnan().any())
    return net, opt, pruner


NAN_BY = r"NaN by step {} in {}.*: lower the learning rate or clip"
LATE = ("magnitude", "movement", "l0", "random")  # soft movement reads its counts in each step


@pytest.mark.parametrize("method", LATE)
def test_nan_is_found_after_a_fixed_number_of_steps(method, monkeypatch):
    net, opt, pruner = with_nan(method, monkeypatch)
    with pytest.raises(ValueError, match=NAN_BY.format(_STEPS_BETWEEN_CHECKS, r"blocks\.0\.weight")):
        train(net, opt, range(4, 2 * _STEPS_BETWEEN_CHECKS))
    assert pruner.steps_done == _STEPS_BETWEEN_CHECKS
    pruner.finalize(early=True)  # what was said once does not keep the model from becoming plain
    assert not net._forward_pre_hooks


@pytest.mark.parametrize("method", LATE)
@pytest.mark.parametrize("saving", ["state_dict", "finalize"])
def test_nan_is_found_before_anything_is_saved(method, saving, monkeypatch):
    _, opt, pruner = with_nan(method, monkeypatch)
    with pytest.raises(ValueError, match=NAN_BY.format(4, r"blocks\.1\.weight")):
        opt.state_dict() if saving == "state_dict" else pruner.finalize(early=True)


def test_soft_movement_finds_nan_at_once(monkeypatch):
    as_on_a_gpu(monkeypatch)
    net, opt, _ = make("soft_movement")
    train(net, opt, range(3))
    opt.zero_grad()
    loss_of(net, 3).backward()
    net.blocks[1].weight.grad[0, 0] = torch.nan
    with pytest.raises(ValueError, match="scores contain NaN"):
        opt.step()


def test_a_state_without_nan_can_be_loaded_over_nan(monkeypatch):
    net, opt, pruner = make("movement", steps=2 * _STEPS_BETWEEN_CHECKS)
    train(net, opt, range(2))
    saved = copy.deepcopy({"net": net.state_dict(), "opt": opt.state_dict()})
    net, opt, pruner = with_nan("movement", monkeypatch)
    net.load_state_dict(saved["net"])
    opt.load_state_dict(saved["opt"])
    train(net, opt, range(2, 2 * _STEPS_BETWEEN_CHECKS))
    pruner.finalize()


def test_the_norm_of_clipping_stands_for_the_check_of_its_gradients_alone():
    """A gradient that comes after clipping is looked at anew."""
    net, opt, pruner = make()
    loss_of(net, 0).backward()
    pruner.clip_grad_norm_(1.0)
    net.blocks[0].weight.grad[0, 0] = torch.inf
    with pytest.raises(ValueError, match=r"the gradient of blocks\.0\.weight is not finite"):
        opt.step()
