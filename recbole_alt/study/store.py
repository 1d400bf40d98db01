"""The trainings of a study: what names one, the data and the alignment that it shares with others, what came of it."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any

from filelock import FileLock, Timeout

from recbole_alt import checkpoints
from recbole_alt.config import ALTConfig
from recbole_alt.experiment import Experiment
from recbole_alt.files import read_record, write_record
from recbole_alt.keys import ALIGNMENT, NOT_OF_ALIGNMENT, keys_of
from recbole_alt.loading import Data, load_data
from recbole_alt.model.machine import settle_machine
from recbole_alt.reporting.runs import read_training
from recbole_alt.run_folder import MACHINE, StageResult, read_stage
from recbole_alt.scores import flat_metrics
from recbole_alt.study.console import logger
from recbole_alt.trainer.diverged import Diverged
from recbole_alt.trainer.finetune import ALTTrainer

#: What came of a training, as :meth:`Store.train` describes it.
Record = dict[str, Any]

# each stage makes its training loader anew, but not those of validation and test
_NOT_OF_DATA = (NOT_OF_ALIGNMENT | keys_of(ALIGNMENT)) - {"eval_batch_size"}


def values_of(config: ALTConfig, free: Collection[str]) -> Record:
    """The keys of a configuration but for ``free`` ones, as JSON holds them."""
    values = ALTConfig.snapshot(config).__getstate__()["values"]
    return {key: value for key, value in values.items() if key not in free}


def digest(config: ALTConfig, free: Collection[str]) -> str:
    """A name for a configuration, equal for those that differ only in ``free`` keys."""
    return hashlib.sha256(json.dumps(values_of(config, free), sort_keys=True).encode()).hexdigest()[:12]


class Store:
    """Trainings that share data and alignments in one folder, which processes may share.

    Args:
        folder: Of the study.
        one_split: Whether the split has a seed of its own, so that other seeds share the data.
    """

    def __init__(self, folder: Path, one_split: bool = False):
        self.folder = folder
        self._not_of_data = _NOT_OF_DATA | ({"seed"} if one_split else set())
        self._loaded: tuple[str, Data] | None = None

    def settle(self, config: ALTConfig, stage: str) -> str | None:
        """Set what all trainings of the study have in common, and name the alignment that this one starts from.

        Trainings that differ only in keys of finetuning share one. It is None for the plain backbone, and where the
        user gives a checkpoint.
        """
        settle_machine(config, self.folder / MACHINE)
        config["checkpoint_dir"] = str(self.folder)  # RecBole's trainers make this folder
        config["show_progress"] = bool(config.external_config_dict.get("show_progress"))
        return None if stage == "plain" or config["pretrained_checkpoint"] else digest(config, NOT_OF_ALIGNMENT)

    def train(
        self,
        config: ALTConfig,
        stage: str,
        file: Path,
        *,
        test: bool = True,
        kind: type[Experiment] = Experiment,
        about: Callable[[], Record] = dict,
        timeout: float = -1,
    ) -> Record:
        """The record of a training in ``file``, made if it is not there; its checkpoints are in a folder beside it.

        A training that was stopped goes on; of one without test scores only these are made if they are wanted now.

        Args:
            config: Of the training; :meth:`settle` changes it.
            stage: ``plain``, ``ctr``, ``lm`` or ``joint``.
            file: Of the record, a ``.json``.
            test: Whether the test set is scored.
            kind: Class of the experiment.
            about: Makes what else a new record says.
            timeout: Seconds to wait for another process that is at this training; by default as long as it takes.

        Returns:
            ``score`` (the validation metric, None where training diverged, with the reason in ``error``), whether
            ``bigger`` is better, all ``valid`` and ``test`` metrics, whether it is ``tested``, ``pretraining`` (the
            name of its alignment; None for the plain backbone and a checkpoint of the user's), ``aligned`` (seconds of
            making that; 0 where another training had), ``wall`` (seconds of everything else), ``costs``, ``details``.

        Raises:
            Timeout: Another process is at this training.
        """
        with FileLock(file.with_suffix(".lock"), timeout=timeout):
            before = read_training(file) if file.is_file() else None
            if before and (before["tested"] or not test):
                return before
            folder = file.with_suffix("")
            done = folder / f"{stage}.json"
            if test and done.is_file() and not read_stage(done).test:
                done.unlink()  # only the test is missing
            record = self._train(config, stage, folder, test, kind)
            if before:  # costs are of its training, not of the test
                record |= {"wall": before["wall"] + record["wall"], "costs": before["costs"]}
            write_record(file, about() | record)
        return read_record(file)

    def _train(self, config: ALTConfig, stage: str, folder: Path, test: bool, kind: type[Experiment]) -> Record:
        begun, given = monotonic(), config["pretrained_checkpoint"]
        name, data = self.settle(config, stage), self.load(config)
        result, error, aligned, costs = None, None, 0.0, dict[str, Any]()
        try:
            with kind(config, data if test else (*data[:3], None), folder) as experiment:
                if name:
                    aligned, costs = self._align(name, config, data, folder / "pretrain.pth")
                    config["pretrained_checkpoint"] = str(folder / "pretrain.pth")
                experiment.finetune(stage)
                result = experiment.stages[stage]
        except Diverged as diverged:  # a result, too
            error = str(diverged)
        config["pretrained_checkpoint"] = given
        return {
            "score": result.valid[config["valid_metric"].lower()] if result else None,
            "bigger": bool(config["valid_metric_bigger"]),
            "valid": result.valid if result else {},
            "test": result.test if result else {},
            "tested": test,
            "error": error,
            "wall": monotonic() - begun - aligned,
            "aligned": aligned,
            "pretraining": name,
            "costs": _costs(result) | (costs if result else {}),
            "details": result.details if result else {},
        }

    def load(self, config: ALTConfig) -> Data:
        """Loaded and split data; those of the training before where they are the same."""
        name = f"{config['data_path']} {digest(config, self._not_of_data)}"
        if self._loaded is None or self._loaded[0] != name:
            self._loaded = None  # not both in memory at a time
            self._loaded = (name, load_data(config))
        return self._loaded[1]

    # -- alignments --------------------------------------------------------------------------------------

    def has_alignment(self, name: str) -> bool:
        """True if an alignment is made and its weights are there; once dropped, the record of its costs stays."""
        return all((self.folder / "pretraining" / name / file).is_file() for file in ("pretrain.json", "pretrain.pth"))

    def is_aligning(self, name: str | None) -> bool:
        """True while another process makes this alignment, and would have to be waited for."""
        if name is None or self.has_alignment(name):
            return False
        try:
            with FileLock(f"{self.folder / 'pretraining' / name}.lock", timeout=0):
                return False
        except Timeout:
            return True

    def _align(self, name: str, config: ALTConfig, data: Data, target: Path) -> tuple[float, dict[str, Any]]:
        """Put the aligned towers at ``target``; the seconds that this took now, and all that making them cost."""
        home, seconds = self.folder / "pretraining" / name, 0.0
        done, weights = home / "pretrain.json", home / "pretrain.pth"
        with FileLock(f"{home}.lock"):
            if not self.has_alignment(name):
                done.unlink(missing_ok=True)
                logger.info("aligning; trainings that differ only in keys of finetuning share it")
                with Experiment(config, data, home) as run:
                    run.pretrain()
                state = checkpoints.load(weights)
                finished = {key: value for key, value in state.items() if key not in ("optimizer", "scheduler", "rng")}
                checkpoints.save(finished, weights)  # a third of the size
                seconds = run.stages["pretrain"].seconds
            aligned = read_stage(done)
            os.utime(done)  # the last use
            target.unlink(missing_ok=True)
            try:
                os.link(weights, target)  # stays when another process drops this alignment
            except OSError:
                shutil.copy(weights, target)
        costs = _costs(aligned) | {key: aligned.details[key] for key in ("steps", "interactions_seen")}
        return seconds, {f"alignment_{key}": cost for key, cost in costs.items()}

    def drop_alignments(self, keep: Collection[str | None], latest: int = 0) -> None:
        """Delete the weights of finished alignments that are not in use, but for ``keep`` and the ``latest`` used."""
        done = [file for file in self.folder.glob("pretraining/*/pretrain.json") if file.parent.name not in keep]
        kept = [file for file in done if file.with_name("pretrain.pth").is_file()]
        for file in sorted(kept, key=lambda file: -file.stat().st_mtime)[latest:]:
            with suppress(Timeout), FileLock(f"{file.parent}.lock", timeout=0):
                file.with_name("pretrain.pth").unlink(missing_ok=True)

    def drop_locks(self) -> None:
        """Delete the files of locks that nobody holds."""
        for file in self.folder.rglob("*.lock"):
            with suppress(Timeout), FileLock(file, timeout=0):
                file.unlink(missing_ok=True)


def _costs(result: StageResult | None) -> dict[str, Any]:
    nothing = StageResult(seconds=0.0, texts_encoded=0)
    return {name: getattr(result or nothing, name) for name in ("seconds", "texts_encoded", "peak_memory_mib")}


class ScoredExperiment(Experiment):
    """An experiment that keeps the score of every test row, or leaves the test set untouched."""

    def _test(self, trainer: ALTTrainer, stage: str, progress: bool) -> dict[str, float]:
        super()._test(trainer, stage, progress)
        if trainer.scores is None:  # a trial: nothing but validation may choose
            return {}
        trainer.scores.save(self.folder / "scores.npz")
        return {name: value for name, value in flat_metrics(trainer.scores).items() if value is not None}
