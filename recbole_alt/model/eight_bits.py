"""A language model in 8 bits, for one that is not trained on a processor: exported to ONNX, run by ONNX Runtime.

The weights of all linear layers have 8 bits, with a scale for each output. Their inputs are rounded to 8 bits, too,
with one scale for all texts of a call. So a call has one text, whose states then depend on this text only, and as many
calls run at once as torch has threads.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from recbole_alt.files import CannotWrite, replacing

_PACKAGES = ("onnx", "onnxruntime", "onnxscript")
_FOLDER = "onnx"


def require_onnx() -> dict[str, str]:
    """The versions of the packages that are needed; a ValueError if one is missing."""
    try:
        return {name: importlib.metadata.version(name) for name in _PACKAGES}
    except importlib.metadata.PackageNotFoundError as error:
        raise ValueError(
            f"encoder_runtime: onnx-int8 needs {error.name}: pip install 'recbole_alt[onnx]', or give torch"
        ) from None


class EightBitEncoder:
    """An encoder in 8 bits.

    Args:
        encoder: an ``AutoModel`` of one stack of layers.
        name: tells its weights from others.
        root: keeps the exported model for other runs; None keeps it nowhere.

    Raises:
        ValueError: a package is missing, or the encoder can't be exported.
    """

    def __init__(self, encoder: Any, name: str, root: Path | None):
        versions = require_onnx()
        import onnxruntime

        key = hashlib.sha256(f"{name} {versions} {torch.__version__}".encode()).hexdigest()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        content = _kept(root, key) or _keep(root, key, _export(encoder))
        self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def __call__(self, texts: Sequence[bytes]) -> list[Tensor]:
        """The states [n, H] of each text, given the bytes of its n token ids."""

        def encode(text: bytes) -> Tensor:
            input_ids = np.frombuffer(text, dtype=np.int64)[None]
            return torch.from_numpy(self._session.run(None, {"input_ids": input_ids})[0][0])

        with ThreadPoolExecutor(torch.get_num_threads()) as threads:
            return list(threads.map(encode, texts))


class _States(nn.Module):
    def __init__(self, encoder: Any):
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.encoder(input_ids=input_ids).last_hidden_state


def _export(encoder: Any) -> bytes:
    """The encoder with matrix products in 8 bits, as the content of an ``.onnx`` file."""
    from onnxruntime.quantization import quantize_dynamic

    before = encoder.config._attn_implementation
    example = torch.arange(8)[None]
    tokens = {1: torch.export.Dim("tokens", min=2, max=encoder.config.max_position_embeddings)}
    with tempfile.TemporaryDirectory() as folder, _quiet():
        whole, eight = Path(folder, "whole.onnx"), Path(folder, "eight.onnx")
        try:
            encoder.set_attn_implementation("eager")  # whose graph ONNX Runtime runs fastest
            torch.onnx.export(
                _States(encoder).eval(), (example,), whole, dynamo=True, dynamic_shapes=(tokens,), verbose=False,
                input_names=["input_ids"], output_names=["states"], external_data=False,
            )  # fmt: skip
            quantize_dynamic(whole, eight, per_channel=True, op_types_to_quantize=["MatMul", "Gemm"])
        except Exception as error:  # of the exporter, of almost any type
            said = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            kind = type(encoder).__name__
            raise ValueError(f"encoder_runtime: a {kind} can't be exported to ONNX ({said}): give torch") from None
        finally:
            encoder.set_attn_implementation(before)
        return eight.read_bytes()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter and the quantiser say about themselves."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def _kept(root: Path | None, key: str) -> bytes | None:
    """The content of the file that :func:`_keep` wrote, unless it is missing or damaged."""
    for file in (root / _FOLDER).glob(f"{key}-*.onnx") if root is not None else ():
        try:
            content = file.read_bytes()
        except OSError:
            continue
        if file.stem == f"{key}-{hashlib.sha256(content).hexdigest()}":
            return content
    return None


def _keep(root: Path | None, key: str, content: bytes) -> bytes:
    if root is not None:
        try:
            with replacing(root / _FOLDER / f"{key}-{hashlib.sha256(content).hexdigest()}.onnx") as stream:
                stream.write(content)
        except CannotWrite as error:
            logging.getLogger().warning(f"text_cache_dir: {error}; the exported model is not kept for other runs")
    return content
