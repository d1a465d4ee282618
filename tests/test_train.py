"""`fine_prune` on the toy and on a task of one's own: densities reached, runs that repeat, models left plain."""

import copy
import re
import warnings
from types import SimpleNamespace

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
    density = 1.0 if method == "dense" else density
    return mvp.fine_prune(copy.deepcopy(encoder), task, method, density, **settings)


@pytest.mark.parametrize("scope", ["local", "global"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_reaches_the_density(encoder, task, method, scope, device):
    result = run(encoder, task, method, 0.03, scope=scope)
    assert result.density == pytest.approx(0.03, rel=0.1)
    if method not in ("soft_movement", "l0"):  # those two reach it by feedback, the others by selection
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
    pruned = result.model.cpu().eval()
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), pruned.parameters(), strict=True))
    ids = torch.tensor([[2, 9, 10, 3]])
    with torch.no_grad():
        torch.testing.assert_close(again(ids).logits, pruned(ids).logits)


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


class Parity:
    """A task of one's own, without texts: is the number of ones in eight bits odd? Batches hold no `input_ids`."""

    name, tokenizer = "parity", None

    def __init__(self):
        self.asked = []

    def recipe(self, batch_size):
        return 30, 1e-3

    def encode(self, tokenizer):
        self.asked.append(tokenizer)
        return self

    def check_head(self, model):
        assert model.head.out_features == 2

    def batches(self, split, batch_size, *, seed, steps, device):
        generator = torch.Generator().manual_seed(seed)
        for _ in range(steps):
            bits = torch.randint(0, 2, (batch_size, 8), generator=generator)
            yield {"bits": bits.float().to(device), "labels": (bits.sum(1) % 2).to(device)}

    def evaluate(self, model, split, *, device):
        (batch,) = self.batches(split, 64, seed=99, steps=1, device=device)
        with torch.no_grad():
            right = model(**batch).logits.argmax(-1) == batch["labels"]
        return {"score": 100 * float(right.float().mean()), "split": split}


class Tiny(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = torch.nn.ModuleList([torch.nn.Linear(8, 16), torch.nn.Linear(16, 16)])
        self.head = torch.nn.Linear(16, 2)

    def forward(self, bits, labels):
        for block in self.blocks:
            bits = torch.tanh(block(bits))
        logits = self.head(bits)
        return SimpleNamespace(logits=logits, loss=torch.nn.functional.cross_entropy(logits, labels))


def test_a_task_of_ones_own(device):
    task, model = Parity(), Tiny()
    result = mvp.fine_prune(model, task, "magnitude", 0.25, batch_size=16, progress=False)
    assert result.density == 0.25 and len(result.history) == 30 and result.settings["lr"] == 1e-3
    assert result.metrics == task.evaluate(model, "validation", device=device) and task.asked == [None]
    assert repr(result) == f"Result(magnitude on parity: score {result.score:.1f} at density 0.25)"
    mvp.fine_prune(Tiny(), task, "dense", steps=2, tokenizer="mine", progress=False)
    assert task.asked == [None, "mine"]


@pytest.mark.parametrize(
    ("wrong", "advice"),
    [
        ("toy/inference", r"; write load_task\('toy/inference'\)$"),
        ("sst", r"; write load_task\('sst'\) \(tasks with a name: toy/sentiment, .*"),
        (None, "$"),
        (7, "$"),
    ],
)
def test_what_is_not_a_task_is_named(encoder, wrong, advice):
    accepted = "must be what load_task or make_task returns, .*DataFrame, a torch DataLoader .*TaskLike"
    with pytest.raises(TypeError, match=rf"task={re.escape(repr(wrong))}: {accepted}{advice}"):
        run(encoder, wrong)


def test_what_a_task_lacks_is_named_before_training(encoder, task):
    with pytest.raises(TypeError, match=r"task=.*Encoded.*: must be .*; give the task itself, encoded\.task"):
        run(encoder, task.encode(mvp.tokenizer_for(encoder)))
    with pytest.raises(TypeError, match=r"task=.* lacks name, tokenizer, encode: give what load_task .*TaskLike"):
        run(encoder, SimpleNamespace(recipe=lambda batch_size: (1, 1e-3)))
    half = Parity()
    half.encode = lambda tokenizer: SimpleNamespace(batches=half.batches, check_head=half.check_head)
    with pytest.raises(TypeError, match=r"task\.encode\(tokenizer\)=.* lacks evaluate: .*EncodedTaskLike"):
        mvp.fine_prune(Tiny(), half, progress=False)


@pytest.mark.parametrize("method", METHODS)
def test_a_model_that_is_pruned_already_is_noticed(method):
    model, once = Tiny(), Parity()
    mvp.fine_prune(model, once, "magnitude", 0.25, progress=False)
    with pytest.warns(UserWarning, match=r"a fraction of 0\.25 of the entries .* pruned already") as found:
        mvp.fine_prune(model, once, method, 0.25, progress=False)
    assert {warning.filename for warning in found} == {__file__}


def test_a_dense_model_is_not_called_pruned(encoder, task):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(encoder, task, steps=10)
        coarse = copy.deepcopy(encoder)
        weights = [p for p in coarse.bert.encoder.parameters() if p.ndim == 2]
        for W in weights:  # as if stored in eight bits: some entries of each matrix are zero
            step = W.detach().abs().max() / 127
            W.data = (W.data / step).round() * step
        zeros = sum(int((W == 0).sum()) for W in weights) / sum(W.numel() for W in weights)
        assert 0.01 < zeros < 0.1
        run(coarse, task, steps=10)
        pruned = run(encoder, task, steps=10).model
        run(pruned, task, "dense", steps=10)  # nothing is pruned, so nothing is said


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 0}, "batch_size=0: must be an integer of at least 1"),
        ({"teacher": "x"}, "teacher='x': must be a model or a Teacher"),
        ({"total_steps": 9}, "total_steps=9: is called steps in fine_prune"),
        ({"model": "toy"}, r"model='toy': must be a torch module; load_model"),
    ],
)
def test_what_a_user_may_mix_up_is_named(change, message):
    task = mvp.load_task("toy/inference", limit=40)
    given = {"model": torch.nn.Linear(2, 2), "task": task, "progress": False} | change
    with pytest.raises((TypeError, ValueError), match=message):
        mvp.fine_prune(**given)


@pytest.mark.parametrize("task", [None, "sst2"])
def test_a_model_is_loaded_for_a_task(task):
    with pytest.raises(TypeError, match=r"task=.*: must be what load_task or make_task returned"):
        mvp.load_model("toy", task)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"device": "gpu"}, ValueError, "device='gpu': must be 'cpu', 'cuda' or another device that torch knows"),
        ({"device": 1.5}, ValueError, "device=1.5: must be 'cpu'"),
        ({"bf16": "yes"}, TypeError, "bf16='yes': must be True or False"),
        ({"progress": 1}, TypeError, "progress=1: must be True or False"),
        ({"seed": -1}, ValueError, "seed=-1: must be an integer of at least 0"),
        ({"seed": 0.5}, TypeError, "seed=0.5: must be an integer"),
        ({"scop": "global"}, TypeError, "scop='global': no such option; is it scope?"),
        ({"output_folder": "runs"}, TypeError, "output_folder='runs': no such option"),
        ({"learning": 3}, TypeError, "learning=3: no such option"),
    ],
)
def test_options_that_are_none(encoder, task, options, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}"):
        run(encoder, task, **options)


def test_a_device_that_is_none(monkeypatch):
    monkeypatch.setenv("MVP_LITE_DEVICE", "gpu")
    with pytest.raises(ValueError, match=r"^MVP_LITE_DEVICE='gpu': must be 'cpu'"):
        mvp.train.default_device()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"^device='cuda': torch sees no CUDA device"):
        mvp.train._device("device", "cuda")
