"""What would make a run cheaper."""

from collections.abc import Mapping
from typing import Any

from recbole_alt.plan.stages import StagePlan
from recbole_alt.pretrained import load_config

_BACKWARD = 2 / 3  # of the time of a step of training, at least
_BY_ONNX = 1 / 2  # of the time that PyTorch in 32 bits takes to read, at least (docs/speed.md)
_WORTH, _MOST = 0.1, 3  # the share of all seconds that a remedy saves at least, and the number of remedies


def find_remedies(config: Any, stages: Mapping[str, StagePlan]) -> dict[str, float]:
    """The keys that save the most of what ``stages`` cost, as on a command line → the seconds that each saves."""
    saved: dict[str, float] = {}
    modes = [stage for stage in stages if stage not in ("pretrain", "plain")]
    aligned = stages.get("pretrain")
    if aligned is not None and aligned.steps > 1:
        by_step = aligned.seconds - (0.0 if aligned.trains else aligned.reading_seconds)
        saved[f"--pretrain_steps={aligned.steps // 2}"] = by_step / 2
        if aligned.trains:
            saved["--frozen_layers=all"] = aligned.reading_seconds * _BACKWARD
    if any(stages[mode].trains for mode in modes):
        reading = sum(stages[mode].reading_seconds for mode in modes if stages[mode].trains)
        saved["--freeze_language_model=true"] = reading * _BACKWARD
    if len(modes) > 1:
        kept = "ctr" if "ctr" in modes else modes[0]
        others = [stages[mode] for mode in modes if mode != kept]
        saved[f"--finetune_modes=[{kept}]"] = sum(stage.seconds + stage.other_seconds for stage in others)
    finetuning = [stage for name, stage in stages.items() if name != "pretrain"]
    if (config["train_share"] or 1) > 0.1:
        by_row = sum(stage.seconds - (0.0 if stage.trains else stage.reading_seconds) for stage in finetuning)
        saved[f"--train_share={(config['train_share'] or 1) / 2:g}"] = by_row / 2
    if reading := sum(stage.reading_seconds for stage in stages.values()):
        in_32_bits = config["device"].type == "cpu" and config["precision"] == "fp32"
        if in_32_bits and config["encoder_runtime"] == "torch" and not any(stage.trains for stage in stages.values()):
            saved["--encoder_runtime=onnx"] = reading * _BY_ONNX
        layers = config["language_model_layers"] or load_config(config["language_model"]).num_hidden_layers
        if layers > 1:
            saved[f"--language_model_layers={layers // 2}"] = reading * (1 - layers // 2 / layers)
    least = _WORTH * sum(stage.seconds + stage.other_seconds for stage in stages.values())
    best = sorted((keys for keys, seconds in saved.items() if seconds > least), key=lambda keys: -saved[keys])
    return {keys: saved[keys] for keys in best[:_MOST]}
