"""A run in Weights & Biases."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recbole_alt.trackers.tracker import Tracker, choose


class Wandb(Tracker):
    """A run in Weights & Biases, or the one that is active where the user has begun one.

    W&B drops a point whose step is below the last one. So the steps of a stage begin where those of the stage before
    end, and both are kept: a point has the same step whether or not its stage was stopped.
    """

    name = "W&B"
    packages = ("wandb",)
    extra = "wandb"
    remedy = "log in with `wandb login`, set WANDB_MODE=offline, or leave log_wandb out"

    def __init__(self, name: str, values: Mapping[str, Any], kept: dict[str, Any]):
        import wandb

        self._kept, self._begins = kept, kept.setdefault("begins", {})
        self._row: dict[str, float] = {}
        self._at = 0
        self._own = wandb.run is None
        if self._own:
            project, identity = values["wandb_project"], kept.get("run")
            self._run = wandb.init(project=project, name=name, id=identity, resume="allow", config=dict(values))
            kept["run"] = self._run.id
        else:
            self._run = wandb.run
            self._run.config.update(dict(values), allow_val_change=True)

    def begin(self, stage: str) -> None:
        """See :meth:`Tracker.begin`."""
        self.flush()
        self._begins.setdefault(stage, max(self._run.step, self._kept.get("step", 0)))
        self._run.define_metric(_axis(stage))
        self._run.define_metric(f"{stage}/*", step_metric=_axis(stage))

    def add(self, stage: str, curve: str, value: float, step: int) -> None:
        """See :meth:`Tracker.add`."""
        at = self._begins[stage] + step
        if at != self._at:
            self.flush()
        self._at = at
        self._row |= {curve: value, _axis(stage): step}

    def flush(self) -> None:
        """See :meth:`Tracker.flush`."""
        if self._row and self._at >= self._run.step:  # else it was logged before a stop
            self._run.log(self._row, step=self._at)
            self._kept["step"] = self._at
        self._row = {}

    def close(self, error: type[BaseException] | None) -> None:
        """See :meth:`Tracker.close`."""
        self.flush()
        if self._own:
            self._run.finish(exit_code=choose(error, 0, 1, 255))
        else:
            self._run.log({}, commit=True)  # the last row, which waits for more


def _axis(stage: str) -> str:
    """The curve that W&B draws those of ``stage`` over."""
    return f"{stage}/{'step' if stage == 'pretrain' else 'epoch'}"
