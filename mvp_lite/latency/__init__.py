"""How fast a saved model is on this machine: dense, with zeros, sparse, shrunk, in 8 bits, in ONNX Runtime."""

from mvp_lite.latency.report import picture, write
from mvp_lite.latency.timing import break_even, crossings, measure
from mvp_lite.latency.variants import VARIANTS, load

__all__ = ["VARIANTS", "break_even", "crossings", "load", "measure", "picture", "write"]
