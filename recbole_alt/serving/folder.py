"""``recbole-alt export RUN --onnx=FOLDER``: the folder of graphs, ids and tables that is served."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

from recbole_alt import checkpoints, pretrained
from recbole_alt.files import filling, replacing, write_text
from recbole_alt.finished import trained_language_model
from recbole_alt.loading import load_data_of
from recbole_alt.model.unseen import zero_unknown
from recbole_alt.prediction.rows import NewRows
from recbole_alt.quick_start import load_model
from recbole_alt.serving.exporting import OPSET, difference, require_exporter, write_graph
from recbole_alt.serving.graph import VECTOR, ServedModel
from recbole_alt.serving.inputs import Table, describe, raw_inputs, table_of
from recbole_alt.serving.texts import FILE as TEXTS
from recbole_alt.serving.texts import export_texts

MODEL, ABOUT, TOKENIZER = "model.onnx", "ids.json", "tokenizer"

_COMPARED = 512  # rows that ONNX Runtime is compared with PyTorch on


@dataclass
class Exported:
    """What an export wrote.

    Attributes:
        files: files and folders.
        differences: graph → the greatest difference between ONNX Runtime and PyTorch; None if it was not measured.
    """

    files: list[Path] = field(default_factory=list)
    differences: dict[str, float | None] = field(default_factory=dict)

    def summary(self) -> str:
        """A line for the files, and one for each graph in ONNX."""
        lines = [f"Written: {', '.join(map(str, self.files))}"]
        for name, worst in self.differences.items():
            said = "not compared with PyTorch, as onnxruntime is not installed: pip install onnxruntime"
            lines.append(
                f"{name} (opset {OPSET}): "
                + (said if worst is None else f"differs from PyTorch by {worst:.1e} at most")
            )
        return "\n".join(lines)


def to_onnx(model_file: str | os.PathLike[str], folder: str | os.PathLike[str]) -> Exported:
    """Write what a program without PyTorch needs to score raw rows.

    - ``model.onnx``, of ``plain.pth``, ``ctr.pth``, ``lm.pth`` and ``joint.pth``: an input per field, click
      probabilities out. Texts go in as pooled states.
    - ``ids.json``: what the inputs are, and the id of each raw value.
    - ``user.npz`` and ``item.npz``: the inputs of each user and item that the run knows, by id.
    - ``text.onnx`` and ``tokenizer``, of ``pretrain.pth``, ``lm.pth`` and ``joint.pth``: the language model.

    Both graphs take any number of rows, and are compared with PyTorch where onnxruntime is installed. What can't be
    exported leaves the folder as it was.

    Args:
        model_file: in the folder of a run.
        folder: where to.

    Raises:
        ValueError: no such file, a package is missing, the folder can't be written, the model can't be exported, or
            ONNX Runtime differs from PyTorch by more than 1e-5.
    """
    require_exporter()
    state = checkpoints.load(model_file)
    written = Exported()
    with filling("onnx", folder) as made:
        if "state_dict" in state:
            _write_model(state, model_file, made, written)
        if "text" in state or any(name.startswith("text.") for name in state.get("state_dict", ())):
            model, encoder = trained_language_model(state, model_file)
            written.differences[TEXTS] = export_texts(model, encoder, state["config"]["max_text_tokens"], made)
            pretrained.load_tokenizer(state["config"]["language_model"]).save_pretrained(made / TOKENIZER)
            written.files += [made / TEXTS, made / TOKENIZER]
    written.files = [Path(folder, file.relative_to(made)) for file in written.files]
    return written


def _write_model(state: dict[str, Any], file: str | os.PathLike[str], root: Path, written: Exported) -> None:
    config = state["config"]
    config["device"] = torch.device("cpu")
    data = load_data_of(state, file)
    train = data[1]._dataset
    model = load_model(state, train, file).eval()
    parts = [loader._dataset for loader in data[1:] if loader is not None]
    as_zeros: list[str] = []
    if config["unseen_values"] == "zero" and model.backbone is not None:
        with_gaps = zero_unknown(model.backbone, parts)
        as_zeros = [one.name for one in model.backbone.fields if one.name not in with_gaps]
    graph = ServedModel(model, train)
    inputs = graph.inputs
    write_graph(
        graph, [one.example(2) for one in inputs], (tuple(one.dynamic for one in inputs),),
        [one.name for one in inputs], ["probability"], root / MODEL,
    )  # fmt: skip
    about = {
        "recbole_alt": import_module("recbole_alt").__version__,
        "model": config["model"],
        "mode": Path(file).stem,
        "opset": OPSET,
    }
    about |= describe(train, inputs, as_zeros)
    pooled = pooled_by_id(model, train, about["tables"])
    tables = {side: table_of(train, side, inputs, pooled) for side in about["tables"]}
    write_text(root / ABOUT, json.dumps(about, ensure_ascii=False, indent=1) + "\n")
    for side, table in tables.items():
        with replacing(root / f"{side}.npz") as stream:
            np.savez(stream, **table)
    written.files += [root / MODEL, root / ABOUT, *(root / f"{side}.npz" for side in tables)]
    written.differences[MODEL] = _compare(model, train, about, tables, root / MODEL)


@torch.no_grad()
def pooled_by_id(model: Any, train: Any, fields: Mapping[str, str]) -> Table:
    """Input → the pooled states [n, H] of the texts of every user, or item, by id; only ``prompt_scope: entity``."""
    found: Table = {}
    if model.text is None:
        return found
    for segment in model.prompts.segments:
        if (name := fields.get(segment.name)) is not None:
            texts = model.prompts.distinct_of(segment, {name: torch.arange(train.num(name))})
            states = model.text_cache.pooled(texts, model.device)
            found[VECTOR + segment.name] = states[texts.row].numpy()
    return found


@torch.no_grad()
def _compare(model: Any, train: Any, about: Mapping[str, Any], tables: Mapping[str, Table], file: Path) -> float | None:
    """The greatest difference on rows of the run's interactions, from their raw values on; on the first one, too."""
    frame = train.raw("inter")
    frame = frame.iloc[np.random.default_rng(0).permutation(len(frame))[:_COMPARED]].reset_index(drop=True)
    batch, _ = NewRows(model, train, frame, {}).part(0, len(frame))
    given, expected = raw_inputs(about, tables, frame), model.predict(batch).reshape(-1).numpy()
    if model.text is not None:  # of texts that are neither a user's nor an item's
        for texts in model.prompts.distinct(batch):
            states = model.text_cache.pooled(texts, model.device)[texts.row].numpy()
            given.setdefault(VECTOR + texts.segment.name, states)
    first = {name: values[:1] for name, values in given.items()}
    found = [difference(file, given, [expected]), difference(file, first, [expected[:1]])]
    return None if found[0] is None or found[1] is None else max(found[0], found[1])
