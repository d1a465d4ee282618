"""`PruningCallback` under the stock Trainer: the same run as by hand, resumed bit for bit, and every misuse named."""

import json
import shutil
import warnings
from pathlib import Path

import pytest
import torch
from nets import layers, used
from safetensors.torch import load_file
from test_trainer import DENSITY, LR, METHODS, REACH, SCORE_LR, STEPS, everything, make_model, make_rows
from transformers import EarlyStoppingCallback, PrinterCallback, Trainer, TrainerCallback, TrainingArguments

import mvp_lite as mvp

OPTIONS = {"density": DENSITY, "warmup_steps": 2, "cooldown_steps": 4, "score_lr": SCORE_LR}


def plain_trainer(folder, device="cpu", seed=0, score=lambda _: 0.0, trainer_options=None, **options):
    settings = {
        "max_steps": STEPS, "per_device_train_batch_size": 8, "gradient_accumulation_steps": 2, "learning_rate": LR,
        "weight_decay": 0.1, "warmup_steps": 3, "lr_scheduler_type": "cosine", "save_strategy": "no", "seed": 3,
        "logging_steps": 2,
    }  # fmt: skip
    arguments = TrainingArguments(
        str(folder), report_to="none", disable_tqdm=True, use_cpu=device == "cpu", dataloader_pin_memory=False,
        **(settings | options),
    )  # fmt: skip
    given = {"train_dataset": make_rows(96, 1), "eval_dataset": make_rows(16, 2)} | (trainer_options or {})
    if "model_init" not in given:
        given = {"model": make_model(seed)} | given
    trainer = Trainer(args=arguments, compute_metrics=lambda predictions: {"score": score(predictions)}, **given)
    trainer.remove_callback(PrinterCallback)
    return trainer


def make(folder, device="cpu", method="movement", pruning=None, **options):
    trainer = plain_trainer(folder, device, **options)
    return trainer, mvp.PruningCallback(
        trainer, method, **used(method, **(OPTIONS | REACH.get(method, {}) | (pruning or {})))
    )


class Keep(TrainerCallback):
    """Copies everything that a run changed, before the pruner is finalized."""

    def __init__(self, trainer, callback):
        self.trainer, self.callback, self.found = trainer, callback, {}
        trainer.add_callback(self)

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == state.max_steps:
            self.found = everything(self.trainer, self.callback.pruner)


def differing(a, b):
    assert a.keys() == b.keys() and a
    return [name for name in a if not torch.equal(a[name], b[name])]


def logged(trainer, key="loss"):
    return [log for log in trainer.state.log_history if key in log]


# --- a run ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=METHODS)
def run(request, tmp_path_factory, device):
    folder = tmp_path_factory.mktemp(request.param)
    options = {"save_strategy": "steps", "save_steps": 6, "eval_strategy": "steps", "eval_steps": 2}
    trainer, callback = make(folder, device, request.param, **options)
    keep = Keep(trainer, callback)
    trainer.train()
    return request.param, folder, options, trainer, callback, keep.found


def test_the_run_ends_plain_and_pruned(run):
    *_, trainer, callback, _ = run
    pruner = callback.pruner
    assert pruner.steps_done == STEPS == pruner.schedule.total_steps
    assert pruner.density == pytest.approx(DENSITY, rel=0.02)
    nonzero = sum(int(torch.count_nonzero(matrix.weight)) for matrix in pruner.matrices)
    assert nonzero == pruner.report().kept.sum() and pruner.model is trainer.model
    assert not trainer.model._forward_pre_hooks and pruner.finalize() is trainer.model


def test_it_is_the_run_by_hand(run, tmp_path, device):
    """An optimizer made and attached as the guide used to say: the same weights, masters, scores and moments."""
    method, _, same, trainer, _, end = run
    model = make_model().to(device)
    hand = plain_trainer(tmp_path, device, trainer_options={"model": model}, **same)
    hand.create_optimizer()
    options = used(method, **(OPTIONS | REACH.get(method, {}) | {"total_steps": STEPS, "seed": 3}))
    pruner = mvp.Pruner(model, method, **options).attach(hand.optimizer)
    hand.train()
    assert differing(end, everything(hand, pruner)) == []
    assert [log["loss"] for log in logged(trainer)] == [log["loss"] for log in logged(hand)]


def test_the_optimizer_and_the_schedule_are_the_trainers(run):
    method, _, _, trainer, _, _ = run
    groups = trainer.optimizer.optimizer.param_groups
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0, 0.0][: len(groups)]
    assert len(groups) == 2 + (method != "magnitude")
    assert [group["initial_lr"] for group in groups] == [LR, LR, SCORE_LR][: len(groups)]
    found = [log["learning_rate"] for log in logged(trainer)]
    assert max(found) == pytest.approx(LR, rel=0.1) and found[0] < max(found) > found[-1]


def test_density_is_in_the_logs(run):
    method, folder, _, trainer, callback, _ = run
    densities = [log["density"] for log in logged(trainer)]
    assert len(densities) == STEPS // 2 and densities[0] > 0.9 and densities[-1] == callback.pruner.density
    assert {"penalty" in log for log in logged(trainer)} == {method in ("soft_movement", "l0")}
    assert not any("density" in log for log in logged(trainer, "eval_loss"))
    state = json.loads((folder / "checkpoint-6" / "trainer_state.json").read_text())
    assert [log["density"] for log in state["log_history"] if "loss" in log] == densities[:3]


def test_resume_is_bit_equal(run, tmp_path, device):
    method, folder, options, whole, callback, end = run
    trainer, again = make(tmp_path, device, method, seed=9, **options)  # other weights: nothing may come from here
    keep = Keep(trainer, again)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*pruned already")
        trainer.train(resume_from_checkpoint=str(folder / "checkpoint-6"))
    assert differing(end, keep.found) == []
    keys = ("loss", "density", "penalty", "learning_rate", "grad_norm", "step")
    assert [[log.get(k) for k in keys] for log in logged(trainer)] == [
        [log.get(k) for k in keys] for log in logged(whole)
    ]
    assert again.pruner.penalty == callback.pruner.penalty
    assert again.pruner.diagnosis().densities == callback.pruner.diagnosis().densities


def test_steps_follow_from_epochs(tmp_path):
    trainer, callback = make(
        tmp_path, max_steps=-1, num_train_epochs=3, pruning={"warmup_steps": None, "cooldown_steps": None}
    )
    trainer.train()
    schedule = callback.pruner.schedule
    assert (schedule.total_steps, schedule.warmup_steps, schedule.cooldown_steps) == (18, 1, 5)


def test_scores_do_not_decay(tmp_path):
    """Magnitude of the masters shrinks with the Trainer's weight decay; scores without a gradient stay."""
    ends = []
    for decay in (0.0, 5.0):
        trainer, callback = make(tmp_path, weight_decay=decay, lr_scheduler_type="constant", warmup_steps=0)
        before = {}

        class First(TrainerCallback):
            def on_train_begin(self, args, state, control, **kwargs):
                before.update({x.name: x.scores.detach().clone() for x in layers(callback.pruner)})  # noqa: B023

            def on_pre_optimizer_step(self, args, state, control, **kwargs):
                for x in layers(callback.pruner):  # noqa: B023
                    x.matrix.weight.grad.zero_()

        trainer.add_callback(First())
        keep = Keep(trainer, callback)
        trainer.train()
        assert all(torch.equal(keep.found[f"scores.{name}"], S) for name, S in before.items())
        ends.append(sum(float(value.abs().sum()) for name, value in keep.found.items() if name.startswith("master")))
    assert ends[1] < 0.7 * ends[0]


def test_clipping_as_in_the_paper(tmp_path):
    """`max_norm` bounds what the optimizer gets: the joint norm of masked gradients and scores."""
    norms = {}
    for max_norm in (None, 1e-3):
        trainer, _ = make(tmp_path, max_grad_norm=0.0, pruning={"max_norm": max_norm})
        found = norms.setdefault(max_norm, [])

        def joint(optimizer, *_, found=found):
            grads = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
            found.append(float(torch.nn.utils.get_total_norm(grads)))

        class Watch(TrainerCallback):
            def on_train_begin(self, args, state, control, optimizer=None, **kwargs):
                optimizer.optimizer.register_step_pre_hook(joint)

        trainer.add_callback(Watch())
        trainer.train()
    assert len(norms[None]) == STEPS == len(norms[1e-3])
    assert min(norms[None]) > 2e-3 and max(norms[1e-3]) <= 1.001e-3 and min(norms[1e-3]) >= 0.999e-3


def test_a_model_that_is_pruned_already_is_noticed(tmp_path):
    trainer, _ = make(tmp_path)
    trainer.train()
    second = plain_trainer(tmp_path, trainer_options={"model": trainer.model})
    mvp.PruningCallback(second, "magnitude", **used("magnitude", **OPTIONS))
    with pytest.warns(UserWarning, match=r"a fraction of 0\.2 .* pruned already.*hold_zeros"):
        second.train()


def test_each_run_of_a_model_init_is_pruned(tmp_path):
    trainer, callback = make(tmp_path, trainer_options={"model_init": lambda: make_model()})
    ends = []
    for _ in range(2):
        trainer.train()
        ends.append({name: value.clone() for name, value in trainer.model.state_dict().items()})
    assert differing(*ends) == [] and callback.pruner.density == pytest.approx(DENSITY, rel=0.02)


# --- the best model ------------------------------------------------------------------------------------------------

BEST = {
    "load_best_model_at_end": True, "metric_for_best_model": "score", "save_strategy": "steps", "save_steps": 2,
    "eval_strategy": "steps", "eval_steps": 2,
}  # fmt: skip
#: by the step of the evaluation; the density reaches its end at step 8, and of the later ones step 10 is the best
SCRIPT = {2: 0.9, 4: 0.8, 6: 0.7, 8: 0.3, 10: 0.5, 12: 0.4}


def scripted(folder, method="movement", script=SCRIPT, **options):
    made = {}
    made["trainer"], callback = make(
        folder, method=method, score=lambda _: script[made["trainer"].state.global_step], **(BEST | options)
    )
    return made["trainer"], callback


@pytest.mark.parametrize(("method", "sign"), list(zip(METHODS, (1, -1, 1, -1), strict=True)))
def test_only_checkpoints_after_the_schedule_compete(method, sign, tmp_path):
    script = {step: sign * score for step, score in SCRIPT.items()}
    trainer, callback = scripted(tmp_path, method, script, greater_is_better=sign > 0)
    trainer.train()
    assert Path(trainer.state.best_model_checkpoint).name == "checkpoint-10" and trainer.state.best_metric == sign * 0.5
    assert [log["eval_score"] for log in logged(trainer, "eval_score")] == list(script.values()), "logged as they are"
    best = load_file(tmp_path / "checkpoint-10" / "model.safetensors")
    assert differing(best, dict(trainer.model.state_dict())) == []
    last = load_file(tmp_path / f"checkpoint-{STEPS}" / "model.safetensors")
    assert differing(best, last) and callback.pruner.density == pytest.approx(DENSITY, rel=0.02)


@pytest.mark.parametrize("saved", [6, 8])
def test_the_best_after_resuming(saved, tmp_path):
    script = SCRIPT | {8: 0.6}
    trainer, _ = scripted(tmp_path, script=script)
    trainer.train()
    for step in range(saved + 2, STEPS + 1, 2):
        shutil.rmtree(tmp_path / f"checkpoint-{step}")
    again, _ = scripted(tmp_path, script=script)
    again.train(resume_from_checkpoint=True)
    assert Path(again.state.best_model_checkpoint).name == "checkpoint-8"
    assert differing(dict(again.model.state_dict()), dict(trainer.model.state_dict())) == []


def test_early_stopping_counts_from_the_end_of_the_schedule(tmp_path):
    script = SCRIPT | {10: 0.2, 12: 0.1}
    trainer, callback = scripted(tmp_path, script=script, max_steps=12)
    trainer.add_callback(EarlyStoppingCallback(early_stopping_patience=1))
    trainer.train()
    assert trainer.state.global_step == 10 and callback.pruner.done, "not after step 4, where the score first falls"
    assert Path(trainer.state.best_model_checkpoint).name == "checkpoint-8"


def test_no_checkpoint_competes(tmp_path):
    trainer, callback = scripted(tmp_path, script=SCRIPT | dict.fromkeys((8, 10, 12), float("nan")))
    with pytest.warns(
        UserWarning, match=r"load_best_model_at_end=True: no checkpoint .* after step 8, .* last weights"
    ):
        trainer.train()
    assert callback.pruner.density == pytest.approx(DENSITY, rel=0.02)


def test_a_best_checkpoint_from_before_the_end_is_refused(tmp_path):
    class Spoil(TrainerCallback):
        def on_save(self, args, state, control, **kwargs):
            if state.global_step == STEPS:
                state.best_model_checkpoint, state.best_metric = str(tmp_path / "checkpoint-2"), 1.0

    trainer, callback = scripted(tmp_path)
    trainer.add_callback(Spoil())
    with pytest.raises(ValueError, match="saved before the schedule ended"):
        trainer.train()
    best = load_file(tmp_path / "checkpoint-2" / "model.safetensors")
    assert differing(best, dict(callback.pruner.finalize(early=True).state_dict())) == []


# --- misuse --------------------------------------------------------------------------------------------------------


def test_a_second_run_is_refused(tmp_path):
    trainer, _ = make(tmp_path)
    trainer.train()
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    with pytest.raises(ValueError, match="one callback prunes one run"):
        trainer.train()
    assert differing(before, dict(trainer.model.state_dict())) == []


def test_a_run_after_an_interrupted_one_is_refused(tmp_path):
    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 5:
                raise KeyboardInterrupt

    trainer, callback = make(tmp_path)
    trainer.add_callback(Stop())
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    with pytest.raises(ValueError, match="or its training was interrupted"):
        trainer.train()
    assert callback.pruner.finalize(early=True) is trainer.model


def test_a_model_replaced_before_training_is_refused(tmp_path):
    trainer, callback = make(tmp_path)
    trainer.model = make_model(4)
    with pytest.raises(ValueError, match=r"trainer\.model was replaced, but the Trainer still trains the old one"):
        trainer.train()
    assert callback.pruner is None


def test_a_model_replaced_during_training_is_refused(tmp_path):
    class Replace(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            trainer.model = other

    trainer, _ = make(tmp_path)
    other = make_model(4)
    trainer.add_callback(Replace())
    with pytest.raises(ValueError, match=r"trainer\.model was replaced during training"):
        trainer.train()


def test_a_run_without_steps_is_refused(tmp_path):
    trainer, callback = make(tmp_path, max_steps=-1, num_train_epochs=0)
    with pytest.raises(ValueError, match="total_steps=0"):
        trainer.train()
    assert callback.pruner is None


def test_training_that_ends_before_the_schedule_is_refused(tmp_path):
    class Stop(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            control.should_training_stop = state.global_step == 5

    trainer, callback = make(tmp_path)
    trainer.add_callback(Stop())
    with pytest.raises(ValueError, match=r"training ended after 5 of 12 steps, .* callback\.pruner\.finalize\(early"):
        trainer.train()
    callback.pruner.finalize(early=True)


def test_a_checkpoint_of_the_model_alone_is_refused_before_training(tmp_path):
    trainer, _ = make(tmp_path, save_strategy="steps", save_steps=6, save_only_model=True)
    trainer.train()
    again, _ = make(tmp_path)
    seen = []
    again.model.register_forward_hook(lambda *_: seen.append(1))
    with pytest.raises(ValueError, match=r"step 6 has no optimizer\.pt.*save_only_model=True"):
        again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-6"))
    assert not seen


def test_a_checkpoint_without_a_pruner_is_refused(tmp_path):
    plain_trainer(tmp_path, save_strategy="steps", save_steps=6).train()
    trainer, _ = make(tmp_path)
    with pytest.raises(ValueError, match="saved without a pruner"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-6"))


def test_a_checkpoint_of_another_length_is_refused(tmp_path):
    trainer, _ = make(tmp_path, save_strategy="steps", save_steps=6)
    trainer.train()
    again, _ = make(tmp_path, max_steps=20)
    with pytest.raises(ValueError, match=r"does not fit this one \(total_steps: saved 12, here 20"):
        again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-6"))


def test_bad_arguments_are_named(tmp_path):
    trainer = plain_trainer(tmp_path)
    for error, message, options in (
        (TypeError, "total_steps=5: leave it out", {"total_steps": 5}),
        (ValueError, "max_norm=-1", {"max_norm": -1}),
        (ValueError, r"max_norm=1\.0: the Trainer clips as well \(max_grad_norm=1\.0\)", {"max_norm": 1.0}),
    ):
        with pytest.raises(error, match=message):
            mvp.PruningCallback(trainer, density=0.5, **options)
    with pytest.raises(TypeError, match="trainer=Linear: must be a "):
        mvp.PruningCallback(torch.nn.Linear(2, 2), density=0.5)
    mvp.PruningCallback(trainer, density=0.5, scope="wide")
    with pytest.raises(ValueError, match="a PruningCallback already"):
        mvp.PruningCallback(trainer, density=0.5)
    with pytest.raises(ValueError, match="scope='wide'"):
        trainer.train()
    optimizer = torch.optim.SGD(trainer.model.parameters())
    scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer)
    scheduled = plain_trainer(tmp_path, trainer_options={"optimizers": (optimizer, scheduler)})
    with pytest.raises(ValueError, match="was given a scheduler"):
        mvp.PruningCallback(scheduled, density=0.5)


def test_a_callback_belongs_to_one_trainer(tmp_path):
    _, callback = make(tmp_path)
    other = plain_trainer(tmp_path)
    other.add_callback(callback)
    with pytest.raises(ValueError, match="belongs to another Trainer"):
        other.train()


def test_a_misspelled_method_is_named_at_once(tmp_path):
    with pytest.raises(ValueError, match="magnitud"):
        mvp.PruningCallback(plain_trainer(tmp_path, "cpu"), "magnitud", density=0.1)
    with pytest.raises(TypeError, match="density='a'"):
        mvp.PruningCallback(plain_trainer(tmp_path, "cpu"), density="a")
