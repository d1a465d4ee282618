"""Stock `transformers.Trainer` and accelerate's own loop: no subclass, no callback, the pruner attached beforehand."""

import json
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from nets import layers, used
from safetensors.torch import load_file
from torch.utils.data import DataLoader
from transformers import BertConfig, BertForSequenceClassification, PrinterCallback, Trainer, TrainingArguments

import mvp_lite as mvp
from mvp_lite.masks import keep_count

METHODS = ("movement", "magnitude", "soft_movement", "l0")
STEPS, SAVED, DENSITY, LR, SCORE_LR = 12, 6, 0.2, 1e-2, 0.1
# Starts and thresholds within reach of a dozen steps.
REACH = {"soft_movement": {"threshold": 0.45}, "l0": {"score_init": -2.0}}


def make_model(seed=0):
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=24, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=8, num_labels=2,
        initializer_range=0.3,
    )  # fmt: skip
    return BertForSequenceClassification(config)


def make_rows(count, seed):
    ids = torch.randint(4, 24, (count, 8), generator=torch.Generator().manual_seed(seed))
    return [{"input_ids": x, "attention_mask": torch.ones_like(x), "labels": int(x[1] > 13)} for x in ids]


def make_pruner(model, method, steps=STEPS, **options):
    options = {"density": DENSITY, "warmup_steps": 2, "cooldown_steps": steps // 3, "score_lr": SCORE_LR} | options
    return mvp.Pruner(model, method, total_steps=steps, **REACH.get(method, {}), **used(method, **options))


def make_trainer(folder, device, method="movement", seed=0, score=lambda pruner, predictions: 0.0, **options):
    """Everything fresh; `score(pruner, predictions)` is the metric."""
    model = make_model(seed).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.01)
    pruner = make_pruner(model, method).attach(optimizer)
    settings = {
        "max_steps": STEPS, "per_device_train_batch_size": 8, "gradient_accumulation_steps": 2, "max_grad_norm": 1.0,
        "eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": SAVED, "seed": 3,
    }  # fmt: skip
    arguments = TrainingArguments(
        str(folder), report_to="none", disable_tqdm=True, logging_strategy="no", use_cpu=device == "cpu",
        dataloader_pin_memory=False, **(settings | options),
    )  # fmt: skip
    trainer = Trainer(
        model, arguments, train_dataset=make_rows(96, 1), eval_dataset=make_rows(16, 2),
        compute_metrics=lambda predictions: {"score": score(pruner, predictions)}, optimizers=(optimizer, None),
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    return trainer, pruner


def everything(trainer, pruner):
    """Weights, masters, scores, masks and moments, copied, by name."""
    found = {f"weights.{name}": value for name, value in trainer.model.state_dict().items()}
    for layer in layers(pruner):
        found |= {f"master.{layer.name}": layer.master, f"mask.{layer.name}": layer.mask}
        if layer.scores is not None:
            found[f"scores.{layer.name}"] = layer.scores.data
    for i, state in enumerate(pruner._optimizer.state.values()):
        found |= {f"moments.{i}.{key}": value for key, value in state.items()}
    return {name: value.detach().cpu().clone() for name, value in found.items()}


@pytest.fixture(scope="module", params=METHODS)
def run(request, tmp_path_factory, device):
    """One whole run: accumulation, clipping, evaluations and checkpoints in between."""
    folder = tmp_path_factory.mktemp(request.param)
    rates = []

    def score(pruner, _):
        rates.append([group["lr"] for group in pruner._optimizer.param_groups])
        return 0.0

    trainer, pruner = make_trainer(folder, device, request.param, score=score)
    trainer.train()
    return request.param, folder, trainer, pruner, everything(trainer, pruner), rates


def zeros_outside(weights, masks, prefix=""):
    return all(not weights[f"{prefix}{name}.weight"].cpu()[mask.cpu() == 0].any() for name, mask in masks.items())


def test_run_ends_pruned(run):
    method, folder, trainer, pruner, end, _ = run
    assert pruner.steps_done == STEPS == trainer.state.global_step
    masks = {layer.name: layer.mask for layer in layers(pruner)}
    assert len(masks) == 12, "two blocks of six linear maps"
    kept = {name: int(torch.count_nonzero(mask)) for name, mask in masks.items()}
    if method in ("movement", "magnitude"):
        assert kept == {name: keep_count(mask.numel(), DENSITY) for name, mask in masks.items()}
    assert pruner.density == pytest.approx(DENSITY, rel=0.02)
    saved = load_file(folder / f"checkpoint-{STEPS}" / "model.safetensors")
    for name, mask in masks.items():
        assert torch.equal(saved[f"{name}.weight"] != 0, mask.cpu() != 0), (
            "the file is zero where the mask is, only there"
        )
    assert all(
        torch.equal(saved[name.removeprefix("weights.")], end[name]) for name in end if name.startswith("weights.")
    )


def test_masters_and_scores_move_through_the_trainer(run):
    method, _, _, pruner, end, _ = run
    start = make_model().state_dict()
    for layer in layers(pruner):
        pruned, before = layer.mask.cpu() == 0, start[f"{layer.name}.weight"]
        master = end[f"master.{layer.name}"]
        assert (master[pruned] != 0).all(), "the dense master survives under the mask"
        assert not torch.equal(master, before)
        if method != "magnitude":
            S = end[f"scores.{layer.name}"]
            assert S.dtype == torch.float32 and S.min() < S.max()


def test_both_rates_are_scheduled(run):
    method, _, _, _, _, rates = run
    assert len(rates) == STEPS // 2
    for step, found in zip(range(2, STEPS + 1, 2), rates, strict=True):
        left = 1.0 - step / STEPS  # the Trainer's default: linear to zero
        assert found == pytest.approx([LR * left] + [SCORE_LR * left] * (method != "magnitude"))


def test_resume_is_bit_equal(run, tmp_path, device):
    method, folder, _, whole, end, _ = run
    saved = folder / f"checkpoint-{SAVED}"
    assert json.loads((saved / "trainer_state.json").read_text())["global_step"] == SAVED
    trainer, pruner = make_trainer(tmp_path, device, method, seed=9)  # other weights: nothing may come from here
    trainer.train(resume_from_checkpoint=str(saved))
    again = everything(trainer, pruner)
    assert again.keys() == end.keys()
    assert [name for name in end if not torch.equal(end[name], again[name])] == []
    assert (pruner.steps_done, pruner.penalty) == (whole.steps_done, whole.penalty)
    halfway = load_file(saved / "model.safetensors")
    assert any((halfway[f"{x.name}.weight"] != 0).sum() > torch.count_nonzero(x.mask) for x in layers(whole)), (
        "pruned on"
    )


def test_saved_model_is_the_plain_one(run, tmp_path, device):
    """Before and after finalize: same logits, every key found, none too many."""
    _, _, trainer, pruner, _, _ = run
    trainer.model.eval()
    batch = {"input_ids": torch.stack([row["input_ids"] for row in make_rows(8, 5)]).to(device)}
    with torch.no_grad():
        expected = trainer.model(**batch).logits
    for part in ("attached", "finalized"):
        if part == "finalized":
            assert pruner.finalize() is trainer.model
            trainer.save_model(str(tmp_path / part))
        else:
            trainer.model.save_pretrained(tmp_path / part)
        loaded, info = BertForSequenceClassification.from_pretrained(tmp_path / part, output_loading_info=True)
        assert not any(info.values()), info
        assert all(
            torch.equal(a.to(device), b) for a, b in zip(loaded.parameters(), trainer.model.parameters(), strict=True)
        )
        with torch.no_grad():
            torch.testing.assert_close(loaded.to(device).eval()(**batch).logits, expected)
    assert expected.std() > 0


def test_bf16_training_arguments(tmp_path, device):
    """Autocast by the Trainer's own switch; weights and scores stay float32."""
    trainer, pruner = make_trainer(tmp_path, device, bf16=True, save_strategy="no", eval_strategy="no")
    trainer.train()
    full, reference = make_trainer(tmp_path, device, save_strategy="no", eval_strategy="no")
    full.train()
    assert {(x.weight.dtype, x.scores.dtype) for x in layers(pruner)} == {(torch.float32, torch.float32)}
    assert list(pruner.report().kept) == [keep_count(x.weight.numel(), DENSITY) for x in layers(pruner)]
    pairs = list(zip(layers(pruner), layers(reference), strict=True))
    assert not all(torch.equal(a.master, b.master) for a, b in pairs), "autocast was on"
    common = sum(int((a.mask & b.mask).sum()) for a, b in pairs) / sum(int(b.mask.sum()) for _, b in pairs)
    assert common > 0.7, "84 % when written; masks that have nothing in common share 20 %"


# -- best model at the end ------------------------------------------------------------------------------------------

BEST = {"load_best_model_at_end": True, "metric_for_best_model": "score", "save_steps": 2}


@pytest.mark.parametrize("method", METHODS)
def test_best_model_after_the_schedule_is_kept(method, tmp_path, device):
    """The recipe: a metric that counts only when pruner.done. The end of the schedule is step 8; step 10 is best."""
    scripted = {2: 0.9, 4: 0.8, 6: 0.7, 8: 0.3, 10: 0.5, 12: 0.4}
    asked = []

    def score(pruner, _):
        asked.append((pruner.steps_done, pruner.done))
        return scripted[pruner.steps_done] if pruner.done else -1.0

    trainer, pruner = make_trainer(tmp_path, device, method, score=score, **BEST)
    trainer.train()
    assert asked == [(step, step >= 8) for step in scripted]
    assert Path(trainer.state.best_model_checkpoint).name == "checkpoint-10"
    best = load_file(Path(trainer.state.best_model_checkpoint) / "model.safetensors")
    last = load_file(tmp_path / f"checkpoint-{STEPS}" / "model.safetensors")
    trainer.evaluate()  # what a user does next must not bring the last weights back
    pruner.finalize()
    now = trainer.model.state_dict()
    assert all(torch.equal(now[name].cpu(), best[name]) for name in best)
    assert not all(torch.equal(last[name], best[name]) for name in best)
    if method in ("movement", "magnitude"):
        assert list(pruner.report().kept) == [keep_count(x.weight.numel(), DENSITY) for x in layers(pruner)]


def test_best_model_from_before_the_end_is_refused(tmp_path, device):
    """Without the recipe the densest checkpoint may win; finalize says so and changes nothing."""
    trainer, pruner = make_trainer(tmp_path, device, score=lambda p, _: -p.steps_done, **BEST)
    trainer.train()
    best = load_file(tmp_path / "checkpoint-2" / "model.safetensors")
    with pytest.raises(ValueError, match=r"before the schedule ended"):
        pruner.finalize()
    with pytest.raises(ValueError, match=r"before the schedule ended"):
        pruner.finalize()
    model = pruner.finalize(early=True)
    assert all(torch.equal(value.cpu(), best[name]) for name, value in model.state_dict().items())


# -- bad orders -----------------------------------------------------------------------------------------------------


def test_attach_after_a_scheduler_raises(tmp_path, device):
    model = make_model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    with pytest.raises(ValueError, match="scheduler was built"):
        make_pruner(model, "movement").attach(optimizer)
    trainer, pruner = make_trainer(tmp_path, device)
    pruner.finalize(early=True)
    trainer.create_optimizer_and_scheduler(STEPS)  # as train() does first of all: on_train_begin is too late
    with pytest.raises(ValueError, match="scheduler was built"):
        make_pruner(trainer.model, "movement").attach(trainer.optimizer)


def test_resume_from_an_unpruned_checkpoint_raises(tmp_path, device):
    trainer, pruner = make_trainer(tmp_path, device)
    pruner.finalize(early=True)
    trainer.train()
    fresh, _ = make_trainer(tmp_path / "fresh", device)
    with pytest.raises(ValueError, match="saved without a pruner"):
        fresh.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{SAVED}"))


# -- accelerate's own loop ------------------------------------------------------------------------------------------


def own_loop(method, device, order):
    """Accumulation over two micro-batches; `order` says who comes first."""
    model = make_model().to(device)
    torch.manual_seed(1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR)
    pruner = make_pruner(model, method)
    loader = DataLoader(make_rows(16 * STEPS, 1), batch_size=8)
    if order == "plain":
        pruner.attach(optimizer)
        for i, batch in enumerate(loader):
            (model(**{key: value.to(device) for key, value in batch.items()}).loss / 2).backward()
            if i % 2:
                optimizer.step()
                optimizer.zero_grad()
        return pruner
    accelerator = Accelerator(cpu=device == "cpu", gradient_accumulation_steps=2)
    if order == "attach, prepare":
        pruner.attach(optimizer)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    if order == "prepare, attach":
        pruner.attach(optimizer)
    for batch in loader:
        with accelerator.accumulate(model):
            accelerator.backward(model(**batch).loss)
            optimizer.step()
            optimizer.zero_grad()
    return pruner


@pytest.mark.parametrize("method", ("movement", "l0"))
def test_accelerate_equals_the_plain_loop(method, device):
    plain = own_loop(method, device, "plain")
    assert plain.steps_done == STEPS and plain.density < 0.9
    for order in ("attach, prepare", "prepare, attach"):
        pruner = own_loop(method, device, order)
        assert pruner.steps_done == STEPS
        for a, b in zip(layers(plain), layers(pruner), strict=True):
            assert torch.equal(a.weight, b.weight), order
            assert torch.equal(a.master, b.master) and torch.equal(a.scores, b.scores) and torch.equal(a.mask, b.mask)
