"""Movement pruning and its relatives: prune a transformer while it is fine-tuned.

    import mvp_lite as mvp

    task = mvp.load_task("toy/inference")
    model = mvp.load_model("toy", task)
    result = mvp.fine_prune(model, task, method="soft_movement", density=0.03)

What the course's notebooks need beyond this is in `mvp_lite.course`.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from mvp_lite import groups, layers, masks, methods, schedule, scores
from mvp_lite.layers import MaskedLinear
from mvp_lite.paths import data_path
from mvp_lite.pruner import Pruner

if TYPE_CHECKING:
    from mvp_lite.distill import Teacher, distillation_loss
    from mvp_lite.gradient_free import prune_neurons
    from mvp_lite.models import load_model, tokenizer_for
    from mvp_lite.storage.sparse import load_sparse, save_sparse
    from mvp_lite.structure.shrinking import load_shrunk, shrink
    from mvp_lite.tasks import Task, load_task
    from mvp_lite.train import Result, fine_prune

__version__ = "0.1.0"
__all__ = [
    "MaskedLinear",
    "Pruner",
    "Result",
    "Task",
    "Teacher",
    "data_path",
    "distillation_loss",
    "fine_prune",
    "groups",
    "layers",
    "load_model",
    "load_shrunk",
    "load_sparse",
    "load_task",
    "masks",
    "methods",
    "prune_neurons",
    "save_sparse",
    "schedule",
    "scores",
    "shrink",
    "tokenizer_for",
]

#: Names imported at their first use, and their modules: `import mvp_lite` costs little more than `import torch`.
_LAZY = {
    "Result": "mvp_lite.train",
    "Task": "mvp_lite.tasks",
    "Teacher": "mvp_lite.distill",
    "distillation_loss": "mvp_lite.distill",
    "fine_prune": "mvp_lite.train",
    "load_model": "mvp_lite.models",
    "load_shrunk": "mvp_lite.structure.shrinking",
    "load_sparse": "mvp_lite.storage.sparse",
    "load_task": "mvp_lite.tasks",
    "prune_neurons": "mvp_lite.gradient_free",
    "save_sparse": "mvp_lite.storage.sparse",
    "shrink": "mvp_lite.structure.shrinking",
    "tokenizer_for": "mvp_lite.models",
}

if not TYPE_CHECKING:  # so that mypy reports a name that does not exist

    def __getattr__(name: str) -> object:
        if name not in _LAZY:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
