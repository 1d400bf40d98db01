"""The search by RecBole's ``HyperTuning``, made repeatable."""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import partial
from typing import Any

from recbole.trainer import HyperTuning
from recbole.trainer.hyper_tuning import exhaustive_search

from recbole_alt.tuning.objective import Objective
from recbole_alt.tuning.progress import Progress
from recbole_alt.tuning.ranges import Range, needed
from recbole_alt.tuning.trials import logger


class Tuning(HyperTuning):
    """RecBole's ``HyperTuning`` with our words in place of its prints, which show the test set."""

    def __init__(self, objective: Objective, ranges: Sequence[Range], progress: Progress, **options: Any):
        super().__init__(objective, **options)
        self.ranges, self.progress = ranges, progress

    def trial(self, params: dict[str, Any]) -> dict[str, Any]:
        """One trial, as RecBole's."""
        parameters = {tuned.name: tuned.decode(params[tuned.name]) for tuned in self.ranges}
        self.progress.begin(parameters)
        with redirect_stdout(io.StringIO()):
            outcome = super().trial(parameters)
        self.progress.end(parameters, self.params2result[self.params2str(parameters)])
        return outcome


def search(
    objective: Objective,
    ranges: Sequence[Range],
    config: Any,
    progress: Progress,
    algo: str,
    total: int,
    early_stop: int | None,
) -> None:
    """Run the trials one after another.

    Args:
        objective, ranges, config, progress: of the tuning.
        algo: ``exhaustive``, ``random`` or ``bayes``.
        total: the most trials there can be.
        early_stop: see :func:`recbole_alt.tuning.search.run_hyper_alt`.
    """
    endless = total + 1
    tuning = Tuning(
        objective,
        ranges,
        progress,
        space={tuned.name: tuned.hyperopt() for tuned in ranges},
        # RecBole's search draws until it hits what is new; 1000 draws may not find the last of many
        algo=partial(exhaustive_search, nbMaxSucessiveFailures=1000 + 50 * total) if algo == "exhaustive" else algo,
        max_evals=total,
        early_stop=early_stop or (endless if algo == "exhaustive" else 10),
    )
    with _hyperopt_settings(config["seed"]):
        tuning.run()
    if progress.ended < total:
        logger.info(f"ended after {progress.ended} of {total} trials: no improvement for {early_stop or 10}")


@contextmanager
def _hyperopt_settings(seed: int) -> Iterator[None]:
    """Draws from ``seed``, so that they repeat; no bar, and no lines about the inside of the search."""
    progress, key = needed("hyperopt.progress"), "HYPEROPT_FMIN_SEED"
    before, bar = os.environ.get(key), progress.default_callback
    level = logging.getLogger("hyperopt").level
    os.environ[key] = str(seed)
    progress.default_callback = progress.no_progress_callback
    logging.getLogger("hyperopt").setLevel(logging.CRITICAL)  # an error is raised, too
    try:
        yield
    finally:
        progress.default_callback = bar
        logging.getLogger("hyperopt").setLevel(level)
        if before is None:
            del os.environ[key]
        else:
            os.environ[key] = before
