"""An empty model of the class and sizes that a `config.json` names, for a loader that fills it.

Nothing in the file is trusted: no code of the folder runs, nothing is downloaded, and nothing is allocated, since the
model is built on the meta device.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from mvp_lite.structure.loading import planned_sizes, shrink_to
from mvp_lite.structure.shrinking import protect_saves

__all__ = ["build"]

#: entries that would make transformers fetch code or weights; none changes the values of a model
_FETCHING = ("auto_map", "kernel_config", "use_pretrained_backbone")
_LARGEST = 2**31


def build(data: dict[str, Any], path: Path, tensors: int, widest: int) -> Any:
    """A transformers model on the meta device: parameters and buffers have shapes and no values.

    Args:
        data: what `config.json` holds.
        path: where it was read, for messages.
        tensors: how many tensors the model has; a configuration of many more is refused while it is built.
        widest: the longest dimension of these tensors, which bounds the number of labels.

    Raises:
        ValueError: the configuration is of no class of transformers, or does not fit it, or is far too large.
    """
    import transformers
    from transformers.initialization import no_init_weights

    names = data.get("architectures")
    name = names[0] if isinstance(names, list) and len(names) == 1 else None
    architecture: Any = getattr(transformers, name, None) if isinstance(name, str) else None
    if not (isinstance(architecture, type) and issubclass(architecture, transformers.PreTrainedModel)):
        raise ValueError(f"{path}: architectures={names!r} is not a model of transformers; build it, and pass model=")
    family = getattr(architecture.config_class, "model_type", None)
    if family is None or data.get("model_type") != family:
        raise ValueError(f"{path}: model_type={data.get('model_type')!r} does not belong to {name}")
    _check_numbers(data, path, tensors, widest)

    registered = 0

    def count(module: nn.Module, name: str, parameter: Any) -> None:
        nonlocal registered
        registered += 1
        if registered > 8 * tensors + 100:
            raise ValueError(f"it has many more than the {tensors} tensors of the file")

    handle = register_module_parameter_registration_hook(count)
    try:
        with torch.device("meta"), no_init_weights():
            config: Any = architecture.config_class
            model = architecture(config.from_dict(_without_fetching(data)))
            plan = planned_sizes(path.parent, model.config)
            if plan is not None:
                shrink_to(path.parent, model, plan)
    except Exception as error:  # a configuration that was tampered with can fail anywhere in transformers
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"{path}: no {name} can be built from it ({type(error).__name__}: {reason})") from error
    finally:
        handle.remove()
    if plan is not None:
        protect_saves(model)
    return model


def _check_numbers(data: Any, path: Path, tensors: int, widest: int, key: str = "") -> None:
    """Refuse numbers with which transformers would fill the memory before any shape can be compared."""
    if isinstance(data, dict):
        for inner, value in data.items():
            _check_numbers(value, path, tensors, widest, inner)
    elif isinstance(data, list):
        for value in data:
            _check_numbers(value, path, tensors, widest, key)
    elif isinstance(data, int | float) and not isinstance(data, bool):
        most = widest + 1000 if key == "num_labels" else tensors + 1000 if "layer" in key else _LARGEST
        if isinstance(data, int) and abs(data) > most:
            raise ValueError(f"{path}: {key}={data!r} is too large for the tensors of the file, at most {most}")


def _without_fetching(data: Any) -> Any:
    if isinstance(data, list):
        return [_without_fetching(value) for value in data]
    if isinstance(data, dict):
        return {
            key: _without_fetching(value)
            for key, value in data.items()
            if key not in _FETCHING and "_implementation" not in key
        }
    return data
