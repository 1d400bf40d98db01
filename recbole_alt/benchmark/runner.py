"""Runs a campaign: one training at a time, each kept when it ends, data and alignments shared."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from time import monotonic, time
from typing import Any, ClassVar

from recbole.utils import EvaluatorType

from recbole_alt import checkpoints
from recbole_alt.benchmark.axes import Run
from recbole_alt.benchmark.choice import Trial, best_of, keep_the_best
from recbole_alt.benchmark.plan import Campaign
from recbole_alt.benchmark.progress import Remaining, announce, outcome
from recbole_alt.benchmark.scores import metrics, score_rows
from recbole_alt.config import ALTConfig
from recbole_alt.experiment import Experiment
from recbole_alt.files import read_record, write_record
from recbole_alt.keys import FREE, NOT_OF_ALIGNMENT
from recbole_alt.model.precision import kept_precision
from recbole_alt.model.weights import load_finetuned
from recbole_alt.report import result_record
from recbole_alt.trainer.diverged import Diverged
from recbole_alt.trainer.finetune import ALTTrainer
from recbole_alt.tuning.objective import Objective
from recbole_alt.tuning.trials import digest, logger


class ScoredExperiment(Experiment):
    """An experiment that keeps the score of every test row, or leaves the test set alone."""

    def _test(self, trainer: ALTTrainer, stage: str, progress: bool) -> dict[str, float]:
        if self.test_data is None:  # a trial: nothing but validation may choose
            return {}
        file = trainer.saved_model_file
        load_finetuned(trainer.model, checkpoints.load(file, self.config["device"]), file)
        scores = score_rows(trainer.model, self.test_data, self.train_data._dataset, self.config["device"])
        scores.save(self.folder / "scores.npz")
        return {name: value for name, value in metrics(scores).items() if value is not None}


class Runner(Objective):
    """The trainings of a campaign, in one folder.

    Args:
        folder: of the campaign.
        campaign: what to run.
        command: as given, for the records.
    """

    not_of_data: ClassVar[set[str]] = Objective.not_of_data | {"seed"}  # the split has a seed of its own

    def __init__(self, folder: Path, campaign: Campaign, command: Sequence[str]):
        super().__init__(folder, "campaign")
        self.campaign, self.command = campaign, list(command)
        self.remaining = Remaining(self._alignment_name)
        self._choices: dict[Run, dict[str, Any]] = {}
        self._names: dict[tuple[Run, str], str] = {}
        self._alignment_names: dict[Run, str] = {}
        self._trials: dict[Run, list[Trial]] = {}

    def go(self) -> None:
        """Make every run that is missing."""
        runs = self.campaign.runs()
        for tuning in dict.fromkeys(map(self.campaign.tuning_of, runs)):
            for trial in self.trials_of(tuning):
                for run, file in trial.files.items():
                    self.remaining.add(("trial", run, str(trial.parameters)), self._measured(file))
        for run in runs:
            made = self._run_file(run)
            self.remaining.add(("run", run, ""), self._measured(made) if made else None, self._is_trained(run))
        for line in announce(self.campaign, self.remaining):
            logger.info(line)
        for number, run in enumerate(runs, 1):
            self._tune(self.campaign.tuning_of(run))
            self._run(run, f"run {number} of {len(runs)}")
            rest = runs[number:]
            for tuning in {self.campaign.tuning_of(r) for r in rest if self.choice(r) is None}:
                rest += self.campaign.trained_to_tune(tuning)
            needed = {self._alignment_name(r) for r in rest if r.stage != "plain"}
            if run.stage != "plain" and self._alignment_name(run) not in needed:  # what it cost stays
                (self.folder / "pretraining" / self._alignment_name(run) / "pretrain.pth").unlink(missing_ok=True)

    # -- tuning ------------------------------------------------------------------------------------------

    def trials_of(self, tuning: Run) -> list[Trial]:
        """What to try; nothing where nothing is tuned."""
        if self.campaign.params_file == "none":
            return []
        if tuning not in self._trials:
            runs = self.campaign.trained_to_tune(tuning)
            self._trials[tuning] = [
                Trial(tried, {run: self.folder / "trials" / f"{self._name(run, tried)}.json" for run in runs})
                for tried in self.campaign.trials(tuning)
            ]
        return self._trials[tuning]

    def choice(self, run: Run) -> dict[str, Any] | None:
        """The parameters that validation chose for ``run``; None while trials are missing.

        Raises:
            ValueError: every trial diverged.
        """
        tuning = self.campaign.tuning_of(run)
        if tuning not in self._choices:
            trials = self.trials_of(tuning)
            if not all(trial.is_over for trial in trials):
                return None
            best = best_of(trials)
            if trials and best is None:
                raise ValueError(f"{tuning.slug}: every trial diverged; change {self.campaign.params_file}")
            self._choices[tuning] = best.parameters if best else {}
        return self._choices[tuning]

    def _tune(self, tuning: Run) -> None:
        trials = self.trials_of(tuning)
        for number, trial in enumerate(trials, 1):
            said = ", ".join(f"{name}={value}" for name, value in trial.parameters.items())
            for run, file in trial.files.items():
                if not file.is_file():
                    record = self._train_one(run, trial.parameters, file.with_suffix(""), tested=False)
                    write_record(file, {"parameters": trial.parameters, **record})
                    self.remaining.end(("trial", run, str(trial.parameters)), record)
                    where = f"trial {number} of {len(trials)} for {run.slug}: {said}"
                    logger.info(f"{where}: {outcome(record)}; {self.remaining}")
            keep_the_best(trials[:number])

    # -- runs --------------------------------------------------------------------------------------------

    def _run(self, run: Run, said: str) -> None:
        file = self._run_file(run)
        assert file is not None
        if file.is_file():
            return
        parameters, trained = self.choice(run) or {}, self._take_over_trial(run, file.parent)
        record = self._train_one(run, parameters, file.parent, tested=True)
        for rest in file.parent.glob("*.pth"):
            rest.unlink()
        whole = {"wall": trained["wall"] + record["wall"], "costs": trained["costs"]} if trained else {}
        write_record(file, {"parameters": parameters, **record, **whole})
        self.remaining.end(("run", run, ""), record)
        logger.info(f"{said}, {run.slug}: {outcome(record)}; {self.remaining}")

    def _take_over_trial(self, run: Run, folder: Path) -> dict[str, Any] | None:
        """Where ``run`` is of the trial that won, its training is over and only the test is missing: its record."""
        trial = self.folder / "trials" / folder.name
        if trial.is_dir():
            (trial / f"{run.stage}.json").unlink(missing_ok=True)  # says that all is done
            folder.parent.mkdir(exist_ok=True)
            os.replace(trial, folder)
        record = self._measured(trial.with_name(f"{trial.name}.json"))
        return record if (folder / f"{run.stage}-last.pth").is_file() else None

    def _is_trained(self, run: Run) -> bool:
        """Whether ``run`` is a training of its own and not of the trial that won."""
        tuned = self.campaign.trained_to_tune(self.campaign.tuning_of(run))
        if run not in tuned or self.campaign.params_file == "none":
            return True
        made = self._run_file(run)
        return made is not None and not (self.folder / "trials" / made.parent.name).is_dir()

    def _run_file(self, run: Run) -> Path | None:
        """Where the record of ``run`` is or will be; None as long as its parameters are not chosen."""
        parameters = self.choice(run)
        return None if parameters is None else self.folder / "runs" / self._name(run, parameters) / "run.json"

    def _name(self, run: Run, parameters: Mapping[str, Any]) -> str:
        key = (run, json.dumps(parameters, sort_keys=True))
        if key not in self._names:
            self._names[key] = f"{run.slug}-{digest(self.campaign.config(run, parameters), FREE)}"
        return self._names[key]

    def _train_one(self, run: Run, parameters: Mapping[str, Any], folder: Path, tested: bool) -> dict[str, Any]:
        begun, config = monotonic(), self.campaign.config(run, parameters)
        metric = config["valid_metric"].lower()
        self._settle(config, run)
        folder.mkdir(parents=True, exist_ok=True)
        data = self._data(config)
        experiment = ScoredExperiment(config, data if tested else (*data[:3], None), folder)
        aligned, error = 0.0, None
        try:
            if run.stage != "plain":
                aligned = self._align(config, data, folder / "pretrain.pth")
                config["pretrained_checkpoint"] = str(folder / "pretrain.pth")
            experiment.finetune(run.stage)
        except Diverged as problem:
            error = str(problem)  # a result, too
        config["pretrained_checkpoint"] = None
        stage = experiment.stages.get(run.stage)
        spent = self._spent(self._alignment_name(run)) if run.stage != "plain" and stage else {}
        record = result_record(config, experiment.stages, experiment.dataset.left_out)
        return {
            "run": asdict(run) | {"data": run.data.label},
            "tuned_alone": run.variant in self.campaign.tuned_alone,
            "tuning_seeds": self.campaign.tuning_seeds if self.campaign.grid else 0,
            "score": stage.valid[metric] if stage else None,
            "bigger": bool(config["valid_metric_bigger"]),
            "valid": stage.valid if stage else {},
            "test": stage.test if stage else {},
            "error": error,
            "rows": {name: len(part._dataset) for name, part in zip(("train", "valid", "test"), data[1:], strict=True)},
            "costs": {
                "seconds": stage.seconds if stage else None,
                "texts_encoded": stage.texts_encoded if stage else None,
                "peak_memory_mib": stage.peak_memory_mib if stage else None,
                **{f"alignment_{name}": value for name, value in spent.items()},
            },
            "details": stage.details if stage else {},
            "configuration": record["configuration"],
            "versions": record["versions"],
            "command": self.command,
            "wall": monotonic() - begun - aligned,
            "aligned": aligned,
            "ended": time(),
        }

    def _settle(self, config: ALTConfig, run: Run) -> None:
        if config["eval_type"] == EvaluatorType.RANKING:
            raise ValueError(f"{run.data.label}: its evaluation ranks sampled items; give labels, as mode: labeled")
        if config["precision"] == "auto":
            config["precision"] = kept_precision(self.folder / "precision.json", config["device"])
        config["checkpoint_dir"] = str(self.folder)  # where RecBole's trainers would make one of their own
        config["show_progress"] = bool(config.external_config_dict.get("show_progress"))

    # -- alignments --------------------------------------------------------------------------------------

    def _spent(self, name: str) -> dict[str, Any]:
        stage = read_record(self.folder / "pretraining" / name / "pretrain.json")
        details = stage["details"]
        return {
            "seconds": stage["seconds"],
            "texts_encoded": stage["texts_encoded"],
            "peak_memory_mib": stage.get("peak_memory_mib"),  # older campaigns lack it
            "steps": details["steps"],
            "interactions_seen": details["interactions_seen"],
        }

    def _alignment_name(self, run: Run) -> str:
        """The folder of the alignment that ``run`` starts from; runs that differ in stage 2 alone share one."""
        if run.alignment not in self._alignment_names:
            config = self.campaign.config(run, {})
            self._settle(config, run)
            self._alignment_names[run.alignment] = digest(config, NOT_OF_ALIGNMENT)
        return self._alignment_names[run.alignment]

    @staticmethod
    def _measured(file: Path) -> dict[str, Any] | None:
        return read_record(file) if file.is_file() else None
