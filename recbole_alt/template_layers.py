"""The section ``template`` in the layers of a configuration: what we ship for a dataset, and what a user says."""

from collections.abc import Collection, Mapping
from typing import Any, TypeGuard


def refuse_excluded(spec: Any) -> None:
    """Refuse a section, as one place gives it, that leaves out a field that it words or orders."""
    given = {part: spec.get(part) for part in ("fields", "order", "exclude")} if isinstance(spec, Mapping) else {}
    excluded = given.pop("exclude", None)
    for part, names in given.items():
        both = [name for name in excluded if name in names] if _listed(excluded) and _listed(names) else []
        if both:
            raise ValueError(f"template.{part} names {both[0]!r}, which template.exclude leaves out: name it in one")


def without_fields(spec: Mapping[str, Any], unused: Any) -> dict[str, Any]:
    """A section without what it says of the fields that ``unused``, lists by file, names."""
    lists = unused.values() if isinstance(unused, Mapping) else ()
    names = {name for named in lists if isinstance(named, (list, tuple)) for name in named}
    kept: dict[str, Any] = {}
    for part, of_part in spec.items():
        if isinstance(of_part, Mapping):
            of_part = {name: said for name, said in of_part.items() if name not in names}
        kept[part] = [name for name in of_part if name not in names] if isinstance(of_part, (list, tuple)) else of_part
    return kept


def _listed(names: Any) -> TypeGuard[Collection[Any]]:
    return isinstance(names, (list, tuple, Mapping))
