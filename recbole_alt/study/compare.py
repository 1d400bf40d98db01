"""A campaign: one training at a time, each kept when it ends, on shared data and alignments; and its report."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from time import time
from typing import Any

from filelock import FileLock, Timeout
from recbole.utils import EvaluatorType, init_logger

from recbole_alt import checkpoints
from recbole_alt.benchmark.report import write_report
from recbole_alt.benchmark.scores import metrics, score_rows
from recbole_alt.experiment import Experiment, read_stage
from recbole_alt.files import check_folder, read_record, write_record
from recbole_alt.keys import FREE, NOT_OF_ALIGNMENT
from recbole_alt.model.weights import load_finetuned
from recbole_alt.report import result_record
from recbole_alt.stopping import going_on
from recbole_alt.study.axes import Run
from recbole_alt.study.plan import AXES, Campaign
from recbole_alt.study.progress import Remaining, Unit, logger, quiet, show, show_outcome
from recbole_alt.study.store import Store, best_of, digest
from recbole_alt.trainer.finetune import ALTTrainer

#: What must be as before when a campaign goes on; the other axes may grow.
_FIXED = {"params_file", "tuning_trials", "tuning_seeds", "keys", "grid", "seeds"}


def run_campaign(campaign: Campaign, folder: Path, command: Sequence[str] = ()) -> None:
    """Make the runs of ``campaign`` that ``folder`` lacks, and its report.

    Args:
        campaign: What is compared.
        folder: Of the campaign; one that exists goes on where it was.
        command: As given, for the records.

    Raises:
        ValueError: Bad configuration, data or weights; another campaign in ``folder``, or one at work there.
    """
    check_folder("out", folder)
    try:
        with FileLock(folder / "campaign.lock", timeout=0), going_on("go on with the same command"):
            configs = [campaign.config(run, {}) for run in campaign.runs() if run.seed == campaign.seeds[0]]
            _open(campaign, folder)  # every configuration is sound
            init_logger(configs[0])
            configs[0].log_notes()
            with quiet():
                comparison = Comparison(folder, campaign, command)
                comparison.make_runs()
                for file in write_report(folder):
                    logger.info(f"written: {file}")
        comparison.store.drop_locks()
    except Timeout:
        raise ValueError(f"out: a campaign is at work in {str(folder)!r}") from None


def _open(campaign: Campaign, folder: Path) -> None:
    grid = [{"name": name, "values": values} for name, values in campaign.grid.items()]
    now = json.loads(json.dumps({**campaign.to_json(), "grid": grid}))
    now["keys"] = {key: value for key, value in now["keys"].items() if key not in FREE}
    file = folder / "campaign.json"
    if file.is_file():
        before = read_record(file)
        for key in sorted(_FIXED):
            was, is_ = before[key], now[key]
            if key == "seeds":  # those that choose
                was, is_ = was[: campaign.tuning_seeds], is_[: campaign.tuning_seeds]
            if was != is_:
                raise ValueError(
                    f"out: {key} was {was!r} in {str(folder)!r} and is {is_!r} now: give the same (the axes may grow), "
                    "or another folder"
                )
    write_record(file, now)


class ScoredExperiment(Experiment):
    """An experiment that keeps the score of every test row, or leaves the test set untouched."""

    def _test(self, trainer: ALTTrainer, stage: str, progress: bool) -> dict[str, float]:
        if self.test_data is None:  # a trial: nothing but validation may choose
            return {}
        file = trainer.saved_model_file
        load_finetuned(trainer.model, checkpoints.load(file, self.config["device"]), file)
        scores = score_rows(trainer.model, self.test_data, self.train_data._dataset, self.config["device"])
        scores.save(self.folder / "scores.npz")
        return {name: value for name, value in metrics(scores).items() if value is not None}


@dataclass(frozen=True)
class Trial:
    """Parameters to try.

    Attributes:
        parameters: Key → value.
        files: The record of the training with each seed, made or to be made; its weights are in the folder beside it,
            of the same name without suffix.
    """

    parameters: dict[str, Any]
    files: dict[Run, Path]

    @property
    def is_over(self) -> bool:
        """Whether every seed has been trained."""
        return all(file.is_file() for file in self.files.values())

    def outcome(self) -> dict[str, Any]:
        """``score``, the mean over the seeds or None where one diverged, and whether ``bigger`` is better."""
        records = [read_record(file) for file in self.files.values()]
        scores = [record["score"] for record in records]
        return {"trial": self, "score": None if None in scores else fmean(scores), "bigger": records[0]["bigger"]}


def best_trial(trials: Sequence[Trial]) -> Trial | None:
    """The best of trials that are over, the first of equals; None where all diverged."""
    best = best_of([trial.outcome() for trial in trials])
    return best["trial"] if best else None


def drop_losers(trials: Sequence[Trial]) -> None:
    """Delete the weights of all trials but the best, which runs may be made of."""
    best = best_trial(trials)
    for trial in trials:
        if trial is not best:
            for file in trial.files.values():
                shutil.rmtree(file.with_suffix(""), ignore_errors=True)


class Comparison:
    """The trainings of a campaign, in one folder.

    Args:
        folder, campaign, command: As for :func:`run_campaign`.
    """

    def __init__(self, folder: Path, campaign: Campaign, command: Sequence[str] = ()):
        self.folder, self.campaign, self.command = folder, campaign, list(command)
        self.store = Store(folder, one_split=True)
        self.remaining = Remaining(self._alignment)
        self._trials: dict[Run, list[Trial]] = {}
        self._choices: dict[Run, dict[str, Any]] = {}
        self._names: dict[tuple[Run, str], str] = {}
        self._alignments: dict[Run, str] = {}

    def make_runs(self) -> None:
        """Make every run that is missing."""
        runs = self.campaign.runs()
        self._plan(runs)
        for line in self._announce():
            logger.info(line)
        for number, run in enumerate(runs, 1):
            self._tune(self.campaign.tuning_of(run))
            self._run(run, f"run {number} of {len(runs)}")
            if run.stage != "plain":
                rest = runs[number:]
                for tuning in {self.campaign.tuning_of(r) for r in rest if self.choice(r) is None}:
                    rest += self.campaign.trained_to_tune(tuning)
                self.store.drop_alignments({self._alignment(r) for r in rest if r.stage != "plain"})

    def _plan(self, runs: Sequence[Run]) -> None:
        for tuning in dict.fromkeys(map(self.campaign.tuning_of, runs)):
            for trial in self.trials_of(tuning):
                for run, file in trial.files.items():
                    self.remaining.add(Unit("trial", run, show(trial.parameters)), _read(file))
        for run in runs:
            made = self._run_file(run)
            won = made is not None and (self.folder / "trials" / made.parent.name).is_dir()
            tuned = run in self.campaign.trained_to_tune(self.campaign.tuning_of(run)) and self.campaign.grid
            is_trial = tuned and (made is None or won)  # then its training is the trial's
            self.remaining.add(Unit("run", run), _read(made) if made else None, trained=not is_trial)

    def _announce(self) -> Iterator[str]:
        """The plan, line by line."""
        for name in AXES:
            values = [d.label for d in self.campaign.datasets] if name == "datasets" else getattr(self.campaign, name)
            if name not in _FIXED - {"seeds"} and values and values not in ([None], [1.0]):
                yield f"{name}: {', '.join(map(str, values))}"
        for kind, what in (("trial", "trials of tuning"), ("run", "runs")):
            done = self.remaining.done[kind]
            yield f"{what}: {self.remaining.count(kind) + done}, of which {done} are done"
        yield f"alignments to make: {len(self.remaining.alignments())}"
        yield str(self.remaining)

    # -- tuning ------------------------------------------------------------------------------------------

    def trials_of(self, tuning: Run) -> list[Trial]:
        """What to try; nothing where nothing is tuned."""
        if tuning not in self._trials:
            runs = self.campaign.trained_to_tune(tuning)
            self._trials[tuning] = [
                Trial(tried, {run: self.folder / "trials" / f"{self._name(run, tried)}.json" for run in runs})
                for tried in (self.campaign.trials(tuning) if self.campaign.grid else [])
            ]
        return self._trials[tuning]

    def choice(self, run: Run) -> dict[str, Any] | None:
        """The parameters that validation chose for ``run``; None while trials are missing.

        Raises:
            ValueError: Every trial diverged.
        """
        tuning = self.campaign.tuning_of(run)
        if tuning not in self._choices:
            trials = self.trials_of(tuning)
            if not all(trial.is_over for trial in trials):
                return None
            best = best_trial(trials)
            if trials and best is None:
                raise ValueError(f"{tuning.slug}: every trial diverged; change {self.campaign.params_file}")
            self._choices[tuning] = best.parameters if best else {}
        return self._choices[tuning]

    def _tune(self, tuning: Run) -> None:
        trials = self.trials_of(tuning)
        for number, trial in enumerate(trials, 1):
            for run, file in trial.files.items():
                if not file.is_file():
                    record = self._train(run, trial.parameters, file.with_suffix(""), test=False)
                    write_record(file, record)
                    self.remaining.end(Unit("trial", run, show(trial.parameters)), record)
                    where = f"trial {number} of {len(trials)} for {run.slug}: {show(trial.parameters)}"
                    logger.info(f"{where}: {show_outcome(record)}; {self.remaining}")
            drop_losers(trials[:number])

    # -- runs --------------------------------------------------------------------------------------------

    def _run(self, run: Run, said: str) -> None:
        file = self._run_file(run)
        assert file is not None
        if file.is_file():
            return
        trained = self._take_over_trial(run, file.parent)
        record = self._train(run, self.choice(run) or {}, file.parent, test=True)
        for rest in file.parent.glob("*.pth"):
            rest.unlink()
        whole = {"wall": trained["wall"] + record["wall"], "costs": trained["costs"]} if trained else {}
        write_record(file, record | whole)
        self.remaining.end(Unit("run", run), record)
        logger.info(f"{said}, {run.slug}: {show_outcome(record)}; {self.remaining}")

    def _take_over_trial(self, run: Run, folder: Path) -> dict[str, Any] | None:
        """The record of the trial that won if ``run`` is its training, of which only the test is missing."""
        trial = self.folder / "trials" / folder.name
        if trial.is_dir():
            (trial / f"{run.stage}.json").unlink(missing_ok=True)  # says that all is done
            folder.parent.mkdir(exist_ok=True)
            os.replace(trial, folder)
        record = _read(trial.with_name(f"{trial.name}.json"))
        return record if (folder / f"{run.stage}-last.pth").is_file() else None

    def _train(self, run: Run, parameters: Mapping[str, Any], folder: Path, test: bool) -> dict[str, Any]:
        config = self.campaign.config(run, parameters)
        if config["eval_type"] == EvaluatorType.RANKING:
            raise ValueError(f"{run.data.label}: its evaluation ranks sampled items; give labels, as mode: labeled")
        training = self.store.train(config, run.stage, folder, test, ScoredExperiment)
        experiment, result = training.experiment, training.result
        record = result_record(config, experiment.stages, experiment.dataset.left_out)
        loaders = {"train": experiment.train_data, "valid": experiment.valid_data, "test": self.store.load(config)[3]}
        costs = {name: getattr(result, name, None) for name in ("seconds", "texts_encoded", "peak_memory_mib")}
        if training.alignment and result:
            costs |= self._alignment_costs(training.alignment)
        return {
            "parameters": parameters,
            "run": asdict(run) | {"data": run.data.label},
            "tuned_alone": run.variant in self.campaign.tuned_alone,
            "tuning_seeds": self.campaign.tuning_seeds if self.campaign.grid else 0,
            "score": result.valid[config["valid_metric"].lower()] if result else None,
            "bigger": bool(config["valid_metric_bigger"]),
            "valid": result.valid if result else {},
            "test": result.test if result else {},
            "error": training.error,
            "rows": {name: len(loader._dataset) for name, loader in loaders.items()},
            "costs": costs,
            "details": result.details if result else {},
            "configuration": record["configuration"],
            "versions": record["versions"],
            "command": self.command,
            "wall": training.wall,
            "aligned": training.alignment_seconds,
            "ended": time(),
        }

    def _alignment_costs(self, name: str) -> dict[str, Any]:
        stage = read_stage(self.store.alignment_folder(name) / "pretrain.json")
        costs = {key: getattr(stage, key) for key in ("seconds", "texts_encoded", "peak_memory_mib")}
        costs |= {key: stage.details[key] for key in ("steps", "interactions_seen")}
        return {f"alignment_{key}": value for key, value in costs.items()}

    # -- names -------------------------------------------------------------------------------------------

    def _run_file(self, run: Run) -> Path | None:
        """Where the record of ``run`` is or will be; None as long as its parameters are not chosen."""
        parameters = self.choice(run)
        return None if parameters is None else self.folder / "runs" / self._name(run, parameters) / "run.json"

    def _name(self, run: Run, parameters: Mapping[str, Any]) -> str:
        key = (run, json.dumps(parameters, sort_keys=True))
        if key not in self._names:
            self._names[key] = f"{run.slug}-{digest(self.campaign.config(run, parameters), FREE)}"
        return self._names[key]

    def _alignment(self, run: Run) -> str:
        """The name of the alignment that ``run`` starts from; runs that differ only in stage 2 share one."""
        if run.alignment not in self._alignments:
            config = self.campaign.config(run, {})
            self.store.settle(config)
            self._alignments[run.alignment] = digest(config, NOT_OF_ALIGNMENT)
        return self._alignments[run.alignment]


def _read(file: Path) -> dict[str, Any] | None:
    return read_record(file) if file.is_file() else None
