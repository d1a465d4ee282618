"""`fine_prune`: the fine-tuning loop of the paper, with a pruner around its optimizer."""

from __future__ import annotations

import difflib
import inspect
import math
import os
import reprlib
import time
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from mvp_lite.checkpoints import Checkpoints, digest, restore, snapshot
from mvp_lite.diagnosis import Diagnosis, constant_share
from mvp_lite.distill import Teacher
from mvp_lite.forward import evaluating
from mvp_lite.methods import Method
from mvp_lite.pruner import Pruner
from mvp_lite.settings import Density, check_integer, check_positive, check_seed, plain
from mvp_lite.storage.record import describe_run
from mvp_lite.tasks.loaders import as_task
from mvp_lite.tokenizer import tokenizer_for

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "EncodedTaskLike",
    "Result",
    "TaskLike",
    "check_options",
    "default_device",
    "fine_prune",
    "train_steps",
    "warmup_and_decay",
    "warn_if_sparse",
]

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
        density: measured fraction kept, of the weights of the matrices in `report`.
        metrics: everything that `evaluate` returned.
        history: one row per step: step and loss, and the density, learning rate and penalty used in that step.
        evaluations: one row per evaluation on the validation split: optimizer steps done, density, score and loss. The
            last is that of the finished run.
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
    evaluations: pd.DataFrame
    report: pd.DataFrame
    settings: dict[str, Any]
    seconds: float
    model: nn.Module
    masters: dict[str, Tensor]
    scores: dict[str, Tensor]
    diagnosis: Diagnosis
    tokenizer: Any = None
    record: dict[str, Any] = field(default_factory=dict)

    def save(self, folder: str | Path, *, overwrite: bool = False, sparse: bool = False) -> Path:
        """Save model, tokenizer and card into a folder that `transformers` reads without this package.

        With `sparse` the file leaves out the zeros, and `mvp_lite.load_sparse` reads it.

        A folder that `save` wrote earlier is replaced; another one that is not empty only with `overwrite`. The card,
        README.md and card.json, says how the model was made: `python -m mvp_lite replay card.json` repeats the run.

        Raises:
            TypeError: a model without `save_pretrained`.
            FileExistsError: `folder` holds other files.
        """
        from mvp_lite.storage.folder import write_folder

        return write_folder(self.model, folder, self.tokenizer, self.card(), overwrite=overwrite, sparse=sparse)

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
    if name := os.environ.get("MVP_LITE_DEVICE"):
        return _device("MVP_LITE_DEVICE", name)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def fine_prune(
    model: nn.Module,
    task: Any,
    method: str | type[Method] = "movement",
    density: Density = 0.03,
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
    validation: Any = None,
    metric: Any = None,
    progress: bool = True,
    gradient_accumulation_steps: int = 1,
    eval_steps: int | None = None,
    output_dir: str | Path | None = None,
    save_steps: int | None = None,
    resume: bool = False,
    **options: Any,
) -> Result:
    """Fine-tune `model` on `task` in place and prune it meanwhile; returns scores, history and the plain model.

    As in Sanh et al. 2020: AdamW without decay, linear warm-up over a tenth of the steps and linear decay to 0 for the
    learning rates of weights and scores, joint gradient clipping, embeddings frozen.

    Args:
        model: what `load_model` or `from_pretrained` returned; load a new one for each run.
        task: what `load_task` or `make_task` returned; data that `make_task` takes, their columns inferred; a PyTorch
            `DataLoader` of arguments of the model, targets included; or an object of your own, see `TaskLike`.
        method: a `Pruner` method (a name, or a class of your own), or "dense" for plain fine-tuning.
        density: fraction kept of the weights of the matrices that are pruned, in (0, 1], or a dict of such fractions by
            pattern, see `Pruner`.
        steps, lr: optimizer steps and learning rate of the weights (default: the task's own, `task.recipe`; for data
            and a `DataLoader` three passes and 3e-5).
        score_lr, warmup_steps, cooldown_steps: see `Pruner`; so are all further options (scope, target, penalty, …).
        batch_size: sequences per optimizer step; a `DataLoader` has its own.
        seed: order of the data, dropout, and the pruner's noise. The global random state is left alone.
        device: default `default_device()`; the model stays there.
        freeze_embeddings: train everything but the embeddings.
        max_norm: clip the joint gradient norm to this.
        bf16: forward pass under bfloat16 autocast; weights, scores and optimizer stay in float32.
        teacher: a model fine-tuned on the task, to learn from in addition to the labels; a `Teacher` sets weights and
            temperature.
        tokenizer: default: the one given to `load_task`, else the one saved with the model.
        validation: with data, more of them (default: a tenth is held out); with a `DataLoader`, another one.
        metric: with data, the name of a score, see `make_task`; with a `DataLoader`, a function
            `metric(model, batches)` that returns a number, or a dict of numbers with a "score": higher is better, in
            per cent. The model is in evaluation mode and without gradients, the batches are those of `validation` on
            its device.
        progress: show a bar with loss, density and, at the end, the score.
        gradient_accumulation_steps: run each batch through the model in so many parts, to need less memory. A part
            counts by its number of sequences, so that without dropout the result is that of one part, up to rounding.
        eval_steps: evaluate on the validation split after each so many steps too, for `Result.evaluations`; the run
            itself stays the same.
        output_dir: write checkpoints into this folder, and keep the last two: everything that the run depends on, the
            pruner's and torch's random state included.
        save_steps: optimizer steps from one checkpoint to the next (default: a tenth of the run); the end has one too.
        resume: go on from the last checkpoint in `output_dir`, or from the beginning if there is none. Give the same
            arguments and any model of the same shape: on the same machine with as many threads the result is that of
            the run without interruption.

    Raises:
        TypeError: a task that is none of these.
        ValueError: bad settings, a head that does not fit the task, NaN gradients; see `Pruner`. With `resume`: the
            checkpoint is of a run with other settings, another task, model or teacher.
        OSError: `output_dir` holds checkpoints and `resume` is not set, or none of them can be read.

    Warns:
        UserWarning: the matrices to prune have many zeros already, as in a model that was pruned before; a checkpoint
            is damaged; `resume` finds none.
    """
    arguments = dict(locals())  # for the card
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"model={reprlib.repr(model)}: must be a torch module; load_model(name_or_path, task) loads one"
        )
    if "total_steps" in options:
        raise TypeError(f"total_steps={options['total_steps']!r}: is called steps in fine_prune")
    if teacher is not None and not isinstance(teacher, nn.Module | Teacher):
        raise TypeError(f"teacher={reprlib.repr(teacher)}: must be a model or a Teacher")
    for name in ("freeze_embeddings", "bf16", "progress", "resume"):
        if not isinstance(plain(arguments[name]), bool):
            raise TypeError(f"{name}={arguments[name]!r}: must be True or False")
    device = default_device() if device is None else _device("device", device)
    import pandas as pd
    from tqdm.auto import tqdm

    started = time.perf_counter()
    arguments["task"] = task = as_task(task, model, validation, metric, tokenizer, steps)
    _check_attributes("task", task, TaskLike)
    seed, batch_size = check_seed(seed), check_integer("batch_size", batch_size)
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size!r}: must be an integer of at least 1")
    batch_size = getattr(task, "batch_size", None) or batch_size
    if isinstance(method, str) and method == "dense":
        _refuse_pruning_options(
            density, options | {"score_lr": score_lr, "warmup_steps": warmup_steps, "cooldown_steps": cooldown_steps}
        )
    else:
        check_options(options)
    recipe = task.recipe(batch_size)
    steps, lr = plain(recipe[0] if steps is None else steps), recipe[1] if lr is None else lr
    lr, max_norm = check_positive("lr", lr), check_positive("max_norm", max_norm)
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps={steps!r}: must be an integer number of optimizer steps, at least 1")
    _check_integer("gradient_accumulation_steps", gradient_accumulation_steps, batch_size, "batch_size")
    _check_integer("eval_steps", 1 if eval_steps is None else eval_steps)
    _check_integer("save_steps", 1 if save_steps is None else save_steps)
    if output_dir is None and (resume or save_steps is not None):
        given = f"save_steps={save_steps!r}" if save_steps is not None else "resume=True"
        raise ValueError(f"{given} needs output_dir, the folder of the checkpoints")
    checkpoints = None if output_dir is None else Checkpoints(output_dir, resume)
    save_steps = max(1, steps // 10) if save_steps is None else save_steps
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
    pruner, rows, evaluations = None, [], []
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
        settings: dict[str, Any] = {
            "task": task.name,
            "method": method,
            "density": pruner.final_density if pruner else 1.0,
            "steps": steps,
            "lr": lr,
        }
        settings |= {"batch_size": batch_size, "seed": seed, "freeze_embeddings": freeze_embeddings, "bf16": bf16}
        settings |= {"max_norm": max_norm, "gradient_accumulation_steps": gradient_accumulation_steps}
        settings |= {"device": str(device), "score_lr": (pruner.score_lr or None) if pruner else None}
        settings |= {name: getattr(teacher, name, None) for name in ("alpha_ce", "alpha_kd", "temperature")}
        settings |= pruner.settings() if pruner else {}
        scheduler = warmup_and_decay(optimizer, steps)
        with _random_state_kept(device):
            torch.manual_seed(seed)
            batches = iter(encoded.batches("train", batch_size, seed=seed, steps=steps, device=device))
            parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler}  # the optimizer's has the pruner's
            saved, identity = None, {}
            if checkpoints is not None:
                first = next(batches)
                batches = chain([first], batches)
                identity = _identity(settings, model, pruner, teacher, options, first)
                saved = checkpoints.load(identity) if resume else None
            if saved is not None:
                done = len(saved["history"])
                deque(islice(batches, done), maxlen=0)  # now, because a task may draw from the random state here
                restore(saved, parts, device)
                rows, evaluations = saved["history"], saved["evaluations"]
                started -= saved["seconds"]
                bar.update(done)
            elif pruner is not None:
                warn_if_sparse(pruner)
            for row in train_steps(
                model, optimizer, scheduler, pruner, teacher, batches, max_norm, device, bf16,
                gradient_accumulation_steps, start=len(rows),
            ):  # fmt: skip
                rows.append(row)
                bar.update()
                if progress and len(rows) % 10 == 0:
                    bar.set_postfix(loss=f"{float(row[1]):.3f}", density=f"{float(row[2]):.3f}")
                if eval_steps is not None and len(rows) % eval_steps == 0 and len(rows) < steps:
                    evaluations.append(_evaluation(len(rows), pruner, _evaluate(model, encoded, device)))
                if checkpoints is not None and (len(rows) % save_steps == 0 or len(rows) == steps):
                    rows = _read(rows)
                    run: dict[str, Any] = {"settings": identity, "history": rows, "evaluations": evaluations}
                    run["seconds"] = time.perf_counter() - started
                    checkpoints.save(len(rows), run | snapshot(parts, device))
    finally:
        for p in frozen:
            p.requires_grad_(True)
        if pruner is not None:  # after an interrupt, too, the model is left plain
            pruner.finalize(early=len(rows) < steps)
    rows, metrics = _read(rows), _evaluate(model, encoded, device)
    evaluations.append(_evaluation(len(rows), pruner, metrics))
    kept = 1.0 if pruner is None else pruner.density
    bar.set_postfix(loss=f"{rows[-1][1]:.3f}", density=f"{kept:.3f}", score=f"{metrics['score']:.1f}")
    bar.close()
    return Result(
        score=metrics["score"],
        density=kept,
        metrics=metrics,
        history=pd.DataFrame(rows, columns=["step", "loss", "density", "lr", "penalty"]),
        evaluations=pd.DataFrame(evaluations, columns=["step", "density", "score", "loss"]),
        report=pruner.report() if pruner else pd.DataFrame(),
        settings=settings,
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


def warmup_and_decay(optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LambdaLR:
    """Learning rates that rise linearly for a tenth of the steps and then fall linearly to 0."""
    warmup = max(1, steps // 10)
    return torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, (steps - step) / max(1, steps - warmup))
    )


def train_steps(
    model: nn.Module, optimizer: torch.optim.Optimizer, scheduler: torch.optim.lr_scheduler.LRScheduler,
    pruner: Pruner | None, teacher: Teacher | None, batches: Iterable[dict[str, Tensor]], max_norm: float,
    device: torch.device, bf16: bool, accumulation_steps: int = 1, *, start: int = 0,
) -> Iterator[tuple[int, Tensor, float | Tensor, float, float]]:  # fmt: skip
    """The loop of `fine_prune` itself; yields (step from 0, loss, density, lr, penalty) after each step.

    Loss and density are tensors without dimensions: to read them, the host waits until a GPU has done all queued work.
    """
    model.train()
    for step, batch in enumerate(batches, start):
        lr = float(scheduler.get_last_lr()[0])
        density, penalty = (1.0, 0.0) if pruner is None else (pruner.unread_density(), pruner.penalty)
        losses = []
        for part, share in _parts(batch, accumulation_steps):
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
                outputs = model(**part)
                loss = share * (outputs.loss if teacher is None else teacher.loss(outputs, part))
            loss.backward()
            losses.append(loss.detach())
        if pruner is None:
            nn.utils.clip_grad_norm_(model.parameters(), max_norm)
        else:
            pruner.clip_grad_norm_(max_norm)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        yield step, torch.stack(losses).sum(), density, lr, penalty


def _read(rows: Iterable[tuple[Any, ...]]) -> list[tuple[int, float, float, float, float]]:
    """What `train_steps` has yielded, as numbers."""
    return [(step, float(loss), float(density), lr, penalty) for step, loss, density, lr, penalty in rows]


def _parts(batch: dict[str, Tensor], count: int) -> Iterator[tuple[dict[str, Tensor], float]]:
    """`batch` in `count` parts of almost equal numbers of sequences, each with its share of them.

    The loss of a batch is a mean over its sequences: weighted by their shares, the losses of the parts add up to it.
    """
    if count == 1:
        yield batch, 1.0
        return
    split = {name: tensor.tensor_split(count) for name, tensor in batch.items()}
    sizes = [len(tensor) for tensor in next(iter(split.values()))]
    for i, size in enumerate(sizes):
        if size:
            yield {name: tensors[i] for name, tensors in split.items()}, size / sum(sizes)


def _random_state_kept(device: torch.device) -> AbstractContextManager[None]:
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


def _evaluate(model: nn.Module, encoded: EncodedTaskLike, device: torch.device) -> dict[str, float]:
    """On the validation split; leaves no trace in the modes of the modules and in the random state."""
    with _random_state_kept(device), evaluating(model):
        return encoded.evaluate(model, "validation", device=device)


def _evaluation(step: int, pruner: Pruner | None, metrics: dict[str, float]) -> tuple[int, float, float, float]:
    """A row of `Result.evaluations`; a task of the user's own need not know its loss."""
    density = 1.0 if pruner is None else pruner.density
    return step, density, float(metrics["score"]), float(metrics.get("loss", math.nan))


def _identity(
    settings: dict[str, Any], model: nn.Module, pruner: Pruner | None, teacher: Teacher | None,
    options: dict[str, Any], batch: dict[str, Tensor],
) -> dict[str, Any]:  # fmt: skip
    """What must be equal for a run to go on from a checkpoint, in plain types."""
    weights = [p for p in model.parameters() if p.requires_grad]
    own = settings | {"device": settings["device"].partition(":")[0]}
    own["model"] = f"{type(model).__name__} with {sum(p.numel() for p in weights):,} trainable parameters"
    own["teacher"] = None if teacher is None else digest(teacher.model.state_dict())
    own["first batch"] = digest(batch)
    if pruner is not None:
        own |= {name: options[name] for name in ("target", "score_init") if options.get(name) is not None}
        described = ((type(g).__name__, getattr(g, "m", 1), g.name, tuple(g.mask.shape)) for g in pruner.groups)
        own["groups"] = list(described)
    return own


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


def check_options(options: Mapping[str, Any]) -> None:
    """Raise TypeError if `Pruner` has no option of such a name."""
    known = inspect.signature(Pruner).parameters
    for name, value in options.items():
        if name not in known:
            near = difflib.get_close_matches(name, [*known, *inspect.signature(fine_prune).parameters], 1)
            raise TypeError(f"{name}={reprlib.repr(value)}: no such option" + (f"; is it {near[0]}?" if near else ""))


def _device(argument: str, value: torch.device | str) -> torch.device:
    try:
        device = torch.device(value)
    except (RuntimeError, TypeError):
        raise ValueError(f"{argument}={value!r}: must be 'cpu', 'cuda' or another device that torch knows") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"{argument}={value!r}: torch sees no CUDA device")
    return device


def _check_attributes(argument: str, value: Any, protocol: type) -> None:
    missing = [name for name in vars(protocol) if name[0] != "_" and not hasattr(value, name)]
    if missing:
        raise TypeError(
            f"{argument}={reprlib.repr(value)} lacks {', '.join(missing)}: give what load_task returns, or an object "
            f"with the attributes of mvp_lite.train.{protocol.__name__}"
        )


def _refuse_pruning_options(density: Any, options: dict[str, Any]) -> None:
    """Of plain fine-tuning; defaults may be given."""
    allowed = {name: parameter.default for name, parameter in inspect.signature(Pruner).parameters.items()}
    given = [name for name, value in options.items() if name not in allowed or plain(value) != allowed[name]]
    if plain(density) not in (inspect.signature(fine_prune).parameters["density"].default, 1.0):
        given.insert(0, "density")
    if given:
        raise ValueError(f"method='dense' takes no pruning options, got {', '.join(given)}")


def _check_integer(argument: str, value: Any, high: int | None = None, high_name: str = "") -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1 or (high is not None and value > high):
        allowed = "of at least 1" if high is None else f"from 1 to {high_name}={high}"
        raise ValueError(f"{argument}={value!r}: must be an integer {allowed}")


def warn_if_sparse(pruner: Pruner) -> None:
    """Warn if many of the entries that an attached pruner is about to prune are zero already."""
    weights = [matrix.master for matrix in pruner.matrices]
    density = sum(int(torch.count_nonzero(W)) for W in weights) / sum(W.numel() for W in weights)
    if density < _DENSE:
        warnings.warn(
            f"only a fraction of {density:.3g} of the entries to prune is non-zero before training: the model seems "
            "to be pruned already. Load a new one for each run. To train it on with its zeros held, use a loop of your "
            "own with mvp_lite.hold_zeros(model, optimizer); to prune in stages on purpose, ignore this.",
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
