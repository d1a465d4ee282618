"""`fine_prune`: the fine-tuning loop of the paper, with a pruner around its optimizer."""

from __future__ import annotations

import os
import reprlib
import time
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from mvp_lite.diagnosis import Diagnosis, constant_share
from mvp_lite.distill import Teacher
from mvp_lite.methods import Method
from mvp_lite.pruner import Pruner
from mvp_lite.storage.record import describe_run
from mvp_lite.tokenizer import tokenizer_for

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["EncodedTaskLike", "Result", "TaskLike", "default_device", "fine_prune", "train_steps"]

# A dense float matrix has almost no exact zeros; one that was quantized to 8 bits has some per cent.
_DENSE = 0.9
#: training examples whose hidden states the diagnosis compares
_LOOKED_AT = 64


class EncodedTaskLike(Protocol):
    """What `fine_prune` trains and scores on: tensors of a task, for one tokenizer."""

    def check_head(self, model: nn.Module) -> None:
        """Raise ValueError if the model's outputs do not fit the task; called before training."""

    def batches(
        self, split: str, batch_size: int, *, seed: int, steps: int, device: torch.device
    ) -> Iterable[dict[str, Tensor]]:
        """`steps` batches of split "train" on `device`, arguments for `model(**batch)`, whose output has a `.loss`."""

    def evaluate(self, model: nn.Module, split: str, *, device: torch.device) -> dict[str, float]:
        """Scores of the model on split "validation", in per cent; one is named "score"."""


class TaskLike(Protocol):
    """What `fine_prune` needs of a task: `load_task` returns one, and any object with these four is one."""

    @property
    def name(self) -> str: ...

    @property
    def tokenizer(self) -> Any:
        """Passed to `encode`; where it is None, the one stored beside the model."""

    def recipe(self, batch_size: int) -> tuple[int, float]:
        """Optimizer steps and learning rate where `fine_prune` is given none."""

    def encode(self, tokenizer: Any) -> EncodedTaskLike:
        """The task's tensors."""


@dataclass(frozen=True)
class Result:
    """Outcome of a run.

    Attributes:
        score: the task's metric on the validation split, in per cent.
        density: measured fraction of the target weights that is kept.
        metrics: everything that `evaluate` returned.
        history: one row per step: step and loss, and the density, learning rate and penalty used in that step.
        report: one row per pruned matrix, see `Pruner.report`.
        settings: the arguments of the run, defaults included.
        seconds: wall time.
        model: without hooks; pruned entries are zeros.
        masters: for each pruned matrix its dense weights at the end, pruned entries included, on the CPU.
        diagnosis: did the run work? Its `verdict` says it in a sentence, its `plot()` in a picture.
        scores: for each pruned matrix, or set of groups, the scores that decided its mask, on the CPU; empty for
            magnitude, whose scores are the absolute values of the masters.
        tokenizer: the one the task was encoded with; None for a task without text.
        record: where the model came from, the task and the arguments, for the card of `save`.
    """

    score: float
    density: float
    metrics: dict[str, float]
    history: pd.DataFrame
    report: pd.DataFrame
    settings: dict[str, Any]
    seconds: float
    model: nn.Module
    masters: dict[str, Tensor]
    scores: dict[str, Tensor]
    diagnosis: Diagnosis
    tokenizer: Any = None
    record: dict[str, Any] = field(default_factory=dict)

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Save model, tokenizer and card into a folder that `transformers` reads without this package.

        A folder that `save` wrote earlier is replaced; another one that is not empty only with `overwrite`. The card,
        README.md and card.json, says how the model was made: `python -m mvp_lite replay card.json` repeats the run.

        Raises:
            TypeError: a model without `save_pretrained`.
            FileExistsError: `folder` holds other files.
        """
        from mvp_lite.storage.folder import write_folder

        return write_folder(self.model, folder, self.tokenizer, self.card(), overwrite=overwrite)

    def push_to_hub(
        self, repo_id: str, *, private: bool | None = None, token: str | None = None,
        commit_message: str = "Upload pruned model",
    ) -> str:  # fmt: skip
        """Upload what `save` writes to the Hugging Face Hub, as "me/name"; returns the address."""
        from mvp_lite.storage.folder import push_folder

        options: dict[str, Any] = {"private": private, "token": token, "commit_message": commit_message}
        return push_folder(self.model, repo_id, self.tokenizer, self.card(), **options)

    def card(self) -> dict[str, Any]:
        """What `save` writes to card.json: where the model came from, settings, scores, density by layer."""
        from mvp_lite.storage.card import make_card

        return make_card(
            self.model, self.record, settings=self.settings, diagnosis=self.diagnosis, metrics=self.metrics,
            density=self.density, report=self.report, seconds=self.seconds,
        )  # fmt: skip

    def __repr__(self) -> str:
        method, task = self.settings["method"], self.settings["task"]
        return f"Result({method} on {task}: score {self.score:.1f} at density {self.density:.3g})"


def default_device() -> torch.device:
    """`MVP_LITE_DEVICE` if set, else the GPU if there is one, else the CPU."""
    return torch.device(os.environ.get("MVP_LITE_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu"))


def fine_prune(
    model: nn.Module,
    task: TaskLike,
    method: str | type[Method] = "movement",
    density: float = 0.03,
    *,
    steps: int | None = None,
    lr: float | None = None,
    score_lr: float | None = None,
    batch_size: int = 32,
    warmup_steps: int | None = None,
    cooldown_steps: int | None = None,
    seed: int = 0,
    device: torch.device | str | None = None,
    freeze_embeddings: bool = True,
    max_norm: float = 1.0,
    bf16: bool = False,
    teacher: nn.Module | Teacher | None = None,
    tokenizer: Any = None,
    progress: bool = True,
    **options: Any,
) -> Result:
    """Fine-tune `model` on `task` in place and prune it meanwhile; returns scores, history and the plain model.

    As in Sanh et al. 2020: AdamW without decay, linear warm-up over a tenth of the steps and linear decay to 0 for the
    learning rates of weights and scores, joint gradient clipping, embeddings frozen.

    Args:
        model: what `load_model` or `from_pretrained` returned; load a new one for each run.
        task: what `load_task` returned, or an object of your own: see `TaskLike`.
        method: a `Pruner` method (a name, or a class of your own), or "dense" for plain fine-tuning.
        density: fraction of the encoder's matrices kept, in (0, 1].
        steps, lr: optimizer steps and learning rate of the weights (default: the task's own, `task.recipe`).
        score_lr, warmup_steps, cooldown_steps: see `Pruner`; so are all further options (scope, target, penalty, …).
        batch_size: sequences per step.
        seed: order of the data, dropout, and the pruner's noise. The global random state is left alone.
        device: default `default_device()`; the model stays there.
        freeze_embeddings: train everything but the embeddings.
        max_norm: clip the joint gradient norm to this.
        bf16: forward pass under bfloat16 autocast; weights, scores and optimizer stay in float32.
        teacher: a model fine-tuned on the task, to learn from in addition to the labels; a `Teacher` sets weights and
            temperature.
        tokenizer: default: the one given to `load_task`, else the one saved with the model.
        progress: show a bar with loss, density and, at the end, the score.

    Raises:
        TypeError: a task without the attributes of `TaskLike`.
        ValueError: bad settings, a head that does not fit the task, NaN gradients; see `Pruner`.

    Warns:
        UserWarning: the matrices to prune have many zeros already, as in a model that was pruned before.
    """
    arguments = dict(locals())
    import pandas as pd
    from tqdm.auto import tqdm

    started = time.perf_counter()
    _check_attributes("task", task, TaskLike)
    recipe = task.recipe(batch_size)
    steps, lr = recipe[0] if steps is None else steps, recipe[1] if lr is None else lr
    for name, value in (("lr", lr), ("max_norm", max_norm)):
        if not value > 0:
            raise ValueError(f"{name}={value!r}: must be a positive number")
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps={steps!r}: must be an integer number of optimizer steps, at least 1")
    device = default_device() if device is None else torch.device(device)
    tokenizer = _tokenizer(model, task) if tokenizer is None else tokenizer
    encoded = task.encode(tokenizer)
    _check_attributes("task.encode(tokenizer)", encoded, EncodedTaskLike)
    encoded.check_head(model)

    teacher = Teacher(teacher) if isinstance(teacher, nn.Module) else teacher
    if teacher is not None and teacher.model.to(device) is model:
        raise ValueError("teacher is the model itself: give another one, fine-tuned on the task")
    record = describe_run(arguments)
    model.to(device)
    trainable = [p for p in model.parameters() if p.requires_grad]
    frozen = _embeddings(model) if freeze_embeddings else []
    pruner, rows = None, []
    bar = tqdm(total=steps, disable=not progress, mininterval=0.5)
    try:
        for p in frozen:
            p.requires_grad_(False)
        optimizer = torch.optim.AdamW([p for p in trainable if p.requires_grad], lr=lr, weight_decay=0.0, fused=True)
        if method != "dense":
            pruner = Pruner(
                model, method, density=density, total_steps=steps, warmup_steps=warmup_steps,
                cooldown_steps=cooldown_steps, score_lr=score_lr, seed=seed, **options,
            ).attach(optimizer)  # fmt: skip
            _warn_if_sparse(pruner)
        elif options:
            raise ValueError(f"method='dense' takes no pruning options, got {', '.join(options)}")
        batches = encoded.batches("train", batch_size, seed=seed, steps=steps, device=device)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            for row in train_steps(model, optimizer, pruner, teacher, batches, steps, max_norm, device, bf16):
                rows.append(row)
                bar.update()
                if len(rows) % 10 == 0:
                    bar.set_postfix(loss=f"{row[1]:.3f}", density=f"{row[2]:.3f}")
    finally:
        for p in frozen:
            p.requires_grad_(True)
        if pruner is not None:  # after an interrupt, too, the model is left plain
            pruner.finalize(early=len(rows) < steps)
    metrics = encoded.evaluate(model, "validation", device=device)
    kept = 1.0 if pruner is None else pruner.density
    bar.set_postfix(loss=f"{rows[-1][1]:.3f}", density=f"{kept:.3f}", score=f"{metrics['score']:.1f}")
    bar.close()
    settings: dict[str, Any] = {
        "task": task.name,
        "method": method,
        "density": density if pruner else 1.0,
        "steps": steps,
        "lr": lr,
    }
    settings |= {"batch_size": batch_size, "seed": seed, "freeze_embeddings": freeze_embeddings, "bf16": bf16}
    settings |= {"device": str(device), "score_lr": (pruner.score_lr or None) if pruner else None}
    settings |= {name: getattr(teacher, name, None) for name in ("alpha_ce", "alpha_kd", "temperature")}
    return Result(
        score=metrics["score"],
        density=kept,
        metrics=metrics,
        history=pd.DataFrame(rows, columns=["step", "loss", "density", "lr", "penalty"]),
        report=pruner.report() if pruner else pd.DataFrame(),
        settings=settings | (pruner.settings() if pruner else {}),
        seconds=time.perf_counter() - started,
        model=model,
        masters={matrix.name: matrix.master.cpu() for matrix in pruner.matrices} if pruner else {},
        scores={group.name: group.scores.detach().cpu() for group in pruner.groups if group.scores is not None}
        if pruner
        else {},
        diagnosis=_diagnosis(model, pruner, encoded, batch_size, device, rows, metrics["score"]),
        tokenizer=tokenizer,
        record=record,
    )


def train_steps(
    model: nn.Module, optimizer: torch.optim.Optimizer, pruner: Pruner | None, teacher: Teacher | None,
    batches: Iterable[dict[str, Tensor]], steps: int, max_norm: float, device: torch.device, bf16: bool,
) -> Iterator[tuple[int, float, float, float, float]]:  # fmt: skip
    """The loop of `fine_prune` itself; yields (step from 0, loss, density, lr, penalty) after each step."""
    warmup = max(1, steps // 10)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, (steps - step) / max(1, steps - warmup))
    )
    model.train()
    for step, batch in enumerate(batches):
        lr = float(scheduler.get_last_lr()[0])
        density, penalty = (1.0, 0.0) if pruner is None else (pruner.density, pruner.penalty)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            outputs = model(**batch)
            loss = outputs.loss if teacher is None else teacher.loss(outputs, batch)
        loss.backward()
        if pruner is None:
            nn.utils.clip_grad_norm_(model.parameters(), max_norm)
        else:
            pruner.clip_grad_norm_(max_norm)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        yield step, loss.item(), density, lr, penalty


def _diagnosis(
    model: nn.Module, pruner: Pruner | None, encoded: EncodedTaskLike, batch_size: int, device: torch.device,
    rows: list[tuple[int, float, float, float, float]], score: float,
) -> Diagnosis:  # fmt: skip
    """Of a finished run; a task of the user's own need not know its baseline."""
    baseline, examples = encoded.baseline("validation") if hasattr(encoded, "baseline") else (None, None)
    share = None
    if any(isinstance(module, nn.Linear) for module in model.modules()):
        batches = encoded.batches("train", batch_size, seed=0, steps=max(2, _LOOKED_AT // batch_size), device=device)
        share = constant_share(model, batches)
    losses = [row[1] for row in rows]
    if pruner is not None:
        return pruner.diagnosis(losses, score=score, baseline=baseline, examples=examples, constant_share=share)
    return Diagnosis(losses, score=score, baseline=baseline, examples=examples, constant_share=share)


def _check_attributes(argument: str, value: Any, protocol: type) -> None:
    missing = [name for name in vars(protocol) if name[0] != "_" and not hasattr(value, name)]
    if missing:
        raise TypeError(
            f"{argument}={reprlib.repr(value)} lacks {', '.join(missing)}: give what load_task returns, or an object "
            f"with the attributes of mvp_lite.train.{protocol.__name__}"
        )


def _warn_if_sparse(pruner: Pruner) -> None:
    weights = [matrix.master for matrix in pruner.matrices]
    density = sum(int(torch.count_nonzero(W)) for W in weights) / sum(W.numel() for W in weights)
    if density < _DENSE:
        warnings.warn(
            f"only a fraction of {density:.3g} of the entries to prune is non-zero before training: the model seems "
            "to be pruned already. Load a new one for each run; to prune in stages on purpose, ignore this.",
            UserWarning,
            stacklevel=3,
        )


def _embeddings(model: nn.Module) -> list[nn.Parameter]:
    """Trainable parameters of the embeddings: of every `nn.Embedding` and of modules named after them."""
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) or name.rpartition(".")[2] in ("embeddings", "embed_layer_norm"):
            found.update({id(p): p for p in module.parameters() if p.requires_grad})
    return list(found.values())


def _tokenizer(model: nn.Module, task: TaskLike) -> Any:
    """The task's own, or the one stored beside the model; None where nothing is known (`encode` then says so)."""
    reads_text = hasattr(getattr(model, "config", None), "vocab_size")
    known = reads_text and bool(getattr(model, "name_or_path", ""))
    return tokenizer_for(model) if known and task.tokenizer is None else task.tokenizer
