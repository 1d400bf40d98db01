"""Write docs/models.md from the code: every backbone and what is read off it.

``python docs/list_models.py``
"""

from __future__ import annotations

import sys
from pathlib import Path

from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, init_seed

from recbole_alt.config import ALTConfig
from recbole_alt.model.build import build_backbone
from recbole_alt.model.captures import CAPTURES, CapturePoint

HEAD = """# Models

Made by `python docs/list_models.py`; sizes are those on ml-100k with the defaults of `properties/overall.yaml`.

| model | representation | size | logit | fields |
|---|---|---:|---|---:|
"""

FOOT = """
A module called twice contributes both captures. `LR` has no representation; `FwFM` and `KD_DAGFM` are not there yet.

A context-aware model of your own is registered by `recbole_alt.register(MyCTR)`: its representation is declared by a
class attribute `captures`, or found (the input of the linear layers with one output), or else its field embeddings.
"""


def words(point: CapturePoint) -> str:
    """A capture point in words."""
    reduced = "" if point.reduce == "flatten" else f", {point.reduce}"
    return f"{point.side} of `{point.module}`{reduced}"


def row(name: str) -> str:
    """The table's row of one model."""
    config = ALTConfig(f"ALT_{name}", "ml-100k", None, {"state": "ERROR"})
    init_seed(config["seed"], config["reproducibility"])
    dataset = data_preparation(config, create_dataset(config))[0]._dataset
    backbone = build_backbone(config, dataset, get_model(name))
    captures = CAPTURES[name]
    where = " ⊕ ".join(words(point) for point in captures.representation)
    logit = words(captures.logits) if captures.logits else "what `forward` returns"
    return f"| `ALT_{name}` | {where} | {backbone.representation_size} | {logit} | {len(backbone.fields)} |\n"


if __name__ == "__main__":
    sys.argv = sys.argv[:1]  # nothing for RecBole to read
    Path(__file__).with_name("models.md").write_text(HEAD + "".join(map(row, CAPTURES)) + FOOT)
