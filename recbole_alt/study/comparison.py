"""A campaign: its searches and its runs, each kept when it ends, on shared data and alignments; and its report."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import cache, partial
from itertools import groupby
from pathlib import Path
from statistics import fmean
from time import time
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from recbole.utils import EvaluatorType, init_logger

from recbole_alt.click_rates import click_rates
from recbole_alt.files import check_folder, read_record, write_record
from recbole_alt.keys import FREE
from recbole_alt.launch import require_one_process
from recbole_alt.reporting.report import write_report
from recbole_alt.reporting.runs import PLAIN, Run, read_training
from recbole_alt.result import result_record
from recbole_alt.run_folder import require_equal
from recbole_alt.stopping import going_on
from recbole_alt.study.arms import check_arms
from recbole_alt.study.campaign import Campaign
from recbole_alt.study.console import Clock, logger, quiet, show_outcome
from recbole_alt.study.ranges import Range, count_combinations, widen
from recbole_alt.study.store import Record, ScoredExperiment, Store, digest
from recbole_alt.values import show

if TYPE_CHECKING:
    from recbole_alt.study.search import Claim, Search

#: A score on validation and the parameters that reached it.
Scored = tuple[float, dict[str, Any]]
#: What must be as before when a campaign goes on; the other axes may grow.
_FIXED = ("params_file", "tuning_trials", "tuning_seeds", "widenings", "keys", "ranges", "seeds")


def run_campaign(campaign: Campaign, folder: Path, command: Sequence[str] = ()) -> None:
    """Make the runs of ``campaign`` that ``folder`` lacks, and its report.

    Processes that are given the same campaign and folder share the work.

    Args:
        campaign: What is compared.
        folder: Of the campaign; one that exists goes on where it was.
        command: As given, for the records.

    Raises:
        ValueError: Bad configuration, data or weights; another campaign in ``folder``.
    """
    check_folder("out", folder)
    with going_on("go on with the same command"):
        configs = [campaign.config(run, {}) for run in campaign.runs() if run.seed == campaign.seeds[0]]
        check_arms(campaign)
        require_one_process("compare", "start the same command several times, and they share the work", configs[0])
        comparison = Comparison(folder, campaign, command)
        with FileLock(folder / "campaign.lock"):
            _open(campaign, folder)  # every configuration is sound
            comparison.store.settle(configs[0], "plain")
        init_logger(configs[0])
        configs[0].log_notes()
        for note in campaign.notes:
            logger.warning(note)
        with quiet():
            comparison.make_runs()
            with FileLock(folder / "campaign.lock"):
                for file in write_report(folder):
                    logger.info(f"written: {file}")
    comparison.store.drop_locks()


def _open(campaign: Campaign, folder: Path) -> None:
    ranges = [[one.name, one.kind, one.values] for one in campaign.ranges]
    now = json.loads(json.dumps({**campaign.to_json(), "ranges": ranges}))
    now["keys"] = {key: value for key, value in now["keys"].items() if key not in FREE}
    now["defined"] = json.loads(json.dumps(campaign.defined, default=str))
    file = folder / "campaign.json"
    if file.is_file():
        now["defined"] = _unchanged_definitions(folder, read_record(file), now["defined"])
        chose = {"seeds": campaign.seeds[: campaign.tuning_seeds]}  # others may come later
        before, after = ({key: kept.get(key) for key in _FIXED} for kept in (read_record(file), now))
        before, after = before | {"seeds": (before["seeds"] or [])[: campaign.tuning_seeds]}, after | chose
        require_equal("out", folder, before, after, "or another folder; the axes may grow")
    write_record(file, now)


def _unchanged_definitions(folder: Path, kept: Record, now: dict[str, Any]) -> dict[str, Any]:
    """All definitions so far; those of before are refused where they say something else ``now``."""
    before = kept.get("defined") or {f"variants: {name}": keys for name, keys in (kept.get("variants") or {}).items()}
    both = before.keys() & now.keys()
    was, says = (
        {f"{name}: {key}": of[name][key] for name in both for key in of[name].keys() - FREE} for of in (before, now)
    )
    require_equal("out", folder, was, says, "another name, or another folder")
    return before | now


class Comparison:
    """The trainings of a campaign, as :func:`run_campaign` makes them."""

    def __init__(self, folder: Path, campaign: Campaign, command: Sequence[str] = ()) -> None:
        self.folder, self.campaign, self.command = folder, campaign, list(command)
        self.store, self._clock = Store(folder, one_split=True), Clock()
        self._alignment_of = cache(lambda run: self.store.settle(campaign.config(run, {}), run.stage))
        self._runs_left = dict.fromkeys(campaign.runs())
        self._tested = {run for run in self._runs_left if self._is_tested(run)}
        tuned = {seeded for run in self._runs_left for seeded in campaign.tuned_with(run)}
        self._trials_left = Counter({run: self._budget(self._usable(run, campaign.ranges)) for run in tuned})

    def make_runs(self) -> None:
        """Make every run that is missing."""
        for name, values in self.campaign.to_json().items():
            if isinstance(values, list) and values and values not in ([None], [1.0]):
                logger.info(f"{name}: {', '.join(map(str, values))}")
        for cell in dict.fromkeys(map(self.campaign.tuned_as, self._runs_left)):
            if cell and (self.folder / "searches" / f"{cell.slug}-0").is_dir():  # begun before
                self._search(cell, self._usable(cell, self.campaign.ranges), [], 0)
        logger.info(self._tell())
        for _, of_model in groupby(tuple(self._runs_left), lambda run: (run.data, run.train_share, run.model)):
            runs = list(of_model)
            chosen = self.choose(runs)
            parameters = {run: chosen[self.campaign.tuned_as(run)] for run in runs}
            runs.sort(key=lambda run: not self._file(run, parameters[run][0]).is_file())  # first those that are there
            for timeout in (0, -1):  # first those that no other process makes, nor what they start from
                for run in filter(self._runs_left.__contains__, runs):
                    if timeout == 0 and self.store.is_aligning(self._alignment_of(run)):
                        continue
                    with suppress(Timeout):
                        self._train(run, *parameters[run], timeout=timeout)
        self.store.drop_alignments(())

    # -- searches ----------------------------------------------------------------------------------------

    def choose(self, runs: Sequence[Run]) -> dict[Run | None, tuple[dict[str, Any], list[str]]]:
        """Let validation choose the parameters of ``runs``, which are of one model and of the same data.

        Where a value is chosen at an end of its range, the range is made wider for all, and all have more trials, each
        with such a value at least: other values may be those that suited best before.

        Returns:
            By :meth:`Campaign.tuned_as`: the parameters, and those of them that are at an end all the same.
        """
        cells = {cell: None for run in runs if (cell := self.campaign.tuned_as(run))}
        ranges: Sequence[Range] = self.campaign.ranges if cells else []
        tried: Sequence[Range] = []
        best: dict[Run, Scored] = {}
        for number in range(1 + self.campaign.widenings):
            usable = {cell: self._outside(cell, ranges, tried) for cell in cells}
            searches = {cell: self._search(cell, *usable[cell], number) for cell in cells}
            for cell, search in searches.items():  # first what no other process is at
                self._run_trials(cell, search, best.get(cell), wait=False)
            for cell, search in searches.items():
                scored = self._run_trials(cell, search, best.get(cell))
                if not scored:
                    raise ValueError(f"{cell.slug}: every trial diverged; change {self.campaign.params_file}")
                best[cell] = scored
            chosen = [parameters for _, parameters in best.values()]
            if number == self.campaign.widenings or (wider := widen(ranges, chosen)) == list(ranges):
                break
            tried, ranges = ranges, wider
            said = "; ".join(str(one) for one in ranges if one not in tried)
            logger.info(f"chosen at an end of its range, so tried wider for all: {said}")
        ends = {one.name: one.end_at for one in ranges}
        at_ends = {cell: [name for name, value in p.items() if ends[name](value)] for cell, (_, p) in best.items()}
        return {None: ({}, [])} | {cell: (parameters, at_ends[cell]) for cell, (_, parameters) in best.items()}

    def _search(self, cell: Run, ranges: Sequence[Range], tried: Sequence[Range], number: int) -> Search:
        """The search of ``cell`` in ``ranges`` outside those ``tried``; what it lacks is counted as to go."""
        from recbole_alt.study.search import Search  # late: Optuna takes long to import

        total, bigger = self._budget(ranges, tried, number), bool(self.campaign.config(cell, {})["valid_metric_bigger"])
        algorithm = "exhaustive" if count_combinations(ranges, tried) == total else "bayes"
        folder, seed = self.folder / "searches" / f"{cell.slug}-{number}", self.campaign.seeds[0] + number
        search = Search(folder, ranges, algorithm, seed, total, bigger=bigger, tried=tried)
        for run in self.campaign.tuned_with(cell):
            self._trials_left[run] = total - search.count_ended()
        return search

    def _run_trials(self, cell: Run, search: Search, before: Scored | None, wait: bool = True) -> Scored | None:
        """Make the trials that ``search`` lacks; return the best of all and ``before``.

        Without ``wait``, those at which other processes are may be missing from it.
        """

        def best() -> Scored | None:
            scored = [one for one in (before, *search.scored()[:1]) if one]
            found = (max if search.bigger else min)(scored, key=lambda one: one[0], default=None)
            self._drop_weights(cell, found and found[1])
            return found

        for _ in search.run(partial(self._try, cell), wait):
            best()
        for run in self.campaign.tuned_with(cell) if wait else ():
            del self._trials_left[run]
        return best()

    def _try(self, cell: Run, claim: Claim) -> Record:
        """The mean score of a trial over the seeds, None if one of them diverged."""
        records, runs = [], self.campaign.tuned_with(cell)
        while runs:  # first one whose alignment no other process makes
            run = min(runs, key=lambda one: self.store.is_aligning(self._alignment_of(one)))
            runs.remove(run)
            self._trials_left[run] -= 1
            records.append(self._train(run, claim.parameters, test=False))
        scores = [record["score"] for record in records]
        return {"score": None if None in scores else fmean(scores)}

    def _usable(self, run: Run, ranges: Sequence[Range]) -> list[Range]:
        return [one for one in ranges if self.campaign.reads(run, one.name)]

    def _outside(
        self, cell: Run, ranges: Sequence[Range], tried: Sequence[Range]
    ) -> tuple[Sequence[Range], Sequence[Range]]:
        """Both as ``cell`` reads them, without those ``tried`` where it reads none that is wider now."""
        all_of_cell, tried_of_cell = self._usable(cell, ranges), self._usable(cell, tried)
        return all_of_cell, [] if tried_of_cell == all_of_cell else tried_of_cell

    def _budget(self, ranges: Sequence[Range], tried: Sequence[Range] = (), number: int = 0) -> int:
        trials = self.campaign.tuning_trials
        return min(-(-trials // 2) if number else trials, count_combinations(ranges, tried) or trials)

    def _drop_weights(self, cell: Run, best: dict[str, Any] | None) -> None:
        """Delete the weights of the trials of ``cell`` that have ended but for the best, which its run takes over."""
        for run in self.campaign.tuned_with(cell):
            kept = None if best is None else self._file(run, best)
            for file in self.folder.glob(f"runs/{run.slug}-*.json"):
                for weights in file.with_suffix("").glob("*.pth") if file != kept else ():
                    weights.unlink(missing_ok=True)

    # -- trainings ---------------------------------------------------------------------------------------

    def _train(
        self,
        run: Run,
        parameters: dict[str, Any],
        at_ends: Sequence[str] = (),
        *,
        test: bool = True,
        timeout: float = -1,
    ) -> Record:
        """The record of ``run`` with ``parameters``, made where it is missing; of a trial, without the test set."""
        config, file, begun = self.campaign.config(run, parameters), self._file(run, parameters), time()
        if config["eval_type"] == EvaluatorType.RANKING:
            raise ValueError(f"{run.data}: its evaluation ranks sampled items; give labels, as mode: labeled")

        def about() -> Record:
            loaders = dict(zip(("train", "valid", "test"), self.store.load(config)[1:], strict=True))
            result = result_record(config, {}, {}, {})
            return {
                "parameters": parameters,
                "at_ends": list(at_ends),
                "run": asdict(run),
                "tuned_alone": run.variant in self.campaign.tuned_alone,
                "tuning_seeds": self.campaign.tuning_seeds if self.campaign.ranges else 0,
                "tuning_trials": self.campaign.tuning_trials,
                "rows": {name: len(loader._dataset) for name, loader in loaders.items()},
                "click_rates": click_rates(list(loaders.values())) if test and run.variant == PLAIN else None,
                "configuration": result["configuration"],
                "versions": result["versions"],
                "command": self.command,
                "ended": time(),
            }

        options: dict[str, Any] = {"test": test, "kind": ScoredExperiment, "about": about, "timeout": timeout}
        record = self.store.train(config, run.stage, file, **options)
        self._clock.measure(f"{run.stage} of {run.data}", record["wall"])
        self._clock.measure(f"alignment of {run.data}", record["aligned"])
        if test:
            del self._runs_left[run]
            for weights in file.with_suffix("").glob("*.pth"):
                weights.unlink()
        if record["ended"] >= begun:
            tried = "" if test else f" with {show(parameters)}"
            logger.info(f"{run.slug}{tried}: {show_outcome(record)}; {self._tell()}")
            self.store.drop_alignments(self._alignments())
        return record

    def _file(self, run: Run, parameters: dict[str, Any]) -> Path:
        """The record of ``run`` with ``parameters``, beside the folder of its scores."""
        return self.folder / "runs" / f"{run.slug}-{digest(self.campaign.config(run, parameters), FREE)}.json"

    def _is_tested(self, run: Run) -> bool:
        """True if ``run`` is there, with whatever parameters."""
        return any(read_training(file)["tested"] for file in self.folder.glob(f"runs/{run.slug}-*.json"))

    def _alignments(self) -> dict[str, Run]:
        """The alignments that what is left starts from, by name, each with a run."""
        runs = (run for run in self._runs_left if run not in self._tested)
        left = dict.fromkeys(run for one in runs for run in (one, *self.campaign.tuned_with(one)))
        return {name: run for run in left if (name := self._alignment_of(run))}

    def _tell(self) -> str:
        missing = [run for name, run in self._alignments().items() if not self.store.has_alignment(name)]
        kinds = [f"alignment of {run.data}" for run in missing]
        kinds += [f"{run.stage} of {run.data}" for run in self._trials_left.elements()]
        runs = [run for run in self._runs_left if run not in self._tested]
        trained = (run for run in runs if run not in self.campaign.tuned_with(run))  # others are only tested
        kinds += [f"{run.stage} of {run.data}" for run in trained]
        rest = f"{len(runs)} runs, {self._trials_left.total()} trials and {len(missing)} alignments to go"
        return rest + self._clock.estimate(kinds)
