"""An empty model of the class and sizes that a `config.json` names, for a loader that fills it.

Nothing in the file is trusted: no code of the folder runs, nothing is downloaded, and nothing is allocated, since the
model is built on the meta device.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mvp_lite.structure.limits import Stored, build_on_meta, check_numbers
from mvp_lite.structure.loading import planned_sizes, shrink_to
from mvp_lite.structure.shrinking import protect_saves

__all__ = ["build"]

#: entries that would make transformers fetch code or weights; none changes the values of a model
_FETCHING = ("auto_map", "kernel_config", "use_pretrained_backbone")


def build(data: dict[str, Any], path: Path, stored: Stored) -> Any:
    """A transformers model on the meta device: parameters and buffers have shapes and no values.

    Args:
        data: what `config.json` holds.
        path: where it was read, for messages.
        stored: what the file holds; a configuration of much more is refused while the model is built.

    Raises:
        ValueError: the configuration is of no class of transformers, or does not fit it, or is far too large.
    """
    import transformers

    names = data.get("architectures")
    name = names[0] if isinstance(names, list) and len(names) == 1 else None
    architecture: Any = getattr(transformers, name, None) if isinstance(name, str) else None
    if not (isinstance(architecture, type) and issubclass(architecture, transformers.PreTrainedModel)):
        raise ValueError(f"{path}: architectures={names!r} is not a model of transformers; build it, and pass model=")
    family = getattr(architecture.config_class, "model_type", None)
    if family is None or data.get("model_type") != family:
        raise ValueError(f"{path}: model_type={data.get('model_type')!r} does not belong to {name}")
    check_numbers(data, path, stored)

    plan: dict[str, list[int]] | None = None
    config_class: Any = architecture.config_class

    def make() -> Any:
        nonlocal plan
        model = architecture(config_class.from_dict(_without_fetching(data)))
        plan = planned_sizes(path.parent, model.config)
        if plan is not None:
            shrink_to(path.parent, model, plan)
        return model

    try:
        model = build_on_meta(make, stored)
    except Exception as error:  # a configuration that was tampered with can fail anywhere in transformers
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"{path}: no {name} can be built from it ({type(error).__name__}: {reason})") from error
    if plan is not None:
        protect_saves(model)
    return model


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
