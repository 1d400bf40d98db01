"""A run's models in ONNX, for programs without PyTorch: graphs, the ids they read, and what is known of each entity."""

from recbole_alt.serving.folder import Exported, to_onnx

__all__ = ["Exported", "to_onnx"]
