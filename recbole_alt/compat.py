"""Work-arounds for RecBole 1.2.1: on today's numpy, pandas and torch, and for bugs of its CTR models.

Each names its cause. Where RecBole computes something, it computes the same with them, save for ``FwFM``, whose
field weights RecBole means to train and does not. :func:`install` runs once, when ``recbole_alt`` is imported, and is
safe to run again; what it replaces stays reachable as ``__wrapped__``. :mod:`recbole_alt.model.kd_dagfm` has one more.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from recbole.data.dataset import Dataset
from recbole.evaluator.base_metric import LossMetric
from recbole.model.abstract_recommender import ContextRecommender
from recbole.model.context_aware_recommender.dssm import DSSM
from recbole.model.context_aware_recommender.fwfm import FwFM
from recbole.utils import FeatureType
from torch import Tensor, nn


def install() -> None:
    """Apply the work-arounds that must be in place before RecBole is used."""
    _restore_numpy_aliases()
    _silence_pandas_warnings()
    _mend_logarithmic_buckets()
    _mend_scores_of_one_row()
    _mend_double_tower()
    _mend_dssm()
    _mend_fwfm()


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


class Except:
    """Stands for ``base``, except for the attributes given."""

    def __init__(self, base: Any, **attributes: Any):
        vars(self).update(attributes, _base=base)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._base, name)


def drop_activations(model: torch.nn.Module) -> None:
    """Cut tensors that a forward left on the model itself off their graph, so that it can be copied.

    Cause: ``FiGNN`` keeps its attention as ``self.graph``, ``KD_DAGFM`` its networks' logits; ``copy.deepcopy``
    refuses a tensor with a history.
    """
    for module in model.modules():
        for name, value in vars(module).items():
            if isinstance(value, Tensor) and value.grad_fn is not None:
                vars(module)[name] = value.detach()


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


# -- bugs of RecBole's data and CTR models ---------------------------------------------------------------------


def replace_method(owner: type, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Put ``make(original)`` in the place of ``owner.name``, once."""
    original = getattr(owner, name)
    if not getattr(original, "mended", False):
        mended = functools.wraps(original)(make(original))
        mended.mended = True  # type: ignore[attr-defined]
        setattr(owner, name, mended)


def _mend_logarithmic_buckets() -> None:
    """Cause: ``Dataset._discretization`` counts the buckets of method ``LD`` from 0, which stands for no value: in a
    sequence the smallest numbers are taken for padding, and a masked number for one of them.
    """

    def count_from_1(original: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(self: Any) -> None:
            original(self)
            for field, how in (self.config["discretization"] or {}).items():
                if how["method"] != "LD" or field not in self.config["numerical_features"]:
                    continue
                for feat in self.field2feats(field):
                    if self.field2type[field] == FeatureType.FLOAT:
                        feat[field] = (np.asarray(feat[field].tolist()) + np.asarray([0, 1])).tolist()
                    else:
                        feat[field] = [(ones, buckets + 1) for ones, buckets in feat[field]]
                self.field2bucketnum[field] += 1

        return wrapper

    replace_method(Dataset, "_discretization", count_from_1)


def _mend_scores_of_one_row() -> None:
    """Cause: ``LossMetric.used_info`` squeezes the scores and labels of a part of one row to no row at all, and so does
    ``LogLoss``; counted twice, the row has the same metrics.
    """

    def rows(original: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(self: Any, dataobject: Any) -> tuple[np.ndarray, ...]:
            return tuple(np.repeat(values, 2) if values.size == 1 else values for values in original(self, dataobject))

        return wrapper

    replace_method(LossMetric, "used_info", rows)


def _mend_double_tower() -> None:
    """Cause: ``ContextRecommender`` counts every number among a tower's fields, embedded or not, and gives the users'
    tower the first so many embedded numbers, whosever they are: sequences of numbers stand before single ones.
    """

    def init(original: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(self: Any, config: Any, dataset: Any) -> None:
            original(self, config, dataset)
            if self.double_tower:
                embedded = [*self.float_seq_field_names, *self.float_field_names]
                users = set(self.user_field_names)
                self.user_float_field_num = sum(name in users for name in embedded)
                self.item_float_field_num = len(embedded) - self.user_float_field_num

        return wrapper

    def embed(original: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(self: Any, interaction: Any) -> tuple[Tensor | None, ...]:
            users = set(self.user_field_names)
            numbers = [*self.float_seq_field_names, *self.float_field_names]
            owners = sorted(range(len(numbers)), key=lambda i: numbers[i] not in users)  # users first, else as they are
            sparse, dense = self.embed_input_fields(interaction)
            if dense is not None:
                dense = torch.cat([dense[:, i : i + 1] for i in owners], 1)
            return original(Except(self, embed_input_fields=lambda _: (sparse, dense)), interaction)

        return wrapper

    replace_method(ContextRecommender, "__init__", init)
    replace_method(ContextRecommender, "double_tower_embed_input_fields", embed)


def _mend_dssm() -> None:
    """Cause: ``DSSM.forward`` squeezes a batch of one row to no row at all, and its loss then refuses it."""
    replace_method(DSSM, "forward", lambda original: lambda self, interaction: original(self, interaction).view(-1))


def _mend_fwfm() -> None:
    """Cause: ``FwFM.weight`` is a bare tensor, which is neither trained, nor saved, nor moved to a device; and its
    fields are counted in another order than they are embedded, without sequences of numbers.
    """

    def init(original: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(self: Any, config: Any, dataset: Any) -> None:
            original(self, config, dataset)
            weight = vars(self).pop("weight")
            self.weight = nn.Parameter(weight.detach())

        return wrapper

    def fields(original: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(self: Any) -> None:
            kinds = ("token_seq", "token", "float_seq", "float")  # as concat_embed_input_fields stacks them
            self.feature_names = tuple(getattr(self, f"{kind}_field_names") for kind in kinds)
            self.feature_dims = tuple(getattr(self, f"{kind}_field_dims") for kind in kinds)
            original(self)

        return wrapper

    replace_method(FwFM, "__init__", init)
    replace_method(FwFM, "_get_feature2field", fields)
