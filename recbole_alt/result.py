"""What a run says at its end: one JSON file to compute with, and the table made from it."""

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from recbole_alt.config import ALTConfig, base_model_name
from recbole_alt.experiment import StageResult
from recbole_alt.markdown import markdown_table

_PACKAGES = ("recbole_alt", "recbole", "torch", "transformers", "numpy", "pandas")
_COSTS = ("seconds", "texts encoded", "peak MiB")


def result_record(
    config: ALTConfig, stages: Mapping[str, StageResult], rows_left_out: Mapping[str, int]
) -> dict[str, Any]:
    """The content of ``result.json``: arguments, configuration, versions, unused rows, each stage's cost and scores."""
    costs = ("seconds", "texts_encoded", "peak_memory_mib")
    given = getattr(config, "external_config_dict", {}).get("data_path")  # as given, not as resolved here
    return {
        "arguments": list(getattr(config, "arguments", ())),
        "configuration": ALTConfig.snapshot(config).__getstate__()["values"] | {"data_path": given},
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in _PACKAGES}},
        "rows_left_out": dict(rows_left_out),
        "stages": {
            name: {cost: getattr(stage, cost) for cost in costs} | stage.details for name, stage in stages.items()
        },
        "results": {
            name: {"valid": stage.valid, "test": stage.test, "slices": stage.slices}
            for name, stage in stages.items()
            if stage.valid or stage.test  # without a validation set there are test scores only
        },
    }


def result_table(record: Mapping[str, Any]) -> str:
    """The run of ``record`` as a Markdown table: the plain backbone first, then the alignment and each mode."""
    model = record["configuration"]["model"]
    titles = {"plain": f"plain {base_model_name(model)}", "pretrain": "alignment"}
    titles |= {stage: f"{model} {stage}" for stage in ("ctr", "lm", "joint")}
    scored = _scored(record)
    header = ["", *(f"{split} {title}" for split in ("valid", "test") for title in scored.values()), *_COSTS]
    rows = []
    for name, title in titles.items():
        stage = record["stages"].get(name)
        if stage is not None:
            reached = record["results"].get(name, {"valid": {}, "test": {}})
            metrics = [reached[split].get(metric) for split in ("valid", "test") for metric in scored]
            cells = ["" if value is None else f"{value:.4f}" for value in metrics]
            memory = stage.get("peak_memory_mib")  # older records lack it
            costs = [f"{stage['seconds']:.0f}", f"{stage['texts_encoded']:,}", f"{memory:,.0f}" if memory else ""]
            rows.append([title, *cells, *costs])
    return markdown_table(header, rows, "lr")


def _scored(record: Mapping[str, Any]) -> dict[str, str]:
    """The metrics of ``record`` with titles, ``{"auc": "AUC"}``, in the order of ``metrics``, each at its depths."""
    titles = {name.lower(): name for name in record["configuration"]["metrics"]}
    titles = {name: titles[name] for name in sorted(titles, key=lambda name: name not in ("auc", "logloss"))}
    found = {name for result in record["results"].values() for scores in result.values() for name in scores}
    scored: dict[str, str] = {}
    for metric, title in titles.items():
        depths = sorted((name for name in found if name.split("@")[0] == metric), key=lambda name: (len(name), name))
        scored |= {name: title + name.removeprefix(metric) for name in depths}
    return scored or {"auc": "AUC", "logloss": "LogLoss"}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
