"""The card of a pruned model: `card.json` for programs, `README.md` for people and for the Hugging Face Hub."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mvp_lite.diagnosis import Diagnosis
from mvp_lite.storage.record import hardware, plain, versions
from mvp_lite.structure.shrinking import KEY

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["FORMAT", "make_card", "make_readme"]

#: says in `card.json` that a folder was written by this package
FORMAT = "mvp_lite card 1"

_PIPELINES = {
    "ForSequenceClassification": "text-classification",
    "ForQuestionAnswering": "question-answering",
    "ForTokenClassification": "token-classification",
    "ForCausalLM": "text-generation",
    "LMHeadModel": "text-generation",
    "ForMaskedLM": "fill-mask",
    "ForImageClassification": "image-classification",
}


#: how a folder is loaded that transformers alone does not read -> what is special about it
_NOTES = {
    "mvp_lite.load_shrunk(folder)": " Heads and neurons without effect are removed.",
    "mvp_lite.load_sparse(folder)": " Pruned entries are zeros, which the file leaves out.",
}


def make_card(
    model: Any,
    record: Mapping[str, Any],
    *,
    settings: Mapping[str, Any],
    diagnosis: Diagnosis,
    metrics: Mapping[str, float],
    density: float | None,
    report: pd.DataFrame | None,
    seconds: float | None,
) -> dict[str, Any]:
    """What `card.json` holds; see docs/deploy.md.

    Args:
        model: the model that is saved.
        record: what `mvp_lite.storage.record.describe_run` returned, or a part of it.
        settings: of the run; what JSON does not know is replaced by its name.
        diagnosis: has score, baseline, number of examples and verdict.
        metrics: all scores.
        density: fraction of the target weights kept.
        report: `Pruner.report`'s; None or empty for a dense model.
        seconds: wall time of the run.
    """
    layers: dict[str, Any] = {}
    if report is not None and len(report):
        for layer, shape, kept in zip(report["layer"], report["shape"], report["kept"], strict=True):
            layers[layer] = {"shape": list(shape), "kept": int(kept)}
    shrunk = getattr(getattr(model, "config", None), KEY, None) is not None
    return {
        "format": FORMAT,
        "class": type(model).__name__,
        "load": "mvp_lite.load_shrunk(folder)" if shrunk else f"transformers.{type(model).__name__}.from_pretrained",
        **record,
        "settings": {name: _plain_or_name(value) for name, value in settings.items()},
        "score": diagnosis.score,
        "standard_error": diagnosis.standard_error,
        "baseline": diagnosis.baseline,
        "examples": diagnosis.examples,
        "metrics": {name: _plain_or_name(value) for name, value in metrics.items()},
        "verdict": diagnosis.verdict,
        "density": density,
        "layers": layers,
        "seconds": None if seconds is None else round(seconds, 1),
        "versions": versions(),
        "hardware": hardware(next(model.parameters()).device),
    }


def _plain_or_name(value: Any) -> Any:
    try:
        return plain(value)
    except TypeError:
        return getattr(value, "__name__", type(value).__name__)


def make_readme(card: Mapping[str, Any], name: str) -> str:
    """The card in Markdown, under the YAML front matter that the Hub reads; `name` is the folder's or the Hub's."""
    from huggingface_hub import ModelCard

    task, method = card.get("task", {}), card["settings"].get("method", "")
    base = card.get("base_model", {}).get("name")
    if method == "dense" or not card["layers"]:
        how = "fine-tuned without pruning"
    else:
        total = sum(layer["shape"][0] * layer["shape"][1] for layer in card["layers"].values())
        how = f"pruned while it was fine-tuned ({method}): {card['density']:.2%} of {total:,} weights in "
        how += f"{len(card['layers'])} matrices are kept"
    facts = {
        "task": ", ".join(filter(None, [task.get("name"), task.get("task_type")])),
        "score": _score(card),
        "a constant answer": _number(card["baseline"]),
        "verdict": card["verdict"],
        "base model": base,
        "method": method,
        "density": None if card["density"] is None else f"{card['density']:.4g}",
        "seconds": card["seconds"],
        "hardware": card["hardware"],
        "versions": ", ".join(f"{package} {version}" for package, version in card["versions"].items()),
        "examples": ", ".join(f"{task[split]:,} {split}" for split in ("train", "validation") if split in task),
        "SHA-256 of the examples": task.get("fingerprint"),
    }
    rows = "\n".join(f"| {fact} | {value} |" for fact, value in facts.items() if value not in (None, ""))
    base_text = f" from {base}" if base else ""
    parts = [
        f"# {name.rpartition('/')[2]}",
        f"A {card['class']}{base_text}, {how}."
        + (_NOTES.get(card["load"]) or " Pruned entries are zeros; the model is a plain transformers model."),
        f"```python\n{_usage(card, name)}\n```",
        f"| | |\n|---|---|\n{rows}",
    ]
    if card["layers"]:
        parts.append(f"## Density by layer\n\nKept, in per cent.\n\n{layer_table(card['layers'])}")
    given = {key: value for key, value in card.get("arguments", {}).items() if value is not None}
    settings = {**given, **{key: value for key, value in card["settings"].items() if value is not None}}
    lines = "\n".join(f"| {key} | `{json.dumps(value)}` |" for key, value in settings.items() if key != "device")
    if lines:
        parts.append(f"## Settings\n\n| setting | value |\n|---|---|\n{lines}")
    if "arguments" in card:
        parts.append("`python -m mvp_lite replay card.json` repeats this run and compares.")
    body = "\n\n".join(parts)
    return str(ModelCard(f"---\n{_front_matter(card, name).to_yaml()}\n---\n\n{body}\n"))


def _front_matter(card: Mapping[str, Any], name: str) -> Any:
    from huggingface_hub import EvalResult, ModelCardData

    task, base = card.get("task", {}), card.get("base_model", {}).get("name")
    on_hub = base is not None and base != "toy" and re.fullmatch(r"[\w.-]+(/[\w.-]+)?", base)
    pipeline = next((tag for ending, tag in _PIPELINES.items() if card["class"].endswith(ending)), None)
    data: dict[str, Any] = {"library_name": "transformers", "tags": ["pruning", "sparse", "mvp_lite"]}
    data |= {"pipeline_tag": pipeline, "base_model": base if on_hub else None}
    hub = task.get("hub")
    if hub:
        data["datasets"] = hub[0]
    if hub and card["score"] is not None:
        data["model_name"] = name.rpartition("/")[2]
        data["eval_results"] = [
            EvalResult(
                task_type=pipeline or "other",
                dataset_type=hub[0],
                dataset_name=task["name"],
                dataset_config=hub[1] if len(hub) > 1 else None,
                dataset_split="validation",
                metric_type=task.get("metric", "score"),
                metric_value=round(card["score"], 2),
            )
        ]
    return ModelCardData(**data)


def _usage(card: Mapping[str, Any], name: str) -> str:
    if card["load"] in _NOTES:
        loader = re.search(r"load_\w+", card["load"])
        return f'import mvp_lite as mvp\n\nmodel = mvp.{loader and loader.group()}("{name}")'
    if card["class"].endswith("ForSequenceClassification"):
        return f'from transformers import pipeline\n\nclassify = pipeline("text-classification", "{name}")'
    return f'from transformers import {card["class"]}\n\nmodel = {card["class"]}.from_pretrained("{name}")'


def _score(card: Mapping[str, Any]) -> str | None:
    if card["score"] is None:
        return None
    error = "" if card["standard_error"] is None else f" ± {card['standard_error']:.1f}"
    return f"{card['score']:.1f}{error} {card.get('task', {}).get('metric', '')}".strip()


def _number(value: float | None) -> str | None:
    return None if value is None else f"{value:.1f}"


def layer_table(layers: Mapping[str, Any]) -> str:
    """Densities in per cent as Markdown: a row for each block, a column for each matrix in it; else one row each."""
    densities = {name: 100 * layer["kept"] / (layer["shape"][0] * layer["shape"][1]) for name, layer in layers.items()}
    split = {name: re.fullmatch(r"(.*?\.)?(\d+)\.(.+)", name) for name in densities}
    found = {name: match for name, match in split.items() if match}
    if len(found) < len(densities) or len({match[1] for match in found.values()}) > 1:
        return "| matrix | kept |\n|---|---|\n" + "\n".join(f"| {name} | {x:.2f} |" for name, x in densities.items())
    columns = list(dict.fromkeys(match[3] for match in found.values()))
    rows: dict[str, dict[str, float]] = {}
    for name, match in found.items():
        rows.setdefault(match[2], {})[match[3]] = densities[name]
    lines = [f"| block | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    for block, row in rows.items():
        cells = (f"{row[column]:.2f}" if column in row else "" for column in columns)
        lines.append(f"| {block} | {' | '.join(cells)} |")
    return "\n".join(lines)
