"""The pruner from the outside: what it keeps, what it saves, what it refuses."""

import copy
import math
import weakref
from itertools import chain

import numpy as np
import pytest
import torch
from nets import METHODS, OPTIMIZERS, TOP_V, Net, batch, layers, loss_of, make, same, snapshot, train, used
from torch import nn
from torch.utils.checkpoint import checkpoint

import mvp_lite as mvp
from mvp_lite import masks
from mvp_lite.masks import keep_count
from mvp_lite.schedule import cubic

SIZES = {"blocks.0": 192, "blocks.1": 192}

# -- a whole run ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["local", "global"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("method", METHODS)
def test_a_whole_run(method, optimizer, scope, device):
    net, opt, pruner = make(method, optimizer=optimizer, scope=scope, device=device)
    densities = [pruner.density]

    def check():
        densities.append(pruner.density)
        for layer in layers(pruner):
            held = layer.weight.detach()
            assert torch.equal(held, layer.master * layer.mask), "between steps the model holds W * M"
            assert bool((held[layer.mask == 0] == 0).all())

    train(net, opt, range(20), after=check)
    expected = [cubic(t, 1.0, 0.2, 20, 2, 4) for t in range(21)]
    if method in TOP_V:
        count = (lambda v: 2 * keep_count(192, v)) if scope == "local" else (lambda v: keep_count(384, v))
        assert densities == [count(v) / 384 for v in expected]
        assert densities[:3] == [1.0] * 3 and len(set(densities[16:])) == 1
    else:
        assert densities[0] == 1.0 and densities[-1] < 1.0
    assert pruner.done and pruner.steps_done == 20
    before = {name: t.clone() for name, t in net.state_dict().items()}
    assert pruner.finalize() is net
    assert all(torch.equal(t, before[name]) for name, t in net.state_dict().items())
    assert sum(int(block.weight.count_nonzero()) for block in net.blocks) / 384 == densities[-1] == pruner.density


@pytest.mark.parametrize("method", METHODS)
def test_the_model_stays_an_ordinary_model(method):
    net, opt, pruner = make(method)
    plain = Net()
    train(net, opt, range(20))
    assert list(net.state_dict()) == list(plain.state_dict())
    plain.load_state_dict(net.state_dict())
    x, _ = batch(99)
    torch.testing.assert_close(plain.eval()(x), net.eval()(x))
    pruner.finalize()
    assert same(plain.state_dict(), net.state_dict())
    torch.testing.assert_close(plain(x), net(x))
    assert not net._forward_pre_hooks and not net._state_dict_pre_hooks and not opt._optimizer_step_pre_hooks
    assert {type(m) for m in net.modules()} == {type(m) for m in plain.modules()}
    assert pruner.finalize() is net, "a second call changes nothing"
    if pruner.score_lr:
        assert opt.param_groups[1]["params"] == [] and len(opt.param_groups) == 2, "schedulers count groups"
    train(net, opt, range(2))  # the optimizer still works, and is an ordinary one again
    assert pruner.steps_done == 20


def test_done_and_warm_up_and_cool_down():
    net, opt, pruner = make("movement", steps=10, warmup_steps=3, cooldown_steps=4)
    seen = []
    train(net, opt, range(12), after=lambda: seen.append((pruner.density == 1.0, pruner.done)))
    assert seen[:3] == [(True, False)] * 3, "nothing falls during warm-up"
    assert [done for _, done in seen] == [False] * 5 + [True] * 7
    assert pruner.density == 2 * keep_count(192, 0.2) / 384


def test_default_warm_up_and_cool_down():
    pruner = mvp.Pruner(Net(), density=0.1, total_steps=600)
    assert (pruner.schedule.warmup_steps, pruner.schedule.cooldown_steps) == (60, 180)
    assert mvp.Pruner(Net(), density=0.1, total_steps=1).schedule.cooldown_steps == 0


def test_initial_density():
    _, _, pruner = make("magnitude", initial_density=0.5)
    assert pruner.density == 0.5


def test_scores_decide_and_movement_is_their_sum():
    """With plain SGD the scores are -rate * sum of G * W (Eq. 3), and the mask keeps the best of them."""
    net = Net(dtype=torch.float64)
    net, opt, pruner = make(net=net, optimizer=torch.optim.SGD(net.parameters(), lr=0.1), score_lr=2.0)
    total = [torch.zeros_like(layer.master) for layer in layers(pruner)]
    for step in range(20):
        opt.zero_grad()
        loss_of(net, step).backward()
        for t, layer in zip(total, layers(pruner), strict=True):
            t -= 2.0 * layer.weight.grad * layer.master
        opt.step()
    for t, layer in zip(total, layers(pruner), strict=True):
        torch.testing.assert_close(layer.scores.detach(), t, rtol=1e-12, atol=1e-15)
        assert torch.equal(layer.mask, masks.top_v(t, 0.2))


def test_magnitude_ranks_the_master_and_masked_weights_come_back():
    """Adam's momentum still moves a pruned weight; the selection sees that, and not the zero in the model."""
    net, opt, pruner = make("magnitude", steps=40)
    returned = 0
    for step in range(40):
        before = [layer.mask.clone() for layer in layers(pruner)]
        train(net, opt, [step])
        for old, layer in zip(before, layers(pruner), strict=True):
            assert torch.equal(layer.mask, masks.top_v(layer.master.abs(), cubic(step + 1, 1.0, 0.2, 40, 2, 4)))
            returned += int((layer.mask & ~old).sum())
    assert returned > 0


def test_random_depends_on_the_seed_alone():
    def final(net_seed, seed, optimizer):
        net = Net(net_seed)
        net, opt, pruner = make("random", net=net, optimizer=optimizer, seed=seed)
        train(net, opt, range(20))
        return [layer.mask for layer in layers(pruner)]

    first = final(0, 7, "adamw")
    assert all(map(torch.equal, first, final(1, 7, "sgd")))
    assert not any(map(torch.equal, first, final(0, 8, "adamw")))
    assert not torch.equal(first[0].flatten(), first[1].flatten()), "layers draw different numbers"


def test_min_density_guards_every_matrix():
    def kept(**options):
        net = Net()
        net.blocks[1].weight.data.mul_(1e-3)  # magnitude would empty it
        net, opt, pruner = make("magnitude", net=net, scope="global", density=0.1, **options)
        train(net, opt, range(20))
        return pruner.report()

    free, guarded = kept(), kept(min_density=0.05)
    assert free["kept"].tolist() == [38, 0] and free["empty"].tolist() == [False, True]
    assert guarded["kept"].tolist() == [28, 10] and guarded["empty"].tolist() == [False, False]


def test_report():
    net, opt, pruner = make()
    train(net, opt, range(20))
    report = pruner.report()
    assert report.columns.tolist() == ["layer", "shape", "kept", "density", "empty"]
    assert report["layer"].tolist() == list(SIZES)
    assert report["shape"].tolist() == [(16, 12), (12, 16)]
    assert report["kept"].tolist() == [38, 38]
    assert report["density"].tolist() == [38 / 192] * 2
    assert report["empty"].tolist() == [False] * 2
    pruner.finalize()
    assert pruner.report().equals(report)
    net.blocks[0].weight.data.zero_()
    assert pruner.report()["empty"].tolist() == [True, False]


def test_repr():
    pruner = mvp.Pruner(Net(), density=0.2, total_steps=20)
    text = "density 1 now, 0.2 at the end; step 0 of 20; 2 matrices with 384 weights"
    assert repr(pruner) == f"Pruner(movement: {text}; not attached)"
    net, opt, pruner = make("magnitude", groups="rows")
    train(net, opt, range(17))
    text = f"density {pruner.density:.3g} now, 0.2 at the end; step 17 of 20; 2 matrices with 384 weights, in groups"
    assert repr(pruner) == f"Pruner(magnitude: {text}; attached)"
    pruner.finalize()
    assert repr(pruner) == f"Pruner(magnitude: {text}; finalized)"
    _, _, pruner = make("soft_movement", penalty=30.0)
    assert "; attached)" in repr(pruner) and "now, an outcome of penalty=30; step 0" in repr(pruner)
    _, _, pruner = make("l0")
    assert "0.2 at the end" in repr(pruner)


def test_the_diagnosis_gets_what_the_run_has_seen(monkeypatch):
    net, opt, pruner = make()
    losses = train(net, opt, range(5))
    monkeypatch.setattr(mvp.pruner, "Diagnosis", lambda *given: given)
    changes, advice = pruner._mask_changes, pruner.method.advice()
    found = pruner.diagnosis(losses, score=90.0, baseline=50.0, examples=70, constant_share=0.6)
    assert found == (losses, changes.densities, changes.changed, 90.0, 50.0, 70, 0.6, advice)
    assert len(changes.densities) == 5


def test_the_controller_gets_density_and_number_of_scores(monkeypatch):
    net, opt, pruner = make("soft_movement")
    given = []
    monkeypatch.setattr(pruner.method, "update_penalty", lambda *values: given.append(values))
    train(net, opt, range(12), after=lambda: given.append((pruner.steps_done, pruner.density, 384)))
    assert given[::2] == given[1::2] and given[-1][1] < 1.0


@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_the_controller_gets_the_mean_gradient_of_the_scores(scale):
    """In absolute value, over all scores of the pool, without the factor of a gradient scaler."""
    net, opt, pruner = make("soft_movement")
    train(net, opt, range(3))
    opt.zero_grad()
    (scale * loss_of(net, 3)).backward()
    terms = [(layer.weight.grad / scale * layer.master).abs() for layer in layers(pruner)]
    pruner._set_gradients(torch.tensor(scale))
    expected = torch.cat([term.flatten() for term in terms]).mean()
    torch.testing.assert_close(pruner.pools[0].mean_gradient, expected)


def test_a_maker_of_groups_sees_the_model():
    seen = []

    def maker(model, matrices):
        seen.append((model, [matrix.name for matrix in matrices]))
        return mvp.groups.weights(model, matrices)

    net = Net()
    mvp.Pruner(net, density=0.5, total_steps=20, groups=maker)
    assert seen == [(net, list(SIZES))]


def test_scores_and_weights_move_in_one_direction():
    def optimizer(maximize):
        return lambda parameters: torch.optim.SGD(parameters, lr=0.1, maximize=maximize)

    for maximize in (True, False):
        net = Net()
        make(net=net, optimizer=optimizer(maximize)(net.parameters()), score_optimizer=optimizer(maximize))
        net = Net()
        with pytest.raises(ValueError, match="must both minimize or both maximize"):
            make(net=net, optimizer=optimizer(maximize)(net.parameters()), score_optimizer=optimizer(not maximize))


def test_an_optimizer_of_scores_that_cannot_maximize_minimizes():
    class Plain(torch.optim.Optimizer):
        def __init__(self, parameters):
            super().__init__(parameters, {})

    assert make(score_optimizer=Plain)[2]._score_optimizer is not None


@pytest.mark.parametrize("method", METHODS)
def test_only_learned_scores_are_trained(method):
    _, opt, pruner = make(method)
    learned = method not in ("magnitude", "random")
    assert len(opt.param_groups) == 1 + learned and len(pruner._learned_scores()) == (2 if learned else 0)


def test_a_pruner_of_one_matrix():
    net, opt, pruner = make(target=r"blocks\.1")
    train(net, opt, range(20))
    assert pruner.density == pytest.approx(38 / 192)


@pytest.mark.parametrize(("on_cpu", "expected"), [(True, [*range(8)]), (False, [0, 3, 6])])
def test_steps_at_which_gradients_are_checked(on_cpu, expected, monkeypatch):
    net, opt, pruner = make()
    checked = []
    monkeypatch.setattr(mvp.pruner, "_STEPS_BETWEEN_CHECKS", 3)
    monkeypatch.setattr(pruner, "_on_cpu", lambda: on_cpu)
    monkeypatch.setattr(pruner, "_check_gradients", lambda: checked.append(pruner.steps_done))
    train(net, opt, range(8))
    assert checked == expected


def test_whether_a_pruner_is_at_work():
    net, _, pruner = make()
    assert mvp.pruner.prunes(net) and mvp.pruner.prunes(net.blocks[0]) and not mvp.pruner.prunes(net.head)
    assert not mvp.pruner.prunes(Net())
    pruner.finalize(early=True)
    assert not mvp.pruner.prunes(net)


def test_soft_movement_follows_threshold_and_penalty():
    """lambda(t) = lambda * tau(t) / tau: both on the cubic schedule, from 0."""
    net, opt, pruner = make("soft_movement", penalty=40.0, threshold=0.3, score_lr=0.5)
    for t in range(21):
        theta = cubic(t, 0.0, 0.3, 20, 2, 4)
        assert pruner.penalty == pytest.approx(40.0 * theta / 0.3, abs=1e-12)
        for layer in layers(pruner):
            assert torch.equal(layer.mask, masks.threshold_mask(layer.scores, theta))
        train(net, opt, [t])
    assert pruner.density < 1.0


def test_a_larger_penalty_keeps_less():
    def kept(method, penalty):
        net, opt, pruner = make(method, penalty=penalty, score_lr=0.3)
        train(net, opt, range(20))
        return pruner.density

    for method, penalties in (("soft_movement", (0.0, 30.0, 300.0)), ("l0", (0.0, 3.0, 300.0))):
        densities = [kept(method, p) for p in penalties]
        assert densities[0] > densities[1] > densities[2], (method, densities)


def test_the_gates_penalty_is_constant():
    net, opt, pruner = make("l0", penalty=7.0)
    train(net, opt, range(20), after=lambda: None if pruner.penalty == 7.0 else pytest.fail("moved"))


def test_a_selection_among_equal_scores_warns():
    with pytest.warns(UserWarning, match="all scores are equal.*warmup_steps"):
        make("movement", initial_density=0.5)
    with pytest.warns(UserWarning, match="^selecting while all scores are equal"):
        make("movement", initial_density=0.5, score_init=1.0)


@pytest.mark.filterwarnings("error")
def test_no_warning_before_the_selection_or_among_different_scores():
    make("movement")  # at density 1 nothing is selected yet
    net, opt, _ = make("movement", magnitude_init=0.3, initial_density=0.5)
    train(net, opt, range(3))


def test_target_chooses_modules_by_name():
    assert [x.name for x in layers(mvp.Pruner(Net(), density=0.1, total_steps=9))] == ["blocks.0", "blocks.1"]
    assert [x.name for x in layers(mvp.Pruner(Net(), density=0.1, total_steps=9, target=r"stem|\.1$"))] == [
        "stem",
        "blocks.1",
    ]


@pytest.mark.parametrize("score_init", [None, 0.5])
@pytest.mark.parametrize(
    ("method", "start", "rate"), [("movement", 0.0, 1e-2), ("soft_movement", 0.0, 1e-2), ("l0", 2.197, 0.1)]
)
def test_start_and_rate_of_scores(method, start, rate, score_init):
    """The published ones for a fixed penalty; with the feedback rule a path of fixed length, however short the run."""
    for penalty in (1.0, "feedback"):
        net = Net()
        options = used(method, score_init=score_init, penalty=penalty, magnitude_init=0.0)
        pruner = mvp.Pruner(net, method, density=0.2, total_steps=20, **options)
        opt = torch.optim.AdamW(net.parameters())
        pruner.attach(opt)
        expected = start if score_init is None else score_init
        assert all(bool((layer.scores == expected).all()) for layer in layers(pruner))
        feedback = penalty == "feedback" and method != "movement"
        assert opt.param_groups[1]["lr"] == (30 / 20 if feedback else rate)


# -- l0 ---------------------------------------------------------------------------------------------------------------


class Gated(nn.Module):
    """The paper's formulation of an L0 layer, for given noise."""

    def __init__(self, linear):
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias
        self.scores = nn.Parameter(torch.full_like(linear.weight, 2.197))

    def forward(self, x):
        return nn.functional.linear(x, self.weight * masks.hard_concrete(self.scores, self.noise), self.bias)


@pytest.mark.parametrize(("optimizer", "accumulate"), [("sgd", 1), ("sgd", 3), ("adamw", 1), ("adamw", 2)])
def test_l0_is_the_gated_layer(optimizer, accumulate):
    """A whole run against autograd through the gate and its penalty, for the same noise."""
    steps, rate, penalty = 15, {"sgd": 20.0, "adamw": 0.5}[optimizer], 50.0
    net = Net(dtype=torch.float64)
    reference = copy.deepcopy(net)
    reference.blocks = nn.ModuleList(Gated(block) for block in reference.blocks)
    named = dict(reference.named_parameters())
    scores = [named.pop(f"blocks.{i}.scores") for i in (0, 1)]
    opt = OPTIMIZERS[optimizer]([{"params": list(named.values())}])
    opt.add_param_group({"params": scores, "lr": rate, "weight_decay": 0.0})
    net, opt2, pruner = make("l0", net=net, optimizer=optimizer, penalty=penalty, score_lr=rate, seed=3)
    for step in range(steps):
        generator = torch.Generator().manual_seed(3 * 1_000_003 + step)
        for block in reference.blocks:
            block.noise = torch.rand(block.weight.shape, generator=generator, dtype=torch.float64)
        losses = train(net, opt2, [step], accumulate=accumulate)
        opt.zero_grad()
        for micro in range(accumulate):
            loss = loss_of(reference, step * accumulate + micro) / accumulate
            loss.backward()
            assert loss.item() == pytest.approx(losses[micro], rel=1e-9)
        (penalty * sum(masks.expected_l0(S).mean() for S in scores) / 2).backward()
        opt.step()
    for S, block, layer in zip(scores, reference.blocks, layers(pruner), strict=True):
        torch.testing.assert_close(layer.scores.detach(), S.detach(), rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(layer.master, block.weight.detach(), rtol=1e-9, atol=1e-11)
    assert pruner.density < 0.9


def counting(pruner, monkeypatch):
    drawn, sample = [], pruner._sample
    monkeypatch.setattr(pruner, "_sample", lambda: (drawn.append(pruner.steps_done), sample()))
    return drawn


def test_l0_samples_once_a_step(monkeypatch, device):
    net, opt, pruner = make("l0", device=device)
    drawn = counting(pruner, monkeypatch)
    held = []
    net.blocks[0].register_forward_hook(lambda module, *_: held.append(module.weight.detach().clone()))
    for step in range(4):
        opt.zero_grad()
        for micro in range(3):
            loss_of(net, 3 * step + micro).backward()
        assert torch.equal(held[-1], held[-2]) and torch.equal(held[-1], held[-3])
        opt.step()
    assert drawn == [0, 1, 2, 3]
    assert not torch.equal(held[2] / held[2].abs().sum(), held[3] / held[3].abs().sum())


def test_l0_noise_depends_on_seed_and_step():
    def samples(seed):
        net, opt, pruner = make("l0", seed=seed)
        seen = []
        for step in range(2):
            loss_of(net, step)
            seen.append(layers(pruner)[0].mask.clone())
            train(net, opt, [step])
        return seen

    first, second = samples(5), samples(5)
    assert all(map(torch.equal, first, second))
    assert not torch.equal(first[0], first[1]) and not torch.equal(first[0], samples(6)[0])


def test_l0_does_not_touch_the_global_generator():
    net, opt, _ = make("l0")
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    train(net, opt, range(2))
    assert torch.equal(torch.rand(3), expected)


def test_l0_evaluation_and_checkpoints_see_the_evaluation_mask():
    net, opt, pruner = make("l0", penalty=30.0)
    train(net, opt, range(8))
    expected = [layer.master * masks.hard_concrete_test_mask(layer.scores.detach()) for layer in layers(pruner)]
    held = lambda: [block.weight.detach() for block in net.blocks]  # noqa: E731
    kept, report = pruner.density, pruner.report()
    assert all(map(torch.equal, held(), expected))
    loss_of(net, 100).backward()
    sampled = [w.clone() for w in held()]
    assert not any(map(torch.equal, sampled, expected))
    assert pruner.density == kept and pruner.report().equals(report), "counted by the evaluation mask"
    saved = net.state_dict()
    assert all(torch.equal(saved[f"blocks.{i}.weight"], w) for i, w in enumerate(expected))
    loss_of(net, 101)
    assert all(map(torch.equal, held(), sampled)), "training goes on with the same sample"
    net.eval()
    loss_of(net, 102)
    assert all(map(torch.equal, held(), expected))
    net.train()
    loss_of(net, 103)
    assert all(map(torch.equal, held(), sampled))


@pytest.mark.parametrize("between", ["evaluation", "checkpoint"])
@pytest.mark.parametrize("clip", [False, True])
def test_l0_evaluation_anywhere_between_two_steps_changes_nothing(between, clip):
    def run(disturb):
        net, opt, pruner = make("l0", penalty=3.0)
        for step in range(5):
            opt.zero_grad()
            for micro in range(2):
                loss_of(net, 2 * step + micro).backward()
                if disturb and between == "evaluation":
                    loss_of(net.eval(), 99)
                    net.train()
                elif disturb:
                    net.state_dict()
            if clip:
                pruner.clip_grad_norm_(0.1)
            opt.step()
        return snapshot(pruner)

    assert same(run(False), run(True))


def test_l0_recomputation_reuses_the_sample(monkeypatch):
    class Recomputing(Net):
        def forward(self, x):
            x = torch.tanh(self.stem(x))
            for block in self.blocks:
                x = checkpoint(lambda x, block=block: torch.tanh(block(x)), x, use_reentrant=False)
            return self.head(x)

    plain, opt, pruner = make("l0")
    losses = train(plain, opt, range(6), accumulate=2)
    net, opt, recomputing = make("l0", net=Recomputing())
    drawn = counting(recomputing, monkeypatch)
    assert train(net, opt, range(6), accumulate=2) == losses
    assert drawn == list(range(6))
    assert same(snapshot(pruner), snapshot(recomputing))


def test_l0_needs_the_models_own_training_forward():
    net, opt, _ = make("l0")
    loss_of(net.eval(), 0).backward()
    with pytest.raises(ValueError, match="l0 samples its mask when the pruned model itself is called in training mode"):
        opt.step()


def test_l0_takes_in_weights_loaded_between_steps():
    """A sample is drawn from what the model holds now, not from what it held before."""
    net, opt, pruner = make("l0")
    train(net, opt, range(3))
    loaded = {name: 2 * t for name, t in net.state_dict().items()}
    expected = [2 * layer.master for layer in layers(pruner)]
    net.load_state_dict(loaded)
    loss_of(net, 3)
    for layer, doubled in zip(layers(pruner), expected, strict=True):
        kept = masks.hard_concrete_test_mask(layer.scores) > 0
        torch.testing.assert_close(layer.master[kept], doubled[kept], rtol=1e-5, atol=1e-7)


def test_a_copied_model_does_not_sample():
    net, opt, pruner = make("l0")
    train(net, opt, range(3))
    copied = copy.deepcopy(net)
    held = copied.blocks[0].weight.detach().clone()
    loss_of(copied.train(), 0)
    assert torch.equal(copied.blocks[0].weight, held) and not pruner._sampled
    assert torch.equal(copied.state_dict()["blocks.0.weight"], held)
    held = net.blocks[0].weight.detach().clone()
    loss_of(copy.copy(net).train(), 0)  # shares weights and hooks, as the replicas of `nn.DataParallel` do
    assert torch.equal(net.blocks[0].weight, held) and not pruner._sampled


# -- save and resume --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["model first", "optimizer first"])
@pytest.mark.parametrize("kill", ["between steps", "amid accumulation"])
@pytest.mark.parametrize("method", METHODS)
def test_killed_and_resumed_is_bit_equal(method, kill, order, tmp_path, device):
    def start(seed):
        net, opt, pruner = make(method, net=Net(seed, device=device), scope="global" if method in TOP_V else "local")
        return net, opt, pruner, torch.optim.lr_scheduler.LambdaLR(opt, lambda t: 1.0 - t / 40)

    net, opt, whole, scheduler = start(0)
    losses = train(net, opt, range(20), accumulate=2, scheduler=scheduler)
    expected = snapshot(whole) | net.state_dict()

    net, opt, pruner, scheduler = start(0)
    train(net, opt, range(9), accumulate=2, scheduler=scheduler)
    if kill == "amid accumulation":
        opt.zero_grad()
        loss_of(net, 18).backward()
    state = {"model": net.state_dict(), "optimizer": opt.state_dict(), "scheduler": scheduler.state_dict()}
    torch.save(state, tmp_path / "state.pt")
    del net, opt, pruner, state

    net, opt, pruner, scheduler = start(1)
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    if order == "model first":
        net.load_state_dict(state["model"])
    opt.load_state_dict(state["optimizer"])
    if order == "optimizer first":
        net.load_state_dict(state["model"])
    scheduler.load_state_dict(state["scheduler"])
    assert train(net, opt, range(9, 20), accumulate=2, scheduler=scheduler) == losses[18:]
    assert same(expected, snapshot(pruner) | net.state_dict())


def test_state_of_the_pruner_alone():
    net, opt, pruner = make("movement")
    train(net, opt, range(10))
    net2, _, other = make("movement")
    other.load_state_dict(copy.deepcopy(pruner.state_dict()))
    assert same(snapshot(pruner), snapshot(other))
    assert torch.equal(net.blocks[0].weight, net2.blocks[0].weight)


def test_names_in_a_saved_state():
    """Files that exist have them."""
    _, _, pruner = make("l0", score_optimizer=torch.optim.AdamW)
    names = "settings steps_done master scores method mask_changes score_optimizer"
    assert set(pruner.state_dict()) == set(names.split())
    assert set(make("movement")[2].state_dict()) == set(names.split()) - {"score_optimizer"}
    names = "method scope final_density initial_density total_steps warmup_steps cooldown_steps schedule threshold"
    assert list(pruner.settings()) == [*names.split(), "min_density", "penalty", "magnitude_init", "seed"]


def test_a_loaded_state_is_copied():
    _, _, pruner = make("movement")
    state = copy.deepcopy(pruner.state_dict())
    pruner.load_state_dict(state)
    before = snapshot(pruner)
    for tensors in (state["scores"], state["master"]):
        for tensor in tensors.values():
            tensor.add_(1.0)
    assert same(before, snapshot(pruner))


def test_numbers_from_numpy_stay_loadable(tmp_path):
    net, opt, _ = make("movement", density=np.float64(0.2), initial_density=np.float32(1.0))
    train(net, opt, range(2))
    torch.save(opt.state_dict(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state["mvp_lite"]["settings"]["final_density"] == 0.2


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"method": "magnitude"}, "method: saved 'movement', here 'magnitude'"),
        ({"density": 0.3}, r"final_density: saved 0\.2, here 0\.3"),
        ({"steps": 21}, "total_steps: saved 20, here 21"),
        ({"warmup_steps": 3}, "warmup_steps: saved 2, here 3"),
        ({"scope": "global"}, "scope: saved 'local', here 'global'"),
        ({"seed": 4}, "seed: saved 0, here 4"),
        ({"scope": "global", "seed": 4}, "scope: saved 'local', here 'global', seed: saved 0, here 4"),
        ({"target": r"blocks\.1"}, r"\(matrices differ\)"),
        ({"score_optimizer": torch.optim.AdamW}, "score_optimizer: saved False, here True"),
    ],
)
def test_a_state_that_does_not_fit_changes_nothing(options, match):
    net, opt, pruner = make("movement")
    train(net, opt, range(10))
    state = copy.deepcopy(opt.state_dict())
    net, opt, pruner = make(**({"method": "movement"} | options))
    train(net, opt, range(2))
    before, weights = snapshot(pruner), copy.deepcopy(net.state_dict())
    moments = copy.deepcopy(opt.state_dict()["state"])
    for load in (lambda: opt.load_state_dict(state), lambda: pruner.load_state_dict(state["mvp_lite"])):
        with pytest.raises(ValueError, match=match):
            load()
        assert same(before, snapshot(pruner)) and same(weights, net.state_dict())
        assert all(same(moments[i], opt.state_dict()["state"][i]) for i in moments)


def test_a_state_with_an_optimizer_of_its_own_or_another_number_of_pools_does_not_fit():
    state = make("movement", score_optimizer=torch.optim.AdamW)[2].state_dict()
    _, _, pruner = make("movement")
    with pytest.raises(ValueError, match="score_optimizer: saved True, here False"):
        pruner.load_state_dict(state)
    state = pruner.state_dict()
    state["method"] = 2 * state["method"]
    with pytest.raises(ValueError, match="pools: saved 2, here 1"):
        pruner.load_state_dict(state)


def test_scores_keep_their_precision_when_loaded():
    _, _, pruner = make("movement")
    state = copy.deepcopy(pruner.state_dict())
    state["scores"] = {name: S.double() + 1.0 for name, S in state["scores"].items()}
    pruner.load_state_dict(state)
    for layer in layers(pruner):
        assert layer.scores.dtype == torch.float32 and torch.equal(layer.scores.double(), state["scores"][layer.name])


def test_after_loading_l0_needs_a_forward_pass_as_before():
    net, opt, pruner = make("l0")
    train(net, opt, [0])
    net, opt, other = make("l0")
    other.load_state_dict(copy.deepcopy(pruner.state_dict()))
    for block in net.blocks:
        block.weight.grad = torch.ones_like(block.weight)
    with pytest.raises(ValueError, match="samples its mask when the pruned model itself is called"):
        opt.step()


def test_a_state_without_a_pruner_is_refused():
    net = Net()
    plain = torch.optim.AdamW([{"params": net.parameters()}, {"params": [torch.zeros(3, requires_grad=True)]}])
    _, opt, pruner = make("movement")
    before = snapshot(pruner)
    with pytest.raises(ValueError, match="saved without a pruner"):
        opt.load_state_dict(plain.state_dict())
    assert same(before, snapshot(pruner))


def test_loading_out_of_turn():
    _, _, pruner = make("movement")
    state = pruner.state_dict()
    with pytest.raises(ValueError, match=r"between attach\(\) and finalize\(\)"):
        mvp.Pruner(Net(), density=0.2, total_steps=20, warmup_steps=2, cooldown_steps=4).load_state_dict(state)
    pruner.finalize(early=True)
    with pytest.raises(ValueError, match=r"between attach\(\) and finalize\(\)"):
        pruner.load_state_dict(state)


# -- several processes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["random", "movement"])
def test_every_rank_goes_on_from_what_rank_0_has(method, monkeypatch):
    """Two ranks, one after the other in one process: what the first sends, the second receives."""
    sent, weights = [], []

    def run(broadcast, **options):
        monkeypatch.setattr(torch.distributed, "broadcast", broadcast)
        net, opt, pruner = make(method, initial_density=0.5, warmup_steps=0, magnitude_init=0.2, **options)
        weights.extend(block.weight.data.clone() for block in net.blocks)
        for layer, held in zip(layers(pruner), weights, strict=False):
            layer.weight.data.copy_(held)  # what a data-parallel wrapper sends, and all that it knows
            if options:
                layer.master.add_(1.0)
                layer.scores.data.mul_(-1.0)
        train(net, opt, range(3))
        return pruner

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    first = run(lambda x, src: sent.append((src, x.clone())))
    assert {src for src, _ in sent} == {0}
    assert sum(x.dtype == torch.uint8 for _, x in sent) == 2 * len(first.groups), "of groups and of matrices"
    second = run(lambda x, src: x.copy_(sent.pop(0)[1]), seed=9)
    assert sent == [], "once, before the first step"
    assert second.seed == first.seed == 0 and same(snapshot(first), snapshot(second))
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 1)
    run(lambda x, src: pytest.fail("a rank that is alone has nobody to ask"))


# -- finalize ---------------------------------------------------------------------------------------------------------


def test_finalize_too_early():
    net, opt, pruner = make("movement")
    train(net, opt, range(10))
    with pytest.raises(ValueError, match=r"after 10 of 20 steps: the density is 0\.\d+, not yet 0\.2; .*early=True"):
        pruner.finalize()
    train(net, opt, [10])  # nothing was taken away
    assert pruner.steps_done == 11
    held = net.blocks[0].weight.detach().clone()
    assert pruner.finalize(early=True) is net and torch.equal(net.blocks[0].weight, held)


def test_finalize_before_attach():
    with pytest.raises(ValueError, match=r"finalize\(\) before attach\(\)"):
        mvp.Pruner(Net(), density=0.2, total_steps=20).finalize()


@pytest.mark.parametrize("method", METHODS)
def test_finalize_keeps_weights_loaded_from_outside(method):
    """The best checkpoint of the cool-down, say."""
    net, opt, pruner = make(method, penalty=100.0)
    train(net, opt, range(17))
    best = copy.deepcopy(net.state_dict())
    train(net, opt, range(17, 20))
    net.load_state_dict(best)
    pruner.finalize()
    assert same(net.state_dict(), best)


def test_finalize_refuses_a_checkpoint_from_before_the_end():
    net, opt, pruner = make("movement")
    train(net, opt, range(5))
    dense = copy.deepcopy(net.state_dict())
    train(net, opt, range(5, 20))
    net.load_state_dict(dense)
    with pytest.raises(ValueError, match=r"have \d+ nonzero entries, but the final density allows 76: .*early=True"):
        pruner.finalize()
    assert same(pruner.finalize(early=True).state_dict(), dense)


def test_finalize_refuses_half_as_many_weights_more():
    net, opt, pruner = make("movement")
    train(net, opt, range(20))
    denser = copy.deepcopy(net.state_dict())
    for name in ("blocks.0.weight", "blocks.1.weight"):
        pruned = (denser[name] == 0).flatten().nonzero().flatten()
        denser[name].view(-1)[pruned[:19]] = 1.0
    net.load_state_dict(denser)
    with pytest.raises(ValueError, match="have 114 nonzero entries, but the final density allows 76: "):
        pruner.finalize()


def test_finalize_takes_the_scores_out_of_the_optimizer():
    net, opt, pruner = make("movement")
    train(net, opt, range(3))
    scores = [layer.scores for layer in layers(pruner)]
    assert all(S in opt.state for S in scores)
    pruner.finalize(early=True)
    assert not any(S in opt.state for S in scores)


@pytest.mark.filterwarnings("error")
def test_a_second_run_of_one_optimizer_does_not_keep_the_zeros_of_the_first():
    net, opt, pruner = make("movement", magnitude_init=0.3)
    train(net, opt, range(20))
    pruner.finalize()
    make("magnitude", net=net, optimizer=opt)
    train(net, opt, [0])
    assert not bool((net.blocks[0].weight == 0).any())


def test_finalize_after_a_training_forward_of_l0():
    net, opt, pruner = make("l0")
    train(net, opt, range(20))
    expected = net.blocks[0].weight.detach().clone()
    loss_of(net, 50)
    assert not torch.equal(net.blocks[0].weight, expected)
    pruner.finalize()
    assert torch.equal(net.blocks[0].weight, expected)


# -- clipping ---------------------------------------------------------------------------------------------------------


def clipped_reference(method, scope, penalty, limit, norms):
    import test_oracle as oracle

    def sgd(groups):
        optimizer = oracle.OPTIMIZERS["sgd"](groups)
        everything = [p for group in groups for p in group["params"]]
        optimizer.register_step_pre_hook(
            lambda *_: norms.append(float(nn.utils.clip_grad_norm_(everything, limit))) or None
        )
        return optimizer

    torch.manual_seed(0)
    net = oracle.Net().double()
    return net, oracle.reference_run(copy.deepcopy(net), method, scope, sgd, 2.0, 1, penalty, torch.float64)


def clipped_engine(net, method, scope, penalty, clip):
    import test_oracle as oracle

    optimizer = oracle.OPTIMIZERS["sgd"]([{"params": list(net.parameters())}])
    pruner = mvp.Pruner(
        net, method, density=oracle.DENSITY, total_steps=oracle.STEPS, warmup_steps=oracle.WARMUP,
        cooldown_steps=oracle.COOLDOWN, scope=scope,
        **used(method, score_lr=2.0, penalty=penalty, threshold=oracle.TAU, magnitude_init=0.0),
    ).attach(optimizer)  # fmt: skip
    losses, seen = [], []
    for x, y in oracle.batches(oracle.STEPS, 1, torch.float64):
        seen.append([layer.mask.clone() for layer in layers(pruner)])
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(x), y)
        loss.backward()
        losses.append(loss.item())
        clip(pruner, net)
        optimizer.step()
    return losses, seen, [layer.scores.detach() for layer in layers(pruner) if layer.scores is not None]


@pytest.mark.parametrize(
    ("method", "scope", "penalty"),
    [
        ("movement", "local", 0.0),
        ("movement", "global", 0.0),
        ("magnitude", "local", 0.0),
        ("soft_movement", "global", 5.0),
    ],
)
def test_clipping_is_the_masked_layers(method, scope, penalty):
    limit, norms, own = 0.15, [], []
    net, (losses, seen, scores) = clipped_reference(method, scope, penalty, limit, norms)
    plainly = copy.deepcopy(net)
    losses2, seen2, scores2 = clipped_engine(
        net, method, scope, penalty, lambda pruner, _: own.append(float(pruner.clip_grad_norm_(limit)))
    )
    assert sum(n > limit for n in norms) > 10, "it must clip"
    assert own == pytest.approx(norms, rel=1e-11)
    assert losses2 == pytest.approx(losses, rel=1e-11)
    assert all(map(torch.equal, chain(*seen), chain(*seen2)))
    for a, b in zip(scores, scores2, strict=True):
        assert ((a - b).abs() <= 1e-12 * a.abs().max()).all()
    losses3, seen3, _ = clipped_engine(
        plainly, method, scope, penalty, lambda _, model: nn.utils.clip_grad_norm_(model.parameters(), limit)
    )
    assert losses3 != pytest.approx(losses, rel=1e-6), "torch's clipping sees other gradients"
    assert method == "magnitude" or not all(map(torch.equal, chain(*seen), chain(*seen3)))


def test_clipping_before_attach():
    with pytest.raises(ValueError, match=r"attach\(\)"):
        mvp.Pruner(Net(), density=0.2, total_steps=20).clip_grad_norm_(1.0)


@pytest.mark.parametrize("clip", [False, True])
def test_any_number_of_micro_batches_a_step(clip):
    """Each backward pass is prepared once, whatever came before it."""
    net = Net(dtype=torch.float64)
    sgd = torch.optim.SGD(net.parameters(), lr=1e-3)
    net, opt, pruner = make(net=net, optimizer=sgd, score_lr=1.0, steps=60)
    i = 0
    for count in [1, 2, 1, 3, 2, 4, 1, 2, 3] * 5:
        opt.zero_grad()
        for _ in range(count):
            loss_of(net, i).backward()
            i += 1
        expected = [layer.scores.detach() - layer.weight.grad * layer.master for layer in layers(pruner)]
        if clip:
            pruner.clip_grad_norm_(1e9)
        opt.step()
        for layer, S in zip(layers(pruner), expected, strict=True):
            torch.testing.assert_close(layer.scores.detach(), S, rtol=1e-12, atol=1e-15)


def test_gradients_zeroed_in_place_after_clipping_are_prepared_anew():
    """As when a gradient scaler skips the step that was clipped."""

    def run(skipped):
        net, opt, pruner = make()
        for step in range(6):
            if skipped:
                loss_of(net, 50 + step).backward()
                pruner.clip_grad_norm_(0.1)
                opt.zero_grad(set_to_none=False)
            loss_of(net, step).backward()
            opt.step()
            opt.zero_grad()
        return snapshot(pruner)

    assert same(run(False), run(True))


def test_no_gradient_is_held_after_the_step():
    net, opt, _ = make()
    loss_of(net, 0).backward()
    gradient = weakref.ref(net.blocks[0].weight.grad)
    opt.step()
    opt.zero_grad()
    assert gradient() is None


# -- models of transformers -------------------------------------------------------------------------------------------


def transformer(name):
    transformers = pytest.importorskip("transformers")
    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    text = small | {"vocab_size": 30, "max_position_embeddings": 16}
    torch.manual_seed(0)
    if name == "bert":
        return transformers.BertForSequenceClassification(transformers.BertConfig(**text))
    if name == "gpt2":
        config = transformers.GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=30, n_positions=16, pad_token_id=0)
        return transformers.GPT2ForSequenceClassification(config)
    if name == "distilbert":
        config = transformers.DistilBertConfig(dim=16, n_layers=2, n_heads=2, hidden_dim=24, vocab_size=30)
        return transformers.DistilBertForSequenceClassification(config)
    if name == "albert":
        return transformers.AlbertForSequenceClassification(transformers.AlbertConfig(embedding_size=8, **text))
    if name == "vit":
        config = transformers.ViTConfig(image_size=8, patch_size=4, **small)
        return transformers.ViTForImageClassification(config)
    config = transformers.LlamaConfig(num_key_value_heads=2, pad_token_id=0, **text)
    return transformers.LlamaForSequenceClassification(config)


MAPS = {"bert": 6 * 2, "gpt2": 4 * 2, "distilbert": 6 * 2, "albert": 6, "vit": 6 * 2, "llama": 7 * 2}


@pytest.mark.parametrize("name", MAPS)
def test_default_targets_of_transformers(name):
    model = transformer(name)
    opt = torch.optim.AdamW(model.parameters(), lr=1e-3)
    pruner = mvp.Pruner(model, "movement", density=0.3, total_steps=4, warmup_steps=1, cooldown_steps=1).attach(opt)
    names = [layer.name for layer in layers(pruner)]
    assert len(names) == MAPS[name], names
    assert not [n for n in names if any(w in n for w in ("embed", "pooler", "classifier", "score", "wte", "head."))], (
        names
    )
    for step in range(4):
        torch.manual_seed(step)
        inputs = (
            {"pixel_values": torch.randn(3, 3, 8, 8)} if name == "vit" else {"input_ids": torch.randint(1, 30, (3, 7))}
        )
        opt.zero_grad()
        model(**inputs, labels=torch.tensor([0, 1, 1])).loss.backward()
        opt.step()
    kept = sum(keep_count(layer.master.numel(), 0.3) for layer in layers(pruner))
    assert sum(int(x.weight.count_nonzero()) for x in layers(pruner)) == kept == pruner.report()["kept"].sum()
    pruner.finalize()
    fresh = transformer(name)
    assert not any(fresh.load_state_dict(model.state_dict()))
    assert same(model.state_dict(), fresh.state_dict())
    torch.testing.assert_close(model.eval()(**inputs).logits, fresh.eval()(**inputs).logits)


def test_conv1d_is_pruned_as_it_is_stored():
    model = transformer("gpt2")
    pruner = mvp.Pruner(model, "magnitude", density=0.25, total_steps=4, target=r"c_fc$")
    assert [tuple(x.weight.shape) for x in layers(pruner)] == [(16, 64)] * 2
    pruner = mvp.Pruner(model, "magnitude", density=0.25, total_steps=4)
    assert {type(x.module).__name__ for x in layers(pruner)} == {"Conv1D"}


# -- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        (
            {"method": "lottery"},
            ValueError,
            "method='lottery': must be one of magnitude, movement, soft_movement, l0, random",
        ),
        ({"density": 0.0}, ValueError, r"density=0\.0: must be a fraction kept in \(0, 1\]"),
        ({"density": -0.1}, ValueError, r"density=-0\.1: "),
        ({"density": 3}, ValueError, "density=3: "),
        ({"density": float("nan")}, ValueError, "density=nan: "),
        ({"density": "0.1"}, TypeError, "density='0.1': must be a number"),
        ({"density": True}, TypeError, "density=True: must be a number"),
        ({"density": None}, TypeError, "density=None: must be a number"),
        ({"initial_density": 1.5}, ValueError, r"initial_density=1\.5: .*\(0, 1\]"),
        ({"initial_density": 0.1}, ValueError, r"initial_density=0\.1: .*not below the final"),
        ({"scope": "layer"}, ValueError, "scope='layer': must be 'local' or 'global'"),
        ({"penalty": -1.0}, ValueError, r"penalty=-1\.0: must be 'feedback' or a lambda >= 0"),
        ({"penalty": "auto"}, ValueError, "penalty='auto': must be 'feedback'"),
        ({"penalty": math.inf}, ValueError, "penalty=inf"),
        ({"threshold": 0.0}, ValueError, r"threshold=0\.0: .*\(0, 1\)"),
        ({"threshold": 1.0}, ValueError, r"threshold=1\.0: .*\(0, 1\)"),
        ({"threshold": "low"}, TypeError, "threshold='low': must be a number"),
        ({"min_density": 0.1}, ValueError, r"min_density=0\.1: .*scope='global'"),
        ({"min_density": 0.3, "scope": "global"}, ValueError, r"min_density=0\.3: must lie in \[0, density=0\.2\]"),
        ({"min_density": -0.1, "scope": "global"}, ValueError, r"min_density=-0\.1"),
        ({"seed": "a"}, TypeError, "seed='a': must be an integer"),
        ({"score_lr": 0.0}, ValueError, r"score_lr=0\.0: must be a positive learning rate"),
        ({"score_lr": -1.0}, ValueError, r"score_lr=-1\.0: must be a positive"),
        ({"total_steps": 0}, ValueError, "total_steps=0: .*at least 1"),
        ({"total_steps": "600"}, ValueError, "total_steps='600': must be an integer"),
        ({"total_steps": 600.0}, ValueError, r"total_steps=600\.0: must be an integer"),
        ({"warmup_steps": -1}, ValueError, "warmup_steps=-1"),
        ({"warmup_steps": 0.1}, ValueError, r"warmup_steps=0\.1: must be an integer"),
        (
            {"warmup_steps": 15, "cooldown_steps": 5},
            ValueError,
            r"15 \+ cooldown_steps=5 must be less than total_steps=20",
        ),
        ({"warmup_steps": 50}, ValueError, "warmup_steps=50 .* must be less than total_steps=20"),
        (
            {"target": "decoder"},
            ValueError,
            "target='decoder' matches no linear module; the model has stem, blocks.0, blocks.1, head",
        ),
        ({"target": "(["}, ValueError, r"target='\(\[' is not a regular expression"),
    ],
)
def test_impossible_settings(options, error, match):
    with pytest.raises(error, match=match):
        mvp.Pruner(Net(), **({"method": "movement", "density": 0.2, "total_steps": 20} | options))


def test_attached_twice():
    net, opt, pruner = make()
    with pytest.raises(ValueError, match="this pruner was attached before"):
        pruner.attach(opt)
    with pytest.raises(ValueError, match="another pruner is attached to this optimizer"):
        make(net=net, optimizer=opt)
    pruner.finalize(early=True)
    with pytest.raises(ValueError, match="this pruner was attached before"):
        pruner.attach(opt)
    _, _, again = make(net=net, optimizer=opt)  # a finalized run frees the optimizer
    train(net, opt, range(3))
    assert again.steps_done == 3 and pruner.steps_done == 0


def test_an_optimizer_that_does_not_hold_the_weights():
    net = Net()
    with pytest.raises(ValueError, match=r"does not hold the weights of blocks\.0, blocks\.1"):
        make(net=net, optimizer=torch.optim.AdamW(net.head.parameters()))


def test_no_optimizer_at_all():
    with pytest.raises(TypeError, match=r"optimizer=Net: attach\(\) takes a torch.optim.Optimizer"):
        mvp.Pruner(Net(), density=0.2, total_steps=20).attach(Net())
