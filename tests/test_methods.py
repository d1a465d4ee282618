"""Methods as classes: one of one's own, and what all of them do with plain tensors."""

import copy
import io
import pickle
import re
import textwrap
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nets import METHODS, TOP_V, Net, batch, layers, loss_of, make, same, snapshot, train
from torch import nn

import mvp_lite as mvp
from mvp_lite import masks, methods
from mvp_lite.masks import keep_count
from mvp_lite.methods import Method, Settings
from mvp_lite.schedule import Schedule

SCHEDULE = Schedule(20, 2, 4)


def test_the_registry_knows_every_method_by_its_name():
    assert tuple(methods.METHODS) == METHODS
    for name, cls in methods.METHODS.items():
        assert cls.name == name and methods.find_method(name) is methods.find_method(cls) is cls
    with pytest.raises(
        ValueError, match=r"method='lottery': must be one of magnitude, .*or a subclass of methods\.Method"
    ):
        mvp.Pruner(Net(), "lottery", density=0.2, total_steps=20)
    for wrong in (nn.Linear, methods.Movement(Settings(SCHEDULE, 0.2)), None):
        with pytest.raises(TypeError, match=r"a name \(magnitude, .*\) or a subclass of methods\.Method"):
            mvp.Pruner(Net(), wrong, density=0.2, total_steps=20)


# --- a method of one's own ----------------------------------------------------------------------------------------


def test_the_method_in_the_docstring():
    """As it stands there: scores are the sum of |G * W|, and everything else works as with the built-in ones."""
    code = Method.__doc__.split("accumulating")[1].split("Attributes:")[0].partition("\n\n")[2]
    code = textwrap.dedent(code).partition("pruner = ")  # how deep it is indented depends on Python's version
    names = {"methods": methods}
    exec(code[0], names)
    assert code[2].startswith("mvp.Pruner(model, Sensitivity, density=0.1, total_steps=1000)")
    net = Net(dtype=torch.float64)
    sgd = torch.optim.SGD(net.parameters(), lr=0.1)
    net, opt, pruner = make(names["Sensitivity"], net=net, optimizer=sgd, score_lr=2.0)
    total = [torch.zeros_like(layer.master) for layer in layers(pruner)]
    for step in range(20):
        opt.zero_grad()
        loss_of(net, step).backward()
        for t, layer in zip(total, layers(pruner), strict=True):
            t += 2.0 * (layer.weight.grad * layer.master).abs()
        opt.step()
    for t, layer in zip(total, layers(pruner), strict=True):
        torch.testing.assert_close(layer.scores.detach(), t, rtol=1e-12, atol=1e-15)
        assert torch.equal(layer.mask, masks.top_v(layer.scores.detach(), 0.2))
    assert pruner.settings()["method"] == "Sensitivity"
    other = make("movement", steps=20)[1]
    with pytest.raises(ValueError, match="method: saved 'Sensitivity', here 'movement'"):
        other.load_state_dict(opt.state_dict())
    pruner.finalize()
    assert pruner.density == pytest.approx(2 * keep_count(192, 0.2) / 384)


def test_a_method_may_rank_what_it_likes():
    """Here the smallest weights, to show that nothing outside the class decides."""

    class Smallest(methods.Magnitude):
        def masks(self, scores, step):
            return super().masks([-S for S in scores], step)

    net, opt, pruner = make(Smallest)
    train(net, opt, range(20))
    for layer in layers(pruner):
        assert layer.master.abs()[layer.mask].max() <= layer.master.abs()[~layer.mask].min()


def test_fine_prune_takes_a_class(device):
    task = mvp.load_task("toy/inference", limit=200)
    model = mvp.load_model("toy", task)
    result = mvp.fine_prune(model, task, methods.Movement, 0.1, steps=12, batch_size=8, progress=False)
    again = mvp.fine_prune(mvp.load_model("toy", task), task, "movement", 0.1, steps=12, batch_size=8, progress=False)
    assert all(torch.equal(a, b) for a, b in zip(result.model.parameters(), again.model.parameters(), strict=True))
    assert result.settings["method"] == again.settings["method"] == "movement"


# --- plain tensors in and out -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_a_method_without_a_model(name):
    method = methods.METHODS[name](Settings(SCHEDULE, 0.25, penalty=3.0, seed=5))
    W = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
    start = method.initial_scores(W.abs())
    assert (start is None) == (name == "magnitude")
    ranked = W.abs() if start is None else start
    assert ranked.shape == W.shape
    first = method.masks([ranked], 0)[0]
    assert first.shape == W.shape and bool(first.ne(0).all()), "nothing is pruned before the schedule starts"
    scores = torch.randn(8, 6, generator=torch.Generator().manual_seed(1))
    last = method.masks([scores], 20)[0]
    expected = {
        "soft_movement": masks.threshold_mask(scores, 0.1),
        "l0": masks.hard_concrete_test_mask(scores),
    }.get(name, masks.top_v(scores, 0.25))
    assert torch.equal(last, expected)
    if method.learned:
        product = torch.randn(8, 6)
        gradient = method.score_gradient(product.clone(), scores, last)
        factor = masks.hard_concrete_gradient(last) if name == "l0" else torch.ones(8, 6)
        assert torch.equal(gradient, product * factor)


def test_the_controller_is_at_work_from_the_cool_down_on():
    """Scores are moved to the density after the first step that has the final density, and not before."""
    for name in ("soft_movement", "l0"):
        method = methods.METHODS[name](Settings(SCHEDULE, 0.25))
        for step in (15, 16):
            scores = [torch.randn(8, 6, generator=torch.Generator().manual_seed(step))]
            before = scores[0].clone()
            method.after_step(step, scores, 1e-3)
            assert torch.equal(before, scores[0]) == (step == 15)
        assert int((scores[0].sigmoid() > method.level).sum()) == 12
        assert name == "l0" or method.controller.mean_gradient == pytest.approx(1e-3)


@pytest.mark.parametrize("start", [2.197, 6.0, -6.0])
def test_the_controller_of_the_gates_knows_how_weak_their_penalty_is(start):
    """At the start lambda R'(S) is ten times what it is for soft movement, wherever the gates are."""
    method, soft = (methods.METHODS[name](Settings(SCHEDULE, 0.25)) for name in ("l0", "soft_movement"))
    scores = [torch.full((8, 6), start), torch.full((6, 4), start)]
    for one, S in ((method, scores), (soft, [torch.zeros_like(S) for S in scores])):
        one.after_step(1, S, 1e-4)
        one.update_penalty(5, 0.9, 72)
    pulls = [one.penalty * one.penalty_gradient(S, 2) for one, S in ((method, scores[0]), (soft, torch.zeros(8, 6)))]
    torch.testing.assert_close(pulls[0], 10 * pulls[1])


def test_the_penalty_of_closed_gates_is_finite():
    method = methods.L0(Settings(SCHEDULE, 0.25))
    method.after_step(1, [torch.full((8, 6), -1000.0)], 1e-4)
    method.update_penalty(5, 0.9, 48)
    assert 0 < method.penalty < float("inf")


@pytest.mark.parametrize("warmup", [0, 3])
def test_the_scale_of_the_gates_penalty_is_that_of_the_warm_up(warmup):
    """Gradients that grow when too many gates close must not close more of them."""

    def scale(gradients):
        method = methods.L0(Settings(Schedule(20, warmup, 4), 0.25))
        for step, gradient in enumerate(gradients, 1):
            method.after_step(step, [torch.full((8, 6), 2.197)], gradient)
        return method.controller.mean_gradient

    seen = max(warmup, 1)
    assert scale([1e-4] * 10) == pytest.approx(scale([1e-4] * seen + [1.0] * 5))
    assert scale([1e-4] * seen) < 0.9 * scale([1e-4] * (seen - 1) + [2.0])


def test_the_controller_aims_at_the_scheduled_density():
    method = methods.SoftMovement(Settings(SCHEDULE, 0.25))
    twin = methods.SoftMovement(Settings(SCHEDULE, 0.25))
    for step in (1, 5, 9, 18):
        for one in (method, twin):
            one.after_step(1, [], 1e-4)
        method.update_penalty(step, 0.6, 100)
        assert method.penalty == twin.controller.penalty(0.6, SCHEDULE.value(step, 1.0, 0.25), 100)


def test_advice_names_the_start_only_where_it_can_be_changed():
    common = ["train longer", "keep more weights", "choose another learning rate"]
    for name, cls in methods.METHODS.items():
        plain, moved = (cls(Settings(SCHEDULE, 0.25, magnitude_init=c)).advice() for c in (0.0, 0.3))
        assert moved == common
        assert (
            plain == (["start the scores from magnitude (magnitude_init=0.2)"] if name == "movement" else []) + common
        )


@pytest.mark.parametrize("name", ["soft_movement", "l0"])
def test_a_method_goes_on_from_its_numbers(name):
    first, second = (methods.METHODS[name](Settings(SCHEDULE, 0.25)) for _ in range(2))
    scores = [torch.zeros(8, 6)]
    for step in (1, 2, 3):
        first.after_step(step, scores, 1e-3 * step)
        first.update_penalty(step, 0.9, 48)
    state = copy.deepcopy(first.state_dict())
    second.load_state_dict(state)
    assert second.penalty == first.penalty > 0.0 and second.state_dict() == state
    for one in (first, second):
        one.after_step(4, scores, 5e-3)
        one.update_penalty(4, 0.8, 48)
    assert second.penalty == first.penalty
    assert "controller" not in methods.METHODS[name](Settings(SCHEDULE, 0.25, penalty=3.0)).state_dict()


@pytest.mark.parametrize("name", ["soft_movement", "l0"])
def test_what_a_fixed_penalty_came_to(name):
    method = methods.METHODS[name](Settings(SCHEDULE, 0.25, penalty=3.0, score_lr=0.5))
    closed, opened = torch.full((3, 4), -9.0), torch.full((3, 4), 9.0)
    asked = r"^penalty=3 with score_lr=0\.5 has pruned "
    assert re.match(asked + "every score: lower penalty or score_lr, or take", method.outcome([closed, closed]))
    assert re.match(asked + "nothing: raise penalty or score_lr, train longer", method.outcome([opened, opened]))
    assert method.outcome([closed, opened]) is None
    assert method.open_count([closed, opened]) == 12
    assert methods.METHODS[name](Settings(SCHEDULE, 0.25)).outcome([closed]) is None, "the controller sees to it"


def test_random_scores_follow_the_seed():
    magnitude = torch.ones(5, 4)
    first, second, other = (methods.Random(Settings(SCHEDULE, 0.25, seed=seed)) for seed in (3, 3, 4))
    drawn = first.initial_scores(magnitude)
    assert drawn.shape == (5, 4) and 0.0 <= float(drawn.min()) < float(drawn.max()) < 1.0
    assert torch.equal(drawn, second.initial_scores(magnitude))
    assert not torch.equal(drawn, other.initial_scores(magnitude))
    assert not torch.equal(drawn, first.initial_scores(magnitude)), "the next matrix gets other numbers"


def test_learned_scores_have_at_least_single_precision():
    for dtype, expected in ((torch.bfloat16, torch.float32), (torch.float64, torch.float64)):
        for c in (0.0, 0.3):
            method = methods.Movement(Settings(SCHEDULE, 0.25, magnitude_init=c))
            assert method.initial_scores(torch.ones(2, 2, dtype=dtype)).dtype == expected


@pytest.mark.parametrize(
    ("name", "penalty", "rate"),
    [
        ("magnitude", "feedback", 0.0),
        ("movement", "feedback", 0.01),
        ("soft_movement", 1.0, 0.01),
        ("soft_movement", "feedback", 30 / 20),
        ("l0", 1.0, 0.1),
        ("l0", "feedback", 30 / 20),
    ],
)
def test_default_learning_rates_of_scores(name, penalty, rate):
    assert methods.METHODS[name](Settings(SCHEDULE, 0.25, penalty=penalty)).score_lr == rate


def test_equal_scores_that_cannot_be_parted_are_named_once():
    method = methods.SoftMovement(Settings(SCHEDULE, 0.25))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for seed in (0, 1):
            method.after_step(17, [torch.randn(8, 6, generator=torch.Generator().manual_seed(seed))], 1e-3)
    with pytest.warns(UserWarning, match="48 of 48 scores stay") as seen:
        for step in (18, 19):
            method.after_step(step, [torch.zeros(8, 6)], 1e-3)
    assert len(seen) == 1


def test_a_fixed_penalty_follows_the_threshold():
    method = methods.SoftMovement(Settings(SCHEDULE, 0.25, penalty=3.0, threshold=0.2))
    found = []
    for step in (2, 9, 16):
        method.update_penalty(step, 0.5, 48)
        found.append(method.penalty)
    assert found == pytest.approx([0.0, 3.0 * SCHEDULE.value(9, 0.0, 1.0), 3.0])


def test_the_value_that_a_method_has_anyway_is_not_refused():
    methods.refuse_ignored(methods.Magnitude, Settings(SCHEDULE, 0.25, magnitude_init=0.0))


def test_half_precision_is_left_before_anything_is_computed():
    W, M = torch.tensor([1.0, 3.015625, 0.3]).bfloat16(), torch.tensor([0.3, 0.7, 1.0]).bfloat16()
    moved = methods.Movement(Settings(SCHEDULE, 0.25, magnitude_init=0.3))
    torch.testing.assert_close(moved.initial_scores(W), moved.initial_scores(W.float()), rtol=0.0, atol=0.0)
    gates, G = methods.L0(Settings(SCHEDULE, 0.25)), torch.tensor([1.0, -2.0, 3.0])
    expected = G * masks.hard_concrete_gradient(M.float())
    torch.testing.assert_close(gates.score_gradient(G.clone(), torch.zeros(3), M), expected, rtol=0.0, atol=0.0)


def test_a_subclass_has_a_name_of_its_own():
    class Own(methods.Movement):
        name = "mine"

    class Other(Own):
        pass

    assert (Own.name, Other.name) == ("mine", "Other")


@pytest.mark.parametrize("drawn", [0.0, 1.0])
def test_noise_of_gates_is_neither_0_nor_1(drawn, monkeypatch):
    seen = []
    monkeypatch.setattr(torch, "rand", lambda shape, **_: torch.full(shape, drawn))
    monkeypatch.setattr(masks, "hard_concrete", lambda scores, noise: seen.append(noise))
    methods.L0(Settings(SCHEDULE, 0.25)).sample(torch.zeros(2, 3), torch.Generator())
    assert 0.0 < float(seen[0].min()) and float(seen[0].max()) < 1.0


def test_noise_of_gates_is_that_of_the_generator():
    method, scores = methods.L0(Settings(SCHEDULE, 0.25)), torch.zeros(50, 40, dtype=torch.float64)
    noise = torch.rand(50, 40, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    found = method.sample(scores, torch.Generator().manual_seed(2))
    torch.testing.assert_close(found, masks.hard_concrete(scores, noise))
    assert bool((found == 0).any()) and bool((found == 1).any())


def test_global_scope_keeps_the_least_density_asked_for_and_no_more_than_the_schedule():
    method = methods.Magnitude(Settings(SCHEDULE, 0.2, scope="global", min_density=0.1, initial_density=0.5))
    low, high = torch.rand(10, 10), 1.0 + torch.rand(10, 10)
    assert [int(mask.sum()) for mask in method.masks([low, high], 0)] == [10, 90]
    assert [int(mask.sum()) for mask in method.masks([low, high], 20)] == [10, 30]
    assert [int(mask.sum()) for mask in methods.Magnitude(Settings(SCHEDULE, 0.2)).masks([low, high], 20)] == [20, 20]


# --- matrices without a gradient ----------------------------------------------------------------------------------


class HalfUsed(nn.Module):
    """Four blocks, of which the first `used` take part."""

    def __init__(self, used=2):
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(nn.Linear(32, 32) for _ in range(4))
        self.used = used

    def forward(self, x):
        for block in self.blocks[: self.used]:
            x = torch.tanh(block(x))
        return x


def half_used(name, density, steps=200, used=2, **options):
    net = HalfUsed(used)
    opt = torch.optim.AdamW(net.parameters(), lr=1e-3)
    pruner = mvp.Pruner(net, name, density=density, total_steps=steps, **options).attach(opt)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        x = torch.randn(16, 32, generator=generator)
        opt.zero_grad()
        (net(x) - x.roll(1, dims=1)).square().mean().backward()
        pruner.clip_grad_norm_(1.0)
        opt.step()
    return pruner


@pytest.mark.parametrize("name", ["soft_movement", "l0"])
def test_unused_blocks_do_not_cost_the_density(name):
    """Every score pays its penalty, so those without a gradient leave first."""
    pruner = half_used(name, 0.2)
    kept = pruner.report()["kept"].tolist()
    assert sum(kept) == pytest.approx(0.2 * 4096, rel=0.02)
    assert max(kept[2:]) <= 6 < 300 < min(kept[:2])  # soft movement's guard keeps half a per cent of each matrix


@pytest.mark.parametrize("name", ["soft_movement", "l0"])
def test_a_density_that_cannot_be_met_is_said_and_loses_nothing(name):
    with pytest.warns(UserWarning, match=r"density=0\.6 cannot be met: \d+ of 4096 scores stay, .*target="):
        pruner = half_used(name, 0.6)
    assert pruner.density > 0.6


@pytest.mark.parametrize("clip", [False, True])
def test_the_penalty_of_a_matrix_without_gradient(clip):
    """It is what the loss with its penalty gives by autograd, before and after clipping."""
    net = HalfUsed()
    opt = torch.optim.SGD(net.parameters(), lr=0.1)
    pruner = mvp.Pruner(net, "soft_movement", density=0.2, total_steps=20, penalty=50.0, score_lr=1.0).attach(opt)
    pruner.method.penalty = 50.0
    unused = pruner.groups[3].scores
    expected = torch.zeros(32, 32, requires_grad=True)
    (50.0 * torch.sigmoid(expected).mean() / 4).backward()
    net(torch.randn(4, 32)).square().mean().backward()
    if clip:
        pruner.clip_grad_norm_(1e9)
        pruner.clip_grad_norm_(1e9)
        torch.testing.assert_close(unused.grad, expected.grad)
    opt.step()
    torch.testing.assert_close(unused.detach(), -expected.grad)


def test_clipping_reaches_the_penalty_of_a_matrix_without_gradient():
    """What is clipped is what the optimizer sees, though the scores have no new G at the step."""
    net = HalfUsed()
    opt = torch.optim.SGD(net.parameters(), lr=0.1)
    pruner = mvp.Pruner(net, "soft_movement", density=0.2, total_steps=20, penalty=50.0, score_lr=1.0).attach(opt)
    pruner.method.penalty = 50.0
    net(torch.randn(4, 32)).square().mean().backward()
    norm = float(pruner.clip_grad_norm_(1e-3))
    clipped = pruner.groups[3].scores.grad.clone()
    assert norm > 0.01 and float(clipped.norm()) < 1e-3
    opt.step()
    assert torch.equal(pruner.groups[3].scores.detach(), -clipped)


def test_a_clipped_penalty_does_not_outlive_its_backward_pass():
    """As when a scaler skips the step, and `model.zero_grad()` knows nothing of the scores."""
    net = HalfUsed()
    opt = torch.optim.SGD(net.parameters(), lr=0.1)
    pruner = mvp.Pruner(net, "soft_movement", density=0.2, total_steps=20, penalty=50.0, score_lr=1.0).attach(opt)
    pruner.method.penalty = 50.0
    unused = pruner.groups[3].scores
    expected = 50.0 * pruner.method.penalty_gradient(unused.detach(), 4)
    net(torch.randn(4, 32)).square().mean().backward()
    pruner.clip_grad_norm_(1e-3)
    net.zero_grad()
    net(torch.randn(4, 32)).square().mean().backward()
    opt.step()
    torch.testing.assert_close(unused.detach(), -expected)


def test_without_a_penalty_a_matrix_without_gradient_keeps_its_scores():
    pruner = half_used("movement", 0.5, steps=20, magnitude_init=0.0)
    assert not any(bool(group.scores.any()) for group in pruner.groups[2:])
    assert all(bool(group.scores.any()) for group in pruner.groups[:2])


# --- copies ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_an_attached_pruner_is_not_copied(name):
    net, opt, pruner = make(name)
    train(net, opt, range(5))
    for copying in (copy.deepcopy, copy.copy, pickle.dumps):
        with pytest.raises(TypeError, match=r"an attached Pruner cannot be copied or pickled: .*optimizer\.state_dict"):
            copying(pruner)
    train(net, opt, range(5, 20))
    pruner.finalize()
    assert copy.deepcopy(pruner).density == pruner.density


@pytest.mark.parametrize("name", METHODS)
def test_a_pruner_that_is_not_attached_copies_with_its_model(name):
    pruner = copy.deepcopy(mvp.Pruner(Net(), name, density=0.2, total_steps=20, warmup_steps=2, cooldown_steps=4))
    opt = torch.optim.AdamW(pruner.model.parameters(), lr=3e-3)
    pruner.attach(opt)
    train(pruner.model, opt, range(20))
    pruner.finalize()
    assert pruner.density == pytest.approx(0.2, rel=0.05)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("how", ["deepcopy", "pickle", "torch.save"])
def test_a_copied_model_is_a_plain_model(name, how):
    """Also between a training forward pass and the step, when the model holds a sample of l0's masks."""
    net, opt, pruner = make(name)
    train(net, opt, range(12))
    expected = {key: value.clone() for key, value in net.state_dict().items()}
    opt.zero_grad()
    loss_of(net, 12).backward()
    if how == "deepcopy":
        copied = copy.deepcopy(net)
    elif how == "pickle":
        copied = pickle.loads(pickle.dumps(net))
    else:
        file = io.BytesIO()
        torch.save(net, file)
        file.seek(0)
        copied = torch.load(file, weights_only=False)
    assert same(copied.state_dict(), expected)
    copied.train()
    copied(batch(0)[0])
    assert same(copied.state_dict(), expected), "no mask is sampled in the copy"
    opt.step()
    train(net, opt, range(13, 20))
    twin, opt2, whole = make(name)
    train(twin, opt2, range(20))
    assert same(snapshot(pruner), snapshot(whole)), "the run itself goes on as if nothing had been copied"


# --- optimizers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("name", METHODS)
def test_an_optimizer_that_maximizes(name, clip):
    """Maximizing -loss is minimizing the loss, penalty included."""

    def run(maximize):
        net = Net(dtype=torch.float64)
        opt = torch.optim.AdamW(net.parameters(), lr=3e-3, maximize=maximize)
        net, opt, pruner = make(name, net=net, optimizer=opt, penalty=30.0)
        for step in range(20):
            opt.zero_grad()
            (loss_of(net, step) * (-1.0 if maximize else 1.0)).backward()
            if clip:
                pruner.clip_grad_norm_(0.5)
            opt.step()
        return pruner, snapshot(pruner)

    (pruner, state), (_, other) = run(False), run(True)
    assert pruner.density < 1.0
    for key, value in state.items():
        torch.testing.assert_close(other[key], value, rtol=1e-12, atol=1e-14)


def test_optimizers_that_disagree_about_the_direction():
    net = Net()
    groups = [{"params": list(net.blocks.parameters()), "maximize": True}, {"params": list(net.head.parameters())}]
    opt = torch.optim.AdamW(groups)
    pruner = mvp.Pruner(net, density=0.2, total_steps=20).attach(opt)
    assert opt.param_groups[-1]["maximize"] is True and pruner._sign == -1.0
    net = Net()
    groups = [{"params": [net.blocks[0].weight], "maximize": True}, {"params": [net.blocks[1].weight]}]
    with pytest.raises(ValueError, match="optimizer=AdamW maximizes some of the target weights"):
        mvp.Pruner(net, density=0.2, total_steps=20).attach(torch.optim.AdamW(groups))
    with pytest.raises(ValueError, match="must both minimize or both maximize"):
        mvp.Pruner(
            net, density=0.2, total_steps=20, score_optimizer=lambda scores: torch.optim.SGD(scores, lr=1.0)
        ).attach(torch.optim.AdamW(net.parameters(), maximize=True))


@pytest.mark.parametrize("name", TOP_V)
def test_two_pruners_on_the_same_weights_are_refused(name):
    net, opt, first = make(name)
    for target in (None, r"\.1$"):
        with pytest.raises(ValueError, match=r"another pruner is attached to the weights of blocks\..*early=True"):
            make(name, net=net, target=target)
    make(name, net=net, target="stem")  # other weights of the same model
    train(net, opt, range(3))
    assert first.steps_done == 3
    first.finalize(early=True)
    make(name, net=net)


def test_a_pruner_that_nobody_holds_is_not_in_the_way():
    """As when a cell of a notebook is run a second time."""
    net = Net()
    for _ in range(3):
        opt = torch.optim.AdamW(net.parameters())
        pruner = mvp.Pruner(net, "magnitude", density=0.2, total_steps=20).attach(opt)
        del pruner, opt
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make("magnitude", net=net)


# --- scores that start from magnitude -----------------------------------------------------------------------------


def test_movement_starts_from_magnitude_unless_told_otherwise():
    for name, method in methods.METHODS.items():
        given = [None, 0.0, 0.5]
        found = [method(Settings(SCHEDULE, 0.5, magnitude_init=c)).magnitude_init for c in given]
        assert found == [0.2 if name == "movement" else 0.0, 0.0, 0.5]
    text = mvp.fine_prune.__doc__ + mvp.Pruner.__doc__
    assert "Default: 0.2 for movement, else 0." in " ".join(text.split())


def test_the_start_of_the_scores_by_hand():
    """c = 0.5, score_lr 0.1 and 40 steps: a score can travel 2, so 1 for a weight of average magnitude."""
    method = methods.Movement(Settings(Schedule(40, 0, 0), 0.5, score_lr=0.1, magnitude_init=0.5, score_init=3.0))
    assert method.travel == pytest.approx(2.0)
    start = method.initial_scores(torch.tensor([[1.0, 3.0], [0.0, 4.0]]))
    torch.testing.assert_close(start, torch.tensor([[2.5, 3.5], [2.0, 4.0]]))


@given(st.floats(1e-6, 1e6), st.floats(1e-5, 10.0), st.integers(10, 10_000))
def test_the_dial_has_no_units(scale, score_lr, steps):
    """The start, measured in what a score can travel, knows neither the scale of W nor learning rate nor steps."""
    W = torch.tensor([0.5, 1.0, 2.0, 4.5], dtype=torch.float64)
    one = methods.Movement(Settings(SCHEDULE, 0.5, magnitude_init=0.3))
    other = methods.Movement(Settings(Schedule(steps, 0, 0), 0.5, score_lr=score_lr, magnitude_init=0.3))
    expected = 0.3 * (W / 2.0 - 1.0)
    torch.testing.assert_close(one.initial_scores(W) / one.travel, expected)
    torch.testing.assert_close(other.initial_scores(scale * W) / (0.5 * score_lr * steps), expected)


def test_adam_moves_a_score_by_its_travel_and_no_further():
    """A gradient that never changes sign or size, under linear decay to 0: the longest way there is."""
    S = nn.Parameter(torch.zeros(3, dtype=torch.float64))
    method = methods.Movement(Settings(Schedule(400, 0, 0), 0.5, score_lr=0.02))
    adam = torch.optim.Adam([S], lr=0.02)
    decay = torch.optim.lr_scheduler.LambdaLR(adam, lambda step: 1.0 - step / 400)
    for _ in range(400):
        S.grad = torch.tensor([-1.0, -1e-3, 5.0], dtype=torch.float64)
        adam.step()
        decay.step()
    torch.testing.assert_close(S.detach(), method.travel * torch.tensor([1.0, 1.0, -1.0]).double(), rtol=5e-3, atol=0.0)


@pytest.mark.parametrize("name", ["movement", "soft_movement", "l0"])
def test_magnitude_sets_the_order_and_leaves_the_mean(name):
    W = torch.randn(30, 20, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    plain, moved = (methods.METHODS[name](Settings(SCHEDULE, 0.5, magnitude_init=c)) for c in (0.0, 0.4))
    start = plain.initial_scores(W.abs())
    assert bool((start == plain.start).all()), "c = 0 is the papers' start"
    start = moved.initial_scores(W.abs())
    assert torch.equal(start.flatten().argsort(), W.abs().flatten().argsort())
    assert float(start.mean()) == pytest.approx(moved.start, abs=1e-9)


def test_weights_of_zero_start_equal():
    method = methods.Movement(Settings(SCHEDULE, 0.5, magnitude_init=0.4))
    assert torch.equal(method.initial_scores(torch.zeros(3, 4)), torch.zeros(3, 4))


def test_groups_start_from_the_sums_of_their_magnitudes():
    net = Net()
    pruner = mvp.Pruner(net, density=0.5, total_steps=20, groups="rows", magnitude_init=0.4, score_lr=0.5)
    for group, block in zip(pruner.groups, net.blocks, strict=True):
        W = block.weight.detach().abs().sum(1)
        torch.testing.assert_close(group.scores.detach().flatten(), 0.4 * 5.0 * (W / W.mean() - 1))


def test_scores_start_from_the_weights_at_attach():
    """A checkpoint may be loaded after the pruner was made."""
    net = Net(0)
    opt = torch.optim.AdamW(net.parameters())
    pruner = mvp.Pruner(net, density=0.5, total_steps=20, magnitude_init=0.4)
    net.load_state_dict(Net(1).state_dict())
    pruner.attach(opt)
    other = mvp.Pruner(Net(1), density=0.5, total_steps=20, magnitude_init=0.4)
    assert all(torch.equal(a.scores, b.scores) for a, b in zip(pruner.groups, other.groups, strict=True))


@pytest.mark.parametrize("c", [0.0, 0.3])
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_the_learning_rate_of_the_scores_does_not_matter_for_hard_movement(c, optimizer):
    """Start and every step of S are proportional to it, and top-v knows the order only. Powers of two scale exactly."""
    runs = []
    for power in (-12, 0, 9):
        net, opt, pruner = make("movement", optimizer=optimizer, score_lr=0.25 * 2.0**power, magnitude_init=c)
        masks_seen = []
        losses = train(net, opt, range(20), after=lambda p=pruner, m=masks_seen: m.extend(x.mask for x in layers(p)))
        runs.append((losses, masks_seen))
    for losses, masks_seen in runs[1:]:
        assert losses == runs[0][0]
        assert all(torch.equal(a, b) for a, b in zip(masks_seen, runs[0][1], strict=True))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"magnitude_init": -0.1}, r"magnitude_init=-0\.1: must be a number >= 0, or None"),
        ({"magnitude_init": float("inf")}, "magnitude_init=inf: must be a number >= 0"),
        ({"magnitude_init": "0.2"}, r"magnitude_init='0\.2': must be a number >= 0"),
        ({"magnitude_init": True}, "magnitude_init=True: must be a number >= 0"),
        ({"score_lr": 0.0}, r"score_lr=0\.0: must be a positive learning rate"),
        ({"schedule": "quick"}, "schedule='quick': must be one of cubic, cosine, linear, or a function"),
    ],
)
def test_settings_of_the_start_that_make_no_sense(options, match):
    with pytest.raises(ValueError, match=match):
        mvp.Pruner(Net(), **({"density": 0.2, "total_steps": 20} | options))


@pytest.mark.parametrize("name", METHODS)
def test_every_method_follows_the_shape_of_the_schedule(name):
    """Top-v methods keep what it says; soft movement's threshold has its shape; the controllers aim at it."""
    settings = Settings(Schedule(100, 10, 20, "cosine"), 0.2)
    method = methods.METHODS[name](settings)
    scores = torch.linspace(-3.0, 3.0, 1000)
    if name == "soft_movement":
        kept = method.masks([scores], 45)[0]
        assert torch.equal(kept, masks.threshold_mask(scores, 0.05))
    elif name != "l0":
        assert int(method.masks([scores], 45)[0].sum()) == keep_count(1000, 0.6)


def test_a_resumed_run_must_have_the_same_schedule_and_start():
    _, opt, _ = make("movement", schedule="cosine", magnitude_init=0.25)
    state = opt.state_dict()
    _, same_run, _ = make("movement", schedule="cosine", magnitude_init=0.25)
    same_run.load_state_dict(state)
    for options, match in (
        ({"magnitude_init": 0.25}, "schedule: saved 'cosine', here 'cubic'"),
        ({"schedule": "cosine"}, r"magnitude_init: saved 0\.25, here 0\.0"),
        ({"schedule": lambda p: 1 - p, "magnitude_init": 0.25}, r"schedule: saved 'cosine', here \[1\.0, 0\.95"),
    ):
        with pytest.raises(ValueError, match=match):
            make("movement", **options)[1].load_state_dict(state)
    _, opt, _ = make("movement", schedule=lambda p: (1 - p) ** 2)
    make("movement", schedule=lambda p: (1 - p) ** 2)[1].load_state_dict(opt.state_dict())
    with pytest.raises(ValueError, match=r"schedule: saved \[1\.0, 0\.9025"):
        make("movement", schedule=lambda p: 1 - p)[1].load_state_dict(opt.state_dict())
