"""`fine_prune` on the toy: every method lands, runs repeat, nothing is left behind."""

import copy

import pytest
import torch

import mvp_lite as mvp
from mvp_lite.methods import METHODS

STEPS = 80


@pytest.fixture(scope="module")
def task():
    return mvp.load_task("toy/inference", limit=600)


@pytest.fixture(scope="module")
def encoder(task):
    return mvp.load_model("toy", task)


def run(encoder, task, method="movement", density=0.1, **options):
    settings = {"steps": STEPS, "lr": 3e-4, "batch_size": 16, "progress": False, **options}
    return mvp.fine_prune(copy.deepcopy(encoder), task, method, density, **settings)


@pytest.mark.parametrize("scope", ["local", "global"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_lands_on_the_density(encoder, task, method, scope, device):
    result = run(encoder, task, method, 0.03, scope=scope)
    assert result.density == pytest.approx(0.03, rel=0.1)
    if method not in ("soft_movement", "l0"):  # theirs is a feedback rule, these are cuts
        assert result.density == pytest.approx(0.03, rel=0.005)
    zeros = {name: int((module.weight == 0).sum()) for name, module in result.model.named_modules() if name in
             set(result.report.layer)}  # fmt: skip
    assert {name: size - zeros[name] for name, size in zip(
        result.report.layer, result.report["shape"].map(lambda shape: shape[0] * shape[1]), strict=True
    )} == dict(zip(result.report.layer, result.report.kept, strict=True))  # fmt: skip
    assert next(result.model.parameters()).device.type == torch.device(device).type
    assert not any(module._forward_pre_hooks for module in result.model.modules())


def test_dense_is_the_same_loop_without_pruning(encoder, task):
    result = run(encoder, task, "dense")
    assert result.density == 1.0 and result.settings["density"] == 1.0 and result.report.empty and not result.masters
    with pytest.raises(ValueError, match=r"dense.+scope"):
        run(encoder, task, "dense", scope="global")


def test_runs_repeat_and_leave_the_random_state_alone(encoder, task):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one, two, other = run(encoder, task, seed=3), run(encoder, task, seed=3), run(encoder, task, seed=4)
    assert torch.equal(torch.get_rng_state(), before)
    assert one.history.equals(two.history) and one.score == two.score
    assert not one.history.loss.equals(other.history.loss)
    for a, b in zip(one.model.parameters(), two.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_history_follows_the_schedule(encoder, task):
    history = run(encoder, task, warmup_steps=8, cooldown_steps=24).history
    assert list(history.columns) == ["step", "loss", "density", "lr", "penalty"] and len(history) == STEPS
    assert (history.density[:9] == 1.0).all() and history.density[9] < 1.0
    assert history.density.is_monotonic_decreasing
    assert history.density[STEPS - 24 :].nunique() == 1
    assert history.lr.max() == pytest.approx(3e-4) and history.lr.iloc[-1] < 1e-5
    assert history.loss.iloc[:8].mean() > history.loss.iloc[-8:].mean() or history.loss.iloc[-1] < 1.5


def test_embeddings_stay_frozen_unless_asked(encoder, task):
    frozen = run(encoder, task, steps=12).model
    free = run(encoder, task, steps=12, freeze_embeddings=False).model
    device = next(frozen.parameters()).device
    start = encoder.get_input_embeddings().weight.to(device)
    assert torch.equal(frozen.get_input_embeddings().weight, start)
    assert not torch.equal(free.get_input_embeddings().weight, start)
    assert all(p.requires_grad for p in frozen.parameters())


def test_masters_are_dense_and_agree_where_kept(encoder, task):
    result = run(encoder, task, "magnitude")
    modules = dict(result.model.named_modules())
    for name, master in result.masters.items():
        weight = modules[name].weight.cpu()
        assert torch.equal(weight[weight != 0], master[weight != 0])
        assert (master != 0).float().mean() > 0.99


def test_an_interrupt_leaves_a_plain_model(encoder, task):
    model = copy.deepcopy(encoder)
    seen = []

    def stop(module, *_):
        seen.append(module)
        if len(seen) > 20:
            raise KeyboardInterrupt

    handle = model.register_forward_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        mvp.fine_prune(model, task, "l0", 0.1, steps=STEPS, progress=False)
    handle.remove()
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert all(p.requires_grad for p in model.parameters())
    assert run(model, task, steps=12).density == pytest.approx(0.1, rel=0.01)


def test_bfloat16_autocast_keeps_float32_weights(encoder, task):
    result = run(encoder, task, bf16=True)
    assert {p.dtype for p in result.model.parameters()} == {torch.float32}
    assert result.density == pytest.approx(0.1, rel=0.005)


def test_pruned_model_reloads_with_stock_means(encoder, task, tmp_path):
    from transformers import AutoModelForSequenceClassification

    result = run(encoder, task)
    result.model.save_pretrained(tmp_path)
    again, info = AutoModelForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    ids = torch.tensor([[2, 9, 10, 3]])
    with torch.no_grad():
        assert torch.equal(again(ids).logits, result.model.cpu().eval()(ids).logits)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"method": "movment"}, "method='movment'"),
        ({"density": 3}, "density=3"),
        ({"density": 0.0}, "density=0.0"),
        ({"steps": 0}, "steps=0"),
        ({"lr": -1.0}, "lr=-1.0"),
        ({"max_norm": 0.0}, "max_norm=0.0"),
        ({"warmup_steps": 40, "cooldown_steps": 40}, "warmup_steps=40"),
        ({"target": "nowhere"}, "target='nowhere'"),
        ({"scope": "everywhere"}, "scope='everywhere'"),
    ],
)
def test_bad_settings_are_named(encoder, task, bad, message):
    with pytest.raises(ValueError, match=message):
        run(encoder, task, **bad)


def test_a_model_without_a_home_needs_a_tokenizer(encoder, task):
    model = copy.deepcopy(encoder)
    model.config._name_or_path = model.name_or_path = ""
    with pytest.raises(ValueError, match="tokenizer="):
        mvp.fine_prune(model, task, steps=20, progress=False)
    assert mvp.fine_prune(model, task, steps=20, progress=False, tokenizer=mvp.tokenizer_for(encoder)).density < 0.04
