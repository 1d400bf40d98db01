"""PyTorch to ONNX: one file, any number of rows, a stated opset, and a comparison of the two where they can be run."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from recbole_alt.files import replacing
from recbole_alt.quiet import quiet_exporter

#: The version of ONNX's operators.
OPSET = 18
#: The most by which ONNX Runtime may differ from PyTorch.
TOLERANCE = 1e-5

_NEEDED = ("onnx", "onnxscript")


def is_installed(package: str) -> bool:
    """True if a package can be imported."""
    return importlib.util.find_spec(package) is not None


def require_exporter() -> None:
    """Refuse to export where a package for it is missing."""
    for name in _NEEDED:
        if not is_installed(name):
            raise ValueError(f"onnx: the export needs {name}: pip install 'recbole_alt[onnx]'")


@torch.no_grad()
def write_graph(
    graph: nn.Module,
    example: Sequence[Tensor],
    dynamic: tuple[Any, ...],
    names: Sequence[str],
    outputs: Sequence[str],
    file: Path,
) -> None:
    """Write ``graph`` as an ``.onnx`` file.

    Args:
        example: inputs.
        dynamic: the dimensions of inputs that may be of any size, as ``torch.export`` takes them.
        names, outputs: of inputs and outputs.

    Raises:
        ValueError: the exporter can't translate it.
    """
    graph.eval()
    graph(*example)  # what RecBole's layers make in their first forward is a constant then
    with TemporaryDirectory() as folder, quiet_exporter():
        written = Path(folder, "graph.onnx")
        try:
            torch.onnx.export(
                graph, tuple(example), written, dynamo=True, dynamic_shapes=dynamic, opset_version=OPSET,
                input_names=list(names), output_names=list(outputs), verbose=False,
                external_data=False, optimize=False,  # which drops the addition of 1e-8 that keeps means from 0 / 0
            )  # fmt: skip
        except Exception as error:  # of the exporter, of almost any type
            said = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise ValueError(f"onnx: this model can't be exported ({said})") from None
        with replacing(file) as stream:
            stream.write(written.read_bytes())


def difference(
    file: str | os.PathLike[str], given: Mapping[str, np.ndarray], expected: Sequence[np.ndarray]
) -> float | None:
    """The greatest difference between what ONNX Runtime makes of ``given`` and what PyTorch made, ``expected``.

    None where ONNX Runtime is not installed.

    Raises:
        ValueError: it is above :data:`TOLERANCE`, or not a number.
    """
    if not is_installed("onnxruntime"):
        return None
    import onnxruntime

    made = onnxruntime.InferenceSession(os.fspath(file), providers=["CPUExecutionProvider"]).run(None, dict(given))
    worst = max(float(np.abs(one - other).max()) for one, other in zip(made, expected, strict=True))
    if not worst <= TOLERANCE:
        raise ValueError(
            f"onnx: {Path(file).name} is {worst:.1e} off PyTorch, more than {TOLERANCE:.0e}: please report it"
        )
    return worst
