"""A campaign: one training at a time, each kept when it ends, on shared data and alignments; and its report."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from time import time
from typing import Any

from filelock import FileLock, Timeout
from recbole.utils import EvaluatorType, init_logger

from recbole_alt.experiment import StageResult, read_stage
from recbole_alt.files import check_folder, read_record, write_record
from recbole_alt.keys import FREE, NOT_OF_ALIGNMENT
from recbole_alt.report import result_record
from recbole_alt.stopping import going_on
from recbole_alt.study.axes import Run
from recbole_alt.study.choice import Trial, best_trial, drop_losers
from recbole_alt.study.plan import AXES, Campaign
from recbole_alt.study.progress import Remaining, logger, quiet, show, show_outcome
from recbole_alt.study.report import write_report
from recbole_alt.study.scores import ScoredExperiment
from recbole_alt.study.store import Store, digest, require_equal

#: What must be as before when a campaign goes on; the other axes may grow.
_FIXED = ("params_file", "tuning_trials", "tuning_seeds", "keys", "grid", "seeds")


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
        before, after = ({key: kept[key] for key in _FIXED} for kept in (read_record(file), now))
        for kept in (before, after):
            kept["seeds"] = kept["seeds"][: campaign.tuning_seeds]  # those that choose
        require_equal("out", folder, before, after, "or another folder; the axes may grow")
    write_record(file, now)


class Comparison:
    """The trainings of a campaign.

    Args:
        folder, campaign, command: As for :func:`run_campaign`.
    """

    def __init__(self, folder: Path, campaign: Campaign, command: Sequence[str] = ()):
        self.folder, self.campaign, self.command = folder, campaign, list(command)
        self.store = Store(folder, one_split=True)
        self.alignment_of = cache(self._name_alignment)
        self.remaining = Remaining(self.alignment_of)
        self._trials: dict[Run, list[Trial]] = {}
        self._choices: dict[Run, dict[str, Any]] = {}

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
                self.store.drop_alignments({self.alignment_of(r) for r in rest if r.stage != "plain"})

    def _plan(self, runs: Sequence[Run]) -> None:
        for tuning in dict.fromkeys(map(self.campaign.tuning_of, runs)):
            for trial in self.trials_of(tuning):
                for run, file in trial.files.items():
                    self.remaining.add(("trial", run, show(trial.parameters)), _read(file))
        for run in runs:
            made = self._run_file(run)
            won = made is not None and self._folder("trials", made.parent.name).is_dir()
            tuned = run in self.campaign.trained_to_tune(self.campaign.tuning_of(run)) and self.campaign.grid
            is_trial = tuned and (made is None or won)  # then its training is the trial's
            self.remaining.add(("run", run, ""), _read(made) if made else None, trained=not is_trial)

    def _announce(self) -> Iterator[str]:
        """The plan, line by line."""
        for name in AXES:
            values = [d.label for d in self.campaign.datasets] if name == "datasets" else getattr(self.campaign, name)
            if (name not in _FIXED or name == "seeds") and values and values not in ([None], [1.0]):
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
            runs, tried = self.campaign.trained_to_tune(tuning), self.campaign.trials(tuning)
            self._trials[tuning] = [
                Trial(parameters, {run: _beside(self._folder("trials", run, parameters)) for run in runs})
                for parameters in (tried if self.campaign.grid else [])
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
                    said = show(trial.parameters)
                    self.remaining.end(("trial", run, said), record)
                    where = f"trial {number} of {len(trials)} for {run.slug}: {said}"
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
        self.remaining.end(("run", run, ""), record)
        logger.info(f"{said}, {run.slug}: {show_outcome(record)}; {self.remaining}")

    def _take_over_trial(self, run: Run, folder: Path) -> dict[str, Any] | None:
        """The record of the trial that won if ``run`` is its training, of which only the test is missing."""
        trial = self._folder("trials", folder.name)
        if trial.is_dir():
            (trial / f"{run.stage}.json").unlink(missing_ok=True)  # says that all is done
            folder.parent.mkdir(exist_ok=True)
            os.replace(trial, folder)
        record = _read(_beside(trial))
        return record if (folder / f"{run.stage}-last.pth").is_file() else None

    def _train(self, run: Run, parameters: Mapping[str, Any], folder: Path, test: bool) -> dict[str, Any]:
        """Train, and make the record."""
        config = self.campaign.config(run, parameters)
        if config["eval_type"] == EvaluatorType.RANKING:
            raise ValueError(f"{run.data.label}: its evaluation ranks sampled items; give labels, as mode: labeled")
        training = self.store.train(config, run.stage, folder, test, ScoredExperiment)
        experiment, result = training.experiment, training.result
        whole = result_record(config, experiment.stages, experiment.dataset.left_out)
        parts = zip(("train", "valid", "test"), self.store.load(config)[1:], strict=True)
        costs = _costs(result)
        if training.alignment and result:
            aligned = read_stage(self.store.alignment_folder(training.alignment) / "pretrain.json")
            spent = _costs(aligned) | {key: aligned.details[key] for key in ("steps", "interactions_seen")}
            costs |= {f"alignment_{key}": value for key, value in spent.items()}
        return {
            "parameters": parameters,
            "run": asdict(run) | {"data": run.data.label},
            "tuned_alone": run.variant in self.campaign.tuned_alone,
            "tuning_seeds": self.campaign.tuning_seeds if self.campaign.grid else 0,
            **training.record(),
            "rows": {name: len(loader._dataset) for name, loader in parts},
            "costs": costs,
            "details": result.details if result else {},
            "configuration": whole["configuration"],
            "versions": whole["versions"],
            "command": self.command,
            "ended": time(),
        }

    # -- names -------------------------------------------------------------------------------------------

    def _folder(self, kind: str, run: Run | str, parameters: Mapping[str, Any] | None = None) -> Path:
        """The folder of a run or trial by its name, or by its configuration, after which it is named."""
        if isinstance(run, Run):
            run = f"{run.slug}-{digest(self.campaign.config(run, parameters or {}), FREE)}"
        return self.folder / kind / run

    def _run_file(self, run: Run) -> Path | None:
        """Where the record of ``run`` is or will be; None as long as its parameters are not chosen."""
        parameters = self.choice(run)
        return None if parameters is None else self._folder("runs", run, parameters) / "run.json"

    def _name_alignment(self, run: Run) -> str:
        """The name of the alignment that ``run`` starts from; runs that differ only in stage 2 share one."""
        config = self.campaign.config(run, {})
        self.store.settle(config)
        return digest(config, NOT_OF_ALIGNMENT)


def _costs(result: StageResult | None) -> dict[str, Any]:
    return {name: getattr(result, name, None) for name in ("seconds", "texts_encoded", "peak_memory_mib")}


def _beside(folder: Path) -> Path:
    """The record of a trial; names of folders may have dots."""
    return folder.with_name(f"{folder.name}.json")


def _read(file: Path) -> dict[str, Any] | None:
    return read_record(file) if file.is_file() else None
