"""What a run says at its end: one table to read and one JSON file to compute with."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from recbole_alt.config import ALTConfig, base_model_name
from recbole_alt.experiment import StageResult

_PACKAGES = ("recbole_alt", "recbole", "torch", "transformers", "numpy", "pandas")
_COLUMNS = ("", "valid AUC", "valid LogLoss", "test AUC", "test LogLoss", "seconds", "texts encoded")


def result_record(config: Any, stages: Mapping[str, StageResult]) -> dict[str, Any]:
    """The content of ``result.json``."""
    return {
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "configuration": ALTConfig.snapshot(config).__getstate__()["values"],
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}},
        "stages": {
            name: {"seconds": s.seconds, "texts_encoded": s.texts_encoded, **s.details} for name, s in stages.items()
        },
        "results": {name: {"valid": s.valid, "test": s.test} for name, s in stages.items() if s.valid or s.test},
    }


def write_result(record: Mapping[str, Any], files: Sequence[Path]) -> None:
    """Write ``record`` as JSON to each of ``files``."""
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(record, indent=1, default=str) + "\n")


def result_table(model: str, stages: Mapping[str, StageResult]) -> str:
    """The run as a table in Markdown: the plain backbone first, then pretraining and each mode."""
    backbone = base_model_name(model)
    titles = {
        "plain": f"plain {backbone}",
        "pretrain": "pretraining",
        "ctr": f"{model} ctr",
        "lm": f"{model} lm",
        "joint": f"{model} joint",
    }
    rows = [list(_COLUMNS)]
    for name, title in titles.items():
        if name in stages:
            stage = stages[name]
            metrics = [part.get(metric) for part in (stage.valid, stage.test) for metric in ("auc", "logloss")]
            cells = ["" if value is None else f"{value:.4f}" for value in metrics]
            rows.append([title, *cells, f"{stage.seconds:.0f}", f"{stage.texts_encoded:,}"])
    widths = [max(len(row[i]) for row in rows) for i in range(len(_COLUMNS))]
    lines = ["| " + " | ".join(_pad(row, widths)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (w + 1) + (":" if i else "-") for i, w in enumerate(widths)) + "|")
    return "\n".join(lines)


def _pad(row: Sequence[str], widths: Sequence[int]) -> list[str]:
    return [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
