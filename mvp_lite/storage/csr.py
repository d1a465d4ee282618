"""Scattered zeros that save time on a CPU: sparse matrices in place of dense ones, for inference."""

from __future__ import annotations

import copy
import warnings
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

__all__ = ["CSRLinear", "to_csr"]

#: Tokens that one product takes at a time. Transposed, that many fit into the cache; products over all tokens of a
#: large batch take up to twice as long.
_TOKENS = 128


class CSRLinear(nn.Module):
    """x -> x W^T + b, with W stored in compressed sparse rows (CSR). For inference, in float32 on a CPU.

    Args:
        weight: W, a dense matrix (out, in).
        bias: b, of length out, or None.
    """

    weight: Tensor
    column: Tensor

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
            found = weight.detach().to_sparse_csr()
            # MKL multiplies by matrices with 32-bit indices; torch would convert others in every call.
            rows, columns = found.crow_indices().int(), found.col_indices().int()
            found = torch.sparse_csr_tensor(rows, columns, found.values(), size=weight.shape, check_invariants=False)
        self.register_buffer("weight", found)
        bias = weight.new_zeros(len(weight)) if bias is None else bias.detach().clone()
        self.register_buffer("column", bias[:, None])

    @property
    def bias(self) -> Tensor:
        return self.column[:, 0]

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype != torch.float32 or x.device.type != "cpu" or self.weight.dtype != torch.float32:
            raise ValueError(
                f"an input in {x.dtype} on {x.device} to a weight in {self.weight.dtype}: to_csr's model computes in "
                "torch.float32 on cpu alone; elsewhere use the model that it was made from"
            )
        if x.requires_grad and torch.is_grad_enabled():
            raise ValueError("to_csr's model computes no gradients: use the model that it was made from")
        tokens = x.reshape(-1, self.in_features)
        y = x.new_empty(len(tokens), self.out_features)
        for i in range(0, len(tokens), _TOKENS):
            some = tokens[i : i + _TOKENS].t().contiguous()
            y[i : i + _TOKENS] = torch.addmm(self.column, self.weight, some).t()
        return y.view(*x.shape[:-1], self.out_features)

    def train(self, mode: bool = True) -> CSRLinear:
        if mode:
            raise ValueError("to_csr's model is for inference: train the model that it was made from")
        return super().train(mode)

    def __deepcopy__(self, memo: dict[int, Any]) -> CSRLinear:
        memo[id(self.weight)] = self.weight.clone()  # torch has no deep copy of sparse tensors
        other = memo[id(self)] = CSRLinear.__new__(CSRLinear)
        other.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return other

    def extra_repr(self) -> str:
        density = self.weight.values().numel() / max(1, self.weight.numel())
        return f"in_features={self.in_features}, out_features={self.out_features}, density={density:.3f}"


def to_csr(model: Any, *, max_density: float = 0.25) -> Any:
    """A copy of a pruned model for faster inference on a CPU: its sparsest linear maps become `CSRLinear`.

    Its outputs equal those of `model` up to rounding. The copy is in evaluation mode and cannot be trained or saved;
    save `model`, and convert it again after loading. `python -m mvp_lite speed` measures what it gains on a machine.

    Args:
        model: a plain model (that is, after `pruner.finalize()`) in float32 on the CPU. Its `nn.Linear` and GPT-2's
            `Conv1D` are converted, whatever their place in the model.
        max_density: largest fraction of nonzero weights with which a matrix is converted. Denser ones stay as they
            are, since the sparse product takes longer than the dense one.

    Raises:
        TypeError: `model` is no torch module.
        ValueError: another dtype or device, a density outside (0, 1], or no matrix that is sparse enough.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model={type(model).__name__}: must be a torch module")
    if not 0 < max_density <= 1:
        raise ValueError(f"max_density={max_density!r}: must be a fraction of weights above 0 and at most 1")
    found = copy.deepcopy(model)
    densities = {}
    # A list, since modules are replaced; torch's own encoder layers read the weights of their maps themselves.
    parents = [(name, m) for name, m in found.named_modules() if not isinstance(m, nn.TransformerEncoderLayer)]
    for path, parent in parents:
        for key, module in list(parent.named_children()):
            weight = _matrix(module)
            if weight is None:
                continue
            name = f"{path}.{key}".lstrip(".")
            if weight.dtype != torch.float32 or weight.device.type != "cpu":
                raise ValueError(
                    f"{name}.weight is in {weight.dtype} on {weight.device}: must be torch.float32 on cpu; "
                    "pass model.float().cpu()"
                )
            densities[name] = int(weight.count_nonzero()) / max(1, weight.numel())
            if densities[name] <= max_density:
                setattr(parent, key, CSRLinear(weight, module.bias))
    if not densities or min(densities.values()) > max_density:
        sparsest = min(densities, key=lambda name: densities[name], default=None)
        known = f"the sparsest, {sparsest}, has {densities[sparsest]:.3g}" if sparsest else "it has no linear map"
        raise ValueError(f"model: no linear map with a density of max_density={max_density:g} or less; {known}")
    if hasattr(found, "save_pretrained"):
        object.__setattr__(found, "save_pretrained", _refuse)
    return found.eval()


def _matrix(module: Any) -> Tensor | None:
    """The weight (out, in) of a plain linear map; None for other modules and for subclasses, which may do more."""
    conv = type(module).__name__ == "Conv1D" and hasattr(module, "nf")
    if not (conv or type(module) is nn.Linear) or not isinstance(module.weight, nn.Parameter):
        return None
    return module.weight.detach().t() if conv else module.weight.detach()


def _refuse(*args: Any, **options: Any) -> NoReturn:
    raise ValueError(
        "save_pretrained: to_csr's model is for inference and cannot be loaded again. Save the model that it was made "
        "from, and call to_csr after loading"
    )
