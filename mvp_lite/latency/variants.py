"""The forms in which one model can be run, and why one of them is missing."""

from __future__ import annotations

import copy
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mvp_lite.storage.csr import to_csr
from mvp_lite.storage.onnx import export_onnx
from mvp_lite.structure.loading import load_shrunk
from mvp_lite.structure.shrinking import KEY, shrink, sizes

__all__ = ["VARIANTS", "build", "load", "random_batch"]

#: variant -> what it is. "dense" is what all others are compared with.
VARIANTS = {
    "dense": "no zeros: the architecture in full size",
    "masked": "the pruned weights as zeros in dense matrices",
    "csr": "the sparse matrices in compressed sparse rows: mvp.to_csr",
    "shrunk": "without the heads and neurons that contribute nothing: mvp.shrink",
    "int8": "linear maps with weights of 8 bits: torch's dynamic quantization",
    "int8 shrunk": "both",
    "onnx": "ONNX Runtime, model of full size",
    "onnx shrunk": "ONNX Runtime, shrunk model",
}

Run = Callable[[dict[str, Tensor]], Any]


def load(folder: str | Path) -> Any:
    """The model in a folder, of the class that saved it: plain, shrunk or sparse; in float32 on the CPU.

    Raises:
        OSError: no such folder, or none with a model.
        ValueError: a class that transformers does not have.
    """
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise FileNotFoundError(f"folder={str(folder)!r}: no such folder; save_pretrained(folder) writes one")
    if not (path / "config.json").is_file():
        raise FileNotFoundError(f"folder={str(folder)!r} has no config.json; save_pretrained(folder) writes one")
    if (path / "sparse.safetensors").is_file() and find_spec("mvp_lite.storage.sparse") is not None:
        return import_module("mvp_lite.storage.sparse").load_sparse(path).float().eval()
    model: Any = load_shrunk(path)
    return model.float().eval()


def random_batch(model: Any, batch: int, length: int) -> dict[str, Tensor]:
    """`batch` examples of `length` random tokens, without padding: what they say does not change the time."""
    config = model.config
    if getattr(model, "main_input_name", "input_ids") != "input_ids":
        raise ValueError(f"model={type(model).__name__}: reads {model.main_input_name}, and only tokens are supported")
    longest = getattr(config, "max_position_embeddings", None)
    if isinstance(longest, int) and length > longest:
        raise ValueError(f"length={length}: the model takes at most {longest} tokens")
    ids = torch.randint(config.vocab_size, (batch, length), generator=torch.Generator().manual_seed(0))
    ids[ids == getattr(config, "pad_token_id", None)] = min(1, config.vocab_size - 1)
    found = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return found | ({"decoder_input_ids": ids} if getattr(config, "is_encoder_decoder", False) else {})


def build(model: Any, names: Sequence[str], threads: int) -> tuple[dict[str, Run], dict[str, str]]:
    """Functions that run the variants in `names`, and for each variant that cannot be run the reason.

    Args:
        model: dense with or without zeros, or shrunk.
        names: keys of `VARIANTS`; "dense" is always built.
        threads: of ONNX Runtime; torch's own number is the caller's.
    """
    full, small, why_not_smaller = _sizes(model)
    masked = None if full is None else model
    runs: dict[str, Run] = {"dense": _torch(_dense(model) if full is None else _without_zeros(full))}
    missing: dict[str, str] = {}
    makers: dict[str, Callable[[], Run]] = {
        "masked": lambda: _torch(_have(masked, "the folder holds a shrunk model")),
        "csr": lambda: _torch(to_csr(model)),
        "shrunk": lambda: _torch(_have(small, why_not_smaller)),
        "int8": lambda: _torch(_quantized(_have(masked, "the folder holds a shrunk model"))),
        "int8 shrunk": lambda: _torch(_quantized(_have(small, why_not_smaller))),
        "onnx": lambda: _onnx(_have(masked, "the folder holds a shrunk model"), threads),
        "onnx shrunk": lambda: _onnx(_have(small, why_not_smaller), threads),
    }
    example = random_batch(model, 2, 4)
    for name in names:
        if name in runs:
            continue
        try:
            run = makers[name]()
            with torch.inference_mode():
                run(example)
        except Exception as error:  # of runtimes that are not ours: the others can still be measured
            missing[name] = (str(error).strip() or type(error).__name__).partition("\n")[0]
        else:
            runs[name] = run
    return runs, missing


def _sizes(model: Any) -> tuple[Any, Any, str]:
    """The model in full size (None if it is a shrunk one), the shrunk model (None if it would not be smaller), why."""
    try:
        before = sizes(model)
    except ValueError as error:  # a family whose heads and neurons are not known
        return model, None, str(error)
    if getattr(model.config, KEY, None) is not None:
        return None, model, ""
    small = shrink(model)
    if sizes(small) == before:
        return model, None, "nothing to remove: no head and no neuron has lost all of its outgoing weights"
    return model, small.eval(), ""


def _dense(shrunk: Any) -> Any:
    """A model of the same class in the size that it had before it was shrunk, with random weights."""
    config = copy.deepcopy(shrunk.config)
    delattr(config, KEY)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return type(shrunk)(config).eval()


def _without_zeros(model: Any) -> Any:
    """A copy with small random weights in place of zeros."""
    dense = copy.deepcopy(model).eval()
    generator = torch.Generator().manual_seed(0)
    for W in (p.data for p in dense.parameters() if p.dim() >= 2):
        W.copy_(torch.where(W == 0, 0.02 * torch.randn(W.shape, generator=generator), W))
    return dense


def _have(model: Any, why_not: str) -> Any:
    if model is None:
        raise ValueError(why_not)
    return model


def _torch(model: Any) -> Run:
    def run(batch: dict[str, Tensor]) -> None:
        with torch.inference_mode():
            model(**batch)

    model.eval()
    return run


def _quantized(model: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated in favor of a package of its own, and still there
        quantize = import_module("torch.ao.quantization").quantize_dynamic
        found = quantize(copy.deepcopy(model), {torch.nn.Linear}, dtype=torch.qint8)
    plain = {type(module) for module in model.modules()}
    if not any(type(module) not in plain for module in found.modules()):
        raise ValueError("torch's dynamic quantization converts nn.Linear alone, and the model has none")
    return found


def _onnx(model: Any, threads: int) -> Run:
    if find_spec("onnxruntime") is None:
        raise ImportError("ONNX Runtime is not installed: pip install onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    with tempfile.TemporaryDirectory() as folder:
        path = export_onnx(model, Path(folder) / "model.onnx", random_batch(model, 2, 8))
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = {node.name for node in session.get_inputs()}

    def run(batch: Mapping[str, Tensor]) -> None:
        session.run(None, {name: value.numpy() for name, value in batch.items() if name in names})

    return run
