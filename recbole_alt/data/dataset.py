"""``ALTDataset``: RecBole's dataset, with prompts for its rows.

The CTR model sees exactly what RecBole's own ``Dataset`` gives it. Beside that, the words of every prompt
field are taken from the atomic files before RecBole fills gaps, normalises or discretises, and the prompts
are built from them the first time they are asked for.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Hashable, Iterable
from typing import Any

import numpy as np
import pandas as pd
import torch
from recbole.data.dataset import Dataset
from recbole.data.interaction import Interaction
from recbole.utils import FeatureSource, FeatureType

from recbole_alt import compat
from recbole_alt.config import check_values
from recbole_alt.data.prompts import PromptTable
from recbole_alt.data.template import CONTEXT, ITEM, USER, build_template
from recbole_alt.pretrained import load_tokenizer

#: Key of the row number in interactions, present when a prompt field can't be read off the batch itself.
ROW_KEY = "alt_row"

_SOURCES = {
    FeatureSource.USER: USER,
    FeatureSource.USER_ID: USER,
    FeatureSource.ITEM: ITEM,
    FeatureSource.ITEM_ID: ITEM,
    FeatureSource.INTERACTION: CONTEXT,
}
_CHUNK = 200_000


class ALTDataset(Dataset):
    """RecBole's ``Dataset`` that can put its rows into words.

    Reads, beside RecBole's keys, ``template``, ``prompt_scope``, ``prompt_only`` (text fields for the prompt
    alone, as ``{item: [title]}``), ``max_text_tokens`` and ``language_model``.

    Raises:
        ValueError: no label or threshold, no rows, an unknown field; the message says what to do.
    """

    def __init__(self, config: Any):
        check_values(config.final_config_dict)
        self._words: dict[str, list[str]] = {}
        self._entry_of: dict[str, np.ndarray] = {}
        self._sides: dict[str, str] = {}
        self._prompts: list[PromptTable] = []  # shared by the copies that splitting makes
        super().__init__(config)

    # -- loading -----------------------------------------------------------------------------------------

    def _from_scratch(self) -> None:
        with compat.unquoted_atomic_files():
            super()._from_scratch()
        self._check_label()

    def _download(self) -> None:
        try:
            with compat.barrier_without_processes():
                super()._download()
        except Exception as error:
            raise ValueError(
                f"no folder {self.dataset_path!r}, and RecBole can't download {self.dataset_name!r} ({error}): put "
                f"{self.dataset_name}.inter and its .user and .item files there, or give --data_path=FOLDER "
                f"where FOLDER/{self.dataset_name}/ holds them"
            ) from None

    def _load_feat(self, filepath: str, source: Any) -> pd.DataFrame | None:
        self._check_file(filepath)
        feat = super()._load_feat(filepath, source)
        for name in self._prompt_only(source):
            feat = self._add_text(feat, name, filepath, source)
        return feat

    def _check_file(self, filepath: str) -> None:
        """Refuse what RecBole would stumble over: a header without types, or no row below it."""
        with open(filepath, encoding=self.config["encoding"]) as file:
            header, row = file.readline().rstrip("\r\n"), file.readline()
        known = ", ".join(kind.value for kind in FeatureType)
        for typed in header.split(self.config["field_separator"]):
            name, _, kind = typed.partition(":")
            if not name or kind not in {known_kind.value for known_kind in FeatureType}:
                raise ValueError(
                    f"{filepath}: its first line must name each column as name:type with a type of {known}, "
                    f"separated by {self.config['field_separator']!r}; found {typed!r}"
                )
        if not row.strip():
            raise ValueError(f"{filepath} has no rows")

    def _prompt_only(self, source: Any) -> list[str]:
        given = self.config["prompt_only"] or {}
        for suffix, names in given.items():
            if suffix not in ("user", "item", "inter"):
                raise ValueError(f"prompt_only: {suffix!r} is none of user, item, inter")
            if not isinstance(names, (list, tuple)):
                raise ValueError(f"prompt_only: {suffix} must be a list such as [{names}], not {names!r}")
        return list(given.get(getattr(source, "value", source)) or [])

    def _add_text(self, feat: pd.DataFrame | None, name: str, filepath: str, source: Any) -> pd.DataFrame:
        """Append the column ``name`` as one token a row; :meth:`_fill_nan` takes it away again."""
        separator = self.config["field_separator"]
        with open(filepath, encoding=self.config["encoding"]) as file:
            header = file.readline().rstrip("\r\n").split(separator)
        column = next((typed for typed in header if typed.split(":")[0] == name), None)
        if column is None:
            raise ValueError(f"prompt_only: {filepath} has no field {name!r}; it has {', '.join(header)}")
        if feat is None:
            raise ValueError(f"prompt_only: load the id of {filepath} with load_col, so that {name!r} has an owner")
        if name in feat:
            raise ValueError(f"{name!r} is both in load_col and in prompt_only: the CTR model sees the first; drop one")
        text = pd.read_csv(
            filepath,
            sep=separator,
            usecols=[column],
            dtype=str,
            encoding=self.config["encoding"],
            quoting=csv.QUOTE_NONE,
            keep_default_na=False,
            na_values=[""],
        )[column]
        self.field2source[name], self.field2type[name], self.field2seqlen[name] = source, FeatureType.TOKEN, 1
        return feat.assign(**{name: text.values})

    def _fill_nan(self) -> None:
        self._read_words()
        for source, names in (self.config["prompt_only"] or {}).items():
            for name in names:
                self._del_col(getattr(self, f"{source}_feat"), name)
        super()._fill_nan()

    def _check_label(self) -> None:
        sampled = self.config["train_neg_sample_args"]["distribution"] != "none"
        if self.label_field not in self.field2type and not sampled:
            raise ValueError(
                f"dataset {self.dataset_name!r} has neither a field {self.label_field!r} (loaded with load_col) nor a "
                "threshold: set LABEL_FIELD to the column of clicks, or threshold: {rating: 4}"
            )

    # -- words -------------------------------------------------------------------------------------------

    def forbidden_in_prompts(self) -> dict[str, str]:
        """Fields that would tell the label, or that are no content: name → why."""
        forbidden = dict.fromkeys(self.config["threshold"] or {}, "what the threshold makes the label from")
        forbidden |= {self.config["RATING_FIELD"]: "the rating", self.time_field: "the timestamp"}
        forbidden |= {self.label_field: "the label"}
        return {name: why for name, why in forbidden.items() if name}

    def _read_words(self) -> None:
        """Take the words of each field that may be in a prompt, before RecBole changes its values."""
        sources = {name: _SOURCES[s] for name, s in self.field2source.items() if s in _SOURCES}
        self.template = build_template(
            self.config["template"],
            sources,
            scope=self.config["prompt_scope"],
            forbidden=self.forbidden_in_prompts(),
            default_exclude=[name for name in (self.uid_field, self.iid_field) if name],
        )
        self._sides = {name: sources[name] for name in self.template.fields}
        unused = {name for names in (self.config["unused_col"] or {}).values() for name in names}
        for name in self.template.fields:
            feat = self.field2feats(name)[-1]
            kind = self.field2type[name]
            if kind == FeatureType.TOKEN:
                tokens = self.field2id_token[name]
                self._words[name] = ["", *(self.template.word(name, str(token)) for token in tokens[1:])]
                stays = sources[name] == CONTEXT and name not in self._all_prompt_only() | unused
                if not stays and name not in (self.uid_field, self.iid_field):
                    self._entry_of[name] = feat[name].fillna(0).to_numpy(dtype=np.int64)
            else:
                if kind != FeatureType.TOKEN_SEQ and name in self.template.values:
                    raise ValueError(
                        f"template.values.{name} names codes, but {name!r} is a {kind.value} field: load it as token"
                    )
                self._entry_of[name], self._words[name] = self._distinct(name, kind, feat[name])
            self._words[name][0] = self.template.missing

    def _distinct(self, name: str, kind: FeatureType, column: pd.Series) -> tuple[np.ndarray, list[str]]:
        """Entry of each row, and the words of each entry, for sequences and numbers."""
        if kind == FeatureType.FLOAT:
            numbers, which = np.unique(column.to_numpy(dtype=np.float64), return_inverse=True)
            keys = [None if np.isnan(number) else self.template.number(number) for number in numbers]
            entries, words = _factorise(keys)
            return entries[which.reshape(-1)], ["", *words]
        entries, sequences = _factorise(tuple(v) if isinstance(v, np.ndarray) and len(v) else None for v in column)
        if kind == FeatureType.TOKEN_SEQ:
            tokens = self.field2id_token[name]
            words = [self.template.sequence(name, [str(tokens[i]) for i in sequence]) for sequence in sequences]
        else:
            between = self.template.join.get(name, ", ")
            words = [between.join(self.template.number(x) for x in sequence) for sequence in sequences]
        return entries, ["", *words]

    def _all_prompt_only(self) -> set[str]:
        return {name for names in (self.config["prompt_only"] or {}).values() for name in names}

    def _change_feat_format(self) -> None:
        super()._change_feat_format()
        if any(self._key_of(name) == ROW_KEY for name in self.template.fields):
            self.inter_feat.update(Interaction({ROW_KEY: torch.arange(len(self.inter_feat))}))

    # -- prompts -----------------------------------------------------------------------------------------

    @property
    def prompts(self) -> PromptTable:
        """The prompts, tokenised on first use with the tokenizer of ``language_model``."""
        if not self._prompts:
            table = PromptTable(
                self.template,
                load_tokenizer(self.config["language_model"]),
                self._words,
                {name: self._reader(name) for name in self.template.fields},
                max_tokens=self.config["max_text_tokens"],
                progress=bool(self.config["show_progress"]),
            )
            self._prompts.append(table)
            self._report_cut(table)
        return self._prompts[0]

    def _key_of(self, name: str) -> str:
        """Which column of a batch tells the entry of ``name``."""
        side = self._sides[name]
        if side == CONTEXT:
            return ROW_KEY if name in self._entry_of else name
        return self.uid_field if side == USER else self.iid_field

    def _reader(self, name: str) -> Callable[[Any], np.ndarray]:
        key, entry_of = self._key_of(name), self._entry_of.get(name)
        return _ReadIds(key) if entry_of is None else _ReadEntries(key, entry_of)

    def _report_cut(self, table: PromptTable) -> None:
        report: dict[str, tuple[int, int]] = {}
        for start in range(0, len(self.inter_feat), _CHUNK):
            rows = slice(start, start + _CHUNK)
            chunk = {key: self._column(key)[rows] for key in {self._key_of(name) for name in table.fields}}
            for name, (count, longest) in table.cut(chunk).items():
                before = report.get(name, (0, 0))
                report[name] = (before[0] + count, max(before[1], longest))
        for name, (count, longest) in report.items():
            self.logger.warning(
                f"max_text_tokens={self.config['max_text_tokens']} cuts {count} value(s) of {name!r} at their end; "
                f"the longest has {longest} tokens"
            )

    def _column(self, key: str) -> torch.Tensor:
        if key == ROW_KEY and key not in self.inter_feat:  # not built yet: rows are in the files' order
            return torch.arange(len(self.inter_feat))
        column = self.inter_feat[key]
        return column if isinstance(column, torch.Tensor) else torch.as_tensor(np.asarray(column))

    # -- access ------------------------------------------------------------------------------------------

    def __getitem__(self, index: Any, join: bool = True) -> Interaction:
        """Rows by index; as RecBole's, without turning an index tensor into one Python list per field."""
        rows = _take(self.inter_feat, index)
        return self.join(rows) if join else rows

    def join(self, df: Interaction) -> Interaction:
        """Add the user's and the item's features to interactions, as RecBole's ``join``."""
        if self.user_feat is not None and self.uid_field in df:
            df.update(_take(self.user_feat, df[self.uid_field]))
        if self.item_feat is not None and self.iid_field in df:
            df.update(_take(self.item_feat, df[self.iid_field]))
        return df


def _factorise(keys: Iterable[Hashable | None]) -> tuple[np.ndarray, list[Any]]:
    """Number distinct keys from 1 in order of appearance; None is 0."""
    seen: dict[Hashable, int] = {}
    entries = [0 if key is None else seen.setdefault(key, len(seen) + 1) for key in keys]
    return np.asarray(entries, dtype=np.int64), list(seen)


def _take(feat: Interaction, index: Any) -> Interaction:
    if isinstance(index, np.ndarray):
        index = torch.from_numpy(index)
    return Interaction({key: feat.interaction[key][index] for key in feat.interaction})


class _ReadIds:
    """Entry of a field whose ids are themselves in the batch."""

    def __init__(self, key: str):
        self.key = key

    def __call__(self, interaction: Any) -> np.ndarray:
        return np.asarray(interaction[self.key].cpu())


class _ReadEntries:
    """Entry of a field that hangs on another column: a user, an item or a row number."""

    def __init__(self, key: str, entry_of: np.ndarray):
        self.key, self.entry_of = key, entry_of

    def __call__(self, interaction: Any) -> np.ndarray:
        return self.entry_of[np.asarray(interaction[self.key].cpu())]
