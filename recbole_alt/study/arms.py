"""What the configurations of a campaign tell before its first training: arms of other rows, and equal arms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from recbole_alt.config import ALTConfig
from recbole_alt.keys import FREE
from recbole_alt.reporting.runs import COMPLETE, PLAIN, Run
from recbole_alt.study.campaign import Campaign

#: Keys that say which rows there are, what their labels are, and which of them are for testing.
_OF_ROWS = (
    "split_seed", "eval_args", "benchmark_filename", "threshold", "val_interval", "filter_inter_by_user_or_item",
    "user_inter_num_interval", "item_inter_num_interval", "rm_dup_inter", "LABEL_FIELD", "USER_ID_FIELD",
    "ITEM_ID_FIELD",
)  # fmt: skip


def check_arms(campaign: Campaign) -> None:
    """Refuse arms that could not be compared with plain, and those that are another arm under a second name.

    Raises:
        ValueError: Names the variant and the key, or the two that are equal.
    """
    cells = [
        cell for cell in dict.fromkeys(replace(run, seed=None) for run in campaign.runs()) if cell.variant != PLAIN
    ]
    for cell in cells:
        _require_same_rows(campaign, cell)
    for variant in (name for name in campaign.changes if name != COMPLETE):
        same = [_is_complete(campaign, cell) for cell in cells if cell.variant == variant]
        if same and all(same):
            raise ValueError(f"{variant} is the complete method, or plain: it changes nothing; leave it out")
    _require_different_language_models(campaign, cells)


def _require_same_rows(campaign: Campaign, cell: Run) -> None:
    plain = campaign.config(replace(cell, language_model=None, variant=PLAIN, stage="plain"), {})
    config = campaign.config(cell, {})
    for key in _OF_ROWS:
        if config[key] != plain[key]:
            raise _other_rows(cell, key, "")
    if lost := sorted((_columns_of_rows(plain) & _loaded(plain, set())) - _loaded(config, _columns_of_rows(plain))):
        raise _other_rows(cell, "load_col", f" without {', '.join(lost)}")


def _other_rows(cell: Run, key: str, how: str) -> ValueError:
    return ValueError(
        f"variants: {cell.variant}: {key}{how} makes other rows than plain has, and only runs with the same rows are "
        f"compared: give {key} for all runs, or in the file of a dataset"
    )


def _columns_of_rows(config: ALTConfig) -> set[str]:
    by_time = config["eval_args"]["order"] == "TO"
    named = {config[key] for key in ("USER_ID_FIELD", "ITEM_ID_FIELD", *(("TIME_FIELD",) if by_time else ()))}
    return named | {column for key in ("threshold", "val_interval") for column in config[key] or {}}


def _loaded(config: ALTConfig, everything: set[str]) -> set[str]:
    """The columns of interactions that are loaded; ``everything`` where no list says which."""
    load = config["load_col"]
    named = load.get("inter") if isinstance(load, Mapping) else None
    return set(named) if isinstance(named, (list, tuple)) else everything


def _is_complete(campaign: Campaign, cell: Run) -> bool:
    """Whether a run without changes, in the same mode, would be the same."""
    mine, other = (_values(campaign, run) for run in (cell, replace(cell, variant=COMPLETE)))
    return mine == other


def _values(campaign: Campaign, cell: Run) -> dict[str, Any]:
    return {key: value for key, value in campaign.config(cell, {}).final_config_dict.items() if key not in FREE}


def _require_different_language_models(campaign: Campaign, cells: list[Run]) -> None:
    named: dict[tuple[str, str], str | None] = {}
    for cell in cells:
        if cell.variant != COMPLETE:
            continue
        name = campaign.config(cell, {})["language_model"]
        if (before := named.setdefault((cell.data, name), cell.language_model)) != cell.language_model:
            given = cell.language_model or before
            raise ValueError(f"language_models: {given!r} is the configured one, which is compared, too: leave one")
