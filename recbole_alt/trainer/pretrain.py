"""``ALTPretrainTrainer``: the alignment stage, resumable at any step."""

import os
from collections.abc import Mapping, Sequence
from contextlib import closing
from logging import getLogger
from math import isfinite
from time import monotonic
from typing import Any

import torch
from recbole.trainer import trainer as host

from recbole_alt import checkpoints, processes
from recbole_alt.config import ALTConfig
from recbole_alt.data.identity import record_of, require_same_data
from recbole_alt.data.masking import step_generator
from recbole_alt.data.moving import Arriving, MadeAhead
from recbole_alt.data.steps import build_batches, build_masking
from recbole_alt.model.alignment import AlignmentModel, AlignmentOutput
from recbole_alt.model.backbones import embedding_tables
from recbole_alt.model.grounding import map_rate
from recbole_alt.model.objectives.batch import AlignmentBatch
from recbole_alt.model.precision import gradient_scaler
from recbole_alt.model.text_cache import TextCache
from recbole_alt.model.weights import load_weights
from recbole_alt.progress import progress
from recbole_alt.sizes import measured_every
from recbole_alt.trainer.curves import Curves, add_step, points_every
from recbole_alt.trainer.diverged import Diverged
from recbole_alt.trainer.length import (
    has_stopped_falling,
    held_out_loss,
    hold_out,
    patience_of,
    planned_steps,
    rows_of_step,
)
from recbole_alt.trainer.optim import GROUPS, load_optimizer, parameter_groups, scheduler, update
from recbole_alt.trainer.rowwise import RowwiseAdamW, lazy_rows, settle

#: What a checkpoint holds: parts of the model and attributes of the trainer.
_PARTS = ("backbone", "text", "objectives")
_STEPPED = ("optimizer", "scheduler", "scaler")
_PROGRESS = ("step", "interactions_seen", "seconds", "recent", "losses", "held_out_losses")


class ALTPretrainTrainer(host.AbstractTrainer):
    """Aligns both towers on training interactions, without labels (method, alignment).

    On a GPU, another thread makes the next batch during the backward pass, and what a step measured is read when the
    next one has begun, so that the GPU always has work. A loss that is not a number is found then.

    The schedule of the learning rates is that of ``total_steps``. Alignment ends earlier when the loss on some training
    rows, held out of training for this, has stopped falling (``pretrain_stopping_step``); the last weights are kept.

    Batch, masks and dropout of a step depend only on the seed and the step, so a run resumed from its checkpoint goes
    on as if never stopped. Several processes make each step together (:class:`AlignmentModel`), and the first writes.

    Args:
        config: RecBole's; read are the keys ``pretrain_*``, ``checkpoint_seconds``, and those of masking and batches.
        model: the towers and objectives.
        dataset: the built training dataset; nothing else is read.
        file: the checkpoint.

    Attributes:
        total_steps: the most steps there can be.
        dataset, held_out: the rows to train on, and those to measure on, None where it does not end early.
        step: how many steps were made.
        held_out_losses: what was measured so far, every ``measured_every`` steps.
    """

    def __init__(self, config: Any, model: AlignmentModel, dataset: Any, file: str | os.PathLike[str]):
        super().__init__(config, model)
        self.logger = getLogger()
        self.tensorboard = host.get_tensorboard(self.logger)
        self.dataset = self._all_rows = dataset
        self.held_out: Any = None
        self.file = file
        self.device = config["device"]
        self.patience = patience_of(config)
        if self.patience:
            self.dataset, self.held_out = hold_out(dataset, config["seed"])
        fixed = model.text.language_model.is_fixed
        if config["compile_language_model"] and not fixed:
            model.text.language_model.compile_layers()
        self.batches = build_batches(config, self.dataset, config["pretrain_batch_size"], fixed=fixed)
        self.masking = build_masking(config, dataset.prompts, [field.name for field in model.backbone.fields])
        self.total_steps = planned_steps(config, self.batches, len(self.dataset))
        self.measured_every = measured_every(self.total_steps)
        rate, language_rate = config["pretrain_learning_rate"], config["pretrain_language_learning_rate"]
        rates = dict.fromkeys(GROUPS, rate) | {"grounding": rate * map_rate(model.backbone, config["grounding_rate"])}
        rates["language"] = rate if language_rate is None else language_rate
        decays = dict.fromkeys(GROUPS, config["pretrain_weight_decay"])
        groups = parameter_groups(model, rates, decays)
        if config["embedding_optimizer"] == "rowwise":
            tables = [table for part in (model.backbone, model.objectives) for table in embedding_tables(part)]
            self.optimizer: torch.optim.Optimizer = RowwiseAdamW(groups, tables, fused=True)
        else:
            self.optimizer = torch.optim.AdamW(groups, fused=True)
        schedule, warmup_ratio = config["pretrain_schedule"], config["pretrain_warmup_ratio"]
        self.scheduler = scheduler(self.optimizer, schedule, self.total_steps, warmup_ratio)
        self.scaler = gradient_scaler(self.device, enabled=config["precision"] == "fp16")
        self.step = 0
        self.interactions_seen = 0
        self.seconds = 0.0
        self.recent: list[dict[str, float]] = []  # losses and accuracies of the last steps, a tenth of all at most
        self.losses: Curves = {}  # of each objective, over all steps
        self.held_out_losses: list[float] = []
        self._measured: tuple[int, Arriving] | None = None  # what the last step measured
        self._ahead = MadeAhead(self._batch, thread=self.device.type == "cuda")
        self._forward = processes.averaging(model, model)

    def fit(self, train_data: Any = None, show_progress: bool = True) -> dict[str, Any]:
        """Train to the last step, or until the loss on held-out rows has stopped falling, and save.

        Returns:
            ``steps``, ``planned_steps``, ``ended_by`` (``steps`` or ``held_out_loss``), ``held_out_rows``,
            ``held_out_losses``, ``seconds``, ``texts_encoded``, ``interactions_seen``; ``final``: losses and
            accuracies averaged over the last steps, a tenth of the planned ones at most; and ``curves``: points of step
            and loss, of each objective and ``held_out``.

        Raises:
            Diverged: a loss is not a number.
        """
        self.model.train()
        begun = saved = monotonic()
        before = self.seconds
        self._keep_texts(show_progress)
        self._announce()
        steps = range(self.step, self.total_steps if not self.ended_by else self.step)
        bar = progress(steps, "Align", self.total_steps, initial=self.step, shown=show_progress, unit=" steps")
        with lazy_rows(self.optimizer), closing(self._ahead):
            for step in bar:
                self._train_step(self._ahead.get(step))
                if self.held_out is not None and self.step % self.measured_every == 0:
                    self._measure(self.held_out)
                if self.recent:
                    losses = {name: x for name, x in self.recent[-1].items() if name.startswith("loss/")}
                    bar.set_postfix({name[5:].replace("masked_", "m_"): f"{x:.3f}" for name, x in losses.items()})
                self.seconds = before + monotonic() - begun
                if self.ended_by:
                    break
                if monotonic() - saved > self.config["checkpoint_seconds"]:
                    self.save()
                    saved = monotonic()
        settle(self.optimizer)
        self.save()
        self.logger.info(f"Alignment: made {self.step} of {self.total_steps} steps, ended by {self.ended_by}")
        return {
            "steps": self.step,
            "planned_steps": self.total_steps,
            "ended_by": self.ended_by,
            "held_out_rows": 0 if self.held_out is None else len(self.held_out),
            "held_out_losses": self.held_out_losses,
            "seconds": self.seconds,
            "texts_encoded": int(processes.total(self.model.text.language_model.texts_encoded)),
            "interactions_seen": self.interactions_seen,
            "final": _means(self.recent),
            "curves": self._curves(),
        }

    @property
    def ended_by(self) -> str | None:
        """``steps``, ``held_out_loss`` (it has stopped falling before), or None while there are steps to make."""
        if self.step == self.total_steps:
            return "steps"
        ended_early = self.held_out is not None and has_stopped_falling(self.held_out_losses, self.patience)
        return "held_out_loss" if ended_early else None

    def _curves(self) -> Curves:
        curves = {name: [[step, loss] for step, loss, _ in points] for name, points in self.losses.items()}
        held_out = [[(n + 1) * self.measured_every, loss] for n, loss in enumerate(self.held_out_losses)]
        return curves | ({"held_out": held_out} if held_out else {})

    def _announce(self) -> None:
        visits = self.total_steps * rows_of_step(self.batches) / len(self.dataset)
        said = f"{self.total_steps} steps, {visits:.1f} visits to each of {len(self.dataset):,} training rows"
        if self.held_out is not None:
            said += (
                f"; it ends before when the loss on {len(self.held_out):,} others, measured every "
                f"{self.measured_every} steps, has not fallen {self.patience} times in a row"
            )
        self.logger.info(f"Alignment: {said}")

    def _measure(self, held_out: Any) -> None:
        self._read_measured()
        loss = held_out_loss(self.model, held_out, self.masking, self.config["seed"], self.device)
        self.held_out_losses.append(loss)
        self.tensorboard.add_scalar("pretrain/loss/held_out", loss, self.step)

    def _keep_texts(self, show_progress: bool) -> None:
        """Keep the states of texts where the language model is not trained, and encode complete texts beforehand."""
        language_model, prompts = self.model.text.language_model, self.dataset.prompts
        if not language_model.is_fixed:
            return
        keep_masked = self.config["mask_level"] == "field"
        cache = TextCache(language_model, mask_id=prompts.special.mask, keep_masked=keep_masked)
        self.model.text_cache = cache
        if "complete_texts" in self.model.reads:
            in_step = sum(len(texts.pieces) for texts in prompts.distinct(self.dataset[self.batches(0)]))
            every = prompts.every(self._all_rows.inter_feat)
            cache.fill(every, self.device, reads=self.total_steps * in_step, shown=show_progress)

    def _batch(self, step: int) -> AlignmentBatch:
        """What ``step`` reads, on the device; the same for the same step, whichever thread makes it."""
        epoch, within = divmod(step, self.batches.steps_per_epoch)
        rows = self.dataset[self.batches(step)]
        texts = self.dataset.prompts.batches(rows)
        masks = self.masking.draw(texts, len(rows), step_generator(self.config["seed"], epoch, within))
        return self.model.prepare(rows, texts, masks).to(self.device)

    def _train_step(self, batch: AlignmentBatch) -> AlignmentOutput:
        """One optimiser step; then read what the step before has measured."""
        self.optimizer.zero_grad()
        processes.seed_others(self.config["seed"], self.step)
        output: AlignmentOutput = self._forward(batch)
        if self.step + 1 < self.total_steps:
            self._ahead.begin(self.step + 1)
        clip = self.config["clip_grad_norm"]
        update(self.model, output.loss, self.optimizer, self.scaler, self.scheduler, clip)
        self.interactions_seen += len(batch.interaction)
        self._read_measured()
        measured = {"loss": output.loss} | {f"loss/{name}": loss for name, loss in output.losses.items()}
        measured |= {f"accuracy/{name}": value for name, value in output.metrics.items()}
        of_all = dict(zip(measured, processes.means(list(measured.values())), strict=True))
        self._measured = self.step, Arriving(of_all)
        texts = self.model.text.language_model.texts_encoded * processes.count()
        self.tensorboard.add_scalar("pretrain/interactions_per_text", self.interactions_seen / max(1, texts), self.step)
        for group in self.optimizer.param_groups:
            self.tensorboard.add_scalar(f"pretrain/learning_rate/{group['name']}", group["lr"], self.step)
        self.step += 1
        return output

    def _read_measured(self) -> None:
        """Record the losses and accuracies of the last step made, unless that has been done.

        Raises:
            Diverged: a loss is not a number.
        """
        if self._measured is None:
            return
        (step, arriving), self._measured = self._measured, None
        values = arriving.read()
        losses = {name.removeprefix("loss/"): loss for name, loss in values.items() if name.startswith("loss/")}
        if not isfinite(values.pop("loss")):
            raise Diverged(f"pretraining loss is not a number at step {step}: {losses}; lower pretrain_learning_rate")
        for name, value in values.items():
            self.tensorboard.add_scalar(f"pretrain/{name}", value, step)
        add_step(self.losses, step, losses, points_every(self.total_steps))
        self.recent = [*self.recent, values][-max(1, self.total_steps // 10) :]

    def save(self) -> None:
        """Write the checkpoint: towers, objectives, optimiser, schedule, random state and progress."""
        self._read_measured()
        self.tensorboard.flush()
        if not processes.is_first():
            return self._save_texts()
        checkpoints.save(
            {
                "config": ALTConfig.snapshot(self.config),
                **record_of(self.dataset),
                **{name: getattr(self.model, name).state_dict() for name in _PARTS},
                **{name: getattr(self, name).state_dict() for name in _STEPPED},
                **{name: getattr(self, name) for name in _PROGRESS},
                "total_steps": self.total_steps,
                "ended_by": self.ended_by,
                "processes": processes.count(),
                "texts_encoded": self.model.text.language_model.texts_encoded,
                "rng": checkpoints.rng_state(),
            },
            self.file,
        )
        self._save_texts()

    def _save_texts(self) -> None:
        if self.model.text_cache is not None:
            self.model.text_cache.save()

    def resume(self) -> None:
        """Go on from the checkpoint in this trainer's file.

        Raises:
            ValueError: it was made for another number of steps or of processes, from other data or for other towers.
        """
        state = checkpoints.load(self.file, self.device)
        require_same_data(state, self.dataset, file=self.file)
        processes.require_same(state, self.file)
        if state["total_steps"] != self.total_steps:
            raise ValueError(f"the checkpoint is of {state['total_steps']} steps, this run has {self.total_steps}")
        for name in _PARTS:
            load_weights(getattr(self.model, name), state[name], f"{os.fspath(self.file)!r} does not fit this {name}")
        for name in _STEPPED:
            if name == "optimizer":
                load_optimizer(self.optimizer, state[name], self.file)
            else:
                getattr(self, name).load_state_dict(state[name])
        for name in _PROGRESS:
            setattr(self, name, state.get(name, {}) if name == "losses" else state[name])  # which older ones lack
        self.model.text.language_model.texts_encoded = state["texts_encoded"]
        checkpoints.set_rng_state(state["rng"])


def _means(steps: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each value over the steps where it is a number."""
    names = dict.fromkeys(name for values in steps for name in values)
    known = {name: [values[name] for values in steps if values[name] == values[name]] for name in names}
    return {name: sum(values) / len(values) for name, values in known.items() if values}
