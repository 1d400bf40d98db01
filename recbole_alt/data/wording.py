"""How the columns of atomic files are put into words, from the first lines of the files."""

from __future__ import annotations

from itertools import chain
from typing import Any

from recbole_alt.data.columns import OWNERS
from recbole_alt.data.files import atomic_files, headers_of
from recbole_alt.data.named_fields import check_named_fields
from recbole_alt.data.template import CONTEXT, ITEM, SEQUENCES, USER, PromptTemplate, build_template

_SIDES = {"inter": CONTEXT, "user": USER, "item": ITEM}


def forbidden_in_prompts(config: Any) -> dict[str, str]:
    """Fields that would reveal the label, are not content, or were set aside: name → why."""
    forbidden = dict.fromkeys(chain(*(config["unused_col"] or {}).values()), "in unused_col")
    forbidden |= dict.fromkeys(config["threshold"] or {}, "what the threshold makes the label from")
    forbidden[config["RATING_FIELD"]] = "the rating"
    forbidden |= {config["TIME_FIELD"]: "the timestamp", config["LABEL_FIELD"]: "the label"}
    return {name: why for name, why in forbidden.items() if name}


def read_template(config: Any) -> PromptTemplate:
    """The template of :class:`~recbole_alt.data.dataset.ALTDataset`; no row is parsed.

    Raises:
        ValueError: the files are not there, or do not go with ``config``.
    """
    files = atomic_files(config.final_config_dict)
    headers = headers_of(files)
    for of_suffix in files.values():
        of_suffix[0].release()
    columns = check_named_fields(config.final_config_dict, headers)
    sources: dict[str, str] = {}
    for suffix, side in _SIDES.items():
        read = {*columns.loaded.get(suffix, ()), *columns.prompt_only.get(suffix, ())}
        sources |= {name: side for name in headers.get(suffix, ()) if name in read}
    ids = {config[key]: side for side, key in OWNERS.items() if config[key]}
    return build_template(
        config["template"],
        sources | ids,
        scope=config["prompt_scope"],
        forbidden=forbidden_in_prompts(config),
        default_exclude=list(ids),
        sequences=[name for of in headers.values() for name, kind in of.items() if kind in SEQUENCES],
    )
