"""``ALTTrainer``: RecBole's trainer with parameter groups, schedules and exact resume."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import torch
from recbole.trainer import Trainer
from recbole.utils import EvaluatorType
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from recbole_alt import checkpoints, processes
from recbole_alt.model.backbones import embedding_tables
from recbole_alt.model.grounding import map_rate
from recbole_alt.model.kernels import use_fast_kernels
from recbole_alt.model.precision import gradient_scaler
from recbole_alt.model.weights import load_finetuned
from recbole_alt.progress import progress
from recbole_alt.scores import Scores, count_interactions, score_batch, slice_metrics
from recbole_alt.trainer.diverged import Diverged
from recbole_alt.trainer.finetune_checkpoints import load_last, save_best, save_last
from recbole_alt.trainer.optim import parameter_groups, scheduler, update
from recbole_alt.trainer.rowwise import RowwiseAdamW, lazy_rows, settle


class ALTTrainer(Trainer):
    """Finetunes an :class:`~recbole_alt.model.recommender.ALTRecommender` on clicks (method, finetuning).

    To RecBole's ``Trainer`` it adds a ``learning_rate`` and a ``weight_decay`` for the language model and for the CTR
    embeddings (``language_*``, ``embedding_*``; empty = the rest's), a ``schedule`` with warm-up, checkpoints that are
    read without running code, and a second one (``<name>-last.pth``) from which a stopped run goes on exactly; and
    ``embedding_optimizer``.

    Several processes divide the rows of each batch, in training and in evaluation; all know the scores of all rows, and
    the first one writes.

    Attributes:
        scores: of the last evaluation; None if there was none, or one that ranks items.
        valid_slices: :func:`~recbole_alt.scores.slice_metrics` of the validation rows, as the best epoch scores them;
            empty without such an epoch.
        valid_scores: the epoch, counted from 1, and the score of each validation.
    """

    def __init__(self, config: Any, model: Any):
        if not config["single_spec"]:
            raise ValueError("RecBole's own launch can't train ALT in several processes: use run_recbole_alt --nproc")
        super().__init__(config, model)
        if config["compile_language_model"] and model.encodes_texts:
            model.text.language_model.compile_layers()
        if self._uses_fast_kernels and model.backbone is not None:
            use_fast_kernels(model.backbone)
        trains_in_fp16 = model.encodes_texts and config["precision"] == "fp16"
        self.scaler = gradient_scaler(self.device, enabled=self.enable_scaler or trains_in_fp16)
        self.scheduler: torch.optim.lr_scheduler.LambdaLR | None = None
        self.seconds = 0.0
        self.scores: Scores | None = None
        self.valid_slices: dict[str, Any] = {}
        self.valid_scores: list[list[float]] = []
        self._seen: dict[str, Any] = {}
        self._score_batches: list[dict[str, Any]] = []
        self._resumed: dict[str, Any] | None = None
        self._loss_func: Callable[..., Any] | None = None  # which averages gradients

    @property
    def last_file(self) -> Path:
        """The checkpoint to resume from."""
        best = Path(self.saved_model_file)
        return best.with_name(f"{best.stem}-last.pth")

    def _build_optimizer(self, **_: Any) -> torch.optim.Optimizer:
        rate: float = self.learning_rate
        of_maps = map_rate(self.model.backbone, self.config["grounding_rate"])
        rates: dict[str, float] = {"rest": rate, "grounding": rate * of_maps}
        decays: dict[str, Any] = dict.fromkeys(rates, self.weight_decay)
        for group in ("language", "embedding"):
            rate, decay = self.config[f"{group}_learning_rate"], self.config[f"{group}_weight_decay"]
            rates[group] = self.learning_rate if rate is None else rate
            decays[group] = self.weight_decay if decay is None else decay
        groups = parameter_groups(self.model, rates, decays)
        if self._uses_fast_kernels and self.learner.lower() != "rmsprop":  # which torch has not fused
            groups = [group | {"fused": True} for group in groups]
        if self.config["embedding_optimizer"] == "rowwise" and self.model.backbone is not None:
            return RowwiseAdamW(groups, embedding_tables(self.model.backbone))
        return super()._build_optimizer(params=groups)

    @property
    def _uses_fast_kernels(self) -> bool:
        return bool(self.config["fast_kernels"]) and self.device.type == "cpu"

    def fit(
        self, train_data: Any, valid_data: Any = None, verbose: bool = True, saved: bool = True, **kwargs: Any
    ) -> tuple[float, dict[str, float] | None]:
        """As RecBole's ``Trainer.fit``; without validation data it returns (-inf or inf, None).

        Raises:
            Diverged: a loss or a prediction is not a number.
        """
        self._normalises = any(isinstance(module, _BatchNorm) for module in self.model.modules())
        self._saves = saved
        self._seen = count_interactions(train_data._dataset)
        self._began = monotonic() - self.seconds
        self._keep_texts(train_data, valid_data)
        self._start_schedule(len(train_data))
        best = saved and (self.start_epoch < self.epochs or not self.epochs)  # a finished run keeps the one it has
        with lazy_rows(self.optimizer):
            result = super().fit(train_data, valid_data, verbose, best, **kwargs)
        self.seconds = monotonic() - self._began
        self._say_if_overfitted()
        if saved:
            self._save_last(self.epochs, 0, None, [])  # over: resuming goes straight to the test
        return result

    def _say_if_overfitted(self) -> None:
        """Log what to try where the first epoch was the best of several at one learning rate."""
        since = self.cur_step * self.eval_step  # the best epoch
        constant = (self.config["schedule"] or "constant") == "constant"
        if constant and since and len(self.train_loss_dict) - since <= self.eval_step:
            tried = f"--schedule=cosine --epochs={2 * self.eval_step}"
            self.logger.info(f"All that followed the first validation overfits; {tried} may be better")

    def _keep_texts(self, *loaders: Any) -> None:
        for loader in loaders:
            if loader:
                self.model.keep_texts(loader._dataset.inter_feat)

    def _start_schedule(self, steps_per_epoch: int) -> None:
        schedule, warmup_ratio = self.config["schedule"] or "constant", self.config["warmup_ratio"] or 0.0
        self.scheduler = scheduler(self.optimizer, schedule, self.epochs * steps_per_epoch, warmup_ratio)
        if self._resumed is not None:
            self.scheduler.load_state_dict(self._resumed["scheduler"])
            for group, rate in zip(self.optimizer.param_groups, self.scheduler.get_last_lr(), strict=True):
                group["lr"] = rate  # making the scheduler set the first step's

    def _train_epoch(
        self, train_data: Any, epoch_idx: int, loss_func: Any = None, show_progress: bool = False
    ) -> float | tuple[float, ...]:
        """One epoch; returns the sum of its losses, or a tuple of sums (RecBole's contract)."""
        if self._saves and epoch_idx > self.start_epoch:
            self._save_last(epoch_idx, 0, _order_of(train_data), [])
        self.model.train()
        if self._loss_func is None:
            self._loss_func = processes.averaging(self.model, loss_func or self.model.calculate_loss)
        resumed, self._resumed = self._resumed or {"step": 0, "losses": None, "order": None}, None
        if resumed["order"] is not None:
            train_data.generator.set_state(resumed["order"].cpu())
        order = _order_of(train_data)
        train_data.epoch = epoch_idx
        done, totals = resumed["step"], resumed["losses"] or []
        batches = iter(train_data)
        for _ in range(done):
            next(batches)
        if "rng" in resumed:
            checkpoints.set_rng_state(resumed["rng"])
        saved_at = monotonic()
        title = f"Train epoch {epoch_idx} (at most {self.epochs})"
        bar = progress(batches, title, len(train_data), initial=done, shown=show_progress, unit=" steps")
        for step, rows in enumerate(bar, start=done):
            if len(rows) == 1 and self._normalises and len(train_data) > 1:
                continue  # the last of an epoch, and not the same one in each: it has no variance
            processes.seed_others(self.config["seed"], epoch_idx, step)
            losses = self._train_step(rows.to(self.device), self._loss_func)
            parts = [part.item() for part in (losses if isinstance(losses, tuple) else (losses,))]
            totals = [a + b for a, b in zip(totals, parts, strict=True)] if totals else parts
            if self._saves and monotonic() - saved_at > self.config["checkpoint_seconds"]:
                self._save_last(epoch_idx, step + 1, order, totals)
                saved_at = monotonic()
        settle(self.optimizer)
        self.tensorboard.add_scalar("loss", sum(totals) / len(train_data), epoch_idx + 1)
        return tuple(totals) if len(totals) > 1 else sum(totals)

    def _train_step(self, rows: Any, loss_func: Callable[..., Any]) -> Any:
        """One optimiser step on a batch; the parts of its loss, or the only one."""
        self.optimizer.zero_grad()
        share = processes.Share.of(len(rows))
        with share.working(), torch.autocast(device_type=self.device.type, enabled=bool(self.enable_amp)):
            losses = loss_func(share.take(rows))
        if processes.count() == 1:
            loss: Any = sum(losses) if isinstance(losses, tuple) else losses
            self._check_nan(loss)
        else:
            own = [share.weight * part for part in (losses if isinstance(losses, tuple) else (losses,))]
            losses, loss = tuple(processes.means(own)), sum(own)
            self._check_nan(sum(losses))
        update(self.model, loss, self.optimizer, self.scaler, self.scheduler, self.clip_grad_norm)
        return losses

    def _check_nan(self, loss: Any) -> None:
        if torch.isnan(loss):
            raise Diverged("the training loss is not a number: lower learning_rate")

    def _valid_epoch(self, *args: Any, **kwargs: Any) -> tuple[float, dict[str, float]]:
        score, result = super()._valid_epoch(*args, **kwargs)
        self.valid_scores.append([len(self.train_loss_dict), float(score)])
        for name, value in result.items():
            self.tensorboard.add_scalar(f"valid/{name}", value, len(self.train_loss_dict))
        return score, {name: float(value) for name, value in result.items()}

    def _neg_sample_batch_eval(self, batched_data: Any) -> Any:
        evaluated = self._scored(super()._neg_sample_batch_eval(batched_data))
        if self.eval_type == EvaluatorType.VALUE:
            self._score_batches.append(score_batch(self.config, *evaluated[:2]))
        return evaluated

    def _full_sort_batch_eval(self, batched_data: Any) -> Any:
        return self._scored(super()._full_sort_batch_eval(batched_data))

    def _scored(self, evaluated: Any) -> Any:
        """What RecBole made of a batch, its scores second, none of which may be NaN."""
        if torch.isnan(evaluated[1]).any():
            raise Diverged("a prediction is not a number after training: lower learning_rate")
        self._evaluated.update()
        return evaluated

    def _save_checkpoint(self, epoch: int, verbose: bool = True, **kwargs: Any) -> None:
        file = kwargs.get("saved_model_file") or self.saved_model_file
        self.valid_slices = slice_metrics(self.scores) if self.scores else {}
        if not processes.is_first():
            return
        save_best(self, epoch, file)
        if verbose:
            self.logger.info(f"Saving current: {file}")

    def _save_last(self, epoch: int, step: int, order: Tensor | None, losses: list[float]) -> None:
        """See :func:`~recbole_alt.trainer.finetune_checkpoints.save_last`."""
        self.seconds = monotonic() - self._began
        self.tensorboard.flush()
        if processes.is_first():
            save_last(self, epoch, step, order, losses)

    def resume_checkpoint(self, resume_file: str | os.PathLike[str]) -> None:
        """Go on from a ``-last.pth`` checkpoint at the very step it was written.

        Raises:
            ValueError: it holds no progress (a best checkpoint holds only weights), another model or other data, or was
                made by another number of processes.
        """
        self._resumed = load_last(self, resume_file)

    def evaluate(
        self, eval_data: Any, load_best_model: bool = True, model_file: Any = None, show_progress: bool = False
    ) -> dict[str, float] | None:
        """Metrics on ``eval_data``, by default of the best checkpoint; see RecBole's ``Trainer.evaluate``."""
        processes.wait()  # until the best is saved
        if eval_data and load_best_model:
            file = model_file or self.saved_model_file
            load_finetuned(self.model, checkpoints.load(file, self.device), file)
        self._keep_texts(eval_data)
        self.scores, self._score_batches = None, []
        batches = len(eval_data) if eval_data else 0
        bar = progress(title="Evaluate", total=batches, shown=show_progress, unit=" batches")
        with bar as self._evaluated, self._predicting_shares():
            result = super().evaluate(eval_data, load_best_model=False)  # whose own bar knows only terminals
        if self._score_batches:
            self.scores, self._score_batches = Scores.of(self._score_batches, self._seen), []
        return processes.from_first(lambda: result)

    @contextmanager
    def _predicting_shares(self) -> Iterator[None]:
        """For the while, each process scores its share of a batch, and has the scores of all."""
        if processes.count() == 1:
            yield
            return
        predict = self.model.predict

        def predict_share(rows: Any) -> Tensor:
            share = processes.Share.of(len(rows))
            return share.gather(predict(share.take(rows)))

        self.model.predict = predict_share
        try:
            yield
        finally:
            del self.model.predict


def _order_of(train_data: Any) -> Tensor | None:
    """State of the generator a RecBole loader shuffles with; None for batches that depend on the step only."""
    generator = getattr(train_data, "generator", None)
    return None if generator is None else generator.get_state()
