"""Models in formats that run without this package: ONNX and ``torch.export``."""

from .checking import Comparison, compare, load
from .exporting import OPSET, SUFFIXES, check_output_file, export, require_onnx, trace
from .network import ImageNetwork, describe, other_sizes, size_multiple

__all__ = [
    'OPSET',
    'SUFFIXES',
    'Comparison',
    'ImageNetwork',
    'check_output_file',
    'compare',
    'describe',
    'export',
    'load',
    'other_sizes',
    'require_onnx',
    'size_multiple',
    'trace',
]
