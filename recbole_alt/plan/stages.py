"""What each stage of a run will cost, by steps that are made with throw-away models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch

from recbole_alt.data.steps import training_loader
from recbole_alt.memory import PeakMemory
from recbole_alt.model.build import build_alignment
from recbole_alt.model.language import LanguageModel
from recbole_alt.plan.reading import Rate, Reading, blank, measure_rate, seconds_of
from recbole_alt.plan.texts import count_masked, distinct_texts
from recbole_alt.stages import stage_config
from recbole_alt.trainer.finetune import ALTTrainer
from recbole_alt.trainer.finetune_checkpoints import save_best
from recbole_alt.trainer.pretrain import ALTPretrainTrainer
from recbole_alt.trainer.start import load_aligned, start_afresh, start_from_aligned

_SECONDS, _MOST_STEPS = 1.0, 100  # to measure steps with, and their number
_FEW, _MOST_SECONDS = 3, 5.0  # steps of which a median tells something, and for how long they may take

#: The optimiser steps, but two epochs at least, that RecBole's CTR models take to their best epoch at a constant rate.
STEPS_TO_BEST, _LEAST_EPOCHS = 850, 2


@dataclass(frozen=True)
class StagePlan:
    """What a stage is expected to cost.

    Attributes:
        seconds: of training and validation, as :class:`~recbole_alt.run_folder.StageResult` counts them.
        most_seconds: the same if early stopping does not end it.
        other_seconds: of building the model, scoring the test set, and writing the aligned towers.
        reading_seconds: the part of ``seconds`` in which the language model reads texts.
        texts_encoded: as :class:`~recbole_alt.run_folder.StageResult` counts them.
        peak_memory_mib: see :class:`~recbole_alt.memory.PeakMemory`; of the first steps, after which a process on a
            processor still grows.
        steps: of the alignment, or of an epoch.
        trains: True if the language model is trained.
        epochs, most_epochs: those that are expected, and the most; 0 for the alignment.
    """

    seconds: float
    most_seconds: float
    other_seconds: float
    reading_seconds: float
    texts_encoded: int
    peak_memory_mib: float
    steps: int
    trains: bool = False
    epochs: int = 0
    most_epochs: int = 0


class Measurement:
    """Measures the stages of a run. What reading a token costs is measured once for all of them.

    Args:
        config: of the run, with a ``checkpoint_dir`` whose files are of no further use.
        model_class: the recommender.
        loaders: of training, validation and test rows; None where there are none.
    """

    def __init__(self, config: Any, model_class: Any, loaders: Sequence[Any]):
        self._config, self._model_class, self._loaders = config, model_class, loaders
        self._dataset, self._device = loaders[0]._dataset, config["device"]
        self._folder = Path(config["checkpoint_dir"])
        self._aligned = Path(config["pretrained_checkpoint"] or self._folder / "pretrain.pth")
        self._rates: dict[bool, Rate] = {}  # by whether the language model is trained
        self._finetuned: dict[str, StagePlan] = {}  # by mode and overrides
        self._on_disk = False  # whether the alignment leaves the states of the training rows' texts there

    def alignment(self) -> StagePlan:
        """Plan the alignment. Texts are counted, not read, while steps are timed; a sample of them is read then."""
        memory, begun = PeakMemory(self._device), perf_counter()
        model = build_alignment(self._config, self._dataset, self._model_class.backbone_class)
        trainer = _Alignment(self._config, model, self._dataset, self._aligned)
        building, steps = perf_counter() - begun, trainer.total_steps
        if not steps:
            trainer.save()
            return StagePlan(0.0, 0.0, building, 0.0, 0, memory.mib(), 0)
        language_model = model.text.language_model
        self._on_disk = language_model.is_fixed and language_model.state_folder is not None
        with blank(language_model) as kept:  # by a language model that is not trained, for all steps
            preparing = seconds_of(trainer.prepare, self._device)
        with blank(language_model) as read:
            step, share = self._time(trainer.advance, steps)
        with blank(language_model) as measured:
            measuring = seconds_of(trainer.measure, self._device) if trainer.held_out is not None else 0.0
        step += measuring / trainer.measured_every
        peak = memory.mib()
        if language_model.is_fixed and trainer.masking.level == "field":  # masked texts come again
            of_all, of_timed = (count_masked(trainer, made) for made in (steps, steps / share))
            share = of_all / max(1.0, of_timed)
        rate = self._rate(language_model, [kept, read], trainer.optimizer)
        times = 1 if language_model.is_fixed else steps // trainer.measured_every  # that held-out texts are read
        reading = (kept.tokens + measured.tokens * times + read.tokens * share) * rate.seconds
        seconds = preparing + reading + steps * (step + rate.update_seconds)
        texts = kept.texts + measured.texts * times + round(read.texts * share)
        peak += rate.update_mib + rate.mib * max(kept.largest, read.largest)
        building += seconds_of(trainer.save, self._device)
        return StagePlan(seconds, seconds, building, reading, texts, peak, steps, not language_model.is_fixed)

    def finetuning(self, stage: str) -> StagePlan:
        """Plan a mode of finetuning, or the plain backbone, which costs what ``ctr`` costs with the same keys."""
        config = stage_config(self._config, stage)
        same = f"{config['finetune_mode']} {sorted(config['finetune'][stage].items())}"
        if same not in self._finetuned:
            self._finetuned[same] = self._finetuning(config, stage)
        return self._finetuned[same]

    def _finetuning(self, config: Any, stage: str) -> StagePlan:
        memory, begun = PeakMemory(self._device), perf_counter()
        train, valid, test = self._loaders
        model = self._model_class(config, self._dataset).to(self._device)
        trainer = _Finetuning(config, model)
        if stage == "plain":
            start_afresh(trainer, self._dataset)
        else:
            start_from_aligned(trainer, load_aligned(config, self._aligned, self._dataset), self._dataset)
        loader = training_loader(config, train, encodes_texts=model.encodes_texts)
        trainer.prepare(train, loader)
        building, steps = perf_counter() - begun, len(loader)
        language_model = model.text.language_model if model.text is not None else None
        if self._on_disk and not model.encodes_texts:
            with blank(language_model):  # not counted
                trainer.read([train])
        with blank(language_model) as kept:  # once, by a language model that is not trained
            filling = 0.0 if model.encodes_texts else seconds_of(lambda: trainer.read([train, valid]), self._device)
        with blank(language_model) as read:
            step, share = self._time(trainer.advance, steps)
        with blank(language_model) as validated:  # in each epoch, by one that is trained
            trainer.read([valid])
            scoring = seconds_of(lambda: trainer.score(valid), self._device) * trainer.unscored
        with blank(language_model) as tested:
            trainer.read([test])
        saving, peak = seconds_of(lambda: trainer.keep(self._folder / "best.pth"), self._device), memory.mib()
        rate = self._rate(language_model, [read, kept], trainer.optimizer)
        forward = self._rate(language_model, [validated, kept, tested], None)
        reading = read.tokens * share * rate.seconds + validated.tokens * forward.seconds
        epoch = steps * (step + rate.update_seconds) + reading + scoring + 2 * saving  # the best, and the last
        once, epochs = filling + kept.tokens * forward.seconds, trainer.expected_epochs(steps, len(valid or ()))
        testing = scoring * len(test or ()) / max(1, len(valid or ())) + tested.tokens * forward.seconds
        texts = kept.texts + epochs * round(read.texts * share + validated.texts)
        peak += rate.update_mib + rate.mib * max(kept.largest, read.largest)
        return StagePlan(
            once + epochs * epoch, once + trainer.epochs * epoch, building + testing, once - filling + epochs * reading,
            texts, peak, steps, model.encodes_texts, epochs, trainer.epochs,
        )  # fmt: skip

    def _time(self, act: Callable[[], Any], steps: int) -> tuple[float, float]:
        """The seconds of a step, and the share of ``steps`` and of the warm-up that was made, inverted."""
        first = seconds_of(act, self._device)
        taken = [first] if first > _SECONDS else []  # else it is only slower than those that follow
        while len(taken) < min(steps, _MOST_STEPS) and sum(taken) < (_SECONDS if len(taken) >= _FEW else _MOST_SECONDS):
            taken.append(seconds_of(act, self._device))
        return median(taken), steps / (len(taken) + (first <= _SECONDS))

    def _rate(
        self, language_model: LanguageModel | None, readings: Sequence[Reading], optimizer: torch.optim.Optimizer | None
    ) -> Rate:
        """The rate of reading the first of ``readings`` in which there is something."""
        reading = next((reading for reading in readings if reading.tokens), None)
        if language_model is None or reading is None:
            return Rate()
        trained = optimizer is not None and not language_model.is_fixed
        if trained not in self._rates:
            of_training = optimizer if trained else None
            self._rates[trained] = measure_rate(language_model, reading, self._device, of_training)
        return self._rates[trained]


class _Alignment(ALTPretrainTrainer):
    """Makes single steps of an alignment."""

    def prepare(self) -> None:
        """What comes before the first step."""
        self.model.train()
        self._keep_texts(False)

    def advance(self) -> None:
        """The next step."""
        self._train_step(self._batch(self.step))
        self._read_measured()

    def measure(self) -> None:
        """The loss on the rows that are held out."""
        self._measure(self.held_out)


class _Enough(Exception):
    """Enough is scored."""


class _Finetuning(ALTTrainer):
    """Makes single steps of finetuning, and scores only as many rows as it takes to know how long that takes."""

    unscored = 1.0  #: the number of batches by that of those scored

    def prepare(self, train_data: Any, loader: Any) -> None:
        """What comes before the first step."""
        self._start_schedule(len(loader))
        self.eval_collector.data_collect(train_data)
        if self.config["train_neg_sample_args"].get("dynamic", False):
            loader.get_model(self.model)
        self._batches = _endless(loader)

    def advance(self) -> None:
        """The next step."""
        self.model.train()
        self._train_step(next(self._batches).to(self.device), self.model.calculate_loss)

    def read(self, loaders: Sequence[Any]) -> None:
        """Give the distinct texts of all rows to the language model."""
        self.model.eval()
        if self.model.text is not None:
            for texts in distinct_texts(self.model.prompts, [loader._dataset for loader in loaders if loader]):
                self.model.text_cache.pooled(texts, self.device)

    def score(self, loader: Any) -> None:
        """Score the rows of ``loader`` for about a second."""
        self._ends, self._scored_batches, self._all_batches = perf_counter() + _SECONDS, 0, len(loader or ())
        try:
            self.evaluate(loader, load_best_model=False)
        except _Enough:
            self.unscored = self._all_batches / self._scored_batches

    def _scored(self, evaluated: Any) -> Any:
        self._scored_batches += 1
        if perf_counter() > self._ends and self._scored_batches < self._all_batches:
            raise _Enough
        return super()._scored(evaluated)

    def keep(self, file: Path) -> None:
        """Write a checkpoint."""
        save_best(self, 0, file)

    def expected_epochs(self, steps: int, validations: int) -> int:
        """The best epoch and those after it that early stopping needs; all if nothing can stop them."""
        if not (validations and self.eval_step) or (self.config["schedule"] or "constant") != "constant":
            return int(self.epochs)  # a falling rate is best at its end
        best = max(_LEAST_EPOCHS, round(STEPS_TO_BEST / steps))
        return int(min(self.epochs, best + (self.stopping_step + 1) * self.eval_step))


def _endless(loader: Any) -> Iterator[Any]:
    while True:
        for rows in loader:
            if len(rows) > 1 or len(loader) == 1:  # a single row has no variance
                yield rows
