"""A tuning of one stage: its folder, its search, and what it leaves."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock
from recbole.utils import init_logger

from recbole_alt.config import ALTConfig
from recbole_alt.experiment import find_folder, require_equal
from recbole_alt.files import check_folder, read_record, write_record
from recbole_alt.keys import ALIGNMENT, FREE, STAGES, keys_of
from recbole_alt.registry import make_config
from recbole_alt.stopping import going_on
from recbole_alt.study.progress import Clock, logger, quiet, show, show_outcome
from recbole_alt.study.ranges import Range, check_ranges, find_ranges, read_ranges
from recbole_alt.study.results import write_results
from recbole_alt.study.store import values_of
from recbole_alt.study.trials import Trials, as_recbole, first_stage, make_folder

if TYPE_CHECKING:
    from recbole_alt.study.search import Search

ALGORITHMS = ("exhaustive", "random", "bayes")


def run_hyper_alt(
    model: str | None = None,
    dataset: str | None = None,
    config_file_list: list[str] | None = None,
    config_dict: dict[str, Any] | None = None,
    arguments: Sequence[str] = (),
    *,
    params_file: str = "finetune",
    stage: str | None = None,
    algo: str = "exhaustive",
    max_evals: int | None = None,
    early_stop: int | None = None,
    resume: str | None = None,
) -> dict[str, Any]:
    """Tune one stage on validation data; the first five arguments are those of :func:`recbole_alt.run_recbole_alt`.

    Args:
        params_file: Ranges in RecBole's line format: a file, or ``finetune`` or ``pretrain``.
        stage: ``plain``, ``ctr``, ``lm`` or ``joint``; by default the first of ``finetune_modes``.
        algo: ``exhaustive``, ``random`` or ``bayes``.
        max_evals: Most trials of ``random`` and ``bayes``; 100 by default.
        early_stop: End after so many trials without improvement; by default 10, with ``exhaustive`` never.
        resume: Folder of a tuning, or ``last``: finished trials are not trained again. If another process is at work
            there, this one joins it.

    Returns:
        RecBole's ``best_valid_score``, ``valid_score_bigger``, ``best_valid_result`` and ``test_result`` of the
        best trial, and ``best_params``, ``trials``, ``table``, ``command``, ``folder``.

    Raises:
        ValueError: Bad ranges, configuration, data or weights; another tuning in ``resume``.
    """
    from recbole_alt.study.search import Search  # late: Optuna takes long to import

    for name, value, allowed in (("algo", algo, ALGORITHMS), ("stage", stage or STAGES[0], STAGES)):
        if value not in allowed:
            raise ValueError(f"{name} must be one of {', '.join(allowed)}, not {value!r}")
    for name, count in (("max_evals", max_evals), ("early_stop", early_stop)):
        if count is not None and count < 1:
            raise ValueError(f"{name} must be 1 or more, not {count}")
    ranges = read_ranges(find_ranges(params_file))
    total = count_trials(ranges, algo, max_evals)
    config = make_config(model, dataset, config_file_list, config_dict, arguments)
    check_folder("checkpoint_dir", config["checkpoint_dir"])
    for key in ("resume", "result_file"):
        if config[key]:
            raise ValueError(f"{key} is of one run: leave it out; a tuning has --resume and writes into its folder")
    stage = stage or first_stage(config)
    unread = "pretrained_checkpoint brings the pretraining" if config["pretrained_checkpoint"] else ""
    unread = "the plain backbone is not pretrained" if stage == "plain" else unread
    check_ranges(ranges, config, dict.fromkeys(keys_of(ALIGNMENT), unread) if unread else {})
    init_logger(config)
    config.log_notes()
    folder = _open_folder(config, ranges, stage, algo, resume)
    with going_on(f"go on with --resume={folder}"):
        logger.info(f"This tuning's folder: {folder}  (after a stop, go on with --resume={folder})")
        logger.info(f"{algo} search of {stage} for the best validation {config['valid_metric'].lower()}:")
        for tuned in ranges:
            logger.info(f"  {tuned}")
        trials = Trials(folder, stage)
        patience = early_stop or (None if algo == "exhaustive" else 10)
        search = Search(folder, ranges, algo, config["seed"], total, patience, config["valid_metric_bigger"])

        def configure(parameters: dict[str, Any]) -> ALTConfig:
            return make_config(model, dataset, config_file_list, {**(config_dict or {}), **parameters}, arguments)

        with quiet():
            _search(search, trials, configure)
        with FileLock(folder / ".results"):  # of processes that end together
            trials.drop_alignments(0)
            trials.store.drop_locks()
            name = model or config.external_config_dict.get("model", config["model"])
            result = write_results(trials, ranges, config, name)
    best = result.pop("best")
    logger.info(f"Trials of {config['model']} {stage} on {config['dataset']}:\n\n{result['table']}\n")
    logger.info(f"Written: {folder}/ trials.json, trials.csv, table.md, plot.png, best.yaml")
    logger.info(f"The best again:\n\n{result['command']}\n")
    return {**as_recbole(best), "best_params": best["parameters"], **result, "folder": str(folder)}


def _search(search: Search, trials: Trials, configure: Callable[[dict[str, Any]], ALTConfig]) -> None:
    """Run the trials of ``search`` that nobody else runs, with a line after each."""
    total, clock = search.total, Clock()
    shares = not search.ranges.keys() & keys_of(ALIGNMENT)  # else every trial may need an alignment of its own
    while claim := search.ask():
        try:
            record, kept = trials.run(configure(claim.parameters), claim.parameters, claim.number)
            search.tell(claim, record["score"])
        finally:
            claim.lock.release()
        if not kept:
            clock.measure(trials.stage, record["wall"] + (0.0 if shares else record["aligned"]))
        said = f"trial {claim.number} of {total} with {show(claim.parameters)}: {show_outcome(record)}"
        if best := search.best():
            said += f"; best so far {best[0]:.4f} ({show(best[1])})"
        left = total - len(search.ended())
        logger.info(f"{said}; at most {left} to go{clock.estimate([trials.stage] * left)}")
    if (ended := len(search.ended())) < total:
        logger.info(f"ended after {ended} of {total} trials: no improvement for {search.early_stop}")


def count_trials(ranges: Sequence[Range], algo: str, max_evals: int | None) -> int:
    """The most trials there can be.

    Raises:
        ValueError: Exhaustive search of a range that is not a choice, or of fewer trials than there are combinations.
    """
    if algo != "exhaustive":
        return 100 if max_evals is None else max_evals
    for tuned in ranges:
        if tuned.kind != "choice":
            raise ValueError(
                f"{tuned.where}: exhaustive search can't try every value of a {tuned.kind} range: write "
                f"{tuned.name} choice [...], or give --algo=random or --algo=bayes"
            )
    total = prod(len(tuned.values) for tuned in ranges)
    if max_evals is not None:
        raise ValueError(f"max_evals: exhaustive search makes all {total} trials; leave it out, or give --algo=random")
    return total


def _open_folder(config: ALTConfig, ranges: Sequence[Range], stage: str, algo: str, resume: str | None) -> Path:
    tuned = {f"range of {one.name}": [one.kind, one.values] for one in ranges}
    now = json.loads(json.dumps({**values_of(config, FREE), "stage": stage, "algo": algo, **tuned}))
    if not resume:
        folder = make_folder(config, stage)
        write_record(folder / "tuning.json", now)
        return folder
    name = f"tuning-{config['model']}-{config['dataset']}-{stage}"
    folder = find_folder(resume, Path(config["checkpoint_dir"]), name, "tuning.json")
    require_equal("resume", folder, read_record(folder / "tuning.json"), now, "or start a new tuning without --resume")
    return folder
