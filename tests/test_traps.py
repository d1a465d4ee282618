"""What can go wrong around an optimizer's step, one trap after the other; most of these went wrong once."""

import copy
import math
import types

import pytest
import torch
from nets import METHODS, OPTIMIZERS, Net, batch, layers, loss_of, make, same, snapshot, train
from torch import nn

import mvp_lite as mvp

NAN = float("nan")


def half_way(method="movement", **options):
    net, opt, pruner = make(method, **options)
    train(net, opt, range(10))
    return net, opt, pruner


# -- 1: weights changed behind the pruner's back ----------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_loading_the_same_weights_changes_nothing(method):
    def run(load):
        net, opt, pruner = half_way(method)
        if load:
            net.load_state_dict(copy.deepcopy(net.state_dict()))
        return train(net, opt, range(10, 20)), snapshot(pruner)

    (losses, state), (losses2, state2) = run(False), run(True)
    assert losses == losses2 and same(state, state2)


@pytest.mark.parametrize("method", ["magnitude", "movement", "soft_movement", "random"])
def test_filled_in_pruned_entries_raise(method):
    net, opt, pruner = half_way(method, penalty=2000.0)
    assert pruner.density < 1.0
    dense = copy.deepcopy(net.state_dict())
    dense["blocks.1.weight"] = torch.randn(12, 16)
    net.load_state_dict(dense)
    before = snapshot(pruner)
    loss_of(net, 10).backward()
    with pytest.raises(ValueError, match=r"blocks\.1\.weight was changed from outside: pruned entries are not zero"):
        opt.step()
    assert same(before, snapshot(pruner))
    with pytest.raises(ValueError, match=r"blocks\.1\.weight was changed from outside"):
        pruner.clip_grad_norm_(1.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_other_kept_entries_are_adopted(dtype):
    net, opt, pruner = half_way(dtype=dtype)
    layer = layers(pruner)[0]
    master, mask = layer.master.clone(), layer.mask.clone()
    with torch.no_grad():
        layer.weight.mul_(3.0)
    loss_of(net, 10).backward()
    pruner.clip_grad_norm_(1e9)
    assert torch.equal(layer.master, torch.where(mask, 3.0 * master, master))
    assert layer.master.dtype == dtype
    opt.step()
    train(net, opt, range(11, 20))
    assert layer.weight.dtype == dtype


def test_a_write_through_data_is_not_noticed():
    """It bumps no version; the next step then writes the pruner's own weights over it."""
    net, opt, pruner = half_way()
    net.blocks[0].weight.data.zero_()
    train(net, opt, [10])
    assert int(net.blocks[0].weight.count_nonzero()) == int(layers(pruner)[0].mask.sum())


def test_weights_loaded_or_moved_between_constructor_and_attach():
    net = Net(0)
    pruner = mvp.Pruner(net, "magnitude", density=0.2, total_steps=20)
    other = Net(1)
    net.load_state_dict(other.state_dict())
    pruner.attach(torch.optim.AdamW(net.parameters()))
    assert torch.equal(net.blocks[0].weight, other.blocks[0].weight)
    assert torch.equal(layers(pruner)[0].master, other.blocks[0].weight)


def test_precision_changed_between_constructor_and_attach():
    net = Net(0)
    pruner = mvp.Pruner(net, "movement", density=0.2, total_steps=20, warmup_steps=2, cooldown_steps=4)
    net.bfloat16()
    opt = torch.optim.AdamW(net.parameters())
    pruner.attach(opt)
    train(net, opt, range(20))
    assert layers(pruner)[0].master.dtype == net.blocks[0].weight.dtype == torch.bfloat16


# -- 3: schedulers ----------------------------------------------------------------------------------------------------


def test_a_scheduler_moves_both_rates_and_must_come_later():
    net, opt, _ = make("movement", score_lr=0.3)
    scheduler = torch.optim.lr_scheduler.LambdaLR(opt, lambda t: 0.5**t)
    train(net, opt, range(2), scheduler=scheduler)
    assert [group["lr"] for group in opt.param_groups] == [3e-3 / 4, 0.3 / 4]
    net = Net()
    opt = OPTIMIZERS["adamw"](net.parameters())
    torch.optim.lr_scheduler.LambdaLR(opt, lambda t: 1.0)
    with pytest.raises(ValueError, match=r"a scheduler was built on this optimizer already: call attach\(\) first"):
        make(net=net, optimizer=opt)
    assert len(opt.param_groups) == 1 and not opt._optimizer_step_pre_hooks


# -- 4: wrappers and closures -----------------------------------------------------------------------------------------


def test_a_wrapper_with_an_inner_optimizer():
    net = Net()
    inner = OPTIMIZERS["adamw"](net.parameters())
    wrapper = types.SimpleNamespace(optimizer=inner, step=inner.step, zero_grad=inner.zero_grad)
    _, _, pruner = make(net=net, optimizer=wrapper)
    losses = train(net, wrapper, range(20))
    bare, opt, other = make()
    assert losses == train(bare, opt, range(20)) and same(snapshot(pruner), snapshot(other))


def test_closures_are_refused():
    net, opt, pruner = half_way()
    before = snapshot(pruner)
    for call in (lambda: opt.step(lambda: 0.0), lambda: opt.step(closure=lambda: 0.0)):
        with pytest.raises(TypeError, match=r"optimizer\.step\(closure\)"):
            call()
    assert same(before, snapshot(pruner))
    loss_of(net, 10).backward()
    opt.step(None)
    opt.step(closure=None)


class AdamWScheduleFree(torch.optim.AdamW):
    pass


@pytest.mark.parametrize("kind", [torch.optim.LBFGS, AdamWScheduleFree])
def test_optimizers_with_a_life_of_their_own(kind):
    net = Net()
    with pytest.raises(TypeError, match=rf"optimizer={kind.__name__}: .*use AdamW or SGD"):
        make(net=net, optimizer=kind(net.parameters()))


# -- 5: fused optimizers under a gradient scaler ----------------------------------------------------------------------


def fused(device, **options):
    net = Net(dtype=torch.float32, device=device)
    opt = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=0.01, fused=True)
    return make(net=net, optimizer=opt, **options)


def scaled_train(net, opt, steps, scaler, poison=()):
    for step in steps:
        opt.zero_grad()
        loss = loss_of(net, step) * (math.inf if step in poison else 1.0)
        scaler.scale(loss).backward()
        scaler.step(opt)
        scaler.update()


@pytest.mark.parametrize("method", METHODS)
def test_a_fused_optimizer_sees_scaled_gradients(method, device):
    """The penalty has to be scaled alike. With a power of two nothing is rounded differently."""
    net, opt, plain = fused(device, method=method, penalty=300.0)
    train(net, opt, range(12))
    net, opt, scaled = fused(device, method=method, penalty=300.0)
    scaled_train(net, opt, range(12), torch.amp.GradScaler(device.split(":")[0], init_scale=2.0**12))
    a, b = snapshot(plain), snapshot(scaled)
    for name in a:
        torch.testing.assert_close(b[name], a[name], rtol=1e-4, atol=1e-5)
    assert plain.density < 1.0 or method == "l0"


def test_the_scores_own_optimizer_sees_unscaled_gradients(device):
    own = {
        "score_optimizer": lambda scores: torch.optim.SGD(scores, lr=1.0),
        "method": "soft_movement",
        "penalty": 50.0,
    }
    net, opt, plain = fused(device, **own)
    train(net, opt, range(12))
    net, opt, scaled = fused(device, **own)
    scaled_train(net, opt, range(12), torch.amp.GradScaler(device.split(":")[0], init_scale=2.0**12))
    for name, value in snapshot(plain).items():
        torch.testing.assert_close(snapshot(scaled)[name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("is_fused", [True, False])
@pytest.mark.parametrize("method", METHODS)
def test_an_overflow_is_skipped_whole(method, is_fused, device):
    net, opt, pruner = fused(device, method=method) if is_fused else make(method, device=device)
    scaler = torch.amp.GradScaler(device.split(":")[0], init_scale=2.0**10)
    scaled_train(net, opt, range(8), scaler)
    before = snapshot(pruner)
    scaled_train(net, opt, [8], scaler, poison=[8])
    if method == "l0":  # a drawn sample still stands in the model, and the next forward keeps it
        net.eval()(batch(0, device=device)[0])
        net.train()
    assert same(before, snapshot(pruner)) and scaler.get_scale() == 2.0**9
    assert all(layer.scores is None or layer.scores.grad is None for layer in layers(pruner))
    scaled_train(net, opt, range(9, 12), scaler)
    assert pruner.steps_done == 11 and not same(before, snapshot(pruner))
    assert all(bool(layer.master.isfinite().all()) for layer in layers(pruner))


def test_found_inf_and_grad_scale_set_by_hand(device, monkeypatch):
    monkeypatch.setattr("mvp_lite.pruner._STEPS_BETWEEN_CHECKS", 1)  # as on a CPU
    net, opt, pruner = fused(device)
    train(net, opt, range(8))
    before = snapshot(pruner)
    opt.zero_grad()
    loss_of(net, 8).backward()
    net.blocks[0].weight.grad[0, 0] = math.inf
    opt.grad_scale, opt.found_inf = torch.tensor(1.0, device=device), torch.tensor(1.0, device=device)
    opt.step()
    assert same(before, snapshot(pruner))
    opt.found_inf = torch.tensor(0.0, device=device)
    with pytest.raises(ValueError, match=r"gradient of blocks\.0\.weight is not finite"):
        opt.step()
    assert same(before, snapshot(pruner))


def test_an_overflow_after_a_failed_step_still_restores_the_masked_weights(device):
    net, opt, pruner = fused(device)
    train(net, opt, range(8))
    handle = opt.register_step_pre_hook(lambda *_: (_ for _ in ()).throw(RuntimeError("out of memory")))
    with pytest.raises(RuntimeError, match="out of memory"):
        train(net, opt, [8])
    handle.remove()
    opt.found_inf = torch.tensor(1.0, device=device)
    opt.step()
    for layer in layers(pruner):
        assert torch.equal(layer.weight, layer.master * layer.mask)


# -- 6: optimizers whose step follows the parameter's norm ------------------------------------------------------------


class Lamb(torch.optim.AdamW):
    pass


def scale_aware(name):
    if name == "Lamb":
        return Lamb
    if name == "torch":
        return torch.optim.Adafactor
    return pytest.importorskip("transformers").Adafactor


@pytest.mark.parametrize("name", ["torch", "transformers", "Lamb"])
def test_parameter_scaled_optimizers_need_a_score_optimizer(name):
    kind = scale_aware(name)
    net = Net()
    with pytest.raises(
        ValueError, match=rf"optimizer={kind.__name__} scales steps by parameter norms, .*: pass score_optimizer="
    ):
        make(net=net, optimizer=kind(net.parameters()))
    make("magnitude", net=net, optimizer=kind(net.parameters()))  # nothing is learned: nothing is crushed


@pytest.mark.parametrize("name", ["torch", "transformers"])
@pytest.mark.parametrize("method", ["movement", "soft_movement", "l0"])
def test_a_score_optimizer_and_its_resume(name, method, tmp_path):
    def start(seed):
        net = Net(seed)
        made = []

        def adamw(scores):
            made.append(torch.optim.AdamW(scores, lr=0.3, weight_decay=0.0))
            return made[0]

        opt = scale_aware(name)(net.parameters())
        net, opt, pruner = make(method, net=net, optimizer=opt, score_optimizer=adamw)
        assert len(opt.param_groups) == 1 and len(made) == 1
        return net, opt, pruner

    net, opt, whole = start(0)
    losses = train(net, opt, range(20))
    assert not torch.equal(
        layers(whole)[0].scores, torch.full_like(layers(whole)[0].scores, layers(whole)[0].scores[0, 0].item())
    )
    net, opt, _ = start(0)
    train(net, opt, range(9))
    torch.save([net.state_dict(), opt.state_dict()], tmp_path / "state.pt")
    net, opt, pruner = start(1)
    model_state, optimizer_state = torch.load(tmp_path / "state.pt", weights_only=True)
    net.load_state_dict(model_state)
    opt.load_state_dict(optimizer_state)
    assert train(net, opt, range(9, 20)) == losses[9:]
    assert same(snapshot(whole), snapshot(pruner))


def test_clipping_with_a_score_optimizer_is_the_same():
    def run(own):
        options = {"score_optimizer": lambda scores: torch.optim.SGD(scores, lr=2.0)} if own else {}
        net = Net(dtype=torch.float64)
        sgd = torch.optim.SGD(net.parameters(), lr=0.05)
        net, opt, pruner = make(net=net, optimizer=sgd, score_lr=2.0, **options)
        norms = []
        for step in range(12):
            opt.zero_grad()
            loss_of(net, step).backward()
            norms.append(float(pruner.clip_grad_norm_(0.1)))
            opt.step()
        return norms, snapshot(pruner)

    (norms, state), (norms2, state2) = run(False), run(True)
    assert norms == pytest.approx(norms2, rel=1e-13) and max(norms) > 0.1
    for name in state:
        torch.testing.assert_close(state[name], state2[name], rtol=1e-12, atol=1e-15)


# -- 7: the scores' group ---------------------------------------------------------------------------------------------


def test_no_decay_on_scores():
    net = Net()
    net, opt, pruner = make(
        "l0", net=net, optimizer=torch.optim.AdamW(net.parameters(), weight_decay=0.5), score_lr=0.2
    )
    assert (opt.param_groups[-1]["weight_decay"], opt.param_groups[-1]["lr"]) == (0.0, 0.2)
    assert opt.param_groups[0]["weight_decay"] == 0.5
    assert [id(p) for p in opt.param_groups[-1]["params"]] == [id(layer.scores) for layer in layers(pruner)]


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64,) * 2,
    ],
)
@pytest.mark.parametrize("method", ["movement", "soft_movement", "l0"])
def test_scores_are_at_least_float32(method, dtype, expected):
    net, opt, pruner = make(method, dtype=dtype, optimizer="sgd")
    train(net, opt, range(4))
    for layer in layers(pruner):
        assert layer.scores.dtype == expected and layer.weight.dtype == layer.master.dtype == dtype
        assert not torch.equal(layer.scores.to(torch.bfloat16).to(expected), layer.scores), "finer than the model"


# -- 8: a model that moves --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_new_storage_after_attach(method, device):
    """As `model.to()` gives: same parameters, other memory."""

    def run(move):
        net, opt, pruner = make(method, device=device)
        for step in range(12):
            if move and step % 3 == 0:
                for p in net.parameters():
                    p.data = p.data.clone()
            train(net, opt, [step])
        return snapshot(pruner), [block.weight.detach().clone() for block in net.blocks]

    (state, weights), (state2, weights2) = run(False), run(True)
    assert same(state, state2) and all(map(torch.equal, weights, weights2))


def test_moved_after_attach(device):
    net, opt, pruner = make()
    net.to(device)
    train(net, opt, range(6))
    for layer in layers(pruner):
        assert layer.master.device == layer.mask.device == layer.scores.device == layer.weight.device
    assert layer.weight.device.type == torch.device(device).type


def test_a_change_of_precision_raises():
    net, opt, _ = make()
    net.double()
    loss_of(net, 0).backward()
    with pytest.raises(ValueError, match=r"blocks\.0\.weight was replaced .*or changed (its )?dtype after attach\(\)"):
        opt.step()


@pytest.mark.parametrize("change", ["replaced", "deleted", "frozen"])
def test_weights_changed_before_attach_raise(change):
    net = Net()
    pruner = mvp.Pruner(net, density=0.2, total_steps=20)
    if change == "replaced":
        net.blocks[1].weight = nn.Parameter(net.blocks[1].weight.detach())
    elif change == "deleted":
        del net.blocks[1].weight
    else:
        net.blocks[1].weight.requires_grad_(False)
    text = "are frozen" if change == "frozen" else "were replaced after the Pruner was made"
    with pytest.raises(ValueError, match=rf"the weights of blocks\.1 {text}"):
        pruner.attach(torch.optim.AdamW(Net().parameters()))


def test_a_replaced_parameter_raises():
    net, opt, _ = make()
    net.blocks[1].weight = nn.Parameter(net.blocks[1].weight.detach().clone())
    loss_of(net, 0).backward()
    with pytest.raises(ValueError, match=r"blocks\.1\.weight was replaced"):
        opt.step()


# -- 9: gradients of scores, and steps that fail ----------------------------------------------------------------------


def test_gradients_of_scores_are_assigned_and_taken_away():
    net, opt, pruner = make()
    for step in range(3):
        net.zero_grad()  # the model's own, which knows no scores
        loss_of(net, step).backward()
        pruner.clip_grad_norm_(1e9)
        expected = [layer.scores.grad.clone() for layer in layers(pruner)]
        opt.step()
        assert all(layer.scores.grad is None for layer in layers(pruner))
    net.zero_grad()
    loss_of(net, 3).backward()
    G = [layer.weight.grad.clone() for layer in layers(pruner)]
    pruner.clip_grad_norm_(1e9)
    for g, layer, old in zip(G, layers(pruner), expected, strict=True):
        assert torch.equal(layer.scores.grad, g * layer.master) and not torch.equal(layer.scores.grad, old)
        assert torch.equal(layer.weight.grad, g * layer.mask)


def test_a_layer_without_gradient_is_left_alone():
    class Skipping(Net):
        def forward(self, x):
            return self.head(torch.tanh(self.blocks[1](torch.tanh(self.blocks[0](torch.tanh(self.stem(x)))).detach())))

    net, opt, pruner = make(net=Skipping())
    before = snapshot(pruner)
    train(net, opt, range(2))
    after = snapshot(pruner)
    assert torch.equal(before["blocks.0.scores"], after["blocks.0.scores"])
    assert torch.equal(before["blocks.0.master"], after["blocks.0.master"])
    assert not torch.equal(before["blocks.1.scores"], after["blocks.1.scores"])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("again", ["the step", "the whole pass", "clip and step"])
def test_a_step_that_fails_can_be_repeated(method, again):
    """Out of memory in the optimizer, say: the next attempt finds the masked weights in the model again."""

    def fail(*_):
        raise RuntimeError("out of memory")

    net, opt, whole = make(method)
    expected = train(net, opt, range(12))
    net, opt, pruner = make(method)
    train(net, opt, range(7))
    handle = opt.register_step_pre_hook(fail)
    storage = net.blocks[0].weight.data_ptr()
    with pytest.raises(RuntimeError, match="out of memory"):
        train(net, opt, [7])
    handle.remove()
    assert pruner.steps_done == 7
    if again == "the step":
        opt.step()
    elif again == "clip and step":
        pruner.clip_grad_norm_(1e9)
        opt.step()
    else:
        opt.zero_grad()
        pruner._restore_masked()  # a forward right now would see dense weights: the next hook is what restores them
        loss_of(net, 7).backward()
        opt.step()
    assert net.blocks[0].weight.data_ptr() == storage
    assert train(net, opt, range(8, 12)) == expected[8:]
    assert same(snapshot(whole), snapshot(pruner))


# -- gradients that are no numbers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [NAN, math.inf, -math.inf])
def test_a_gradient_that_is_not_finite_names_the_layer_and_changes_nothing(method, value):
    net, opt, pruner = half_way(method)
    opt.zero_grad()
    loss_of(net, 10).backward()
    net.blocks[1].weight.grad[2, 3] = value
    before, moments = snapshot(pruner), copy.deepcopy(opt.state_dict()["state"])
    with pytest.raises(ValueError, match=r"the gradient of blocks\.1\.weight is not finite"):
        opt.step()
    assert same(before, snapshot(pruner))
    assert all(same(moments[i], opt.state_dict()["state"][i]) for i in moments)
    train(net, opt, range(10, 20))
    assert pruner.steps_done == 20


@pytest.mark.parametrize("method", ["soft_movement", "l0"])
def test_an_overflow_found_after_clipping_leaves_the_controller_alone(method, device):
    """The scaler skips the step by itself; what the clipping saw must not stay behind."""
    net, opt, pruner = make(method, device=device)
    train(net, opt, range(8))
    state = copy.deepcopy(pruner.state_dict()["method"])
    opt.zero_grad()
    (loss_of(net, 8) * math.inf).backward()
    pruner.clip_grad_norm_(1.0)
    assert pruner.state_dict()["method"] == state
    train(net, opt, range(9, 12))
    assert math.isfinite(pruner.penalty) and all(bool(x.scores.isfinite().all()) for x in layers(pruner))


def test_a_gradient_that_is_not_finite_raises_after_clipping_too():
    net, opt, pruner = half_way()
    opt.zero_grad()
    loss_of(net, 10).backward()
    net.blocks[1].weight.grad[2, 3] = NAN
    before = snapshot(pruner)
    pruner.clip_grad_norm_(1.0)
    with pytest.raises(ValueError, match="is not finite"):
        opt.step()
    assert same(before, snapshot(pruner))


def test_a_gradient_that_is_not_finite_raises_in_a_backward_pass_after_clipping():
    net, opt, pruner = half_way(optimizer="adamw")
    opt.zero_grad()
    loss_of(net, 10).backward()
    pruner.clip_grad_norm_(1.0)
    loss_of(net, 11).backward()
    net.blocks[1].weight.grad[2, 3] = NAN
    before = snapshot(pruner)
    with pytest.raises(ValueError, match=r"blocks\.1\.weight is not finite"):
        opt.step()
    assert same(before, snapshot(pruner))


def test_a_large_gradient_is_a_number():
    net, opt, pruner = half_way(optimizer="adamw")
    opt.zero_grad()
    loss_of(net, 10).backward()
    net.blocks[1].weight.grad[0, 0] = 1e30  # its square overflows
    opt.step()
    assert pruner.steps_done == 11


# -- 14: sharing, sharding, copies ------------------------------------------------------------------------------------


def test_tied_weights_are_refused():
    net = Net()
    net.blocks[1] = nn.Linear(12, 16)
    net.blocks[1].weight = net.blocks[0].weight
    with pytest.raises(ValueError, match=r"blocks\.0\.weight is tied \(blocks\.0\.weight, blocks\.1\.weight\)"):
        mvp.Pruner(net, density=0.2, total_steps=20)
    embedding = nn.ModuleDict({"embed": nn.Embedding(7, 5), "blocks": nn.ModuleList([nn.Linear(5, 7)])})
    embedding["blocks"][0].weight = embedding["embed"].weight
    with pytest.raises(ValueError, match=r"is tied \(embed\.weight, blocks\.0\.weight\)"):
        mvp.Pruner(embedding, density=0.2, total_steps=20)


@pytest.mark.parametrize("method", METHODS)
def test_one_module_in_several_places_is_fine(method):
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.stem, self.head = nn.Linear(6, 12), nn.Linear(12, 3)
            self.blocks = nn.ModuleList([nn.Linear(12, 12)] * 3)

        def forward(self, x):
            x = self.stem(x)
            for block in self.blocks:
                x = torch.tanh(block(x))
            return self.head(x)

    net, opt, pruner = make(method, net=Shared())
    assert [layer.name for layer in layers(pruner)] == ["blocks.0"]
    train(net, opt, range(2))
    opt.zero_grad()
    loss_of(net, 2).backward()
    assert all(block is net.blocks[0] for block in net.blocks)
    if method == "movement":
        layer = layers(pruner)[0]
        expected = layer.weight.grad * layer.master
        pruner.clip_grad_norm_(1e9)
        assert torch.equal(layer.scores.grad, expected), "the gradient sums over the calls"
    opt.step()


class DTensor(nn.Parameter):
    pass


class FlatParameter(nn.Parameter):
    pass


def test_sharded_and_parametrized_weights_are_refused():
    def refused(change):
        net = Net()
        change(net.blocks[1])
        with pytest.raises(ValueError, match=r"blocks\.1\.weight is sharded \(FSDP, DeepSpeed ZeRO\) or parametrized"):
            mvp.Pruner(net, density=0.2, total_steps=20)

    def plain_tensor(module):  # as FSDP leaves it with use_orig_params=False
        data = module.weight.detach()
        del module._parameters["weight"]
        module.weight = data

    refused(lambda module: setattr(module.weight, "ds_id", 3))
    refused(lambda module: setattr(module, "weight", DTensor(module.weight.detach())))
    refused(lambda module: setattr(module, "weight", FlatParameter(module.weight.detach())))
    refused(plain_tensor)
    refused(torch.nn.utils.parametrizations.weight_norm)


def test_a_copied_optimizer_has_lost_its_hooks():
    """So it trains its copy densely; the pruner stays with the original."""
    net, opt, pruner = half_way()
    net2, opt2 = copy.deepcopy((net, opt))
    assert same(dict(net2.named_parameters()), dict(net.named_parameters()))
    before = snapshot(pruner)
    train(net2, opt2, range(10, 13))
    assert same(before, snapshot(pruner))
    assert int(net2.blocks[0].weight.count_nonzero()) > int(net.blocks[0].weight.count_nonzero())
    train(net, opt, [10])
    assert pruner.steps_done == 11
