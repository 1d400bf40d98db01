"""Work-arounds for RecBole 1.2.1: on today's numpy, pandas and torch, and for bugs of its CTR models.

Each names its cause. Where RecBole computes something, it computes the same with them, save for ``FwFM``, whose
field weights RecBole means to train and does not. Methods are replaced when this module is imported, and stay reachable
as ``__wrapped__``; :mod:`recbole_alt.model.kd_dagfm` has more of them.
"""

import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import torch
from recbole.data.dataset import Dataset
from recbole.data.dataset import dataset as datasets
from recbole.evaluator.base_metric import LossMetric
from recbole.model import layers
from recbole.model.abstract_recommender import ContextRecommender
from recbole.model.context_aware_recommender import dssm
from recbole.model.context_aware_recommender.fwfm import FwFM
from recbole.model.layers import FLEmbedding, FMEmbedding
from recbole.trainer import trainer as trainers
from recbole.utils import FeatureType
from torch import Tensor, nn

#: Names that numpy removed. ``recbole/config/configurator.py`` and the models use them; the last one is used by ray
#: 2.6, which RecBole's ``quick_start`` imports.
_NUMPY_ALIASES = {
    "float_": np.float64,
    "complex_": np.complex128,
    "unicode_": np.str_,
    "long": np.int_,
    "bool8": np.bool_,
}


def install() -> None:
    """Restore names of numpy, and silence warnings; safe to run again."""
    for alias, target in _NUMPY_ALIASES.items():
        if alias not in np.__dict__:
            setattr(np, alias, target)
    # recbole/data/dataset/dataset.py fills missing values in place on a column of a frame, after _fill_gaps did
    for category in (FutureWarning, pd.errors.ChainedAssignmentError):
        warnings.filterwarnings("ignore", category=category, module=r"recbole\..*")
    # it makes tensors of columns, which it drops then, and which pandas 3 marks as not to be written
    warnings.filterwarnings("ignore", message="The given NumPy array is not writ", module=r"recbole\..*")
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
    """Let RecBole download a dataset in a single process, for which others may wait elsewhere.

    Cause: ``Dataset._download`` calls ``torch.distributed.barrier`` also when no process group exists.
    """
    barrier = torch.distributed.barrier
    nothing: Any = lambda *args, **kwargs: None  # noqa: E731
    torch.distributed.barrier = nothing
    try:
        yield
    finally:
        torch.distributed.barrier = barrier


@contextmanager
def trainers_without_curves() -> Iterator[None]:
    """Let trainers be made that leave no folder of TensorBoard's.

    Cause: ``Trainer`` makes one as it is built, whether or not it trains.
    """
    original = trainers.get_tensorboard
    methods: Any = dict.fromkeys(("add_scalar", "add_hparams", "flush", "close"), lambda *args: None)
    trainers.get_tensorboard = lambda logger: SimpleNamespace(**methods)
    try:
        yield
    finally:
        trainers.get_tensorboard = original


def replaces(owner: type, name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Put the decorated function in the place of ``owner.name``.

    It is called with the method that was there and that method's arguments.
    """
    original = getattr(owner, name)

    def put(method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(original)
        def replaced(*args: Any, **kwargs: Any) -> Any:
            return method(original, *args, **kwargs)

        setattr(owner, name, replaced)
        return method

    return put


def _read_csv(*args: Any, **kwargs: Any) -> pd.DataFrame:
    """Cause: ``_load_feat`` fills empty sequences in place on a column of a frame, which pandas 3 copies."""
    frame = pd.read_csv(*args, **kwargs)
    return frame.fillna({name: "" for name in frame if name.endswith("_seq")})


def _length(of: Any) -> Any:
    """Cause: ``feat[field].agg(len)`` is meant to be the length of each cell; pandas 3 gives that of the column."""
    return of.map(len) if isinstance(of, pd.Series) else len(of)


vars(datasets).update(pd=Except(pd, read_csv=_read_csv), len=_length)


@replaces(Dataset, "_fill_nan")
def _fill_gaps(original: Callable[..., None], self: Any) -> None:
    """Cause: gaps are filled in place on a column of a frame, which pandas 3 copies, so that they would stay."""
    for name in self.feat_name_list:
        feat = getattr(self, name)
        for field in feat:
            if self.field2type[field] == FeatureType.TOKEN:
                feat[field] = feat[field].fillna(0)
            elif self.field2type[field] == FeatureType.FLOAT:
                feat[field] = feat[field].fillna(feat[field].mean())
    original(self)


@replaces(Dataset, "_discretization")
def _count_buckets_from_1(original: Callable[..., None], self: Any) -> None:
    """Cause: ``LD`` counts buckets from 0, which stands for no value: in a sequence the smallest numbers are taken for
    padding, and a masked number for one of them.
    """
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


@replaces(FMEmbedding, "forward")
def _embed_tokens_at_once(original: Callable[..., Tensor], self: Any, input_x: Tensor) -> Tensor:
    """Cause: the offsets are copied from numpy's memory in each call, for which a GPU makes the caller wait."""
    return self.embedding(input_x + _offsets_on_device(self, input_x.device))


@replaces(FLEmbedding, "forward")
def _embed_numbers_at_once(original: Callable[..., Tensor], self: Any, input_x: Tensor) -> Tensor:
    """Cause: as above."""
    base, index = input_x.split(1, dim=-1)
    return base * self.embedding(index.squeeze(-1).long() + _offsets_on_device(self, input_x.device))


@replaces(ContextRecommender, "embed_token_seq_fields")
def _average_sequences_at_once(
    original: Callable[..., Any], self: Any, token_seq_fields: Sequence[Tensor], mode: str = "mean"
) -> Tensor | None:
    """Cause: as above, of a constant that is added to the numbers of members."""
    if mode != "mean" or not token_seq_fields:
        return original(self, token_seq_fields, mode)
    averages = []
    for field, table in zip(token_seq_fields, self.token_seq_embedding_table, strict=False):
        real = (field != 0).float()
        total = (table(field) * real.unsqueeze(2)).sum(dim=1)
        averages.append((total / (real.sum(dim=1, keepdim=True) + 1e-8)).unsqueeze(1))
    return torch.cat(averages, dim=1)


def _offsets_on_device(table: Any, device: torch.device) -> Tensor:
    """[1, F] where the rows of each field begin; no buffer, so that checkpoints hold what RecBole's do."""
    kept: Tensor | None = vars(table).get("offsets_on_device")
    if kept is None or kept.device != device:
        kept = torch.as_tensor(table.offsets, dtype=torch.long, device=device).unsqueeze(0)
        table.offsets_on_device = kept
    return kept


class _Dropout(nn.Dropout):
    """Cause: ``bernoulli_``, which dropout draws with, takes two to three times as long as ``rand`` takes for the same
    draws, on processors where torch does not leave them to MKL.
    """

    def forward(self, input: Tensor) -> Tensor:
        """The same values, gradient and state of the generator as torch's, bit for bit."""
        if not (self.training and 0 < self.p < 1 and input.device.type == "cpu" and _draws_alike()):
            return super().forward(input)
        kept = torch.rand_like(input, dtype=torch.float64) < 1 - self.p
        return input * kept.to(input.dtype).div_(1 - self.p)


@functools.cache
def _draws_alike() -> bool:
    """Whether ``bernoulli_`` draws on this processor what ``rand`` draws in 64 bits."""
    one, other = torch.Generator().manual_seed(0), torch.Generator().manual_seed(0)
    drawn = torch.empty(1000).bernoulli_(0.7, generator=one)
    alike = torch.equal(drawn > 0, torch.rand(1000, dtype=torch.float64, generator=other) < 0.7)
    return alike and torch.equal(one.get_state(), other.get_state())


vars(layers).update(nn=Except(nn, Dropout=_Dropout))


@replaces(LossMetric, "used_info")
def _score_single_rows(original: Callable[..., Any], self: Any, dataobject: Any) -> tuple[np.ndarray, ...]:
    """Cause: the scores and labels of a part of one row are squeezed to no row at all, and so they are in ``LogLoss``;
    counted twice, the row has the same metrics.
    """
    return tuple(np.repeat(values, 2) if values.size == 1 else values for values in original(self, dataobject))


@replaces(ContextRecommender, "__init__")
def _count_numbers_of_towers(original: Callable[..., None], self: Any, config: Any, dataset: Any) -> None:
    """Cause: every number is counted among a tower's fields, embedded or not."""
    original(self, config, dataset)
    if self.double_tower:
        embedded = [*self.float_seq_field_names, *self.float_field_names]
        users = set(self.user_field_names)
        self.user_float_field_num = sum(name in users for name in embedded)
        self.item_float_field_num = len(embedded) - self.user_float_field_num


@replaces(ContextRecommender, "double_tower_embed_input_fields")
def _embed_users_numbers_first(original: Callable[..., Any], self: Any, interaction: Any) -> tuple[Tensor | None, ...]:
    """Cause: the users' tower is given the first so many embedded numbers, whosever they are; those of sequences stand
    before single ones.
    """
    users = set(self.user_field_names)
    numbers = [*self.float_seq_field_names, *self.float_field_names]
    owners = sorted(range(len(numbers)), key=lambda i: numbers[i] not in users)  # users first, else as they are
    sparse, dense = self.embed_input_fields(interaction)
    if dense is not None:
        dense = torch.cat([dense[:, i : i + 1] for i in owners], 1)
    return original(Except(self, embed_input_fields=lambda _: (sparse, dense)), interaction)


def _cosines_as_a_column(*args: Any, **kwargs: Any) -> Tensor:
    """Cause: ``DSSM`` squeezes the scores [B], so that a batch of one row has no row at all, which the loss refuses,
    and a graph in ONNX no batch of any other size.
    """
    return torch.cosine_similarity(*args, **kwargs).unsqueeze(-1)


vars(dssm).update(torch=Except(torch, cosine_similarity=_cosines_as_a_column))


@replaces(FwFM, "__init__")
def _train_weights_of_fields(original: Callable[..., None], self: Any, config: Any, dataset: Any) -> None:
    """Cause: ``FwFM.weight`` is a bare tensor, which is neither trained, nor saved, nor moved to a device."""
    original(self, config, dataset)
    weight = vars(self).pop("weight")
    self.weight = nn.Parameter(weight.detach())


@replaces(FwFM, "_get_feature2field")
def _count_fields_as_embedded(original: Callable[..., None], self: Any) -> None:
    """Cause: fields are counted in another order than they are embedded, without sequences of numbers."""
    kinds = ("token_seq", "token", "float_seq", "float")  # as concat_embed_input_fields stacks them
    self.feature_names = tuple(getattr(self, f"{kind}_field_names") for kind in kinds)
    self.feature_dims = tuple(getattr(self, f"{kind}_field_dims") for kind in kinds)
    original(self)
