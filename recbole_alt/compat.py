"""Work-arounds for RecBole 1.2.1 on today's numpy, pandas and torch; each names its cause.

Nothing here changes what RecBole computes. :func:`install` runs once, when ``recbole_alt`` is imported, and
is safe to run again.
"""

from __future__ import annotations

import csv
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
import torch


def install() -> None:
    """Apply the work-arounds that must be in place before RecBole is used."""
    _restore_numpy_aliases()
    _silence_pandas_warnings()


def _restore_numpy_aliases() -> None:
    """Cause: ``recbole/config/configurator.py`` and the models use names that numpy removed."""
    for alias, target in {
        "float_": np.float64,
        "complex_": np.complex128,
        "unicode_": np.str_,
        "long": np.int_,
    }.items():
        if alias not in np.__dict__:
            setattr(np, alias, target)


def _silence_pandas_warnings() -> None:
    """Cause: ``recbole/data/dataset/dataset.py`` fills missing values in place on a column of a frame."""
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"recbole\..*")
    warnings.filterwarnings("ignore", category=FutureWarning, message=r".*torch\.cuda\.amp.*")


@contextmanager
def unquoted_atomic_files() -> Iterator[None]:
    """Read atomic files as they are written: one line a row, a quotation mark an ordinary character.

    Cause: ``Dataset._load_feat`` leaves ``quoting`` at pandas' default, so a value that starts with ``"``
    swallows the separators, and the lines, up to the next ``"``. One-character separators are read by
    pandas' C engine, which is several times faster than the one RecBole asks for.
    """
    from recbole.data.dataset import dataset as host

    host.pd = _LiteralPandas()
    try:
        yield
    finally:
        host.pd = pd


class _LiteralPandas:
    """pandas, except that ``read_csv`` takes quotation marks literally."""

    def __getattr__(self, name: str) -> Any:
        return getattr(pd, name)

    def read_csv(self, *args: Any, **kwargs: Any) -> pd.DataFrame:
        kwargs["quoting"] = csv.QUOTE_NONE
        if len(kwargs.get("delimiter", ",")) == 1:
            kwargs["engine"] = "c"
        return pd.read_csv(*args, **kwargs)


def drop_activations(model: torch.nn.Module) -> None:
    """Cut tensors that a forward left on the model itself off their graph, so that it can be copied.

    Cause: ``FiGNN`` keeps its attention as ``self.graph``; ``copy.deepcopy`` refuses a tensor with a history.
    """
    for name, value in vars(model).items():
        if isinstance(value, torch.Tensor) and value.grad_fn is not None:
            vars(model)[name] = value.detach()


@contextmanager
def barrier_without_processes() -> Iterator[None]:
    """Let RecBole download a dataset in a single process.

    Cause: ``Dataset._download`` calls ``torch.distributed.barrier`` also when no process group exists.
    """
    if torch.distributed.is_initialized():
        yield
        return
    barrier = torch.distributed.barrier
    torch.distributed.barrier = lambda *args, **kwargs: None
    try:
        yield
    finally:
        torch.distributed.barrier = barrier
