"""What is known of a run, as plain JSON values without paths: its model, its task, its arguments, its machine."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Mapping
from importlib import import_module
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mvp_lite.groups import describe
from mvp_lite.methods import METHODS
from mvp_lite.paths import data_path

__all__ = ["WITHOUT_EFFECT", "describe_run", "describe_task", "hardware", "plain", "shown_name", "versions"]

#: arguments of `fine_prune` that do not change what it computes
WITHOUT_EFFECT = ("device", "progress", "output_dir", "save_steps", "resume", "eval_steps")
#: entries of each parameter that its digest looks at
_SAMPLE = 2**12


def describe_run(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The beginning of a card, from the arguments of `fine_prune`, before anything has changed the model.

    "arguments" has those that can be given again, "not_recorded" says of each other one what it was.
    """
    given = {
        name: value
        for name, value in arguments.items()
        if name not in ("model", "task", "validation", "metric", "options")
    }
    given |= arguments.get("options", {})
    recorded, other = {}, {}
    for name, value in given.items():
        if name in WITHOUT_EFFECT or (name == "tokenizer" and value is None):
            continue
        if name == "groups":
            value = describe(value) or value
        if name == "method":
            value = next((known for known, method in METHODS.items() if method is value), value)
        try:
            recorded[name] = plain(value)
        except TypeError:
            other[name] = getattr(value, "__name__", type(value).__name__)
    model = arguments["model"]
    base = describe_base(model) | {"weights": _digest(model)}
    return {
        "base_model": base,
        "task": describe_task(arguments["task"]),
        "arguments": recorded,
        "not_recorded": other,
    }


def describe_base(model: Any) -> dict[str, Any]:
    """Where a model came from: its name, and how `load_model` has made what the checkpoint lacks."""
    return {"name": shown_name(getattr(model, "name_or_path", "") or ""), **getattr(model, "mvp_lite_loaded", {})}


def shown_name(where: str) -> str | None:
    """A name that says nothing about the machine: "toy", the Hub's name, or "local folder NAME"."""
    if not where:
        return None
    if Path(where) == data_path("toy", "encoder"):
        return "toy"
    return f"local folder {Path(where).resolve().name}" if Path(where).is_dir() or os.path.isabs(where) else where


def describe_task(task: Any) -> dict[str, Any]:
    """Name, type, sizes and fingerprint of a task; an object of the user's own may lack some of them."""
    if task is None:
        return {}
    found: dict[str, Any] = {"name": str(getattr(task, "name", type(task).__name__))}
    if os.path.isabs(found["name"]):
        found["name"] = f"local folder {Path(found['name']).name}"
    for name in ("task_type", "metric", "labels", "max_length", "doc_stride"):
        if isinstance(getattr(task, name, None), str | int | list):  # the metric of a DataLoader is a function
            found[name] = plain(getattr(task, name))
    if hasattr(task, "text_columns") and hasattr(task, "label_column"):
        text = list(task.text_columns)
        found["columns"] = {"text": text[0] if len(text) == 1 else text, "label": task.label_column}
    if hasattr(task, "size"):
        found |= {split: task.size(split) for split in ("train", "validation")}
    if hasattr(task, "fingerprint"):
        found["fingerprint"] = task.fingerprint()
    hub = getattr(getattr(task, "spec", None), "hub", ())
    return found | ({"hub": list(hub)} if hub else {})


def plain(value: Any) -> Any:
    """The value in JSON's types.

    Raises:
        TypeError: it has none.
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    if isinstance(value, Mapping):
        return {str(name): plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, torch.dtype | torch.device):
        return str(value)
    raise TypeError(f"{type(value).__name__} is not a JSON value")


def _digest(model: nn.Module) -> str:
    """SHA-256 of a sample of the parameters, to see whether two runs began with the same ones."""
    found = hashlib.sha256()
    for name, parameter in model.named_parameters():
        sample = parameter.detach().flatten()[:: parameter.numel() // _SAMPLE | 1].float().cpu()
        found.update(f"{name} {tuple(parameter.shape)}".encode() + sample.numpy().tobytes())
    return found.hexdigest()


def versions() -> dict[str, str]:
    """Versions of what computes a run."""
    import transformers

    own: str = import_module("mvp_lite").__version__
    return {
        "mvp_lite": own,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }


def hardware(device: torch.device | str) -> str:
    """Name of the GPU, or of the processor with its number of cores."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(torch.device(device))
    name, info = platform.processor() or platform.machine(), Path("/proc/cpuinfo")
    if info.exists():
        models = (line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line)
        name = next(models, name)
    return f"{name}, {os.cpu_count()} cores"
