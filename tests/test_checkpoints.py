"""`fine_prune` that is interrupted and goes on; evaluation on the way; batches in several parts."""

import copy
import os
import re
import signal
import subprocess
import sys
import textwrap
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import mvp_lite as mvp
from mvp_lite.checkpoints import digest

METHODS = ("movement", "soft_movement", "l0", "magnitude")
STEPS, SAVE, STOP = 20, 4, 11  # the last checkpoint before the interrupt is that of step 8


class Parity:
    """Is the number of ones in eight bits odd? Batch number `stop` (from 0) interrupts the run."""

    name, tokenizer = "parity", None

    def __init__(self, stop=None, interrupt=KeyboardInterrupt, shift=0):
        self.stop, self.interrupt, self.shift = stop, interrupt, shift

    def recipe(self, batch_size):
        return STEPS, 1e-2

    def encode(self, tokenizer):
        return self

    def check_head(self, model):
        pass

    def batches(self, split, batch_size, *, seed, steps, device):
        generator = torch.Generator().manual_seed(seed + self.shift)
        for step in range(steps):
            if step == self.stop:
                raise self.interrupt("stopped")
            bits = torch.randint(0, 2, (batch_size, 8), generator=generator)
            yield {"bits": bits.float().to(device), "labels": (bits.sum(1) % 2).to(device)}

    def evaluate(self, model, split, *, device):
        torch.rand(3)  # an evaluation may draw random numbers
        (batch,) = Parity().batches(split, 64, seed=99, steps=1, device=device)
        with torch.no_grad():
            out = model(**batch)
        right = out.logits.argmax(-1) == batch["labels"]
        return {"score": 100 * float(right.float().mean()), "loss": float(out.loss)}


class Tiny(nn.Module):
    def __init__(self, seed=0, dropout=0.2):
        super().__init__()
        torch.manual_seed(seed)
        self.blocks = nn.ModuleList([nn.Linear(8, 16), nn.Linear(16, 16)])
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(16, 2)

    def forward(self, bits, labels=None):
        for block in self.blocks:
            bits = self.dropout(torch.tanh(block(bits)))
        logits = self.head(bits)
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return Outputs(logits=logits, loss=loss)


class Outputs(dict):
    __getattr__ = dict.__getitem__


def run(method="movement", task=None, model=None, **options):
    given = {"batch_size": 16, "eval_steps": 3, "progress": False} | options
    density = 1.0 if method == "dense" else 0.25
    return mvp.fine_prune(model or Tiny(), task or Parity(), method, density, **given)


def interrupted(folder, method="movement", **options):
    with pytest.raises(KeyboardInterrupt):
        run(method, Parity(STOP), output_dir=folder, save_steps=SAVE, **options)


def check_same(one, two):
    """Bit for bit: everything that a result holds."""
    assert one.history.equals(two.history) and one.evaluations.equals(two.evaluations)
    assert one.report.equals(two.report) and one.settings == two.settings
    assert (one.score, one.density, one.metrics) == (two.score, two.density, two.metrics)
    assert vars(one.diagnosis) == vars(two.diagnosis)
    for a, b in ((one.masters, two.masters), (one.scores, two.scores), *[(x.model.state_dict() for x in (one, two))]):
        assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def names(folder):
    return sorted(path.name for path in Path(folder).iterdir())


# --- go on ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [*METHODS, "dense"])
def test_a_resumed_run_equals_the_run_without_interruption(method, tmp_path):
    whole = run(method)
    interrupted(tmp_path, method)
    assert names(tmp_path) == ["checkpoint-4.pt", "checkpoint-8.pt"]
    taken = []
    model = Tiny(seed=5)  # other weights: nothing may come from here
    model.register_forward_hook(lambda module, *_: taken.append(module.training))
    resumed = run(method, model=model, output_dir=tmp_path, save_steps=SAVE, resume=True)
    check_same(whole, resumed)
    assert sum(taken) == STEPS - 8, "the first eight steps were not done again"
    assert names(tmp_path) == ["checkpoint-16.pt", "checkpoint-20.pt"]


def test_resume_on_the_toy_with_a_teacher_and_its_own_score_optimizer(tmp_path, device):
    task = mvp.load_task("toy/inference", limit=300)
    encoder, dense = (mvp.load_model("toy", task, seed=seed) for seed in (0, 3))

    def score_optimizer(scores):
        return torch.optim.AdamW(scores, lr=1e-2, weight_decay=0.0)

    def prune(seen=None, **options):
        model = copy.deepcopy(encoder)
        if seen is not None:
            model.register_forward_hook(seen)
        given = {"steps": 12, "batch_size": 16, "lr": 1e-3, "progress": False, "teacher": dense} | options
        return mvp.fine_prune(model, task, "soft_movement", 0.1, score_optimizer=score_optimizer, **given)

    def stop(module, *_, calls=[]):  # noqa: B006
        calls.append(module)
        if len(calls) == 8:
            raise RuntimeError("out of memory")

    whole = prune()
    with pytest.raises(RuntimeError, match="out of memory"):
        prune(stop, output_dir=tmp_path, save_steps=5)
    check_same(whole, prune(output_dir=tmp_path, save_steps=5, resume=True))


def test_a_finished_run_is_only_evaluated_again(tmp_path):
    whole = run(output_dir=tmp_path)
    assert names(tmp_path) == ["checkpoint-18.pt", "checkpoint-20.pt"], "by default after each tenth of the run"
    model = Tiny(4)
    before = torch.get_rng_state()
    check_same(whole, run(model=model, output_dir=tmp_path, resume=True))
    assert torch.equal(torch.get_rng_state(), before), "the global random state is left alone"


def test_resume_after_a_real_kill(tmp_path):
    """A subprocess ends by SIGKILL while it writes its second checkpoint: a part of that file is there."""
    program = f"""
        import os, signal, torch
        from test_checkpoints import run
        save = torch.save
        def die(state, file):
            if len(state["history"]) == 8:
                file.write(b"half a checkpoint")
                file.flush()
                os.kill(os.getpid(), signal.SIGKILL)
            save(state, file)
        torch.save = die
        run("l0", output_dir={str(tmp_path)!r}, save_steps={SAVE}, tokenizer="none")
    """
    root = Path(__file__).parents[1]
    path = os.pathsep.join(map(str, (root, root / "tests")))
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], env=os.environ | {"PYTHONPATH": path}, capture_output=True
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert names(tmp_path) == ["checkpoint-4.pt", "checkpoint-8.partial"]
    check_same(run("l0"), run("l0", output_dir=tmp_path, save_steps=SAVE, resume=True))
    assert names(tmp_path) == ["checkpoint-16.pt", "checkpoint-20.pt"]


def test_numbers_from_numpy(tmp_path):
    options = {"lr": np.logspace(-2, -1, 2)[0], "score_lr": np.float32(0.1), "steps": STEPS}
    interrupted(tmp_path, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_same(run(**options), run(output_dir=tmp_path, save_steps=SAVE, resume=True, **options))


# --- and when not --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"lr": 1e-3}, "lr: saved 0.01, here 0.001"),
        ({"batch_size": 8}, "batch_size: saved 16, here 8; first batch: saved"),
        ({"steps": 30}, "steps: saved 20, here 30"),
        ({"seed": 1}, "seed: saved 0, here 1; first batch"),
        ({"max_norm": 2.0}, "max_norm: saved 1.0, here 2.0"),
        ({"gradient_accumulation_steps": 2}, "gradient_accumulation_steps: saved 1, here 2"),
        ({"method": "magnitude"}, "method: saved 'movement', here 'magnitude'"),
        ({"method": "dense"}, "method: saved 'movement', here 'dense'"),
        ({"scope": "global"}, "scope: saved 'local', here 'global'"),
        ({"target": "blocks.1"}, "groups: saved .*; target: saved None, here 'blocks.1'"),
        ({"groups": "rows"}, "groups: saved"),
        ({"groups": mvp.groups.blocks(2, 2)}, "groups: saved"),
        ({"task": Parity(shift=1)}, "first batch: saved"),
        ({"model": nn.Sequential(Tiny())}, "model: saved 'Tiny with .*', here 'Sequential"),
        ({"teacher": Tiny(3)}, "alpha_ce: saved None, here 0.1.*teacher: saved None"),
    ],
)
def test_what_differs_is_named_before_anything_is_changed(other, named, tmp_path):
    interrupted(tmp_path)
    files = names(tmp_path)
    with pytest.raises(ValueError, match=rf"checkpoint-8\.pt is of another run \(.*{named}"):
        run(output_dir=tmp_path, resume=True, **other)
    assert names(tmp_path) == files


def test_another_teacher_is_noticed(tmp_path):
    interrupted(tmp_path, teacher=Tiny(3))
    with pytest.raises(ValueError, match=r"of another run \(teacher: saved '"):
        run(output_dir=tmp_path, resume=True, teacher=Tiny(4))


def test_nothing_is_overwritten_without_resume(tmp_path):
    interrupted(tmp_path)
    with pytest.raises(FileExistsError, match=r"output_dir='.*' holds checkpoint-8\.pt .*resume=True"):
        run(output_dir=tmp_path)
    assert names(tmp_path) == ["checkpoint-4.pt", "checkpoint-8.pt"]


def test_an_empty_folder_starts_from_the_beginning_and_says_so(tmp_path):
    with pytest.warns(UserWarning, match=r"holds no checkpoint to resume: the run starts from the beginning") as found:
        result = run(output_dir=tmp_path / "new" / "folder", resume=True)
    assert {warning.filename for warning in found} == {__file__}
    check_same(run(), result)


@pytest.mark.parametrize("size", [0, 1000, -1])
def test_a_damaged_checkpoint_is_passed_over(size, tmp_path):
    interrupted(tmp_path)
    last = tmp_path / "checkpoint-8.pt"
    last.write_bytes(last.read_bytes()[:size])
    with pytest.warns(UserWarning, match=r"checkpoint-8\.pt is damaged .* trying the one before") as found:
        result = run(output_dir=tmp_path, save_steps=SAVE, resume=True)
    assert {warning.filename for warning in found} == {__file__}
    check_same(run(), result)


def test_a_flipped_bit_is_noticed(tmp_path):
    interrupted(tmp_path)
    last = tmp_path / "checkpoint-8.pt"
    content = bytearray(last.read_bytes())
    state = torch.load(last, weights_only=False)
    name = next(name for name, x in state["parts"]["model"].items() if x.ndim == 2)
    content[content.index(state["parts"]["model"][name].numpy().tobytes()) + 5] ^= 4
    last.write_bytes(content)
    with pytest.warns(UserWarning, match=r"checkpoint-8\.pt is damaged .*checksum.* trying the one before"):
        result = run(output_dir=tmp_path, save_steps=SAVE, resume=True)
    check_same(run(), result)


def test_damaged_checkpoints_alone_are_an_error(tmp_path):
    (tmp_path / "checkpoint-8.pt").write_bytes(b"nothing")
    with pytest.warns(UserWarning, match="is damaged"), pytest.raises(OSError, match="none of its 1 checkpoints can"):
        run(output_dir=tmp_path, resume=True)


def test_a_pruned_model_may_be_resumed_without_a_warning(tmp_path):
    model = Tiny()
    with pytest.raises(KeyboardInterrupt):
        run("magnitude", Parity(STOP), model=model, output_dir=tmp_path, save_steps=SAVE)
    assert (model.blocks[1].weight == 0).any(), "the interrupted model, in the same process"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_same(run("magnitude"), run("magnitude", model=model, output_dir=tmp_path, save_steps=SAVE, resume=True))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (
            {"gradient_accumulation_steps": 0},
            "gradient_accumulation_steps=0: must be an integer from 1 to batch_size=16",
        ),
        ({"gradient_accumulation_steps": 17}, "gradient_accumulation_steps=17: .* from 1 to batch_size=16"),
        ({"gradient_accumulation_steps": 2.0}, "gradient_accumulation_steps=2.0"),
        ({"eval_steps": 0}, "eval_steps=0: must be an integer of at least 1"),
        ({"eval_steps": True}, "eval_steps=True"),
        ({"output_dir": "x", "save_steps": -1}, "save_steps=-1"),
        ({"save_steps": 5}, "save_steps=5 needs output_dir"),
        ({"resume": True}, "resume=True needs output_dir"),
    ],
)
def test_bad_values_are_named(bad, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=message):
        run(**bad)
    assert not names(tmp_path)


def test_a_file_is_no_folder(tmp_path):
    with pytest.raises(TypeError, match="output_dir=5: must be the path of a folder"):
        run(output_dir=5)
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError, match=r"output_dir='.*file': must be a folder"):
        run(output_dir=tmp_path / "file")


def test_digests_tell_tensors_apart():
    x = torch.arange(6.0)
    others = [{"x": x + 1}, {"y": x}, {"x": x.view(2, 3)}, {"x": x.double()}, {"x": x.bfloat16()}, {}]
    found = {digest(tensors) for tensors in [{"x": x}, {"x": x.clone()}, *others]}
    assert len(found) == 1 + len(others) and all(re.fullmatch("[0-9a-f]{16}", one) for one in found)


# --- evaluation on the way -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["l0", "movement"])
def test_evaluation_on_the_way_does_not_change_the_run(method):
    without, often = run(method, eval_steps=None), run(method, eval_steps=4)
    assert without.history.equals(often.history) and without.score == often.score
    for a, b in zip(without.model.parameters(), often.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert list(often.evaluations.step) == [4, 8, 12, 16, 20] and list(without.evaluations.step) == [20]
    assert list(often.evaluations.density[:-1]) == list(often.history.density[4::4])
    last = {"step": STEPS, "density": often.density, "score": often.score, "loss": often.metrics["loss"]}
    assert often.evaluations.iloc[-1].to_dict() == without.evaluations.iloc[-1].to_dict() == last
    assert often.evaluations.loss.nunique() == 5


def test_dropout_is_off_in_an_evaluation():
    modes = []
    model = Tiny()
    model.dropout.register_forward_hook(lambda module, *_: modes.append(module.training))
    run(model=model, eval_steps=10)
    assert modes.count(True) == 2 * STEPS


def test_a_task_need_not_know_its_loss():
    task = Parity()
    task.evaluate = lambda model, split, *, device: {"score": 50}
    assert run(task=task).evaluations.loss.isna().all()


# --- batches in several parts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [*METHODS, "dense"])
@pytest.mark.parametrize("count", [2, 3, 16])
def test_a_batch_in_parts_is_the_whole_batch(method, count):
    """16 sequences in 3 parts are 6, 5 and 5: the mean counts sequences, not parts."""
    sizes = []
    model = Tiny(dropout=0.0).double()
    model.register_forward_hook(lambda module, args, kwargs, out: sizes.append(len(kwargs["labels"])), with_kwargs=True)
    options = {"steps": 6, "eval_steps": None, "score_lr": None if method in ("dense", "magnitude", "random") else 0.1}
    parts = run(method, InDouble(), model, gradient_accumulation_steps=count, **options)
    whole = run(method, InDouble(), Tiny(dropout=0.0).double(), **options)
    expected = [len(part) for part in np.array_split(range(16), count)]
    assert sizes[: 6 * count] == expected * 6
    np.testing.assert_allclose(parts.history, whole.history, rtol=1e-9)
    for a, b in zip(parts.model.parameters(), whole.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)


class InDouble(Parity):
    """Double precision leaves only rounding far below any difference in the mean."""

    def batches(self, *args, **options):
        for batch in super().batches(*args, **options):
            yield batch | {"bits": batch["bits"].double()}

    def evaluate(self, model, split, *, device):
        return {"score": 0.0}
