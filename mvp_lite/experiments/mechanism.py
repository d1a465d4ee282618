"""Why short runs of hard movement pruning fail or succeed: what happens inside a run, resumable.

Each run is one of `fine_prune`, stopped at some steps to look at it: `probes` says how. A row holds one run at one
step. A cell with several numbers has one for each transformer layer, or for each of `FRACTIONS`; `long_table` gives
each number a row of its own. All is measured in float32, in evaluation mode, on the same batches of train; the score is
that of examples held out of train.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from mvp_lite.experiments import probes
from mvp_lite.experiments.grid import Log
from mvp_lite.experiments.recipes import Recipe
from mvp_lite.experiments.settings import ModelSettings, floats, integers, option, words
from mvp_lite.experiments.table import Cell, Table
from mvp_lite.masks import top_v
from mvp_lite.models import load_model, tokenizer_for
from mvp_lite.paths import data_path
from mvp_lite.pruner import Pruner
from mvp_lite.scores import magnitude
from mvp_lite.tasks.task import EncodedTask, Task
from mvp_lite.train import default_device, train_steps, warmup_and_decay

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "FRACTIONS", "MECHANISM_COLUMNS", "MECHANISM_KEY", "SELECTIONS", "Mechanism", "long_table", "planned",
    "recorded_steps", "run_mechanism",
]  # fmt: skip

#: of the entries that a matrix keeps: how many a further selection removes, to see what the loss does
FRACTIONS = (0.02, 0.05, 0.1, 0.2)
#: how they are chosen: by the run's own scores, by |W|, at random
SELECTIONS = ("scores", "magnitude", "random")
#: the model once more with: 3 of 10 kept entries, random signs of the kept entries, maps that pass no constant
_CHANGES = ("thinned", "signs", "centered")
_REMOVALS = [f"{what}_{which}" for which in SELECTIONS for what in ("predicted", "actual", "length")]
_SPECTRA = [f"spectral{signs}_{which}" for which in SELECTIONS for signs in ("", "_signs")]
_LAYERS = "between variation token_between entropy alignment map_in map_out gradient_constant gradient_agreement"
_WHOLE = "loss train_loss flipped returned score baseline readable".split()
MECHANISM_COLUMNS = (
    "task recipe density seed steps lr step kept".split()
    + _WHOLE
    + _LAYERS.split()
    + [f"{change}_{what}" for change in _CHANGES for what in ("between", "entropy")]
    + _SPECTRA
    + _REMOVALS
    + "batch_size batches max_length precision model device threads hardware versions command".split()
)
MECHANISM_KEY = "task recipe density seed steps lr step batch_size batches max_length precision model".split()
#: progress of the descent of the density at which a run is looked at
_PROGRESS = (0.0, 1 / 60, 1 / 30, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0)


@dataclass(frozen=True, kw_only=True)
class Mechanism(ModelSettings):
    """Runs of one model on one task: `python -m mvp_lite mechanism`."""

    command_name: ClassVar[str] = "mechanism"
    results_name: ClassVar[str] = "mechanism_TASK.csv"
    model: str = option("toy", help='"toy", a local folder or a hub name')
    task: str = option(help="toy/..., sst2, mnli, ...")
    recipes: Sequence[str] = option(
        ("movement", "movement magnitude_init=0.2", "magnitude", "random"),
        read=words,
        help="methods that select the highest scores, perhaps with options",
    )
    densities: Sequence[float] = option((0.1, 0.03), read=floats, help="fractions of the weights kept")
    seeds: Sequence[int] = option((100,), read=integers, help="seeds of the runs")
    steps: int = option(300, read=int, help="optimizer steps of a run")
    lr: float = option(1e-4, read=float, help="learning rate of the weights")
    batches: int = option(4, read=int, help="batches of train to measure on")
    holdout: int = option(1000, read=int, help="examples held out of train for the score")
    center: bool = option(
        False, help="train and score with maps that add nothing but their bias for the mean token of a batch"
    )

    def results_path(self) -> Path:
        label = "toy" if self.task.startswith("toy/") else self.task
        return self.out or data_path("results", self.results_name.replace("TASK", label))


def run_mechanism(study: Mechanism, log: Log = print) -> None:
    """Run what the results file does not hold yet; a row is appended as soon as it is measured."""
    if study.batches < 2 or study.batches % 2:
        raise ValueError(f"batches={study.batches}: must be even, for gradients on two halves")
    for recipe in study.recipes:
        if Recipe.parse(recipe).name not in ("movement", "magnitude", "random"):
            raise ValueError(f"recipes={recipe!r}: must be movement, magnitude or random, perhaps with options")
    table = Table(study.results_path(), MECHANISM_COLUMNS, MECHANISM_KEY)
    task = study.load(study.task).holdout(study.holdout, seed=100)
    for seed in study.seeds:
        for density in study.densities:
            for recipe in study.recipes:
                cells = planned(study, task.max_length, recipe, density, seed)
                if all(table.has(cell) for cell in cells):
                    continue
                for cell, found in zip(cells, _run(study, task, recipe, density, seed), strict=True):
                    if not table.has(cell):
                        table.append(cell | {name: _text(value) for name, value in found.items()})
                log(
                    f"{study.task} {recipe} density {density} seed {seed}: loss {_text(found['loss'])}, "
                    f"score {_text(found['score'])}"
                )


def planned(study: Mechanism, max_length: int, recipe: str, density: float, seed: int) -> list[Cell]:
    """What is known of a run's rows beforehand."""
    run = {
        "task": study.task,
        "recipe": f"{recipe}, centered" if study.center else recipe,
        "density": density,
        "seed": seed,
        "steps": study.steps,
        "lr": study.lr,
        "batch_size": study.batch_size,
        "batches": study.batches,
        "max_length": max_length,
        "precision": "bf16 autocast" if study.bf16 else "float32",
        "model": study.model_label,
        "command": replace(study, recipes=(recipe,)).command(),
    }
    return [run | {"step": step} for step in recorded_steps(study.steps)]


def recorded_steps(steps: int) -> list[int]:
    """Optimizer steps done when a run is looked at: along the descent of the density, most of them early, and after."""
    warmup, cooldown = steps // 10, 3 * steps // 10
    descent = steps - warmup - cooldown
    return sorted({*(warmup + round(p * descent) for p in _PROGRESS), steps - cooldown // 2, steps})


def long_table(path: Path) -> pd.DataFrame:
    """A results file with one row for each number: the run, `step`, `kept`, `quantity`, `layer`, `fraction`, `value`.

    `layer` counts transformer layers from 0; it is empty for removals, which have the `fraction` removed instead, and
    for what concerns the whole model.
    """
    import pandas as pd

    start, end = MECHANISM_COLUMNS.index("kept") + 1, MECHANISM_COLUMNS.index("batch_size")
    known, measured = ["model", "precision", *MECHANISM_COLUMNS[:start]], MECHANISM_COLUMNS[start:end]
    wide = pd.read_csv(path, dtype=dict.fromkeys(measured, str))
    table = wide.melt(known, measured, "quantity", "value").dropna(subset="value")
    table["value"] = table["value"].str.split()
    table["place"] = table["value"].map(lambda values: range(len(values)))
    table = table.explode(["place", "value"], ignore_index=True).astype({"place": int, "value": float})
    removal, whole = table["quantity"].isin(_REMOVALS), table["quantity"].isin(_WHOLE)
    table["layer"] = table["place"].where(~removal & ~whole).astype("Int64")
    table["fraction"] = table["place"].where(removal).map(dict(enumerate(FRACTIONS)))
    return table.drop(columns="place")


def _run(study: Mechanism, task: Task, recipe: str, density: float, seed: int) -> Iterator[dict[str, Any]]:
    """One run, as `fine_prune` trains it; yields what is measured, at each of the recorded steps."""
    model, chosen, device = load_model(study.model, task, seed=seed), Recipe.parse(recipe), default_device()
    encoded, steps = task.encode(tokenizer_for(model)), study.steps
    model.to(device).base_model.embeddings.requires_grad_(False)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=study.lr, weight_decay=0.0,
                                  fused=True)  # fmt: skip
    pruner = Pruner(model, chosen.method, density=density, total_steps=steps, seed=seed, **chosen.options)
    pruner.attach(optimizer)
    fixed = list(encoded.batches("train", study.batch_size, seed=0, steps=study.batches, device=device))
    batches = encoded.batches("train", study.batch_size, seed=seed, steps=steps, device=device)
    center: AbstractContextManager[None] = probes.centered(pruner.matrices) if study.center else nullcontext()
    look, losses, masks = recorded_steps(steps), list[float](), [matrix.mask.clone() for matrix in pruner.matrices]
    with center, torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        scheduler = warmup_and_decay(optimizer, steps)
        for done, loss, *_ in train_steps(model, optimizer, scheduler, pruner, None, batches, 1.0, device, study.bf16):
            step = done + 1
            losses.append(float(loss))
            if step not in look:
                continue
            found = _measure(model, pruner, fixed, task, step) | {"train_loss": sum(losses) / len(losses)}
            found |= _changes(masks, pruner)
            losses, masks = [], [matrix.mask.clone() for matrix in pruner.matrices]
            if step == steps:
                pruner.finalize()
                found |= _scores(model, encoded, study)
            yield found


def _scores(model: nn.Module, encoded: EncodedTask, study: Mechanism) -> dict[str, Any]:
    """On examples held out of train: the score, that of a constant answer, and that of a fit to the [CLS] states."""
    device = next(model.parameters()).device
    found: dict[str, Any] = {
        "score": encoded.evaluate(model, device=device)["score"],
        "baseline": encoded.baseline("validation")[0],
        "readable": None,
    }
    if encoded.task.task_type == "classification":
        held_out = list(encoded.batches("validation", study.batch_size, device=device))
        train = list(encoded.batches("train", study.batch_size, seed=0, steps=len(held_out), device=device))
        states = [
            (probes.states_and_entropies(model, part)[0][-1][:, 0], torch.cat([batch["labels"] for batch in part]))
            for part in (train, held_out)
        ]
        found["readable"] = probes.readable(states[0], states[1])
    return found


def _changes(before: Sequence[Tensor], pruner: Pruner) -> dict[str, float]:
    """Fractions of the masks' entries: changed since the last look, and of these the ones that came back."""
    now = [matrix.mask for matrix in pruner.matrices]
    total = sum(M.numel() for M in now)
    flipped = sum(int(torch.count_nonzero(a ^ b)) for a, b in zip(now, before, strict=True))
    returned = sum(int(torch.count_nonzero(a & ~b)) for a, b in zip(now, before, strict=True))
    return {"flipped": flipped / total, "returned": returned / total}


def _measure(model: nn.Module, pruner: Pruner, batches: probes.Batches, task: Task, step: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(step)
    span, matrices = task.task_type == "span", pruner.matrices
    loss, half, count = probes.mean_loss(model, batches), len(batches) // 2, len(matrices)
    parameters: list[Any] = [m.weight for m in matrices] + [m.module.bias for m in matrices]
    halves = [probes.gradients(model, parameters, part) for part in (batches[:half], batches[half:])]
    G, g_bias = (
        [(a + b) / 2 for a, b in zip(halves[0][part], halves[1][part], strict=True)]
        for part in (slice(count), slice(count, None))
    )
    found: dict[str, Any] = {"kept": pruner.density, "loss": loss, "score": None}
    found |= _states(model, batches, span) | _layers(model, pruner, batches, G, g_bias)
    agreement = [
        float(nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0))
        for a, b in zip(halves[0][:count], halves[1][:count], strict=True)
    ]
    found["gradient_agreement"] = probes.by_layer(matrices, agreement)
    found |= _changed_models(model, pruner, batches, span, generator)
    importance = {
        "scores": [group.importance() for group in pruner.groups],
        "magnitude": [magnitude(matrix.master) for matrix in matrices],
        "random": [torch.rand(m.mask.shape, generator=generator).to(m.mask.device) for m in matrices],
    }
    for which, values in importance.items():
        if pruner.density > 0.5:  # later the loss of many runs does not depend on the weights any more
            found |= _removals(model, pruner, batches, G, loss, which, values)
        masks = [top_v(x, pruner.density) for x in values] if which != "scores" else [m.mask for m in matrices]
        found |= _spectra(pruner, masks, which, generator)
    return found


def _states(model: nn.Module, batches: probes.Batches, span: bool) -> dict[str, list[float]]:
    """How far the outputs of each transformer layer differ between inputs, and its attention."""
    states, entropies = probes.states_and_entropies(model, batches)
    h, tokens = [_answering(x, span) for x in states], [x.flatten(0, 1) for x in states]
    return {
        "between": [probes.between_inputs(x) for x in h],
        "variation": [float(x.var(0, correction=0).mean()) for x in h],
        "token_between": [probes.between_inputs(x) for x in tokens],
        "entropy": entropies,
    }


def _answering(h: Tensor, span: bool) -> Tensor:
    """The states that the head reads: the first token's, or for a span task all."""
    return h if span else h[:, 0]


def _layers(
    model: nn.Module, pruner: Pruner, batches: probes.Batches, G: Sequence[Tensor], g_bias: Sequence[Tensor]
) -> dict[str, list[float]]:
    """For each transformer layer, means over its matrices."""
    matrices = pruner.matrices
    means, inputs, outputs = zip(*probes.map_shares(model, matrices, batches), strict=True)
    constant = [
        float(b.square().sum() * a.square().sum() / g.square().sum().clamp(min=1e-30))
        for b, a, g in zip(g_bias, means, G, strict=True)
    ]
    values = {
        "alignment": [probes.sign_alignment(m.weight.detach(), a) for m, a in zip(matrices, means, strict=True)],
        "map_in": inputs,
        "map_out": outputs,
        "gradient_constant": constant,
    }
    return {name: probes.by_layer(matrices, list(of_matrices)) for name, of_matrices in values.items()}


def _changed_models(
    model: nn.Module, pruner: Pruner, batches: probes.Batches, span: bool, generator: torch.Generator
) -> dict[str, list[float]]:
    """[CLS] states and attention of the model with one thing changed in all its pruned matrices."""
    matrices = pruner.matrices
    now = [matrix.weight.detach().clone() for matrix in matrices]
    chance = [torch.rand(W.shape, generator=generator).to(W.device) for W in now]
    thinned = [W * ~probes.lowest(x, m.mask, 0.7) for W, x, m in zip(now, chance, matrices, strict=True)]
    changes: dict[str, Callable[[], Any]] = {
        "thinned": lambda: probes.weights_replaced(matrices, thinned),
        "signs": lambda: probes.weights_replaced(matrices, [probes.with_random_signs(W, generator) for W in now]),
        "centered": lambda: probes.centered(matrices),
    }
    found = {}
    for name, changed in changes.items():
        with changed():
            states, entropies = probes.states_and_entropies(model, batches)
        found[f"{name}_between"] = [probes.between_inputs(_answering(h, span)) for h in states]
        found[f"{name}_entropy"] = entropies
    return found


def _removals(
    model: nn.Module, pruner: Pruner, batches: probes.Batches, G: Sequence[Tensor], loss: float, which: str,
    importance: Sequence[Tensor],
) -> dict[str, list[float]]:  # fmt: skip
    """Predicted and actual change of the loss, and the squared length of what is removed, for each of `FRACTIONS`."""
    matrices = pruner.matrices
    now = [matrix.weight.detach().clone() for matrix in matrices]
    found: dict[str, list[float]] = {f"{what}_{which}": [] for what in ("predicted", "actual", "length")}
    for fraction in FRACTIONS:
        gone = [probes.lowest(x, m.mask, fraction) for x, m in zip(importance, matrices, strict=True)]
        found[f"predicted_{which}"].append(probes.first_order(matrices, G, gone))
        found[f"length_{which}"].append(sum(float(W[x].square().sum()) for W, x in zip(now, gone, strict=True)))
        with probes.weights_replaced(matrices, [W * ~x for W, x in zip(now, gone, strict=True)]):
            found[f"actual_{which}"].append(probes.mean_loss(model, batches) - loss)
    return found


def _spectra(pruner: Pruner, masks: Sequence[Tensor], which: str, generator: torch.Generator) -> dict[str, list[float]]:
    """Spectral norm of the dense weights under masks, and of the same entries with random signs."""
    masked = [matrix.master * M for matrix, M in zip(pruner.matrices, masks, strict=True)]
    norms = [probes.spectral_norm(W) for W in masked]
    signs = [probes.spectral_norm(probes.with_random_signs(W, generator)) for W in masked]
    return {
        f"spectral_{which}": probes.by_layer(pruner.matrices, norms),
        f"spectral_signs_{which}": probes.by_layer(pruner.matrices, signs),
    }


def _text(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " ".join(map(_text, value))
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
