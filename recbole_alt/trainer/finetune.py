"""``ALTTrainer``: RecBole's trainer with parameter groups, schedules and exact resume."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import torch
from recbole.trainer import Trainer
from torch.nn.modules.batchnorm import _BatchNorm
from tqdm import tqdm

from recbole_alt import checkpoints
from recbole_alt.model.precision import gradient_scaler
from recbole_alt.model.weights import load_finetuned
from recbole_alt.trainer.diverged import Diverged
from recbole_alt.trainer.optim import parameter_groups, scheduler, update
from recbole_alt.trainer.resuming import batches_from, best_state, last_state, order_of, restore


class ALTTrainer(Trainer):
    """Finetunes an :class:`~recbole_alt.model.recommender.ALTRecommender` on clicks (method, stage 2).

    As RecBole's ``Trainer`` (``recbole/trainer/trainer.py``), and: the language model, the CTR embeddings
    and the rest have their own ``learning_rate`` and ``weight_decay`` (``language_*``, ``embedding_*``; empty
    = the rest's), a ``schedule`` with warm-up, checkpoints that are read without running code, and a second
    checkpoint (``<name>-last.pth``) from which a stopped run goes on as if never stopped.
    """

    def __init__(self, config: Any, model: Any):
        if not config["single_spec"]:
            raise ValueError("training on several processes is not supported yet: run without --nproc and --world_size")
        super().__init__(config, model)
        trains_in_fp16 = model.encodes_texts and config["precision"] == "fp16"
        self.scaler = gradient_scaler(self.device, enabled=self.enable_scaler or trains_in_fp16)
        self.scheduler: torch.optim.lr_scheduler.LambdaLR | None = None
        self.seconds = 0.0
        self._resumed: dict[str, Any] | None = None

    @property
    def last_file(self) -> Path:
        """The checkpoint to resume from."""
        best = Path(self.saved_model_file)
        return best.with_name(f"{best.stem}-last.pth")

    def _build_optimizer(self, **_: Any) -> torch.optim.Optimizer:
        rates = {"rest": self.learning_rate, "mixing": self.learning_rate}
        decays = {"rest": self.weight_decay, "mixing": 0.0}
        for group in ("language", "embedding"):
            rate, decay = self.config[f"{group}_learning_rate"], self.config[f"{group}_weight_decay"]
            rates[group] = self.learning_rate if rate is None else rate
            decays[group] = self.weight_decay if decay is None else decay
        return super()._build_optimizer(params=parameter_groups(self.model, rates, decays))

    def fit(
        self,
        train_data: Any,
        valid_data: Any = None,
        verbose: bool = True,
        saved: bool = True,
        show_progress: bool = False,
        callback_fn: Callable[[int, float], None] | None = None,
    ) -> tuple[float, dict[str, float] | None]:
        """Train to the last epoch or until validation stops improving; see RecBole's ``Trainer.fit``.

        Returns:
            best validation score and result; (-inf or inf, None) without validation data.

        Raises:
            Diverged: a loss or a prediction is not a number.
        """
        self._normalises = any(isinstance(module, _BatchNorm) for module in self.model.modules())
        self._saves = saved
        self._began = monotonic() - self.seconds
        self._start_schedule(len(train_data))
        best = saved and (self.start_epoch < self.epochs or not self.epochs)  # a finished run keeps the one it has
        result = super().fit(train_data, valid_data, verbose, best, show_progress, callback_fn)
        self.seconds = monotonic() - self._began
        if saved:
            self._save_last(self.epochs, 0, None, None)  # over: resuming goes straight to the test
        return result

    def _start_schedule(self, steps_per_epoch: int) -> None:
        self.scheduler = scheduler(
            self.optimizer,
            self.config["schedule"] or "constant",
            self.epochs * steps_per_epoch,
            self.config["warmup_ratio"] or 0.0,
        )
        if self._resumed is not None:
            self.scheduler.load_state_dict(self._resumed["scheduler"])
            for group, rate in zip(self.optimizer.param_groups, self.scheduler.get_last_lr(), strict=True):
                group["lr"] = rate  # making the scheduler set the first step's

    def _train_epoch(
        self,
        train_data: Any,
        epoch_idx: int,
        loss_func: Callable[..., Any] | None = None,
        show_progress: bool = False,
    ) -> Any:
        """One epoch; returns the sum of its losses, or a tuple of sums (RecBole's contract)."""
        if self._saves and epoch_idx > self.start_epoch:
            self._save_last(epoch_idx, 0, order_of(train_data), None)
        self.model.train()
        loss_func = loss_func or self.model.calculate_loss
        resumed, self._resumed = self._resumed, None
        if resumed is not None and resumed["order"] is not None:
            train_data.generator.set_state(resumed["order"].cpu())
        order = order_of(train_data)
        train_data.epoch = epoch_idx
        done = resumed["step"] if resumed is not None else 0
        totals: list[float] = list(resumed["losses"] or []) if resumed is not None else []
        is_tuple = bool(resumed["is_tuple"]) if resumed is not None else False
        saved_at = monotonic()
        with tqdm(
            total=len(train_data), initial=done, ncols=100, desc=f"Train {epoch_idx:>5}", disable=not show_progress
        ) as bar:
            for step, rows in enumerate(batches_from(train_data, done, resumed), start=done):
                if len(rows) == 1 and self._normalises and len(train_data) > 1:
                    continue  # the last of an epoch, and not the same one in each: it has no variance
                losses = self._train_step(rows.to(self.device), loss_func)
                is_tuple = isinstance(losses, tuple)
                parts = [part.item() for part in (losses if isinstance(losses, tuple) else (losses,))]
                totals = [a + b for a, b in zip(totals, parts, strict=True)] if totals else parts
                bar.update()
                if self._saves and monotonic() - saved_at > self.config["checkpoint_seconds"]:
                    self._save_last(epoch_idx, step + 1, order, (totals, is_tuple))
                    saved_at = monotonic()
        return tuple(totals) if is_tuple else sum(totals)

    def _train_step(self, rows: Any, loss_func: Callable[..., Any]) -> Any:
        self.optimizer.zero_grad()
        with torch.autocast(device_type=self.device.type, enabled=bool(self.enable_amp)):
            losses = loss_func(rows)
        loss: Any = sum(losses) if isinstance(losses, tuple) else losses
        self._check_nan(loss)
        update(self.model, loss, self.optimizer, self.scaler, self.scheduler, self.clip_grad_norm)
        return losses

    def _check_nan(self, loss: Any) -> None:
        if torch.isnan(loss):
            raise Diverged("the training loss is not a number: lower learning_rate")

    def _valid_epoch(self, *args: Any, **kwargs: Any) -> tuple[float, dict[str, float]]:
        score, result = super()._valid_epoch(*args, **kwargs)
        return score, {name: float(value) for name, value in result.items()}

    def _neg_sample_batch_eval(self, batched_data: Any) -> Any:
        return self._without_nan(super()._neg_sample_batch_eval(batched_data))

    def _full_sort_batch_eval(self, batched_data: Any) -> Any:
        return self._without_nan(super()._full_sort_batch_eval(batched_data))

    def _without_nan(self, evaluated: Any) -> Any:
        """What RecBole made of a batch, its scores second; they can be no numbers after an epoch's last step only."""
        if torch.isnan(evaluated[1]).any():
            raise Diverged("a prediction is not a number after training: lower learning_rate")
        return evaluated

    def _save_checkpoint(self, epoch: int, verbose: bool = True, **kwargs: Any) -> None:
        file = kwargs.get("saved_model_file") or self.saved_model_file
        checkpoints.save(best_state(self, epoch), file)
        if verbose:
            self.logger.info(f"Saving current: {file}")

    def _save_last(self, *args: Any) -> None:
        self.seconds = monotonic() - self._began
        checkpoints.save(last_state(self, *args), self.last_file)

    def resume_checkpoint(self, resume_file: str | os.PathLike[str]) -> None:
        """Go on from a ``-last.pth`` checkpoint at the very step it was written; see :func:`restore`."""
        self._resumed = restore(self, resume_file)

    def evaluate(
        self,
        eval_data: Any,
        load_best_model: bool = True,
        model_file: str | os.PathLike[str] | None = None,
        show_progress: bool = False,
    ) -> dict[str, float] | None:
        """Metrics on ``eval_data``, by default of the best checkpoint; see RecBole's ``Trainer.evaluate``."""
        if eval_data and load_best_model:
            file = model_file or self.saved_model_file
            load_finetuned(self.model, checkpoints.load(file, self.device), file)
        return super().evaluate(eval_data, load_best_model=False, show_progress=show_progress)
