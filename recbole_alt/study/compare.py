"""A campaign: one training at a time, each kept when it ends, on shared data and alignments; and its report."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from time import time
from typing import Any

from filelock import FileLock, Timeout
from recbole.utils import EvaluatorType, init_logger

from recbole_alt.experiment import require_equal
from recbole_alt.files import check_folder, read_record, write_record
from recbole_alt.keys import FREE, NOT_OF_ALIGNMENT
from recbole_alt.result import result_record
from recbole_alt.stopping import going_on
from recbole_alt.study.axes import Run
from recbole_alt.study.plan import Campaign
from recbole_alt.study.progress import Clock, logger, quiet, show, show_outcome
from recbole_alt.study.report import write_report
from recbole_alt.study.scores import ScoredExperiment
from recbole_alt.study.store import Record, Store, Trial, best_trial, digest, drop_losers

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


#: One step of a campaign: the run that it makes or, where there is a trial, the training that tries this.
Step = tuple[Run, Trial | None]


class Comparison:
    """The trainings of a campaign, as :func:`run_campaign` makes them."""

    def __init__(self, folder: Path, campaign: Campaign, command: Sequence[str] = ()) -> None:
        self.folder, self.campaign, self.command = folder, campaign, list(command)
        self.store, self._clock = Store(folder, one_split=True), Clock()
        self._trials: dict[Run, list[Trial]] = {}
        self._choices: dict[Run, dict[str, Any]] = {}
        self._alignment_of = cache(self._name_alignment)

    def make_runs(self) -> None:
        """Make every run that is missing."""
        steps, left = self.steps(), []
        for step in steps:
            file = self._file(*step)
            if file and file.is_file():
                self._measure(step[0], read_record(file))
            else:
                left.append(step)
        self._announce(steps, left)
        while left:
            self.store.drop_alignments(self._alignments(left))
            run, trial = left.pop(0)
            record = self._try(run, trial) if trial else self._make(run)
            self._measure(run, record)
            tried = f" with {show(trial.parameters)}" if trial else ""
            logger.info(f"{run.slug}{tried}: {show_outcome(record)}; {self._tell(left)}")
        self.store.drop_alignments(())

    def steps(self) -> list[Step]:
        """All that is trained, in order: the trials that choose the parameters of a run stand before it."""
        steps: dict[Step, None] = {}
        for run in self.campaign.runs():
            for trial in self.trials_of(run):
                steps |= dict.fromkeys((seeded, trial) for seeded in trial.files)
            steps[run, None] = None
        return list(steps)

    # -- tuning ------------------------------------------------------------------------------------------

    def trials_of(self, run: Run) -> list[Trial]:
        """What validation chooses the parameters of ``run`` from; nothing where nothing is tuned."""
        tuning = self.campaign.tuning_of(run)
        if tuning not in self._trials:
            seeded = self.campaign.tuned_with(run)
            self._trials[tuning] = [
                Trial(parameters, {one: self._trial_file(self._name(one, parameters)) for one in seeded})
                for parameters in (self.campaign.trials(tuning) if seeded else [])
            ]
        return self._trials[tuning]

    def choice(self, run: Run) -> dict[str, Any] | None:
        """The parameters that validation chose for ``run``; None while trials are missing.

        Raises:
            ValueError: Every trial diverged.
        """
        trials, tuning = self.trials_of(run), self.campaign.tuning_of(run)
        if tuning not in self._choices and all(trial.is_over for trial in trials):
            best = best_trial(trials)
            if trials and best is None:
                raise ValueError(f"{tuning.slug}: every trial diverged; change {self.campaign.params_file}")
            self._choices[tuning] = best.parameters if best else {}
        return self._choices.get(tuning)

    def _try(self, run: Run, trial: Trial) -> Record:
        record = self._train(run, trial.parameters, trial.files[run].with_suffix(""), test=False)
        write_record(trial.files[run], record)
        drop_losers([one for one in self.trials_of(run) if one.is_over])
        return record

    # -- runs --------------------------------------------------------------------------------------------

    def _make(self, run: Run) -> Record:
        parameters = self.choice(run) or {}
        folder = self.folder / "runs" / self._name(run, parameters)
        drop_losers(self.trials_of(run))  # a stop may have come before
        trained = self._take_over_trial(run, folder)
        record = self._train(run, parameters, folder, test=True)
        for rest in folder.glob("*.pth"):
            rest.unlink()
        if trained:
            record |= {"wall": trained["wall"] + record["wall"], "costs": trained["costs"]}
        write_record(folder / "run.json", record)
        return record

    def _take_over_trial(self, run: Run, folder: Path) -> Record | None:
        """The record of the trial that won if ``run`` is its training, of which only the test is missing."""
        record = self._trial_file(folder.name)
        trial = record.with_suffix("")
        if trial.is_dir():
            (trial / f"{run.stage}.json").unlink(missing_ok=True)  # says that all is done
            folder.parent.mkdir(exist_ok=True)
            os.replace(trial, folder)
        is_left = record.is_file() and (folder / f"{run.stage}-last.pth").is_file()
        return read_record(record) if is_left else None

    def _train(self, run: Run, parameters: Mapping[str, Any], folder: Path, test: bool) -> Record:
        config = self.campaign.config(run, parameters)
        if config["eval_type"] == EvaluatorType.RANKING:
            raise ValueError(f"{run.data.label}: its evaluation ranks sampled items; give labels, as mode: labeled")
        record = self.store.train(config, run.stage, folder, test, ScoredExperiment)
        whole = result_record(config, {}, {}, {})
        parts = zip(("train", "valid", "test"), self.store.load(config)[1:], strict=True)
        return {
            "parameters": parameters,
            "run": asdict(run) | {"data": run.data.label},
            "tuned_alone": run.variant in self.campaign.tuned_alone,
            "tuning_seeds": self.campaign.tuning_seeds if self.campaign.grid else 0,
            **record,
            "rows": {name: len(loader._dataset) for name, loader in parts},
            "configuration": whole["configuration"],
            "versions": whole["versions"],
            "command": self.command,
            "ended": time(),
        }

    # -- names -------------------------------------------------------------------------------------------

    def _name(self, run: Run, parameters: Mapping[str, Any]) -> str:
        return f"{run.slug}-{digest(self.campaign.config(run, parameters), FREE)}"

    def _trial_file(self, name: str) -> Path:
        return self.folder / "trials" / f"{name}.json"

    def _file(self, run: Run, trial: Trial | None) -> Path | None:
        """Where the record of a step is or will be; None as long as its parameters are not chosen."""
        if trial:
            return trial.files[run]
        parameters = self.choice(run)
        return None if parameters is None else self.folder / "runs" / self._name(run, parameters) / "run.json"

    def _name_alignment(self, run: Run) -> str:
        """The name of the alignment that ``run`` starts from; runs that differ only in stage 2 share one."""
        config = self.campaign.config(run, {})
        self.store.settle(config)
        return digest(config, NOT_OF_ALIGNMENT)

    # -- what is left ------------------------------------------------------------------------------------

    def _announce(self, steps: Sequence[Step], left: Sequence[Step]) -> None:
        for name, values in self.campaign.to_json().items():
            if isinstance(values, list) and values and values not in ([None], [1.0]):
                logger.info(f"{name}: {', '.join(map(str, values))}")
        logger.info(f"{len(steps)} runs and trials of tuning, of which {len(steps) - len(left)} are done")
        logger.info(self._tell(left))

    def _measure(self, run: Run, record: Record) -> None:
        self._clock.measure(f"{run.stage} of {run.data.label}", record["wall"])
        if record["aligned"]:
            self._clock.measure(f"alignment of {run.data.label}", record["aligned"])

    def _alignments(self, left: Sequence[Step]) -> dict[str, Run]:
        """The alignments that ``left`` starts from, by name, each with a run."""
        return {self._alignment_of(run): run for run, _ in left if run.stage != "plain"}

    def _tell(self, left: Sequence[Step]) -> str:
        missing = [run for name, run in self._alignments(left).items() if not self.store.has_alignment(name)]
        kinds = [f"alignment of {run.data.label}" for run in missing]
        for run, trial in left:
            if trial or run not in self.campaign.tuned_with(run):  # else the trial that won is taken over
                kinds.append(f"{run.stage} of {run.data.label}")
        trials = sum(trial is not None for _, trial in left)
        rest = f"{len(left) - trials} runs, {trials} trials and {len(missing)} alignments to go"
        return rest + self._clock.estimate(kinds)
