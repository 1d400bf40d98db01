"""``AtomicDataset``: RecBole's dataset with checked files, exact reading, and counted filters."""

import os
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from recbole.data.dataset import Dataset
from recbole.utils import FeatureSource, FeatureType

from recbole_alt.data.columns import check_forms
from recbole_alt.data.files import DataFile, atomic_files, check_files, headers_of
from recbole_alt.data.labels import check_filled, check_label_keys, check_label_values
from recbole_alt.data.named_fields import check_named_fields

_MUCH = 0.05  # share of a file's rows that is left out with a warning


class AtomicDataset(Dataset):
    """RecBole's ``Dataset``, read by :class:`~recbole_alt.data.atomic.AtomicFile`, or from Parquet.

    Files that RecBole would misread, and labels and ids that it would train on silently, are refused before a row is
    used, in one line with the file, the line and the column, or the key. Rows that filters leave out are counted.
    """

    inter_feat: Any  # a DataFrame while read, an Interaction once built
    field2seqlen: dict[str, int]

    def __init__(self, config: Any):
        self._rows: dict[str, int] = {}  # by file
        self._left_out: defaultdict[str, Counter[str]] = defaultdict(Counter)  # by file and reason
        self._read_rows: defaultdict[str, list[tuple[DataFile, pd.Index]]] = defaultdict(list)  # by suffix, as read
        self._kept: pd.Index | None = None  # indices of the interactions that filters left, in their order
        self._exact = False  # True if values may hold NUL, at which pandas' hash table cuts texts
        super().__init__(config)

    @property
    def left_out(self) -> dict[str, int]:
        """The number of rows that are not used, by ``<file>: <reason>``."""
        return {f"{file}: {why}": rows for file, reasons in self._left_out.items() for why, rows in reasons.items()}

    # -- reading -----------------------------------------------------------------------------------------

    def _from_scratch(self) -> None:
        super()._from_scratch()
        for file, reasons in self._left_out.items():
            much = reasons.total() > _MUCH * self._rows[file]
            (self.logger.warning if much else self.logger.info)(self._summary(file))
        self._log_unseen_numbers()
        self._read_rows.clear()
        self._kept = None

    def _load_data(self, token: str, dataset_path: str) -> None:
        if not os.path.exists(dataset_path):
            self._download()
        self._open_files()
        super()._load_data(token, dataset_path)
        self._check_common_ids()

    def _open_files(self) -> None:
        """Find the files and refuse what their first lines, their numbers of cells and the keys tell is wrong."""
        config = self.config.final_config_dict
        check_forms(config)
        self._files = atomic_files(config)
        names = {suffix: of_suffix[0].name for suffix, of_suffix in self._files.items()}
        self._columns = check_named_fields(config, headers_of(self._files), names)
        check_label_keys(config, self._columns.loaded["inter"], self._files["inter"][0])
        check_files(config, self._files)

    def _load_inter_feat(self, token: str, dataset_path: str) -> None:
        frames: list[Any] = []
        longest: dict[str, int] = {}
        for file in self._files["inter"]:
            frames.append(self._load_feat(file.path, FeatureSource.INTERACTION))
            longest |= {name: max(length, longest.get(name, 0)) for name, length in self.field2seqlen.items()}
        self.inter_feat = frames[0] if len(frames) == 1 else pd.concat(frames, ignore_index=True)
        self.file_size_list, self.field2seqlen = list(map(len, frames)), longest

    def _load_user_or_item_feat(self, token: str, dataset_path: str, source: Any, field_name: str) -> Any:
        feat = self._load_feat(self._files[source.value][0].path, source) if source.value in self._files else None
        if (field := getattr(self, field_name)) in self.field2source:
            self.field2source[field] = FeatureSource(f"{source.value}_id")
        return feat

    def _load_additional_feat(self, token: str, dataset_path: str) -> None:
        for suffix in self.config["additional_feat_suffix"] or []:
            setattr(self, f"{suffix}_feat", self._load_feat(self._files[suffix][0].path, suffix))

    def _load_feat(self, filepath: str, source: Any) -> pd.DataFrame | None:
        suffix = getattr(source, "value", source)
        file = next(file for file in self._files[suffix] if file.path == filepath)
        columns, texts = self._columns.loaded.get(suffix, {}), self._columns.prompt_only.get(suffix, ())
        if not columns:
            file.release()
            return None
        frame = file.read(columns, texts)
        self._exact |= not file.is_plain
        frame = self._with_ids(frame, file, suffix)
        for name in frame:
            kind = FeatureType(columns.get(name, "token"))
            self.field2source[name], self.field2type[name] = source, kind
            if "float" in kind.value:
                self.field2bucketnum[name] = 2
            self.field2seqlen[name] = self._length(frame, name) if kind.value.endswith("seq") else 1
        self._read_rows[suffix].append((file, frame.index))
        file.release()
        frame.index = pd.RangeIndex(len(frame))
        return frame

    def _length(self, frame: pd.DataFrame, name: str) -> int:
        """Cut the sequences of a column to ``seq_len``, if that is given; returns the length of the longest."""
        longest = max(map(len, frame[name]))
        most = (self.config["seq_len"] or {}).get(name, longest)
        if most < longest:
            frame[name] = [members[:most] for members in frame[name]]
        return min(most, longest)

    def raw(self, suffix: str) -> pd.DataFrame:
        """The loaded columns of ``inter``, ``user`` or ``item``, read again: all rows, as the files have them."""
        columns, texts = self._columns.loaded[suffix], self._columns.prompt_only.get(suffix, ())
        frames = []
        for file in self._files[suffix]:
            frames.append(file.read(columns, texts))
            file.release()
        return pd.concat(frames, ignore_index=True)

    # -- ids ---------------------------------------------------------------------------------------------

    @property
    def _sides(self) -> list[tuple[str, str]]:
        return [(side, field) for side, field in (("user", self.uid_field), ("item", self.iid_field)) if field]

    def _with_ids(self, frame: pd.DataFrame, file: DataFile, suffix: str) -> pd.DataFrame:
        """Leave out rows without an id, and all but the first row of each user or item in the files about them."""
        self._rows[file.name] = len(frame)
        for side, field in self._sides:
            if suffix not in (side, "inter"):
                continue
            if pd.api.types.infer_dtype(frame[field], skipna=False) != "string":  # quicker than notna
                frame = self._keep(frame, frame[field].notna(), file.name, f"having no {field}")
            if suffix == side:
                rows = len(frame)
                repeating = f"the {field} of a row before"
                frame = self._keep(frame, ~frame[field].duplicated(), file.name, f"repeating {repeating}")
                if more := rows - len(frame):
                    self.logger.warning(f"{file}: {more} of {rows} rows repeat {repeating}; the first is kept")
        return frame

    def _keep(self, frame: pd.DataFrame, which: pd.Series, file: str, why: str) -> pd.DataFrame:
        kept = frame if which.all() else frame[which].copy()
        self._count(file, why, len(frame), len(kept))
        return kept

    def _count(self, file: str, why: str, before: int, now: int) -> None:
        """Count the rows of a file that are left out; one row at least must stay."""
        if before > now:
            self._left_out[file][why] += before - now
        if not now:
            raise ValueError(f"no row is left: {self._summary(file)}")

    def _summary(self, file: str) -> str:
        reasons = self._left_out[file]
        parts = ", ".join(f"{rows:,} for {why}" for why, rows in reasons.items())
        return f"{file}: {reasons.total():,} of {self._rows[file]:,} rows are left out: {parts}"

    def _check_common_ids(self) -> None:
        """Refuse a ``.user`` or ``.item`` file that has none of the ids in the interactions."""
        for side, field in self._sides:
            feat = getattr(self, f"{side}_feat")
            if feat is not None and set(feat[field]).isdisjoint(self.inter_feat[field]):
                here, there = self.inter_feat[field].iloc[0], feat[field].iloc[0]
                raise ValueError(
                    f"no {field} of {self._name('inter')} is in {self._name(side)}, as {here!r} there and {there!r} "
                    "here: write ids alike in both"
                )

    def _name(self, suffix: str) -> str:
        return self._files[suffix][0].name if len(self._files[suffix]) == 1 else f"{self.dataset_name}.{suffix}"

    # -- filters -----------------------------------------------------------------------------------------

    def _filter_nan_user_or_item(self) -> None:
        """Do nothing: :meth:`_with_ids` did it. RecBole's drops wrong rows if users and items are missing."""

    def _remove_duplication(self) -> None:
        keep = self.config["rm_dup_inter"]
        if keep is None:
            return
        feat, time = self.inter_feat, self.time_field
        if time in feat:
            check_filled(feat, time, self._place, "rm_dup_inter goes by it: fill it")
            feat = feat.sort_values(time, kind="stable")
        else:
            self.logger.warning(f"rm_dup_inter: keeps the {keep} in the file's order, as no TIME_FIELD is loaded")
        pairs = {field: factorize(feat[field].to_numpy(), exact=self._exact)[0] for _, field in self._sides}
        repeated = pd.DataFrame(pairs, index=feat.index).duplicated(keep=keep)
        why = f"repeating a user and an item (rm_dup_inter: {keep})"
        self.inter_feat = self._keep(feat, ~repeated, self._name("inter"), why)

    def _filter_inter_by_user_or_item(self) -> None:
        if self.config["filter_inter_by_user_or_item"] is not True:
            return
        for side, field in self._sides:
            feat = getattr(self, f"{side}_feat")
            if feat is not None:
                known = self.inter_feat[field].isin(feat[field].values)
                why = f"having no row in {self._name(side)} (filter_inter_by_user_or_item)"
                self.inter_feat = self._keep(self.inter_feat, known, self._name("inter"), why)

    def _filter_by_field_value(self) -> None:
        self._counted(super()._filter_by_field_value, f"val_interval of {', '.join(self.config['val_interval'] or {})}")

    def _filter_by_inter_num(self) -> None:
        if all(self.config[f"{side}_inter_num_interval"] in (None, "[0,inf)") for side in ("user", "item")):
            return  # RecBole's default, which leaves nobody out, and for which it counts all
        self._counted(super()._filter_by_inter_num, "user_inter_num_interval and item_inter_num_interval")

    def _counted(self, take_away: Callable[[], None], why: str) -> None:
        before = {name: len(getattr(self, name)) for name in self.feat_name_list}
        take_away()
        for name, rows in before.items():
            self._count(self._name(name.removesuffix("_feat")), why, rows, len(getattr(self, name)))

    def _reset_index(self) -> None:
        self._kept = self.inter_feat.index
        super()._reset_index()

    # -- values ------------------------------------------------------------------------------------------

    def _place(self, row: int) -> str:
        """The file and the line or row of an interaction, by its index among those that are left."""
        number = int(row if self._kept is None else self._kept[row])
        for file, rows in self._read_rows["inter"]:
            if number < len(rows):
                return file.place(int(rows[number]))
            number -= len(rows)
        raise IndexError(row)

    def _remap_ID_all(self) -> None:
        check_label_values(self.config, self.inter_feat, self._place)
        super()._remap_ID_all()

    def _remap(self, remap_list: list[Any]) -> None:
        """As RecBole's, and exact for values with NUL characters."""
        if not remap_list:
            return
        tokens, _ = self._concat_remaped_tokens(remap_list)
        ids, distinct = factorize(tokens, exact=self._exact)
        of_id = np.array(["[PAD]", *distinct], dtype=object if self._exact else None)
        id_of = {token: number for number, token in enumerate(of_id)}
        start = 0
        for feat, field, kind in remap_list:
            self.field2id_token.setdefault(field, of_id)
            self.field2token_id.setdefault(field, id_of)
            lengths = feat[field].map(len).to_numpy() if kind == FeatureType.TOKEN_SEQ else None
            size = len(feat) if lengths is None else int(lengths.sum())
            part, start = ids[start : start + size] + 1, start + size
            feat[field] = part if lengths is None else np.split(part, np.cumsum(lengths)[:-1])

    def _log_unseen_numbers(self) -> None:
        """Warn about float fields that the CTR model does not see: RecBole embeds only ``numerical_features``."""
        known = {self.label_field, self.time_field, self.config["RATING_FIELD"], *(self.config["threshold"] or {})}
        known |= {*self.config["numerical_features"], *(self.config["preload_weight"] or {}).values()}
        known.update(*(self.config["unused_col"] or {}).values())
        if unseen := [name for name in self.float_like_fields if name not in known]:
            self.logger.warning(
                f"the CTR model doesn't see {', '.join(unseen)}: a float field is a feature only where "
                f"numerical_features names it, as in numerical_features: [{', '.join(unseen)}]"
            )


def factorize(tokens: np.ndarray, *, exact: bool) -> tuple[np.ndarray, np.ndarray]:
    """Number distinct tokens [n] in order of appearance, and list them; NaN is -1.

    ``exact`` is needed for tokens with NUL characters, at which ``pandas.factorize`` ends a text.
    """
    if not exact:
        return pd.factorize(tokens)
    seen: dict[str, int] = {}
    ids = [-1 if isinstance(token, float) else seen.setdefault(token, len(seen)) for token in tokens]
    return np.array(ids, dtype=np.int64), np.array(list(seen), dtype=object)
