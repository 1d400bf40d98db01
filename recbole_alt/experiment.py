"""One run: alignment, each finetuning mode and the plain backbone, all on one split, resumable by stage and step."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from logging import getLogger
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from recbole.utils import get_local_time, get_model
from torch.utils.tensorboard import SummaryWriter

from recbole_alt import processes
from recbole_alt.config import ALTConfig
from recbole_alt.data.identity import IDENTITY_KEY, record_of, require_same_data
from recbole_alt.data.steps import training_loader
from recbole_alt.files import clear, lock, new_folder, read_record, write_record
from recbole_alt.keys import FREE
from recbole_alt.loading import Data, load_data
from recbole_alt.memory import PeakMemory
from recbole_alt.model.build import build_alignment
from recbole_alt.model.machine import settle_machine
from recbole_alt.run_folder import EXTENSION, MACHINE, StageResult, find_folder, read_stage, require_equal
from recbole_alt.scores import slice_metrics
from recbole_alt.sizes import SETTLED as SIZES
from recbole_alt.sizes import settle_sizes
from recbole_alt.stages import stage_config
from recbole_alt.statistics import reliability
from recbole_alt.trackers import StageWriter, Trackers, check_trackers
from recbole_alt.trainer.finetune import ALTTrainer
from recbole_alt.trainer.pretrain import ALTPretrainTrainer
from recbole_alt.trainer.start import load_aligned, seed_stage, start_afresh, start_from_aligned

#: The key, in the record of a run's configuration, of the number of processes, if there are several.
PROCESSES = "processes"


class Experiment:
    """The stages of a run, each of which is skipped when ``resume`` finds it finished.

    The folder belongs to this object until :meth:`close`, or the end of a ``with`` block. Of several processes, each
    has such an object, and the first one's makes the folder and writes into it.

    Args:
        config: an ``ALTConfig`` (or RecBole's ``Config`` for an ``ALT_`` model).
        data: what :func:`load_data` made of an equal configuration, so as not to read it again.
        folder: begin or go on in this folder, whatever ``resume`` says; the caller answers for the configuration
            being the one that the folder was begun with, and for nobody else being at work there.

    Attributes:
        folder: checkpoints, one JSON per stage, ``result.json``.
        processes: how many work on it.
        stages: results by stage: ``pretrain``, ``ctr``, ``lm``, ``joint``, ``plain``.

    Raises:
        ValueError: ``resume`` names no run, one with another configuration or other data, or one that is still at work;
            a tracker is asked for that is not installed.
    """

    def __init__(self, config: Any, data: Data | None = None, folder: Path | None = None):
        check_trackers(config)
        self.config = config
        self.logger = getLogger()
        self.model_class = get_model(config["model"])
        self.stages: dict[str, StageResult] = {}
        self.processes = processes.count()
        self.dataset, self.train_data, self.valid_data, self.test_data = data or load_data(config)
        settle_sizes(config, len(self.train_data._dataset))  # where the data were loaded for another configuration
        self._go_on = bool(config["resume"]) or folder is not None
        self._lock: FileLock | None = None
        self.folder = processes.from_first(self._open_folder) if folder is None else folder
        if processes.count() > 1:
            settle_machine(config, self.folder / MACHINE)  # as the first has found
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            if (file := folder / "config.json").is_file():
                require_same_data(read_record(file), self.train_data._dataset, file=file)
            settle_machine(config, folder / MACHINE)
            self._write_configuration(folder)
        if processes.is_first():
            clear(self.folder)
        name = self.folder.name if folder is None else f"{Path(config['checkpoint_dir']).name}/{folder.name}"
        self.trackers = Trackers(config, self.folder, name, self._values())

    def __enter__(self) -> Experiment:
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        self.close(error)

    def close(self, error: type[BaseException] | None = None) -> None:
        """Leave the folder to other processes, and end the run in trackers, as failed if an ``error`` is the reason."""
        self.trackers.close(error)
        if self._lock is not None:
            self._lock.release()

    @property
    def pretrained_file(self) -> Path:
        """The checkpoint of the aligned towers."""
        given = self.config["pretrained_checkpoint"]
        return Path(given) if given else self.folder / "pretrain.pth"

    def pretrain(self) -> None:
        """Stage 1, unless ``pretrained_checkpoint`` brings its result."""
        if self.config["pretrained_checkpoint"] or self._finished("pretrain"):
            return
        seed_stage(self.config)
        memory, dataset = PeakMemory(self.config["device"]), self.train_data._dataset
        model = build_alignment(self.config, dataset, self.model_class.backbone_class)
        self.logger.info(f"Texts of the first training row: {dataset.prompts.texts(dataset[:1])[0]}")
        trainer = ALTPretrainTrainer(self.config, model, dataset, self.pretrained_file)
        trainer.tensorboard = self._writer(trainer, "pretrain")
        if self._go_on and self.pretrained_file.is_file():
            trainer.resume()
        summary = trainer.fit(show_progress=bool(self.config["show_progress"]))
        seconds, texts, curves = (summary.pop(name) for name in ("seconds", "texts_encoded", "curves"))
        self._finish("pretrain", StageResult(seconds, texts, memory.mib(), details=summary, curves=curves))
        trainer.tensorboard.close()

    def example_texts(self) -> list[dict[str, str]]:
        """The texts of the first, the middle and the last training row by segment, as the language model reads them."""
        train = self.train_data._dataset
        rows = train[np.unique([0, len(train) // 2, len(train) - 1])]
        names = [segment.name for segment in train.prompts.segments]
        return [dict(zip(names, texts, strict=True)) for texts in train.prompts.texts(rows)]

    def finetune(self, stage: str) -> None:
        """Stage 2 in mode ``stage``; ``plain`` is the backbone alone, from RecBole's own initialisation."""
        if self._finished(stage):
            return
        config = stage_config(self.config, stage)
        config["log_wandb"] = False  # by RecBole's trainer, which would log all modes as one
        seed_stage(self.config)
        memory, dataset = PeakMemory(config["device"]), self.train_data._dataset
        model = self.model_class(config, dataset).to(config["device"])
        trainer = ALTTrainer(config, model)
        if stage == "plain":
            start_afresh(trainer, dataset)
        else:
            start_from_aligned(trainer, load_aligned(config, self.pretrained_file, dataset), dataset)
        trainer.tensorboard = self._writer(trainer, stage)
        trainer.saved_model_file = str(self.folder / f"{stage}.pth")
        if self._go_on and trainer.last_file.is_file():
            trainer.resume_checkpoint(trainer.last_file)
        progress = bool(config["show_progress"])
        loader = training_loader(config, self.train_data, encodes_texts=model.encodes_texts)
        _, valid = trainer.fit(loader, self.valid_data, show_progress=progress)
        texts, peak = int(processes.total(model.texts_encoded)), memory.mib()
        test = self._test(trainer, stage, progress)
        details = {"epochs": len(trainer.train_loss_dict)}
        if stage == "joint":
            details["alpha"] = model.alpha.item()
        scores, curves = trainer.scores, {"loss": _mean_losses(trainer, loader), "valid": trainer.valid_scores}
        slices = {"valid": trainer.valid_slices, "test": slice_metrics(scores) if scores else {}}
        slices = {part: found for part, found in slices.items() if found}
        calibration = reliability(scores.label, scores.score) if scores else {}
        reached = (_floats(valid), test, details, slices, curves, calibration)
        self._finish(stage, StageResult(trainer.seconds, texts, peak, *reached))
        trainer.tensorboard.close()
        if self.test_data is not None and processes.is_first():  # else whoever brings it goes on here
            trainer.last_file.unlink(missing_ok=True)

    def _test(self, trainer: ALTTrainer, stage: str, progress: bool) -> dict[str, float]:
        """Score the test set with the epoch that validation chose."""
        return _floats(trainer.evaluate(self.test_data, show_progress=progress))

    def _open_folder(self) -> Path:
        root, name = Path(self.config["checkpoint_dir"]), f"{self.config['model']}-{self.config['dataset']}"
        resume = self.config["resume"]
        if not resume:
            folder = new_folder(root / f"{name}-{get_local_time()}")
            self._lock = lock(folder)
            settle_machine(self.config, folder / MACHINE)
            self._write_configuration(folder)
            return folder
        folder = find_folder(str(resume), root, name, "config.json")
        if (folder / EXTENSION).is_file():
            raise ValueError(
                f"resume: {str(folder)!r} was made by extending a finished run: nothing is left to be trained"
            )
        self._lock = lock(folder)
        settle_machine(self.config, folder / MACHINE)
        file, free = folder / "config.json", FREE | {IDENTITY_KEY}
        before = {PROCESSES: 1} | read_record(file)
        now = json.loads(json.dumps({PROCESSES: 1} | self._values()))
        for left_out in (free.union(SIZES), free):  # sizes follow from the data, which may be the cause
            kept, given = ({key: value for key, value in one.items() if key not in left_out} for one in (before, now))
            require_equal("resume", folder, kept, given, "or start a new run without --resume")
            require_same_data(before, self.train_data._dataset, file=file, what="resume")
        return folder

    def _values(self) -> dict[str, Any]:
        values: dict[str, Any] = ALTConfig.snapshot(self.config).__getstate__()["values"]
        return values if self.processes == 1 else values | {PROCESSES: self.processes}

    def _write_configuration(self, folder: Path) -> None:
        write_record(folder / "config.json", self._values() | record_of(self.train_data._dataset))

    def _finished(self, stage: str) -> bool:
        file = self.folder / f"{stage}.json"
        if not (self._go_on and file.is_file()):
            return False
        self.stages[stage] = read_stage(file)
        self.logger.info(f"{stage}: finished before, kept")
        return True

    def _finish(self, stage: str, result: StageResult) -> None:
        self.stages[stage] = result
        processes.wait()  # until its checkpoint is there
        if not processes.is_first():
            return
        self._track_totals(stage, result)
        write_record(self.folder / f"{stage}.json", asdict(result))
        if result.valid:
            self.logger.info(f"{stage}: best valid : {result.valid}")
            self.logger.info(f"{stage}: test result: {result.test}")

    def _writer(self, trainer: Any, stage: str) -> Any:
        """Of the curves of ``stage``: trackers and a TensorBoard folder of its own; none but in the first process."""
        if not processes.is_first():
            return trainer.tensorboard
        trainer.tensorboard.close()  # RecBole's, which would hold its file and thread as long as the process lives
        self.trackers.begin(stage)
        return StageWriter(SummaryWriter(str(Path(trainer.tensorboard.log_dir) / stage)), self.trackers, stage)

    def _track_totals(self, stage: str, result: StageResult) -> None:
        """Give the trackers what ``stage`` cost and reached, at its last step or epoch."""
        last = result.details["steps" if stage == "pretrain" else "epochs"]
        parts = {"best_valid": result.valid, "test": result.test}
        totals = {f"{part}/{name}": value for part, metrics in parts.items() for name, value in metrics.items()}
        costs = {"seconds": result.seconds, "texts_encoded": result.texts_encoded}
        for name, value in (totals | costs).items():
            self.trackers.add(stage, name, value, last)
        self.trackers.flush()


def _mean_losses(trainer: ALTTrainer, loader: Any) -> list[list[float]]:
    """The epochs, counted from 1, and the mean loss of their steps."""
    sums = ((epoch, sum(loss) if isinstance(loss, tuple) else loss) for epoch, loss in trainer.train_loss_dict.items())
    return [[epoch + 1, float(total) / len(loader)] for epoch, total in sums]


def _floats(metrics: Mapping[str, float] | None) -> dict[str, float]:
    """Without those that are undefined, as the AUC of one label alone."""
    return {name: float(value) for name, value in (metrics or {}).items() if value == value}
