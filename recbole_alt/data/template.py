"""Prompt templates: how the fields of a row are put into words.

A template is a sequence of *clauses*, one per field (``"gender is {value}."``), grouped into *segments*: one
with all fields (``prompt_scope: interaction``, the paper's prompt) or one per side, so that a user and an
item are each encoded once however often they meet (``prompt_scope: entity``). Nothing here knows RecBole,
a tokenizer or a tensor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

USER, ITEM, CONTEXT, PROMPT = "user", "item", "context", "prompt"
SLOT = "{value}"

_KEYS = ("fields", "order", "exclude", "separator", "values", "missing", "prefix", "join", "digits")


@dataclass(frozen=True)
class Clause:
    """The words around one field's value: ``before + value + after``.

    ``before`` starts with white space unless the clause opens its segment, so that clauses can be tokenised
    one by one and joined.
    """

    field: str
    before: str
    after: str

    def text(self, value: str) -> str:
        """The clause with ``value`` filled in."""
        return self.before + value + self.after


@dataclass(frozen=True)
class SegmentTemplate:
    """One text: an optional prefix and the clauses that follow it."""

    name: str
    prefix: str
    clauses: tuple[Clause, ...]

    @property
    def fields(self) -> tuple[str, ...]:
        """Fields in prompt order."""
        return tuple(clause.field for clause in self.clauses)

    def text(self, values: Mapping[str, str]) -> str:
        """The whole text for ``values`` (field → value in words)."""
        return self.prefix + "".join(clause.text(values[clause.field]) for clause in self.clauses)


@dataclass(frozen=True)
class PromptTemplate:
    """A checked template for one dataset.

    Attributes:
        segments: the texts of a row, without any that would have no field.
        values: field → {code: name}, for fields whose codes have names.
        missing: the words for a missing value.
        join: field → what stands between the members of a sequence.
        digits: significant digits of a float.
    """

    segments: tuple[SegmentTemplate, ...]
    values: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    missing: str = "unknown"
    join: Mapping[str, str] = field(default_factory=dict)
    digits: int = 4

    @property
    def fields(self) -> tuple[str, ...]:
        """Every field of the prompt, segment by segment."""
        return tuple(name for segment in self.segments for name in segment.fields)

    def word(self, name: str, code: str) -> str:
        """The words for one value as the atomic file has it; white space collapsed.

        Raises:
            ValueError: the field's codes have names and this one has none.
        """
        names = self.values.get(name)
        if names is not None:
            if code not in names:
                raise ValueError(f"template.values.{name} has no name for the value {code!r}: add one")
            code = names[code]
        return " ".join(code.split()) or self.missing

    def sequence(self, name: str, members: Sequence[str]) -> str:
        """The words for a sequence of values."""
        return self.join.get(name, ", ").join(self.word(name, member) for member in members) or self.missing

    def number(self, value: float) -> str:
        """A float in at most ``digits`` significant digits, or its whole part where that has more; NaN is missing."""
        if value != value:
            return self.missing
        return f"{value:.0f}" if 10**self.digits <= abs(value) < 1e15 else f"{value:.{self.digits}g}"


def default_wording(name: str) -> str:
    """``release_year`` → ``"release year is {value}."``"""
    return f"{' '.join(name.replace('_', ' ').split())} is {SLOT}."


def build_template(
    spec: Mapping[str, Any] | None,
    sources: Mapping[str, str],
    *,
    scope: str,
    forbidden: Mapping[str, str] | None = None,
    default_exclude: Sequence[str] = (),
) -> PromptTemplate:
    """Check a ``template:`` section and turn it into a :class:`PromptTemplate`.

    Args:
        spec: the YAML section; None or missing parts get default wording from the fields' names.
        sources: every field that may be in a prompt → ``user``, ``item`` or ``context``, in dataset order.
        scope: ``interaction`` for one text a row, ``entity`` for one a side.
        forbidden: fields that must never be in a prompt → why (label, rating, timestamp).
        default_exclude: fields left out where ``exclude`` is not given, unless their segment has no other.

    Raises:
        ValueError: an unknown or forbidden field, wording without exactly one ``{value}``, a separator
            without white space; the message names the field and what to do.
    """
    forbidden = forbidden or {}
    spec = _checked_parts(spec)
    _check_keys(spec.get("prefix") or {}, (USER, ITEM, CONTEXT, PROMPT), "template.prefix")
    for part in ("fields", "order", "exclude", "values", "join"):
        for name in spec.get(part) or ():
            if name in forbidden and part == "exclude":
                continue
            if name in forbidden:
                raise ValueError(f"template.{part} names {name!r}, which can't be in a prompt: it is {forbidden[name]}")
            if name not in sources:
                raise ValueError(
                    f"template.{part} names the unknown field {name!r}: known are {', '.join(sources)} "
                    "(load it with load_col, or list it in prompt_only)"
                )
    names = [name for name in sources if name not in forbidden]
    if spec.get("exclude") is None:
        names = _without_defaults(names, sources, default_exclude, scope)
    else:
        names = [name for name in names if name not in spec["exclude"]]
    if not names:
        raise ValueError("the prompt has no field left: give fewer in template.exclude, or load more with load_col")
    names = _ordered(names, spec)

    wording = {name: str((spec.get("fields") or {}).get(name) or default_wording(name)) for name in names}
    separator = str(spec.get("separator", " "))
    groups = _segments_of(names, sources, scope)
    return PromptTemplate(
        segments=tuple(
            _segment(segment, members, wording, separator, str((spec.get("prefix") or {}).get(segment) or ""))
            for segment, members in groups.items()
        ),
        values=_names_of_codes(spec),
        missing=_words(spec.get("missing", "unknown"), "template.missing"),
        join={name: str(between) for name, between in (spec.get("join") or {}).items()},
        digits=_positive(spec.get("digits", 4), "template.digits"),
    )


def _checked_parts(spec: Mapping[str, Any] | None) -> dict[str, Any]:
    """The section as a dictionary whose parts are of the right kind."""
    if spec is not None and not isinstance(spec, Mapping):
        raise ValueError(f"template must be a section of {', '.join(_KEYS)}, not {spec!r}")
    parts = dict(spec or {})
    _check_keys(parts, _KEYS, "template")
    for part in ("fields", "values", "join", "prefix"):
        if parts.get(part) is not None and not isinstance(parts[part], Mapping):
            raise ValueError(f"template.{part} must be 'name: value' pairs, not {parts[part]!r}")
    for part in ("order", "exclude"):
        if parts.get(part) is not None and not isinstance(parts[part], (list, tuple)):
            raise ValueError(f"template.{part} must be a list such as [{parts[part]}], not {parts[part]!r}")
    return parts


def _segments_of(names: Sequence[str], sources: Mapping[str, str], scope: str) -> dict[str, list[str]]:
    if scope == "interaction":
        return {PROMPT: list(names)}
    groups: dict[str, list[str]] = {}
    for side in (USER, ITEM, CONTEXT):
        members = [name for name in names if sources[name] == side]
        if members:
            groups[side] = members
    return groups


def _without_defaults(
    names: list[str], sources: Mapping[str, str], default_exclude: Sequence[str], scope: str
) -> list[str]:
    kept = [name for name in names if name not in default_exclude]
    if scope == "entity":
        left = {sources[name] for name in kept}
        return [name for name in names if name in kept or sources[name] not in left]
    return kept or names


def _ordered(names: list[str], spec: Mapping[str, Any]) -> list[str]:
    first = list(spec.get("order") or spec.get("fields") or ())
    return [name for name in first if name in names] + [name for name in names if name not in first]


def _segment(
    segment: str, names: Sequence[str], wording: Mapping[str, str], separator: str, prefix: str
) -> SegmentTemplate:
    """Split ``separator`` at its white space: what precedes it closes a clause, the rest opens the next.

    So every clause but the first starts with white space and ends where the next one's starts, which is
    where every tokenizer family separates words.
    """
    at = next((i for i, character in enumerate(separator) if character.isspace()), None)
    if at is None:
        raise ValueError(f"template.separator {separator!r} must contain a space")
    closing, opening = separator[:at], " " + " ".join(separator[at:].split())
    opening += " " if len(opening) > 1 and separator[-1].isspace() else ""
    prefix = " ".join(prefix.split())
    clauses = []
    for i, name in enumerate(names):
        if wording[name].count(SLOT) != 1:
            raise ValueError(f"template.fields.{name}: {wording[name]!r} must contain {SLOT} exactly once")
        before, after = " ".join(wording[name].split()).split(SLOT)
        if i > 0:
            before = opening + before
        elif prefix:
            before = " " + before
        clauses.append(Clause(name, before, after + (closing if i < len(names) - 1 else "")))
    return SegmentTemplate(segment, prefix, tuple(clauses))


def _names_of_codes(spec: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    values = {}
    for name, names in (spec.get("values") or {}).items():
        if not isinstance(names, Mapping) or not names:
            raise ValueError(f"template.values.{name} must map codes to names, not {names!r}")
        for code, word in names.items():
            if isinstance(code, bool) or isinstance(word, bool):
                raise ValueError(
                    f"template.values.{name}: YAML reads a bare yes, no, on or off as a truth value: quote it"
                )
        values[name] = {str(code): str(word) for code, word in names.items()}
    return values


def _check_keys(given: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for key in given:
        if key not in known:
            raise ValueError(f"{where}: unknown key {key!r}; known are {', '.join(known)}")


def _words(value: Any, where: str) -> str:
    words = " ".join(str(value if value is not None else "").split())
    if not words:
        raise ValueError(f"{where} must not be empty")
    return words


def _positive(value: Any, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{where} must be a whole number above 0, not {value!r}")
    return value
