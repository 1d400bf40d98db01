"""``ALTDataset``: RecBole's dataset, with prompts for its rows.

The CTR model sees exactly what RecBole's own ``Dataset`` gives it. The words of the prompts are taken from the atomic
files before RecBole fills gaps, normalises or discretises; the prompts are made when they are first used.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from recbole.data.interaction import Interaction
from recbole.utils import FeatureSource, FeatureType

from recbole_alt import compat
from recbole_alt.data.as_trained import MeasuredDataset
from recbole_alt.data.identity import DataIdentity
from recbole_alt.data.labels import check_parts
from recbole_alt.data.prompts import PromptTable
from recbole_alt.data.template import CONTEXT, ITEM, SEQUENCES, USER, build_template
from recbole_alt.data.wording import forbidden_in_prompts
from recbole_alt.data.words import FieldWords, exchange, float_words, sequence_words
from recbole_alt.keys import check_values
from recbole_alt.pretrained import load_tokenizer
from recbole_alt.sizes import settle_sizes

#: Key of the row number in interactions, which are given one if the batch itself does not determine a prompt field.
ROW_KEY = "alt_row"

_SOURCES = {
    FeatureSource.USER: USER,
    FeatureSource.USER_ID: USER,
    FeatureSource.ITEM: ITEM,
    FeatureSource.ITEM_ID: ITEM,
    FeatureSource.INTERACTION: CONTEXT,
}
_CHUNK = 200_000
_COMPARED = 32  # rows whose texts are compared with the tokens of the whole sentence


class ALTDataset(MeasuredDataset):
    """RecBole's ``Dataset`` with prompts.

    Attributes:
        identity: the record of the ids and the split, which :meth:`build` makes; the parts of the split share it.
        text_vectors: ``user`` or ``item`` → the vectors of their texts, once they are made; shared by the parts.
    """

    def __init__(self, config: Any):
        check_values(config.final_config_dict)
        self._field_words: dict[str, FieldWords] = {}
        self._prompts: list[PromptTable] = []  # one at most, shared by the parts of the split
        self.identity: DataIdentity | None = None
        self.text_vectors: dict[str, torch.Tensor] = {}
        super().__init__(config)

    # -- loading -----------------------------------------------------------------------------------------

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

    def _fill_nan(self) -> None:
        self._read_words()
        for source, names in self._columns.prompt_only.items():
            for name in names:
                self._del_col(getattr(self, f"{source}_feat"), name)
        super()._fill_nan()

    # -- words -------------------------------------------------------------------------------------------

    def _read_words(self) -> None:
        """Take the words of the prompt fields before RecBole changes their values."""
        sources = {name: _SOURCES[s] for name, s in self.field2source.items() if s in _SOURCES}
        self.template = build_template(
            self.config["template"],
            sources,
            scope=self.config["prompt_scope"],
            forbidden=forbidden_in_prompts(self.config),
            default_exclude=[name for name in (self.uid_field, self.iid_field) if name],
            sequences=[name for name, kind in self.field2type.items() if kind.value in SEQUENCES],
        )
        if self.config["finetune_modes"] or not self.config["plain_baseline"]:
            self._require_text()
            self._tell_sides_without_text(sources)
        self._field_words = {name: self._words_of(name, sources[name]) for name in self.template.fields}
        if self.config["shuffle_texts"]:
            self._exchange_texts(self.config["shuffle_texts"], sources)

    def _require_text(self) -> None:
        """Refuse data of which a language model has nothing to read."""
        if not self.template.segments:
            raise ValueError(
                f"no text can be made: none of the loaded columns {', '.join(self.field2type)} is left to describe a "
                "user or an item: load some with load_col, or text with prompt_only, or leave out fewer with "
                "template.exclude ([] puts ids into words)"
            )

    def _tell_sides_without_text(self, sources: dict[str, str]) -> None:
        """Log which of users and items have no text, as only their ids are known; ``exclude: []`` would write these."""
        for side, key in ((USER, self.uid_field), (ITEM, self.iid_field)):
            if key and all(sources[name] != side for name in self.template.fields):
                self.logger.info(
                    f"The {side}s have no text, as no column that describes them is in the prompts: load some with "
                    f"load_col or prompt_only: {{{side}: [...]}}, or put ids into words with template: {{exclude: []}}"
                )

    def _exchange_texts(self, side: str, sources: dict[str, str]) -> None:
        """Give each user, or each item, the words of another one; the CTR model's input stays the same."""
        owner = {USER: self.uid_field, ITEM: self.iid_field}[side]
        names = [name for name in self._field_words if sources[name] == side]
        if owner is None or not names:
            raise ValueError(f"shuffle_texts: no field of the prompts belongs to the {side}; leave it out")
        order = exchange(len(self.field2id_token[owner]), self._split_seed)
        self._field_words |= {name: self._field_words[name].swapped(order) for name in names}

    def _words_of(self, name: str, side: str) -> FieldWords:
        column, kind = self.field2feats(name)[-1][name], self.field2type[name]
        key = {USER: self.uid_field, ITEM: self.iid_field, CONTEXT: ROW_KEY}[side]
        if kind == FeatureType.TOKEN:
            words = [self.template.missing, *(self.template.word(name, str(t)) for t in self.field2id_token[name][1:])]
            if name in (self.uid_field, self.iid_field) or (side == CONTEXT and self._stays(name)):
                return FieldWords(words, name)
            return FieldWords(words, key, column.fillna(0).to_numpy(dtype=np.int64))
        if name in self.template.values and kind != FeatureType.TOKEN_SEQ:
            raise ValueError(f"template.values.{name}: {name!r} has no codes, being {kind.value}: load it as token")
        if kind == FeatureType.FLOAT:
            words, entries = float_words(self.template, column)
        elif kind == FeatureType.FLOAT_SEQ:
            words, entries = sequence_words(self.template, column, partial(self.template.numbers, name))
        else:
            tokens = self.field2id_token[name]
            words, entries = sequence_words(
                self.template, column, lambda ids: self.template.sequence(name, map(str, tokens[list(ids)]))
            )
        return FieldWords(words, key, entries)

    def _stays(self, name: str) -> bool:
        """True if batches will have this field of the interactions."""
        return all(name not in names for names in self._columns.prompt_only.values())

    def _change_feat_format(self) -> None:
        super()._change_feat_format()
        if any(field.key == ROW_KEY for field in self._field_words.values()):
            self.inter_feat.update(Interaction({ROW_KEY: torch.arange(len(self.inter_feat))}))

    # -- splitting ---------------------------------------------------------------------------------------

    @property
    def _split_seed(self) -> int:
        return int(self.config["seed"] if self.config["split_seed"] is None else self.config["split_seed"])

    def split_by_ratio(self, ratios: Sequence[float], group_by: str | None = None) -> list[Any]:
        """As RecBole's, with parts of consecutive rows that share the memory of the whole and are not copied."""
        if group_by is not None:
            parts: list[Any] = super().split_by_ratio(ratios, group_by)
            return parts
        rows = len(self)
        bounds = [0, *self._calcu_split_ids(tot=rows, ratios=[ratio / sum(ratios) for ratio in ratios]), rows]
        self._drop_unused_col()
        return [self.copy(self.inter_feat[start:end]) for start, end in pairwise(bounds)]

    def build(self) -> list[Any]:
        """Split as RecBole's ``build``, keep only ``train_share`` of the training rows, and check the labels."""
        if self.config["split_seed"] is None:
            parts = super().build()
        else:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self._split_seed)
                parts = super().build()
        share = self.config["train_share"]
        if share is not None and share < 1:  # shares of one seed are nested
            rows = len(parts[0].inter_feat)
            drawn = np.random.default_rng(self._split_seed).permutation(rows)[: max(1, round(share * rows))]
            parts[0].inter_feat = _take(parts[0].inter_feat, np.sort(drawn))
        settle_sizes(self.config, len(parts[0].inter_feat))  # before loaders are made
        check_parts(self.config, parts)
        identity = DataIdentity.of(self, parts)
        for dataset in (self, *parts):
            dataset.identity = identity
        return parts

    # -- prompts -----------------------------------------------------------------------------------------

    @property
    def field_words(self) -> Mapping[str, FieldWords]:
        """The words of each field of the prompts."""
        return self._field_words

    def column_of(self, name: str) -> tuple[str, str]:
        """Whom a loaded column describes, as :meth:`side_of`, and its type; ``text`` if only prompts have it."""
        segments = {"user": USER, "item": ITEM}
        for suffix, names in self._columns.prompt_only.items():
            if name in names:
                return segments.get(suffix, CONTEXT), "text"
        suffix, columns = next((suffix, of) for suffix, of in self._columns.loaded.items() if name in of)
        return segments.get(suffix, CONTEXT), columns[name]

    @property
    def prompts(self) -> PromptTable:
        """The prompts, tokenised when they are first used; a ValueError if no column gives any text."""
        if not self._prompts:
            self._require_text()
            table = PromptTable(
                self.template,
                load_tokenizer(self.config["language_model"]),
                {name: field.words for name, field in self._field_words.items()},
                {name: field.read for name, field in self._field_words.items()},
                max_tokens=self.config["max_text_tokens"],
                progress=bool(self.config["show_progress"]),
            )
            self._prompts.append(table)
            self._warn_about(table)
        return self._prompts[0]

    def _warn_about(self, table: PromptTable) -> None:
        """Log which texts are cut, and whether clauses are tokenised otherwise than the whole sentence."""
        columns = {field.key: self._column(field.key) for field in self._field_words.values()}
        report: dict[str, tuple[int, int]] = {}
        for start in range(0, len(self.inter_feat), _CHUNK):
            rows = {key: column[start : start + _CHUNK] for key, column in columns.items()}
            for name, (count, longest) in table.cut(rows).items():
                before = report.get(name, (0, 0))
                report[name] = (before[0] + count, max(before[1], longest))
        for name, (count, longest) in report.items():
            self.logger.warning(
                f"max_text_tokens={self.config['max_text_tokens']} cuts {count} value(s) of {name!r} at their end; "
                f"the longest has {longest} tokens"
            )
        text = table.unlike_whole({key: column[:_COMPARED] for key, column in columns.items()})
        if text is not None:
            self.logger.warning(
                f"the tokenizer of {self.config['language_model']!r} merges across spaces: it reads {text!r} otherwise "
                "than clause by clause, as it will be given; results may suffer"
            )

    def _column(self, key: str) -> torch.Tensor:
        if key == ROW_KEY and key not in self.inter_feat:  # not built yet: rows are in the files' order
            return torch.arange(len(self.inter_feat))
        return torch.as_tensor(np.asarray(self.inter_feat[key]))

    # -- access ------------------------------------------------------------------------------------------

    def __getitem__(self, index: Any, join: bool = True) -> Interaction:
        """Rows by index; as RecBole's, without turning an index tensor into one Python list per field."""
        rows = _take(self.inter_feat, index)
        return self.join(rows) if join else rows

    def column(self, name: str) -> torch.Tensor:
        """One field of all interactions, [n, ...]; where it is the user's or the item's, joined."""
        for feat, owner in ((self.item_feat, self.iid_field), (self.user_feat, self.uid_field)):
            if feat is not None and owner in self.inter_feat and name in feat:
                return feat[name][self.inter_feat[owner]]
        return self.inter_feat[name]

    def side_of(self, name: str) -> str | None:
        """Whom a field describes: the name of the segment that the prompt of ``prompt_scope: entity`` has for it."""
        return _SOURCES.get(self.field2source[name])

    def join(self, df: Interaction) -> Interaction:
        """Add the user's and the item's features to interactions, as RecBole's ``join``."""
        for feat, owner in ((self.user_feat, self.uid_field), (self.item_feat, self.iid_field)):
            if feat is not None and owner in df:
                df.update(_take(feat, df[owner]))
        return df


def _take(feat: Interaction, index: Any) -> Interaction:
    if isinstance(index, np.ndarray):
        index = torch.from_numpy(index)
    return Interaction({key: feat.interaction[key][index] for key in feat.interaction})
