"""A run in MLflow."""

from __future__ import annotations

import re
from collections.abc import Mapping
from time import monotonic, time
from typing import Any

from recbole_alt.trackers.tracker import Tracker, choose

_POINTS, _SECONDS = 1000, 10.0  # that are sent at a time, and between two times


class MLflow(Tracker):
    """A run in MLflow, inside the active one if the user has begun one."""

    name = "MLflow"
    packages = ("mlflow", "mlflow-skinny")
    extra = "mlflow"
    remedy = "see to MLFLOW_TRACKING_URI and the server or the file that it names, or leave log_mlflow out"

    def __init__(self, name: str, values: Mapping[str, Any], kept: dict[str, Any]):
        import mlflow

        self._mlflow, self._client = mlflow, mlflow.MlflowClient()
        self._goes_on, nested = "run" in kept, mlflow.active_run() is not None
        run = mlflow.start_run(run_id=kept.get("run"), run_name=None if self._goes_on else name, nested=nested)
        self._id: str = run.info.run_id
        self._last: dict[str, int] = {}  # step by curve
        self._points: list[Any] = []
        self._sent = monotonic()
        if not self._goes_on:
            mlflow.log_params({_allowed(key): value for key, value in values.items()})
            kept["run"] = self._id

    def begin(self, stage: str) -> None:
        """See :meth:`Tracker.begin`."""
        self.flush()

    def add(self, stage: str, curve: str, value: float, step: int) -> None:
        """See :meth:`Tracker.add`."""
        curve = _allowed(curve)
        if curve not in self._last:
            before = self._client.get_metric_history(self._id, curve) if self._goes_on else []
            self._last[curve] = max((point.step for point in before), default=-1)
        if step <= self._last[curve]:
            return
        self._last[curve] = step
        self._points.append(self._mlflow.entities.Metric(curve, value, int(1000 * time()), step))
        if len(self._points) == _POINTS or monotonic() - self._sent > _SECONDS:
            self.flush()

    def flush(self) -> None:
        """See :meth:`Tracker.flush`."""
        if self._points:
            self._client.log_batch(self._id, metrics=self._points)
        self._points, self._sent = [], monotonic()

    def close(self, error: type[BaseException] | None) -> None:
        """See :meth:`Tracker.close`."""
        self.flush()
        self._mlflow.end_run(choose(error, "FINISHED", "FAILED", "KILLED"))


def _allowed(name: str) -> str:
    """``name`` in the letters that MLflow takes: ``recall_10`` for ``recall@10``."""
    return re.sub(r"[^\w/. -]", "_", name)
