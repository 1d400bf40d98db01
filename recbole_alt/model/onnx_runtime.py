"""A language model that is not trained, run on a processor by ONNX Runtime, in 32 bits."""

from __future__ import annotations

import importlib.metadata
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from recbole_alt.quiet import quiet_exporter

_PACKAGES = ("onnx", "onnxruntime")
_OPSET = 17  # the first with layer normalisation


def require_onnx() -> dict[str, str]:
    """The versions of the packages that are needed; a ValueError if one is missing."""
    try:
        return {name: importlib.metadata.version(name) for name in _PACKAGES}
    except importlib.metadata.PackageNotFoundError as error:
        raise ValueError(
            f"encoder_runtime: onnx needs {error.name}: pip install 'recbole_alt[onnx]', or give torch"
        ) from None


class OnnxEncoder:
    """An encoder with the weights that it has now, in as many threads as torch has.

    Args:
        encoder: an ``AutoModel`` of one stack of layers.

    Raises:
        ValueError: a package is missing, or the encoder can't be exported.
    """

    def __init__(self, encoder: Any):
        require_onnx()
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "encoder.onnx")
            _export(encoder, file)
            self._session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def __call__(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The states [N, L, H] of the tokens of texts [N, L]."""
        texts = {"input_ids": input_ids.numpy(), "attention_mask": attention_mask.numpy()}
        return torch.from_numpy(self._session.run(None, texts)[0])


class _States(nn.Module):
    def __init__(self, encoder: Any):
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state


def _export(encoder: Any, file: Path) -> None:
    """Write the encoder, which stays as it is, with its weights."""
    attention, was_training = encoder.config._attn_implementation, encoder.training
    input_ids = torch.ones(2, 8, dtype=torch.long)
    attention_mask = torch.ones_like(input_ids).tril(6)  # with padding, lest the mask is left out
    axes = {0: "texts", 1: "tokens"}
    try:
        with quiet_exporter():
            encoder.set_attn_implementation("eager")  # which ONNX Runtime recognises and replaces by one operation
            torch.onnx.export(
                _States(encoder).eval(), (input_ids, attention_mask), file, dynamo=False, opset_version=_OPSET,
                input_names=["input_ids", "attention_mask"], output_names=["states"],
                dynamic_axes={"input_ids": axes, "attention_mask": axes, "states": axes},
            )  # fmt: skip
    except Exception as error:  # of the exporter, of almost any type
        said = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        kind = type(encoder).__name__
        raise ValueError(f"encoder_runtime: a {kind} can't be exported to ONNX ({said}): give torch") from None
    finally:
        encoder.set_attn_implementation(attention)
        encoder.train(was_training)
