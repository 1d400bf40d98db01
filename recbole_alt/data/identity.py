"""The record of the data that weights were trained with: ids, ranges of numbers, and rows of the split."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from logging import getLogger
from typing import Any

import numpy as np
from recbole.utils import FeatureType

#: The key of the record in checkpoints and in ``config.json``.
IDENTITY_KEY = "data_identity"
#: The parts of a split, in RecBole's order.
PARTS = ("train", "valid", "test")
AnyPath = str | os.PathLike[str]

_SHOWN = 40  # characters kept of an example


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a field in the order of their ids, without ``[PAD]``, which is id 0."""

    size: int
    digest: str
    examples: dict[str, str] = field(compare=False)  # some ids (1, 2, 4, 8, …) → their tokens, to show a difference

    @classmethod
    def of(cls, id2token: Sequence[str]) -> Vocabulary:
        """The vocabulary of RecBole's ``field2id_token[field]``."""
        tokens = [str(token) for token in id2token]
        lengths = np.fromiter(map(len, tokens), "<i8", len(tokens))
        digest = _digest([lengths.tobytes(), "".join(tokens).encode("utf-8", "surrogatepass")])
        ids = [1 << power for power in range((len(tokens) - 1).bit_length())]
        return cls(len(tokens) - 1, digest, {str(i): tokens[i][:_SHOWN] for i in ids})

    def difference(self, now: Vocabulary) -> str:
        """How the data of ``now`` differ, in words that follow the field's name."""
        said = f"had {self.size} values and has {now.size} now"
        if self.size == now.size:
            said = f"has {self.size} values, as now, but with other ids"
        for i, token in self.examples.items():
            if i in now.examples and now.examples[i] != token:
                return f"{said} (id {i} was {token!r} and is {now.examples[i]!r} now)"
        return said


@dataclass(frozen=True)
class Numbers:
    """The range of a numeric field that is normalised or discretised."""

    low: float
    high: float
    buckets: int | None  # rows of its embedding, if it is discretised

    def __str__(self) -> str:
        return f"from {self.low} to {self.high}" + (f" in {self.buckets} buckets" if self.buckets else "")

    def difference(self, now: Numbers) -> str:
        """How the data of ``now`` differ, in words that follow the field's name."""
        return f"was {self} and is {now} now"


@dataclass(frozen=True)
class Part:
    """The rows of one part of the split: their number, and their users, items, times and labels in order.

    Where there are no users and items, the digest is of all columns.
    """

    rows: int
    digest: str

    @classmethod
    def of(cls, part: Any) -> Part:
        """The rows of one of the datasets that RecBole's ``build`` returns."""
        columns = part.inter_feat.interaction
        named = [name for name in (part.uid_field, part.iid_field) if name in columns]
        named += [name for name in (part.time_field, part.label_field) if named and name in columns]
        named = named or [name for name in columns if name in part.field2type]
        return cls(len(part.inter_feat), _digest(piece for name in named for piece in _pieces(name, columns[name])))

    def difference(self, now: Part) -> str:
        """How the data of ``now`` differ, in words that follow the part's name."""
        other = f"had {self.rows} rows and has {now.rows} now"
        return other if self.rows != now.rows else f"has {self.rows} rows, as now, but other ones or in another order"


@dataclass(frozen=True)
class DataIdentity:
    """The ids that weights were trained for, and the rows of the split: equal for equal data on every machine."""

    vocabularies: dict[str, Vocabulary]  # by token field or token sequence field
    numbers: dict[str, Numbers]  # by numeric field that is normalised or discretised
    parts: dict[str, Part]  # by "train" (after train_share), "valid" and "test"

    @classmethod
    def of(cls, dataset: Any, parts: Sequence[Any]) -> DataIdentity:
        """The identity of RecBole's ``dataset`` and of the ``parts`` that ``dataset.build()`` made of it."""
        fields = parts[0].field2type
        tokens = [name for name, kind in fields.items() if kind in (FeatureType.TOKEN, FeatureType.TOKEN_SEQ)]
        buckets = {name: dataset.field2bucketnum[name] for name in dataset.config["discretization"] or {}}
        return cls(
            {name: Vocabulary.of(dataset.field2id_token[name]) for name in tokens},
            {name: Numbers(low, high, buckets.get(name)) for name, (low, high) in dataset.number_ranges.items()},
            {name: Part.of(part) for name, part in zip(PARTS, parts, strict=False)},
        )

    def to_plain(self) -> dict[str, Any]:
        """The record as dictionaries, texts and numbers, for JSON and for checkpoints."""
        return asdict(self)

    @classmethod
    def from_plain(cls, plain: Any) -> DataIdentity:
        """The identity that :meth:`to_plain` made a record of; anything else is a ValueError."""
        try:
            return cls(
                {name: Vocabulary(**one) for name, one in plain["vocabularies"].items()},
                {name: Numbers(**one) for name, one in plain["numbers"].items()},
                {name: Part(**one) for name, one in plain["parts"].items()},
            )
        except (AttributeError, KeyError, TypeError):
            raise ValueError(f"{IDENTITY_KEY}: the record of the data is damaged: train anew") from None

    def require_same(
        self, now: DataIdentity, *, file: AnyPath | None = None, what: str = "", held_out_only: bool = False
    ) -> None:
        """Refuse to use weights of these data with the data of ``now``.

        Args:
            file: the file that holds this record, for the error; None if the caller will name it.
            what: the key that names the file, for the error.
            held_out_only: True if the training rows may differ as long as none of the rows that are held out now
                can have been among them.

        Raises:
            ValueError: names the first field whose ids or range differ, or the first part whose rows do.
        """
        start = f"{what}: " if what else ""
        start += f"{'this' if file is None else repr(os.fspath(file))} was made from other data than are there now: "
        for before, after in ((self.vocabularies, now.vocabularies), (self.numbers, now.numbers)):
            if difference := _first_difference(before, after, before | after):
                raise ValueError(f"{start}field {difference}; give the data that it was trained with, or train anew")
        if held_out_only and self.parts.get("train") == now.parts.get("train"):
            return
        if difference := _first_difference(self.parts, now.parts, PARTS[1:] if held_out_only else PARTS):
            raise ValueError(
                f"{start}of the split, {difference}; give the data and the split that it was trained with (seed, "
                "split_seed, eval_args, train_share), or train anew"
            )


def record_of(owner: Any) -> dict[str, Any]:
    """The record of the data of ``owner``, a built dataset or a model, for a checkpoint or ``config.json``."""
    identity = getattr(owner, "identity", None)
    return {} if identity is None else {IDENTITY_KEY: identity.to_plain()}


def require_same_data(
    state: Mapping[str, Any], owner: Any, *, file: AnyPath, what: str = "", held_out_only: bool = False
) -> None:
    """Refuse weights that were trained with other data than those of ``owner``; see :meth:`DataIdentity.require_same`.

    Args:
        state: a checkpoint, or the content of ``config.json``. If older versions wrote it and it has no record, it is
            accepted with a warning.
        owner: a built dataset, one of its parts, or a model made for it.
    """
    plain, now = state.get(IDENTITY_KEY), getattr(owner, "identity", None)
    if now is not None and plain is not None:
        DataIdentity.from_plain(plain).require_same(now, file=file, what=what, held_out_only=held_out_only)
    elif now is not None:
        getLogger().warning(
            f"{os.fspath(file)!r} holds no record of its data, as it is of an older version: nothing tells whether its "
            "ids and its split are those of the data that are there now"
        )


def _first_difference(before: dict[str, Any], now: dict[str, Any], names: Iterable[str]) -> str | None:
    for name in names:
        if name in before and name not in now:
            return f"{name!r} was there and is not now"
        if name in now and name not in before:
            return f"{name!r} is there now and was not"
        if before.get(name) != now.get(name):
            return f"{name!r} {before[name].difference(now[name])}"
    return None


def _pieces(name: str, column: Any) -> Iterator[bytes | memoryview]:
    """What identifies a column of rows."""
    values = column.detach().cpu().numpy()  # as the same bytes on every machine; -0 is 0
    values = values.astype("<f4") + np.float32(0) if values.dtype.kind == "f" else values.astype("<i8", copy=False)
    yield from (name.encode(), str(values.shape).encode())
    yield np.ascontiguousarray(values).reshape(-1).view(np.uint8).data


def _digest(pieces: Iterable[bytes | memoryview]) -> str:
    state = blake2b(digest_size=16)
    for piece in pieces:
        state.update(len(piece).to_bytes(8, "little"))
        state.update(piece)
    return state.hexdigest()
