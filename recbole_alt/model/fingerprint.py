"""What the states of texts depend on besides the texts: the weights, and how they are computed with."""

from __future__ import annotations

import hashlib
import json
import platform
from contextlib import suppress
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch

from recbole_alt.model import encoding
from recbole_alt.model.language import LanguageModel
from recbole_alt.model.onnx_runtime import require_onnx
from recbole_alt.model.precision import fastest_precision

_NOT_OF_STATES = ("_name_or_path", "transformers_version")  # of the architecture, but where it was found


def weights_digest(language_model: LanguageModel) -> str:
    """A name for the weights and the architecture of the encoder."""
    encoder = language_model.encoder
    architecture = {k: v for k, v in encoder.config.to_dict().items() if k not in _NOT_OF_STATES}
    digest = hashlib.sha256(_json(architecture))
    for name, weights in sorted(chain(encoder.named_parameters(), encoder.named_buffers()), key=itemgetter(0)):
        digest.update(f"{name} {weights.dtype} {tuple(weights.shape)}".encode())
        digest.update(weights.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def fingerprint(language_model: LanguageModel, device: torch.device) -> str:
    """A name for everything that a state depends on, to the last bit, except for its text and the pooling."""
    precision = language_model.precision
    how = {
        "weights": weights_digest(language_model),
        "attention": getattr(language_model.encoder.config, "_attn_implementation", None),
        "precision": fastest_precision(device) if precision == "auto" else precision,
        "batches": [encoding.STEP, encoding.TOKENS],
        "runtime": require_onnx() if language_model.uses_onnx else "torch",
        "torch": [torch.__version__, torch.get_float32_matmul_precision()],
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
    }
    return hashlib.sha256(_json(how)).hexdigest()


def _json(content: Any) -> bytes:
    return json.dumps(content, sort_keys=True, default=str).encode()


def _processor() -> list[Any]:
    """The processor, as far as the kernels that are chosen depend on it, and the threads that share the work."""
    said = [platform.machine(), platform.processor()]
    with suppress(OSError):  # only Linux has it
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
        said += [line for line in lines if line.startswith(("vendor_id", "cpu family", "model", "flags", "Features"))]
    return [*said, torch.get_num_threads()]
