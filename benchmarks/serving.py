"""Rows scored per second: a CTR model in ONNX Runtime, and by RecBole's ``predict``.

``pip install 'recbole_alt[onnx]'``
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import Result, alternate, rate
from recbole.utils import get_model, init_seed
from setup import configure, prepare

from recbole_alt.serving.exporting import write_graph
from recbole_alt.serving.graph import ServedModel

BACKBONES = ("DCN", "DeepFM")
BATCHES = (1, 1024)
_ROWS = 4096  # scored in each round, in batches; fewer one by one
_ROWS_ALONE = 512


def serving(quick: bool, data_path: str) -> Iterator[Result]:
    """Rows of ml-100k, whose ids and features are at hand, in batches of 1 and of 1,024."""
    import onnxruntime

    for name in BACKBONES:
        config = configure(model=f"ALT_{name}", finetune_mode="ctr")
        train, _, test = prepare(config)
        init_seed(0, True)
        model = get_model(config["model"])(config, train._dataset).eval()
        plain, graph = model.backbone.model, ServedModel(model, train._dataset)
        file = Path(tempfile.mkdtemp()) / "model.onnx"
        inputs = graph.inputs
        write_graph(
            graph, [one.example(2) for one in inputs], (tuple(one.dynamic for one in inputs),),
            [one.name for one in inputs], ["probability"], file,
        )  # fmt: skip
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        for size in BATCHES:
            count = _ROWS_ALONE if size == 1 else _ROWS
            parts = [test._dataset[start : start + size] for start in range(0, count, size)]
            given = [{one.name: part[one.name].numpy() for one in inputs} for part in parts]

            def ours(given: Any = given, session: Any = session) -> int:
                return sum(len(session.run(None, one)[0]) for one in given)

            @torch.no_grad()
            def theirs(parts: Any = parts, plain: Any = plain) -> int:
                return sum(len(plain.predict(part).view(-1)) for part in parts)

            with torch.no_grad():
                worst = max(
                    float(np.abs(session.run(None, one)[0] - plain.predict(part).view(-1).numpy()).max())
                    for one, part in zip(given, parts, strict=True)
                )
            mine, other = alternate(lambda f=ours: rate(f), lambda f=theirs: rate(f), 5 if quick else 40)
            ratios = [a / b for a, b in zip(mine, other, strict=True)]
            details = {"rows_per_second": mine, "recbole": other, "difference": worst}
            yield Result.of(f"serving/{name}/{size}", ratios, 1.0, threads=torch.get_num_threads(), **details)
