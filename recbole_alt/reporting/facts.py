"""What the numbers of a run depend on, in words, from its configuration."""

from collections.abc import Mapping
from typing import Any


def data_facts(config: Mapping[str, Any]) -> dict[str, str]:
    """``dataset``, ``label_rule`` and ``split``."""
    evaluation, seed = config["eval_args"], config["split_seed"]
    rule = [f"{name} ≥ {value} is a click" for name, value in (config["threshold"] or {}).items()]
    rule += [f"only {name} within {value}" for name, value in (config["val_interval"] or {}).items()]
    drawn = config["seed"] if seed is None else seed
    return {
        "dataset": config["dataset"],
        "label_rule": "; ".join(rule) or "label as given",
        "split": f"{evaluation['split']} in order {evaluation['order']}, drawn with seed {drawn}",
    }


def text_facts(config: Mapping[str, Any]) -> dict[str, str]:
    """``encoder`` and ``prompt_scope``."""
    layers = "all" if config["language_model_layers"] is None else config["language_model_layers"]
    frozen = "none" if config["frozen_layers"] is None else config["frozen_layers"]
    encoder = f"{config['language_model']}, layers: {layers}, of these not aligned: {frozen}"
    return {"encoder": encoder, "prompt_scope": config["prompt_scope"]}
