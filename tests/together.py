"""What several processes and a single one are compared by: the losses of each step, and the scores at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from recbole.utils import get_model

from recbole_alt import processes
from recbole_alt.data.steps import training_loader
from recbole_alt.launch import joined
from recbole_alt.loading import load_data
from recbole_alt.model.build import build_alignment
from recbole_alt.registry import make_config
from recbole_alt.stages import stage_config
from recbole_alt.trainer.finetune import ALTTrainer
from recbole_alt.trainer.pretrain import ALTPretrainTrainer
from recbole_alt.trainer.start import load_aligned, seed_stage, start_afresh, start_from_aligned


def learn(model: str, keys: dict[str, Any], stages: list[str], start: str = "") -> dict[str, dict[str, list[float]]]:
    """Stage → losses by step, metrics, …, all without dropout.

    Finetuning begins with the alignment in the folder ``start``, by default the one of this call. A parameter without
    influence on the loss of the alignment, such as a bias before a normalisation, is moved by rounding; so what follows
    an alignment is compared after the same one.
    """
    config = make_config(model, "tiny", None, keys)
    with joined(config):
        _, train, valid, test = load_data(config)
        file = Path(config["checkpoint_dir"]) / "pretrain.pth"
        return {
            stage: _align(config, train._dataset, file)
            if stage == "pretrain"
            else _finetune(config, stage, (train, valid, test), Path(start, file.name) if start else file)
            for stage in stages
        }


def _align(config: Any, dataset: Any, file: Path) -> dict[str, list[float]]:
    seed_stage(config)
    model = _without_dropout(build_alignment(config, dataset, get_model(config["model"]).backbone_class))
    trainer = ALTPretrainTrainer(config, model, dataset, file)
    steps: list[dict[str, float]] = []
    read = trainer._read_measured

    def keep() -> None:
        new = trainer._measured is not None
        read()
        steps.extend(trainer.recent[-1:] if new else [])

    trainer._read_measured = keep  # type: ignore[method-assign]
    summary = trainer.fit(show_progress=False)
    found = {name: [step[name] for step in steps] for name in steps[0]}
    return found | {"held_out": summary["held_out_losses"], "steps": [summary["steps"]]}


def _finetune(config: Any, stage: str, data: Any, file: Path) -> dict[str, list[float]]:
    config = stage_config(config, stage)
    train, valid, test = data
    seed_stage(config)
    model = _without_dropout(get_model(config["model"])(config, train._dataset).to(config["device"]))
    trainer = ALTTrainer(config, model)
    if stage == "plain":
        start_afresh(trainer, train._dataset)
    else:
        start_from_aligned(trainer, load_aligned(config, file, train._dataset), train._dataset)
    trainer.saved_model_file = str(Path(config["checkpoint_dir"], f"{stage}.pth"))
    losses: list[float] = []
    make_step = trainer._train_step

    def keep(*given: Any) -> Any:
        parts = make_step(*given)
        losses.append(sum(part.item() for part in (parts if isinstance(parts, tuple) else (parts,))))
        return parts

    trainer._train_step = keep  # type: ignore[method-assign]
    _, reached = trainer.fit(training_loader(config, train, encodes_texts=model.encodes_texts), valid)
    metrics = trainer.evaluate(test)
    assert reached is not None and metrics is not None and trainer.scores is not None
    found = {"losses": losses, "rows": trainer.scores.label.tolist(), "valid": list(reached.values())}
    return found | {"test": [float(value) for value in metrics.values()]}


def _without_dropout(model: Any) -> Any:
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


def differences(one: Any, other: Any) -> dict[str, float]:
    """The largest relative difference of each list of numbers; not of those where both have no number."""
    found = {}
    for stage, lists in one.items():
        for name, values in lists.items():
            a, b = np.array(values), np.array(other[stage][name])
            assert a.shape == b.shape, f"{stage} {name}: {a.shape} and {b.shape}"
            assert np.array_equal(np.isnan(a), np.isnan(b)), f"{stage} {name}: NaN"
            found[f"{stage} {name}"] = float(np.nanmax(np.abs(a - b) / np.maximum(np.abs(a), 1e-2), initial=0))
    return found


class _Stopped(Exception):
    """Stands for what stops a run."""


def resume(model: str, keys: dict[str, Any], stage: str, stop: int) -> float:
    """The largest difference of a weight between a stage left alone and one stopped before step ``stop``."""
    config = make_config(model, "tiny", None, keys)
    with joined(config):
        _, train, valid, _ = load_data(config)
        folder = Path(config["checkpoint_dir"])

        def make(name: str) -> Any:
            seed_stage(config)
            if stage == "pretrain":
                aligned = build_alignment(config, train._dataset, get_model(config["model"]).backbone_class)
                return ALTPretrainTrainer(config, aligned, train._dataset, folder / f"{name}.pth")
            own = stage_config(config, stage)
            model = get_model(config["model"])(own, train._dataset)
            trainer = ALTTrainer(own, model)
            trainer.saved_model_file = str(folder / f"{name}.pth")
            return trainer

        def fit(trainer: Any) -> Any:
            loaders = (training_loader(config, train, encodes_texts=False), valid) if stage != "pretrain" else ()
            trainer.fit(*loaders, show_progress=False)
            return trainer

        whole, broken = fit(make("whole")), make("broken")
        made, make_step = 0, broken._train_step

        def step(*given: Any) -> Any:
            nonlocal made
            made += 1
            if made > stop:
                raise _Stopped
            return make_step(*given)

        broken._train_step = step
        try:
            fit(broken)
        except _Stopped:
            if stage == "pretrain":
                broken.save()
        processes.wait()
        again = make("broken")
        again.resume() if stage == "pretrain" else again.resume_checkpoint(again.last_file)
        fit(again)
        pairs = zip(whole.model.state_dict().values(), again.model.state_dict().values(), strict=True)
        return max(float((a.double() - b.double()).abs().max()) for a, b in pairs)
