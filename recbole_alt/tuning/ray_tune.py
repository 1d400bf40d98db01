"""The search by Ray Tune: the same trials, possibly side by side."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recbole_alt.tuning.objective import Objective
from recbole_alt.tuning.progress import Progress
from recbole_alt.tuning.ranges import Range, needed


def search(
    objective: Objective,
    ranges: Sequence[Range],
    config: Any,
    progress: Progress,
    algo: str,
    total: int,
    cpus_per_trial: int | None,
) -> None:
    """Run the trials, one at a time unless ``cpus_per_trial`` leaves room for more.

    Args:
        objective, ranges, config, progress: of the tuning.
        algo: ``exhaustive``, ``random`` or ``bayes``.
        total: the most trials there can be.
        cpus_per_trial: cores of a trial; all by default.

    Raises:
        ValueError: a trial failed.
    """
    ray, tune = needed("ray"), needed("ray.tune")
    mode, seed = "max" if config["valid_metric_bigger"] else "min", config["seed"]
    if algo == "bayes":
        needed("hyperopt")
        algorithm = needed("ray.tune.search.hyperopt").HyperOptSearch(random_state_seed=seed)
        algorithm = tune.search.ConcurrencyLimiter(algorithm, max_concurrent=1)  # in order, so that draws repeat
    else:
        algorithm = needed("ray.tune.search.basic_variant").BasicVariantGenerator(random_state=seed)
    cores = os.cpu_count() or 1
    resources = {"cpu": cpus_per_trial or cores, "gpu": 1 if config["device"].type == "cuda" else 0}
    here = objective.folder.resolve()
    place = {"folder": here, "cwd": os.getcwd()}
    train = tune.with_parameters(_trial, place=place, given=objective.given, ranges=list(ranges))
    owned = not ray.is_initialized()
    output = os.environ.get("RAY_AIR_NEW_OUTPUT")
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # the other one draws boxes at any verbosity
    if owned:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level="ERROR", num_cpus=cores)
    try:
        tuner = tune.Tuner(
            tune.with_resources(train, resources),
            param_space={tuned.name: tuned.ray(grid=algo == "exhaustive") for tuned in ranges},
            tune_config=tune.TuneConfig(
                metric="score",
                mode=mode,
                search_alg=algorithm,
                num_samples=1 if algo == "exhaustive" else total,
                reuse_actors=True,  # a worker keeps the data for its next trial
            ),
            run_config=needed("ray.air").RunConfig(
                name="ray",
                storage_path=str(here),
                verbose=0,
                callbacks=[_callback(progress, ranges)],
                failure_config=needed("ray.air").FailureConfig(fail_fast=True),
            ),
        )
        results = tuner.fit()
    finally:
        if owned:
            ray.shutdown()
        shutil.rmtree(here / "ray", ignore_errors=True)
        if output is None:
            del os.environ["RAY_AIR_NEW_OUTPUT"]
        else:
            os.environ["RAY_AIR_NEW_OUTPUT"] = output
    for error in results.errors:
        raise ValueError(f"a trial failed: {str(error).strip().splitlines()[-1]}") from error


_objectives: dict[Path, Objective] = {}


def _trial(
    drawn: Mapping[str, Any], place: Mapping[str, Any], given: Mapping[str, Any], ranges: Sequence[Range]
) -> dict[str, Any]:
    """One trial in a worker of Ray, which has another working directory than the tuning."""
    os.chdir(place["cwd"])
    folder = place["folder"]
    if folder not in _objectives:
        if gpu := os.environ.get("CUDA_VISIBLE_DEVICES"):  # RecBole would take gpu_id, not the one that Ray hands out
            arguments = [argument for argument in given["arguments"] if not argument.startswith("--gpu_id=")]
            keys = {**(given["config_dict"] or {}), "gpu_id": gpu}
            given = {**given, "arguments": arguments, "config_dict": keys}
        _objectives[folder] = Objective(folder, **given)
    parameters = {tuned.name: tuned.decode(drawn[tuned.name]) for tuned in ranges}
    outcome = _objectives[folder](parameters)
    return {"score": outcome["best_valid_score"], "outcome": outcome}


def _callback(progress: Progress, ranges: Sequence[Range]) -> Any:
    def parameters(trial: Any) -> dict[str, Any]:
        return {tuned.name: tuned.decode(trial.config[tuned.name]) for tuned in ranges}

    class Lines(needed("ray.tune").Callback):  # type: ignore[misc]
        def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            progress.begin(parameters(trial))

        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            progress.end(parameters(trial), trial.last_result["outcome"])

    return Lines()
