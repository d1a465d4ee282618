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
from mvp_lite.hold import hold_zeros
from mvp_lite.layers import MaskedLinear
from mvp_lite.paths import data_path
from mvp_lite.pruner import Pruner

if TYPE_CHECKING:
    from mvp_lite.distill import Teacher, distillation_loss
    from mvp_lite.gradient_free import prune_neurons
    from mvp_lite.models import load_model
    from mvp_lite.replaying import replay
    from mvp_lite.storage.csr import to_csr
    from mvp_lite.storage.folder import save_pruned
    from mvp_lite.storage.onnx import export_onnx
    from mvp_lite.storage.sparse import load_sparse, save_sparse
    from mvp_lite.structure.loading import load_shrunk
    from mvp_lite.structure.shrinking import shrink
    from mvp_lite.tasks import Task, load_task, make_task
    from mvp_lite.tokenizer import tokenizer_for
    from mvp_lite.train import Result, fine_prune
    from mvp_lite.trainer import PruningCallback

__version__ = "0.2.0"
__all__ = [
    "MaskedLinear",
    "Pruner",
    "PruningCallback",
    "Result",
    "Task",
    "Teacher",
    "data_path",
    "distillation_loss",
    "export_onnx",
    "fine_prune",
    "groups",
    "hold_zeros",
    "layers",
    "load_model",
    "load_shrunk",
    "load_sparse",
    "load_task",
    "make_task",
    "masks",
    "methods",
    "prune_neurons",
    "replay",
    "save_pruned",
    "save_sparse",
    "schedule",
    "scores",
    "shrink",
    "to_csr",
    "tokenizer_for",
]

#: Names imported at their first use, and their modules: `import mvp_lite` costs little more than `import torch`.
_LAZY = {
    "PruningCallback": "mvp_lite.trainer",
    "Result": "mvp_lite.train",
    "Task": "mvp_lite.tasks",
    "Teacher": "mvp_lite.distill",
    "distillation_loss": "mvp_lite.distill",
    "export_onnx": "mvp_lite.storage.onnx",
    "fine_prune": "mvp_lite.train",
    "load_model": "mvp_lite.models",
    "load_shrunk": "mvp_lite.structure.loading",
    "load_sparse": "mvp_lite.storage.sparse",
    "load_task": "mvp_lite.tasks",
    "make_task": "mvp_lite.tasks",
    "prune_neurons": "mvp_lite.gradient_free",
    "replay": "mvp_lite.replaying",
    "save_pruned": "mvp_lite.storage.folder",
    "save_sparse": "mvp_lite.storage.sparse",
    "shrink": "mvp_lite.structure.shrinking",
    "to_csr": "mvp_lite.storage.csr",
    "tokenizer_for": "mvp_lite.tokenizer",
}

if not TYPE_CHECKING:  # so that mypy reports a name that does not exist

    def __getattr__(name: str) -> object:
        if name not in _LAZY:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
