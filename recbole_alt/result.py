"""What a run leaves at its end to compute with: ``result.json``."""

import platform
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from recbole_alt.config import ALTConfig
from recbole_alt.experiment import StageResult

_PACKAGES = ("recbole_alt", "recbole", "torch", "transformers", "numpy", "pandas")


def result_record(
    config: ALTConfig,
    stages: Mapping[str, StageResult],
    rows_left_out: Mapping[str, int],
    planned: Mapping[str, float],
) -> dict[str, Any]:
    """The content of ``result.json``: arguments, configuration, versions, unused rows, each stage's cost and scores.

    ``planned`` holds the seconds by stage that were expected.
    """
    costs = ("seconds", "texts_encoded", "peak_memory_mib")
    given = getattr(config, "external_config_dict", {}).get("data_path")  # as given, not as resolved here
    return {
        "arguments": list(getattr(config, "arguments", ())),
        "configuration": ALTConfig.snapshot(config).__getstate__()["values"] | {"data_path": given},
        "versions": {"python": platform.python_version()}
        | {name: str(import_module(name).__version__) for name in _PACKAGES},
        "rows_left_out": dict(rows_left_out),
        "stages": {
            name: {cost: getattr(stage, cost) for cost in costs}
            | ({"planned_seconds": planned[name]} if name in planned else {})
            | stage.details
            for name, stage in stages.items()
        },
        "results": {
            name: {"valid": stage.valid, "test": stage.test, "slices": stage.slices}
            for name, stage in stages.items()
            if stage.valid or stage.test  # without a validation set there are test scores only
        },
    }
