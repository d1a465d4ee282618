"""`fine_prune`: the fine-tuning loop of the paper, with a pruner around its optimizer."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mvp_lite.distill import Teacher
from mvp_lite.pruner import Pruner

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Result", "default_device", "fine_prune"]


@dataclass(frozen=True)
class Result:
    """What a run gave. `score` in per cent on the validation split; `density` is the measured fraction kept.

    `history`: one row per step (step, loss, density, lr, penalty). `report`: one row per pruned matrix. `metrics`:
    everything `evaluate` returned. `settings`: what the run was asked for. `model` is plain: no hooks, zeros baked in.
    `masters` and `scores`: for each pruned matrix its dense weights at the end, pruned entries included, and the scores
    it was cut by (none for magnitude, whose scores are the sizes of the masters), on the CPU.
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

    def __repr__(self) -> str:
        method, task = self.settings["method"], self.settings["task"]
        return f"Result({method} on {task}: score {self.score:.1f} at density {self.density:.3g})"


def default_device() -> torch.device:
    """`MVP_LITE_DEVICE` if set, else the GPU if there is one, else the CPU."""
    return torch.device(os.environ.get("MVP_LITE_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu"))


def fine_prune(
    model: nn.Module,
    task: Any,
    method: str = "movement",
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
    """Fine-tune `model` on `task` in place and prune it on the way; returns scores, history and the plain model.

    As in Sanh et al. 2020: AdamW without decay, linear warm-up over a tenth of the steps and linear decay to 0 for
    both rates, joint gradient clipping, embeddings frozen.

    Args:
        model: what `load_model` or `from_pretrained` returned; start each run from a fresh one.
        task: what `load_task` returned.
        method: a `Pruner` method, or "dense" for plain fine-tuning.
        density: fraction of the encoder's matrices kept, in (0, 1].
        steps, lr: optimizer steps and rate of the weights (default: the task's own, `task.recipe`).
        score_lr, warmup_steps, cooldown_steps: see `Pruner`; so are all further options (scope, target, penalty, …).
        batch_size: sequences per step.
        seed: order of the data, dropout, and the pruner's noise. The global random state is left alone.
        device: default `default_device()`; the model stays there.
        freeze_embeddings: train everything but the embeddings.
        max_norm: clip the joint gradient norm to this.
        bf16: forward pass under bfloat16 autocast; weights, scores and optimizer stay in float32.
        teacher: a model fine-tuned on the task, to learn from beside the labels; a `Teacher` sets weights and
            temperature.
        tokenizer: default: the one stored beside the model.
        progress: show a bar with loss, density and, at the end, the score.

    Raises:
        ValueError: bad settings, a head that does not fit the task, NaN gradients; see `Pruner`.
    """
    import pandas as pd
    from tqdm.auto import tqdm

    started = time.perf_counter()
    recipe = task.recipe(batch_size)
    steps, lr = recipe[0] if steps is None else steps, recipe[1] if lr is None else lr
    for name, value in (("lr", lr), ("max_norm", max_norm)):
        if not value > 0:
            raise ValueError(f"{name}={value!r}: a positive number")
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps={steps!r}: a whole number of optimizer steps, at least 1")
    device = default_device() if device is None else torch.device(device)
    encoded = task.encode(_tokenizer(model, task) if tokenizer is None else tokenizer)
    encoded.check_head(model)

    teacher = Teacher(teacher) if isinstance(teacher, nn.Module) else teacher
    if teacher is not None and teacher.model.to(device) is model:
        raise ValueError("teacher is the model itself: give another one, fine-tuned on the task")
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
        elif options:
            raise ValueError(f"method='dense' takes no pruning options, got {', '.join(options)}")
        batches = encoded.batches("train", batch_size, seed=seed, steps=steps, device=device)
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            for row in _train(model, optimizer, pruner, teacher, batches, steps, max_norm, bf16):
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
    settings = {"task": task.name, "method": method, "density": density if pruner else 1.0, "steps": steps, "lr": lr}
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
    )


def _train(
    model: nn.Module, optimizer: torch.optim.Optimizer, pruner: Pruner | None, teacher: Teacher | None, batches: Any,
    steps: int, max_norm: float, bf16: bool,
) -> Iterator[tuple[int, float, float, float, float]]:  # fmt: skip
    """The loop itself; yields (step, loss, density, lr, penalty)."""
    warmup = max(1, steps // 10)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, (steps - step) / max(1, steps - warmup))
    )
    model.train()
    for step, batch in enumerate(batches):
        lr = float(scheduler.get_last_lr()[0])
        density, penalty = (1.0, 0.0) if pruner is None else (pruner.density, pruner.penalty)
        with torch.autocast(batch["input_ids"].device.type, dtype=torch.bfloat16, enabled=bf16):
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


def _embeddings(model: nn.Module) -> list[nn.Parameter]:
    """Trainable parameters of the embeddings: of every `nn.Embedding` and of modules named after them."""
    found = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Embedding) or name.rpartition(".")[2] in ("embeddings", "embed_layer_norm"):
            found.update({id(p): p for p in module.parameters() if p.requires_grad})
    return list(found.values())


def _tokenizer(model: nn.Module, task: Any) -> Any:
    """The task's own, or the one stored beside the model; None where nothing is known (`encode` then says so)."""
    from transformers import AutoTokenizer

    where = getattr(model, "name_or_path", "")
    return AutoTokenizer.from_pretrained(where) if where and task.tokenizer is None else task.tokenizer
