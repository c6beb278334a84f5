"""MMILN as a module of plain PyTorch, and as an ONNX file."""

from .module import MMILN, padded
from .onnx import save_onnx

__all__ = ["MMILN", "padded", "save_onnx"]
