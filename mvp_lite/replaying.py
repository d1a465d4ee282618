"""Repeat the run that a saved card describes, and compare."""

from __future__ import annotations

import inspect
import json
import reprlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mvp_lite.groups import find_described
from mvp_lite.models import load_model
from mvp_lite.pruner import Pruner
from mvp_lite.storage.card import FORMAT
from mvp_lite.storage.record import WITHOUT_EFFECT, versions
from mvp_lite.tasks import TASKS, load_task
from mvp_lite.train import Result, fine_prune

__all__ = ["Replay", "replay"]

#: what a card of `fine_prune` has, and of which type
_FIELDS: dict[str, type | tuple[type, ...]] = {
    "base_model": dict, "task": dict, "arguments": dict, "not_recorded": dict, "settings": dict, "versions": dict,
    "score": (int, float), "density": (int, float), "examples": (int, type(None)),
    "standard_error": (int, float, type(None)),
}  # fmt: skip
#: and the entries in them that decide what is loaded and run
_ENTRIES: dict[tuple[str, str], type | tuple[type, ...]] = {
    ("base_model", "name"): (str, type(None)), ("task", "name"): str, ("settings", "steps"): int,
    ("settings", "lr"): (int, float),
}  # fmt: skip
#: arguments of `fine_prune` that no card has: they would name files and objects
_NEVER = (*WITHOUT_EFFECT, "model", "task", "validation", "metric", "options")
#: relative difference of two densities that feedback may leave on another processor
_DENSITY = 0.02


@dataclass(frozen=True, repr=False)
class Replay:
    """Outcome of a replay; printed, it says line by line what agrees.

    Attributes:
        agrees: score within one standard error, density within 2 %, and the same data.
        comparison: what was compared, and how it came out: "score", "density", "data", "starting weights",
            "settings", "versions".
        result: of the new run.
    """

    agrees: bool
    comparison: dict[str, str]
    result: Result

    def __str__(self) -> str:
        lines = [f"{name}: {outcome}" for name, outcome in self.comparison.items()]
        return "\n".join([*lines, "the run agrees with its card" if self.agrees else "the run differs from its card"])

    __repr__ = __str__


def replay(
    path: str | Path,
    *,
    model: nn.Module | str | Path | None = None,
    task: Any = None,
    data_dir: str | Path | None = None,
    progress: bool = True,
    **given: Any,
) -> Replay:
    """Run `fine_prune` again as a card says, and compare score, density, data, settings and versions with it.

    Args:
        path: `card.json`, or the folder of a saved model.
        model: the model to start from, or its name or folder; default: the name in the card.
        task: the task; default: the one that the card names.
        data_dir: folder of the task's data, see `load_task`.
        progress: show a bar.
        given: arguments of the run that a card cannot hold (a teacher, a function, a class of your own); the error
            names those that are missing.

    Raises:
        OSError: no card, or a model or data that cannot be read.
        ValueError: not a card, one of another training loop, or something that has to be given.
    """
    path = Path(path).expanduser()
    path = path / "card.json" if path.is_dir() else path
    card = _read(path)
    _fill_tokenizer(card, path.parent, given)
    wrong = sorted(set(given) - set(card["not_recorded"]))
    if wrong:
        raise ValueError(f"{wrong[0]}={given[wrong[0]]!r}: the card has this argument, or its run was without it")
    missing = [f"{name} (it was {what})" for name, what in card["not_recorded"].items() if name not in given]
    if missing:
        raise ValueError(f"{path} cannot hold {', '.join(missing)}: give it as replay(path, name=...)")
    with _named(path):
        task = _load_task(card["task"], data_dir) if task is None else task
        start = model if isinstance(model, nn.Module) else _load_model(card["base_model"], task, model)
        arguments = {**card["arguments"], **given}
        arguments |= {name: card["settings"][name] for name in ("steps", "lr")}  # a later default may be another
        if "groups" in arguments:
            arguments["groups"] = find_described(arguments["groups"])
        result = fine_prune(start, task, progress=progress, **arguments)
        return _compare(card, result)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Whatever a card with odd values leads to is a ValueError that names the card."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RuntimeError) as error:
        reason = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"path={str(path)!r}: {reason}") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"path={str(path)!r} is not JSON ({error})") from error
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        raise ValueError(f"path={str(path)!r} is not a card of a saved model: it lacks 'format': {FORMAT!r}")
    if "arguments" not in card:
        raise ValueError(f"path={str(path)!r}: this model was trained in another loop than fine_prune; repeat that one")
    _check(card, path)
    return card


def _check(card: Mapping[str, Any], path: Path) -> None:
    """Refuse entries of another type, and arguments that no card has."""

    def refuse(name: str, value: Any, must: str) -> None:
        raise ValueError(f"path={str(path)!r}: {name}={reprlib.repr(value)}: must be {must}")

    found = {name: (card.get(name), allowed) for name, allowed in _FIELDS.items()}
    for name, (value, allowed) in found.items():
        if not isinstance(value, allowed) or isinstance(value, bool):
            refuse(name, value, _type_names(allowed))
    for (part, name), allowed in _ENTRIES.items():
        value = card[part].get(name)
        if not isinstance(value, allowed) or isinstance(value, bool):
            refuse(f"{part}.{name}", value, _type_names(allowed))
    known = {*inspect.signature(fine_prune).parameters, *inspect.signature(Pruner).parameters} - set(_NEVER)
    for name in {**card["arguments"], **card["not_recorded"]}:
        if name not in known:
            refuse("arguments", name, "arguments of fine_prune that a card can have")


def _type_names(allowed: type | tuple[type, ...]) -> str:
    names = {dict: "an object", str: "a string", int: "an integer", float: "a number", type(None): "null"}
    return " or ".join(names[one] for one in (allowed if isinstance(allowed, tuple) else (allowed,)))


def _fill_tokenizer(card: Mapping[str, Any], folder: Path, given: dict[str, Any]) -> None:
    """A tokenizer of the user's own was saved beside the card."""
    if "tokenizer" in card["not_recorded"] and "tokenizer" not in given:
        if (folder / "tokenizer_config.json").is_file():
            from transformers import AutoTokenizer

            given["tokenizer"] = AutoTokenizer.from_pretrained(folder)


def _load_task(described: Mapping[str, Any], data_dir: str | Path | None) -> Any:
    name = described["name"]
    options = {"max_length": described.get("max_length")}
    if described.get("task_type") == "span":
        options["doc_stride"] = described["doc_stride"]
    if name in TASKS:
        task = load_task(name, data_dir, **options)
    elif data_dir is not None and "columns" in described:
        options |= {
            argument: described[argument] for argument in ("task_type", "metric", "labels") if described[argument]
        }
        task = load_task(Path(data_dir), **described["columns"], **options)
    else:
        raise ValueError(
            f"the card's task {name!r} is not one of load_task's: give its folder as data_dir= (--data-dir), or the "
            "task itself as replay(path, task=...)"
        )
    for split in task.splits:  # load_task(limit=...) keeps the first examples
        if task.size(split) > described[split]:
            task = task.subset(split, range(described[split]))
    return task


def _load_model(base: Mapping[str, Any], task: Any, name: str | Path | None) -> Any:
    name = base["name"] if name is None else name
    if name is None or str(name).startswith("local folder "):
        raise ValueError(f"the card's model is {name or 'without a name'}: give the one to start from, as model=")
    return load_model(name, task, pretrained=base.get("pretrained", True), seed=base.get("seed", 0))


def _compare(card: Mapping[str, Any], result: Result) -> Replay:
    now = json.loads(json.dumps(result.card()))  # as a card that was saved and read: lists for tuples
    score, score_text = _compare_scores(card, now)
    density = abs(now["density"] - card["density"]) <= _DENSITY * card["density"]
    data = card["task"].get("fingerprint") == now["task"].get("fingerprint")
    settings = [name for name in card["settings"] if name != "device"]
    comparison = {
        "score": score_text,
        "density": _equal_or(card["density"], now["density"], "equal" if density else "different"),
        "data": "no fingerprint" if "fingerprint" not in card["task"] else "the same" if data else "different",
        "starting weights": _same_or_list(card["base_model"], now["base_model"], ["weights"]),
        "settings": _same_or_list(card["settings"], now["settings"], settings),
        "versions": _same_or_list(card["versions"], versions(), list(card["versions"])),
    }
    return Replay(score and density and data, comparison, result)


def _compare_scores(card: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[bool, str]:
    text = f"{card['score']:.2f} in the card, {now['score']:.2f} now"
    difference = abs(now["score"] - card["score"])
    if difference < 1e-9:
        return True, f"{text}: equal"
    if not card["examples"]:
        return False, f"{text}: different"
    # At a score of 0 or 100 the standard error is 0: allow one example.
    error = max(card["standard_error"], 100.0 / card["examples"])
    within = difference <= error
    return within, f"{text}: {'within' if within else 'more than'} the standard error of {error:.2f}"


def _equal_or(before: float, after: float, outcome: str) -> str:
    return f"{before:.4g} in the card, {after:.4g} now: {outcome}"


def _same_or_list(before: Mapping[str, Any], after: Mapping[str, Any], names: list[str]) -> str:
    changed = [name for name in names if before.get(name) != after.get(name)]
    if not changed:
        return "the same"
    shown = (f"{name} ({_short(before.get(name))}, now {_short(after.get(name))})" for name in changed)
    return f"different: {', '.join(shown)}"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 20 else f"{text[:8]}…"
