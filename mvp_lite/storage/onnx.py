"""From a model to an ONNX file, for ONNX Runtime and other runtimes."""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mvp_lite.forward import evaluating, without_labels
from mvp_lite.storage.csr import CSRLinear

__all__ = ["export_onnx"]

#: An ONNX file is one protobuf message, which has less than 2 GiB; larger models keep their weights in a second file.
_ONE_FILE = 1_800_000_000
#: Torch writes version 18 and lets onnxscript convert it, which for others writes version 18 nevertheless or an
#: invalid file.
_OPSETS = range(18, 26)
_EXAMPLES = ["The film was better than most people expected.", "It was not."]


def export_onnx(model: Any, path: str | Path, inputs: Any, *, opset: int = 18, check: bool = True) -> Path:
    """Write a model to an ONNX file whose batch size and sequence length are free; also a shrunk one.

    Inputs and outputs have the names that the model gives them: `input_ids`, `attention_mask`, …; `logits`, …

    Args:
        model: a transformers model in float32 on the CPU, plain (that is, after `pruner.finalize()`).
        path: of the file; its folder is made where it does not exist. The weights of models above 1.8 GB go to a second
            file, PATH.data.
        inputs: the model's tokenizer, or a batch of examples: names and tensors, of at least two tokens each.
        opset: version of ONNX's set of operators, from 18 to 25.
        check: compare all outputs in ONNX Runtime with the model's, on two shapes. They must agree within 1e-4 of
            their largest absolute value (or of 1, if that is larger), else the file is deleted.

    Returns:
        `path`.

    Raises:
        ImportError: onnx, onnxscript or (for the check) onnxruntime is not installed.
        IsADirectoryError: `path` is a folder.
        TypeError: `model` is no module, `inputs` is neither a tokenizer nor a batch, or `opset` is no integer.
        ValueError: a model that cannot be exported, another `opset`, or outputs that differ.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model={type(model).__name__}: must be a transformers model")
    if isinstance(opset, bool) or not isinstance(opset, int):
        raise TypeError(f"opset={opset!r}: must be an integer from {_OPSETS[0]} to {_OPSETS[-1]}")
    if opset not in _OPSETS:
        raise ValueError(f"opset={opset}: must be from {_OPSETS[0]} to {_OPSETS[-1]}")
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"path={str(path)!r}: must be a file, not a folder")
    required = ["onnx", "onnxscript", *(["onnxruntime"] if check else [])]
    missing = [name for name in required if find_spec(name) is None]
    if missing:
        raise ImportError(f"export_onnx needs {', '.join(missing)}: pip install {' '.join(missing)}")
    for name, p in model.named_parameters():
        if p.dtype != torch.float32 or p.device.type != "cpu":
            raise ValueError(f"{name} is in {p.dtype} on {p.device}: must be torch.float32 on cpu; model.float().cpu()")
    if any(isinstance(module, CSRLinear) for module in model.modules()):
        raise ValueError("model: ONNX has no sparse products; export the model that to_csr was given")
    batch = _batch(model, inputs)
    with evaluating(model), _uncached(model), torch.no_grad():
        names = list(_outputs(model, batch))
        path.parent.mkdir(parents=True, exist_ok=True)
        _export(model, batch, names, path, opset)
        if check:
            for shape, given in _shapes(batch).items():
                worst = _difference(path, given, _outputs(model, given))
                if not worst <= 1e-4:
                    for file in (path, path.with_name(path.name + ".data")):
                        file.unlink(missing_ok=True)
                    raise ValueError(
                        f"path={str(path)!r}: on {shape} the outputs in ONNX Runtime differ from the model's by "
                        f"{worst:.1e} of their largest value; the file is deleted"
                    )
    return path


class _Outputs(nn.Module):
    """A model's output tensors in a tuple, from its inputs in a fixed order: what a graph has."""

    def __init__(self, model: Any, inputs: list[str]) -> None:
        super().__init__()
        self.model, self.inputs = model, inputs

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        return tuple(_outputs(self.model, dict(zip(self.inputs, values, strict=True))).values())


def _outputs(model: Any, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    found = model(**batch, return_dict=True)
    return {name: value for name, value in found.items() if isinstance(value, Tensor)}


def _batch(model: Any, inputs: Any) -> dict[str, Tensor]:
    if isinstance(inputs, Mapping):  # also a tokenizer's BatchEncoding
        batch = without_labels(inputs)
    elif callable(inputs):
        batch = dict(inputs(_EXAMPLES, padding=True, return_tensors="pt"))
        accepted = inspect.signature(model.forward).parameters
        batch = {name: value for name, value in batch.items() if name in accepted}
    else:
        batch = {}
    if not batch or not all(isinstance(value, Tensor) and value.dim() >= 2 for value in batch.values()):
        raise TypeError(f"inputs={type(inputs).__name__}: must be a tokenizer, or names with tensors of a batch")
    # The export takes a size of 1 for a constant.
    if next(iter(batch.values())).shape[0] == 1:
        batch = {name: torch.cat([value, value]) for name, value in batch.items()}
    if any(value.dim() == 2 and value.shape[1] < 2 for value in batch.values()):
        raise ValueError("inputs: examples must have at least two tokens")
    return {name: value.cpu() for name, value in batch.items()}


def _export(model: Any, batch: dict[str, Tensor], outputs: list[str], path: Path, opset: int) -> None:
    size, length = torch.export.Dim("batch"), torch.export.Dim("length")
    free = tuple({0: size, 1: length} if value.dim() == 2 else {0: size} for value in batch.values())
    large = sum(p.numel() * p.element_size() for p in model.parameters()) > _ONE_FILE
    wrapped = _Outputs(model, list(batch)).eval()
    with warnings.catch_warnings(), _silent("torch.onnx"):
        warnings.simplefilter("ignore")  # of torch to its own developers
        try:
            torch.onnx.export(
                wrapped, tuple(batch.values()), path, dynamo=True, opset_version=opset, verbose=False,
                external_data=large, dynamic_shapes={"values": free}, input_names=list(batch), output_names=outputs,
            )  # fmt: skip
        except torch.onnx.errors.OnnxExporterError as error:
            cause = error.__cause__ or error
            reason = str(cause).strip().partition("\n")[0]
            raise ValueError(f"model={type(model).__name__} cannot be exported: {reason}") from error


def _shapes(batch: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The batch, and one with another number of shorter examples, of which one ends in padding."""
    other = {name: torch.cat([value, value[:1]]) for name, value in batch.items()}
    for name, value in other.items():
        if value.dim() == 2:
            other[name] = value[:, : max(2, value.shape[1] - 1)].clone()
    if "attention_mask" in other:
        other["attention_mask"][-1, -1] = 0
    return {" and ".join(str(tuple(v.shape)) for v in some.values()): some for some in (batch, other)}


def _difference(path: Path, batch: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Largest difference between the outputs of the file and of the model, over the latter's largest value (or 1)."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    inputs = {node.name for node in session.get_inputs()}  # an input without effect is not in the graph
    found = session.run(list(expected), {name: v.numpy() for name, v in batch.items() if name in inputs})
    worst = 0.0
    for ours, theirs in zip(expected.values(), map(torch.from_numpy, found), strict=True):
        if ours.shape != theirs.shape:
            return float("inf")
        scale = max(1.0, float(ours.abs().max()))
        difference = float((ours - theirs).abs().max()) / scale
        worst = difference if not difference <= worst else worst  # also NaN
    return worst


@contextmanager
def _uncached(model: Any) -> Iterator[None]:
    """Without the cache of keys and values, which is no tensor."""
    config: Any = getattr(model, "config", None)
    cached = getattr(config, "use_cache", None)
    if cached is not None:
        config.use_cache = False
    try:
        yield
    finally:
        if cached is not None:
            config.use_cache = cached


@contextmanager
def _silent(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
