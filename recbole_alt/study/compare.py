"""A campaign: one training at a time, each kept when it ends, on shared data and alignments; and its report."""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from statistics import fmean
from time import time
from typing import Any

from filelock import FileLock, Timeout
from recbole.utils import EvaluatorType, init_logger

from recbole_alt.experiment import require_equal
from recbole_alt.files import check_folder, read_record, write_record
from recbole_alt.keys import FREE
from recbole_alt.result import result_record
from recbole_alt.stopping import going_on
from recbole_alt.study.axes import Run
from recbole_alt.study.plan import Campaign
from recbole_alt.study.progress import Clock, logger, quiet, show, show_outcome
from recbole_alt.study.report import write_report
from recbole_alt.study.scores import ScoredExperiment
from recbole_alt.study.store import Record, Store, best_of, digest

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


@dataclass(frozen=True, eq=False)
class Trial:
    """Parameters that validation may choose, and the record's file of the training with each seed that tries them.

    The weights of a training are in the folder beside its record.
    """

    parameters: dict[str, Any]
    files: dict[Run, Path]

    @property
    def outcome(self) -> Record | None:
        """Its mean ``score`` over the seeds, None if one of them diverged; None as long as trainings are missing."""
        if not all(file.is_file() for file in self.files.values()):
            return None
        records = [read_record(file) for file in self.files.values()]
        scores = [record["score"] for record in records]
        return {"trial": self, "bigger": records[0]["bigger"], "score": None if None in scores else fmean(scores)}


#: One step of a campaign: the run that it makes or, where there is a trial, the training that tries this.
Step = tuple[Run, Trial | None]


class Comparison:
    """The trainings of a campaign, as :func:`run_campaign` makes them."""

    def __init__(self, folder: Path, campaign: Campaign, command: Sequence[str] = ()) -> None:
        self.folder, self.campaign, self.command = folder, campaign, list(command)
        self.store, self._clock = Store(folder, one_split=True), Clock()
        self._trials: dict[tuple[Run, ...], list[Trial]] = {(): []}
        self._chosen: dict[tuple[Run, ...], dict[str, Any]] = {(): {}}
        self._alignment_of = cache(lambda run: self.store.settle(campaign.config(run, {}), run.stage))

    def make_runs(self) -> None:
        """Make every run that is missing."""
        steps, left = self.steps(), list[Step]()
        for run, trial in steps:
            chosen = None if trial else self.choose(run)
            file = trial.files[run] if trial else chosen is not None and self._files(run, chosen)[1]
            if file and file.is_file():
                self._measure(run, read_record(file))
            else:
                left.append((run, trial))
        for name, values in self.campaign.to_json().items():
            if isinstance(values, list) and values and values not in ([None], [1.0]):
                logger.info(f"{name}: {', '.join(map(str, values))}")
        logger.info(f"{len(steps)} runs and trials of tuning, of which {len(steps) - len(left)} are done")
        logger.info(self._tell(left))
        while left:
            self.store.drop_alignments(self._alignments(left))
            run, trial = left.pop(0)
            record = self._train(run, trial)
            self._measure(run, record)
            tried = f" with {show(trial.parameters)}" if trial else ""
            logger.info(f"{run.slug}{tried}: {show_outcome(record)}; {self._tell(left)}")
        self.store.drop_alignments(())

    def steps(self) -> list[Step]:
        """All that is trained, in order: the trials that choose the parameters of a run stand before it."""
        steps: dict[Step, None] = {}
        for run in self.campaign.runs():
            steps |= dict.fromkeys((seeded, trial) for trial in self.trials_of(run) for seeded in trial.files)
            steps[run, None] = None
        return list(steps)

    def trials_of(self, run: Run) -> list[Trial]:
        """What validation chooses the parameters of ``run`` from; nothing where nothing is tuned."""
        seeded = tuple(self.campaign.tuned_with(run))
        if seeded not in self._trials:
            self._trials[seeded] = [
                Trial(parameters, {one: self._files(one, parameters)[0] for one in seeded})
                for parameters in self.campaign.trials(seeded[0])
            ]
        return self._trials[seeded]

    def choose(self, run: Run) -> dict[str, Any] | None:
        """The parameters that validation chose for ``run``; None while trials are missing.

        Trainings of trials that have lost are deleted. A ``ValueError`` says that all have diverged.
        """
        seeded = tuple(self.campaign.tuned_with(run))
        if seeded not in self._chosen:
            trials = self.trials_of(run)
            outcomes = [outcome for trial in trials if (outcome := trial.outcome)]
            best = best_of(outcomes)
            for file in (file for lost in outcomes if lost is not best for file in lost["trial"].files.values()):
                shutil.rmtree(file.with_suffix(""), ignore_errors=True)
            if len(outcomes) < len(trials):
                return None
            if best is None:
                raise ValueError(f"{seeded[0].slug}: every trial diverged; change {self.campaign.params_file}")
            self._chosen[seeded] = best["trial"].parameters
        return self._chosen[seeded]

    def _train(self, run: Run, trial: Trial | None) -> Record:
        """Train ``run``, with the parameters that ``trial`` tries or those that were chosen; return its record."""
        parameters = trial.parameters if trial else self.choose(run) or {}
        config = self.campaign.config(run, parameters)
        if config["eval_type"] == EvaluatorType.RANKING:
            raise ValueError(f"{run.data}: its evaluation ranks sampled items; give labels, as mode: labeled")
        tried, file = self._files(run, parameters)
        won = tried.with_suffix("")
        if not trial and won.is_dir():  # of this very training only the test is missing
            (won / f"{run.stage}.json").unlink(missing_ok=True)  # it says that all is done
            shutil.rmtree(file.parent, ignore_errors=True)  # this run as it was made before its variant was tuned alone
            file.parent.parent.mkdir(exist_ok=True)
            os.replace(won, file.parent)
        record = self.store.train(config, run.stage, won if trial else file.parent, trial is None, ScoredExperiment)
        if not trial and tried.is_file():  # costs are of its training, not of the test alone
            before = read_record(tried)
            record |= {"wall": before["wall"] + record["wall"], "costs": before["costs"]}
        for weights in () if trial else file.parent.glob("*.pth"):
            weights.unlink()
        parts = zip(("train", "valid", "test"), self.store.load(config)[1:], strict=True)
        about = result_record(config, {}, {}, {})
        record = {
            "parameters": parameters,
            "run": asdict(run),
            "tuned_alone": run.variant in self.campaign.tuned_alone,
            "tuning_seeds": self.campaign.tuning_seeds if self.campaign.grid else 0,
            **record,
            "rows": {name: len(loader._dataset) for name, loader in parts},
            "configuration": about["configuration"],
            "versions": about["versions"],
            "command": self.command,
            "ended": time(),
        }
        write_record(tried if trial else file, record)
        if trial:
            self.choose(run)
        return record

    def _files(self, run: Run, parameters: Mapping[str, Any]) -> tuple[Path, Path]:
        """The files of the records of the trial of ``parameters``, and of the run if they are chosen."""
        name = f"{run.slug}-{digest(self.campaign.config(run, parameters), FREE)}"
        return self.folder / "trials" / f"{name}.json", self.folder / "runs" / name / "run.json"

    def _measure(self, run: Run, record: Record) -> None:
        self._clock.measure(f"{run.stage} of {run.data}", record["wall"])
        self._clock.measure(f"alignment of {run.data}", record["aligned"])

    def _alignments(self, left: Sequence[Step]) -> dict[str, Run]:
        """The alignments that ``left`` starts from, by name, each with a run."""
        return {name: run for run, _ in left if (name := self._alignment_of(run))}

    def _tell(self, left: Sequence[Step]) -> str:
        missing = [run for name, run in self._alignments(left).items() if not self.store.has_alignment(name)]
        kinds = [f"alignment of {run.data}" for run in missing]
        for run, trial in left:
            if trial or run not in self.campaign.tuned_with(run):  # else the trial that won is taken over
                kinds.append(f"{run.stage} of {run.data}")
        trials = sum(trial is not None for _, trial in left)
        rest = f"{len(left) - trials} runs, {trials} trials and {len(missing)} alignments to go"
        return rest + self._clock.estimate(kinds)
