"""The search of a tuning, by Optuna: which parameters come next, and which process tries them."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice, product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optuna
from filelock import FileLock, Timeout
from optuna.storages.journal import JournalFileBackend, JournalStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from recbole_alt.files import CannotWrite
from recbole_alt.keys import NOT_OF_ALIGNMENT
from recbole_alt.study.ranges import Range, lies_within
from recbole_alt.study.store import Record

_SECONDS = 0.5  # between two looks at the trials of other processes
_DRAWS = 50  # to find parameters that were not tried before


class Claim(NamedTuple):
    """A trial that this process runs; its ``lock`` falls with the process, and the trial is then up for another one."""

    number: int  # from 1
    parameters: dict[str, Any]
    lock: FileLock


class Search:
    """The trials of one stage, kept in Optuna's journal in a folder of their own, which processes may share.

    The parameters of a trial depend only on the seed, its number and the trials that ended before it.

    Args:
        folder: Of the search.
        ranges: What is tuned.
        algorithm: ``exhaustive`` (every combination of choices), ``random``, or ``bayes`` (Parzen estimators).
        seed: Of the draws.
        total: The most trials there can be.
        early_stop: Trials without improvement that end the search; None for no such end.
        bigger: Whether bigger scores are better.
        tried: Narrower ranges, of the same keys, that no trial is to lie within.
    """

    def __init__(
        self, folder: Path, ranges: Sequence[Range], algorithm: str, seed: int, total: int,
        early_stop: int | None = None, bigger: bool = True, tried: Sequence[Range] = (),
    ):  # fmt: skip
        self.ranges, self._tried = {tuned.name: tuned for tuned in ranges}, tried
        self.algorithm, self.seed, self.total, self.early_stop = algorithm, seed, total, early_stop
        self._distributions = {tuned.name: tuned.distribution for tuned in ranges}
        self.bigger, self._worst = (
            bigger,
            -sys.float_info.max if bigger else sys.float_info.max,
        )  # samplers compute with it
        self._folder, self._journal = folder, folder / "search.journal"
        self._lock = FileLock(folder / ".search")
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        with self._locked():
            _drop_half_a_line(self._journal)
            storage = JournalStorage(JournalFileBackend(str(self._journal), self._lock))  # type: ignore[arg-type]
            direction = StudyDirection.MAXIMIZE if bigger else StudyDirection.MINIMIZE
            self._study = optuna.create_study(
                storage=storage, study_name="tuning", direction=direction, load_if_exists=True
            )

    def run(self, make: Callable[[Claim], Record], wait: bool = True) -> Iterator[tuple[Claim, Record]]:
        """Make the trials that no other process makes, until the search is over, and yield each with its record.

        ``make`` trains a trial; the ``score`` of the record that it returns is None where training diverged. As in
        :meth:`ask`, only those that nobody is at, without ``wait``.
        """
        while claim := self.ask(wait):
            try:
                record = make(claim)
                self.tell(claim, record["score"])
            finally:
                claim.lock.release()
            yield claim, record

    def ask(self, wait: bool = True) -> Claim | None:
        """Claim the next trial: one whose process has died, or a new one; None if the search is over.

        Waits while the only trials left are those of other processes, which may die; without ``wait`` it is None then.
        """
        while True:
            with self._locked():
                trials = self._study.get_trials(deepcopy=False)
                running = [trial for trial in trials if trial.state == TrialState.RUNNING]
                for trial in running:
                    if claim := self._claim(trial):
                        return claim
                if not self._is_over(trials):
                    drawn = self._draw(trials)
                    new = create_trial(state=TrialState.RUNNING, params=drawn, distributions=self._distributions)
                    self._study.add_trial(new)
                    continue  # it is there to be claimed
            if not running or not wait:
                return None
            time.sleep(_SECONDS)

    def tell(self, claim: Claim, score: float | None) -> None:
        """End a trial with its ``score``, None where training diverged."""
        with self._locked():
            self._study.tell(claim.number - 1, self._worst if score is None else score)

    def scored(self) -> list[tuple[float, dict[str, Any]]]:
        """Score and parameters of the trials that have ended and did not diverge, the best first, then the earliest."""
        scored = [(trial.values[0], self._decode(trial)) for trial in self._ended() if trial.values[0] != self._worst]
        return sorted(scored, key=lambda one: one[0], reverse=self.bigger)

    def count_ended(self) -> int:
        """How many trials have ended."""
        return len(self._ended())

    def _ended(self) -> list[FrozenTrial]:
        with self._locked():
            return self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))

    def _claim(self, trial: FrozenTrial) -> Claim | None:
        lock = FileLock(self._folder / f"claim-{trial.number + 1}.lock")
        with suppress(Timeout):
            lock.acquire(timeout=0)
            return Claim(trial.number + 1, self._decode(trial), lock)
        return None

    def _decode(self, trial: FrozenTrial) -> dict[str, Any]:
        return {name: tuned.decode(trial.params[name]) for name, tuned in self.ranges.items()}

    def _is_over(self, trials: Sequence[FrozenTrial]) -> bool:
        if len(trials) >= self.total or self.early_stop is None:
            return len(trials) >= self.total
        ended = [trial.number for trial in trials if trial.state == TrialState.COMPLETE]
        best = self._study.best_trial.number if ended else -1
        return sum(number > best for number in ended) >= self.early_stop

    def _draw(self, trials: Sequence[FrozenTrial]) -> dict[str, Any]:
        """Draw the parameters of the trial that follows ``trials``, if possible others than theirs."""
        if self.algorithm == "exhaustive":  # keys of the alignment change most seldom
            names = sorted(self.ranges, key=lambda name: name in NOT_OF_ALIGNMENT)
            every = product(*(range(len(self.ranges[name].values)) for name in names))
            new = filter(self._is_new, (dict(zip(names, drawn, strict=True)) for drawn in every))
            return next(islice(new, len(trials), None))
        samplers = {"random": optuna.samplers.RandomSampler, "bayes": optuna.samplers.TPESampler}
        for again in range(_DRAWS):
            seed = int(np.random.SeedSequence([self.seed, len(trials), *[again] * (again > 0)]).generate_state(1)[0])
            study = optuna.create_study(sampler=samplers[self.algorithm](seed=seed), direction=self._study.direction)
            study.add_trials(trials)
            drawn = study.ask(self._distributions).params
            if self._is_new(drawn) and all(drawn != trial.params for trial in trials):
                break
        return drawn

    def _is_new(self, drawn: dict[str, Any]) -> bool:
        return not lies_within({name: one.decode(drawn[name]) for name, one in self.ranges.items()}, self._tried)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            with self._lock:
                yield
        except OSError as error:
            raise CannotWrite(self._journal, error) from error


def _drop_half_a_line(journal: Path) -> None:
    """Cut off what a full disk or a kill left of the last line; Optuna would refuse the whole journal."""
    if journal.is_file():
        whole, newline, half = journal.read_bytes().rpartition(b"\n")
        if half:
            os.truncate(journal, len(whole + newline))
