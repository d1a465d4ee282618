"""mvp_lite: prune a transformer while it is fine-tuned, and read how.

    import mvp_lite as mvp

    task = mvp.load_task("toy/inference")
    model = mvp.load_model("toy", task)
    result = mvp.fine_prune(model, task, method="movement", density=0.03)

Names are loaded when first used, so that `import mvp_lite` costs little more than `import torch`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mvp_lite import groups
from mvp_lite.paths import data_path
from mvp_lite.pruner import Pruner

if TYPE_CHECKING:
    from mvp_lite import layers, masks, schedule, scores
    from mvp_lite.course import exercises, figures, widgets
    from mvp_lite.course.ledger import Ledger
    from mvp_lite.course.notebook import setup
    from mvp_lite.distill import Teacher, distillation_loss
    from mvp_lite.gradient_free import prune_neurons
    from mvp_lite.layers import MaskedLinear
    from mvp_lite.models import load_model, tokenizer_for
    from mvp_lite.structure.shrinking import load_shrunk, shrink
    from mvp_lite.tasks import load_task
    from mvp_lite.train import fine_prune

__version__ = "0.1.0"
__all__ = [
    "Ledger",
    "MaskedLinear",
    "Pruner",
    "Teacher",
    "data_path",
    "distillation_loss",
    "exercises",
    "figures",
    "fine_prune",
    "groups",
    "layers",
    "load_model",
    "load_shrunk",
    "load_task",
    "masks",
    "prune_neurons",
    "schedule",
    "scores",
    "setup",
    "shrink",
    "tokenizer_for",
    "widgets",
]

_HOME = {
    "Ledger": "mvp_lite.course.ledger",
    "MaskedLinear": "mvp_lite.layers",
    "Teacher": "mvp_lite.distill",
    "distillation_loss": "mvp_lite.distill",
    "fine_prune": "mvp_lite.train",
    "prune_neurons": "mvp_lite.gradient_free",
    "load_shrunk": "mvp_lite.structure.shrinking",
    "shrink": "mvp_lite.structure.shrinking",
    "load_model": "mvp_lite.models",
    "load_task": "mvp_lite.tasks",
    "setup": "mvp_lite.course.notebook",
    "tokenizer_for": "mvp_lite.models",
    "exercises": "mvp_lite.course",
    "figures": "mvp_lite.course",
    "widgets": "mvp_lite.course",
    "layers": "mvp_lite",
    "masks": "mvp_lite",
    "schedule": "mvp_lite",
    "scores": "mvp_lite",
}


def __getattr__(name: str) -> Any:
    home = _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'mvp_lite' has no attribute {name!r}")
    if home in ("mvp_lite", "mvp_lite.course"):
        return import_module(f"{home}.{name}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted(__all__)
