"""What a run leaves at its end to compute with: ``result.json``."""

import platform
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from recbole_alt.config import ALTConfig
from recbole_alt.keys import FREE, KEYS
from recbole_alt.run_folder import StageResult
from recbole_alt.sizes import AUTO

_PACKAGES = ("recbole_alt", "recbole", "torch", "transformers", "numpy", "pandas")
_OF_EVERY_RUN = {"model", "dataset", "data_path"}  # said elsewhere


def result_record(
    config: ALTConfig,
    stages: Mapping[str, StageResult],
    rows_left_out: Mapping[str, int],
    planned: Mapping[str, Mapping[str, Any]],
    example_texts: Sequence[Mapping[str, str]] = (),
) -> dict[str, Any]:
    """The content of ``result.json``, from which the table and the page of a run are made.

    It holds arguments, whether keys were given in Python, configuration, the defaults of the keys that differ from
    theirs, versions, unused rows, some texts of training rows, and each stage's cost and scores. ``planned`` are the
    costs by stage that were expected.
    """
    costs = ("seconds", "texts_encoded", "peak_memory_mib")
    values = ALTConfig.snapshot(config).__getstate__()["values"]
    given = getattr(config, "external_config_dict", {}).get("data_path")  # as given, not as resolved here
    return {
        "arguments": list(getattr(config, "arguments", ())),
        "in_python": getattr(config, "in_python", False),
        "configuration": values | {"data_path": given},
        "defaults": _defaults_of_changed(config, values),
        "versions": {"python": platform.python_version()}
        | {name: str(import_module(name).__version__) for name in _PACKAGES},
        "rows_left_out": dict(rows_left_out),
        "example_texts": list(map(dict, example_texts)),
        "stages": {
            name: {cost: getattr(stage, cost) for cost in costs}
            | {f"planned_{cost}": planned[name][cost] for cost in (costs if name in planned else ())}
            | stage.details
            | {"curves": stage.curves}
            for name, stage in stages.items()
        },
        "results": {
            name: {"valid": stage.valid, "test": stage.test, "slices": stage.slices, "calibration": stage.calibration}
            for name, stage in stages.items()
            if stage.valid or stage.test  # without a validation set there are test scores only
        },
    }


def _defaults_of_changed(config: ALTConfig, values: Mapping[str, Any]) -> dict[str, Any]:
    """The default, None if there is none, of every key that was given another value or for which ``auto`` chose one.

    Keys that change no result are left out.
    """
    defaults, given = (getattr(config, f"{layer}_config_dict", {}) for layer in ("internal", "external"))
    keys = [key for key in KEYS if key in values and key not in FREE | _OF_EVERY_RUN]
    keys = [key for key in keys if key in given or defaults.get(key) == AUTO]
    return {key: defaults.get(key) for key in keys if values[key] != defaults.get(key)}
