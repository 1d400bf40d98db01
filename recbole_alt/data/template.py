"""Prompt templates: how the fields of a row are put into words.

A template is a sequence of *clauses*, one per field (``"gender is {value}."``), grouped into *segments*: one
with all fields (``prompt_scope: interaction``, the paper's prompt) or one per side, so that every user and every
item is encoded only once (``prompt_scope: entity``). This module depends on neither RecBole nor a tokenizer nor torch.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recbole_alt.data.columns import names_in
from recbole_alt.kinds import is_whole, whole

USER, ITEM, CONTEXT, PROMPT = "user", "item", "context", "prompt"
SLOT = "{value}"
#: Types of columns with several values.
SEQUENCES = ("token_seq", "float_seq")

_SEGMENTS = (USER, ITEM, CONTEXT, PROMPT)
#: Parts of the section and their defaults.
_PARTS = {"fields": None, "order": None, "exclude": None, "separator": " ", "values": None, "missing": "unknown",
          "prefix": None, "join": None, "digits": 4}  # fmt: skip


@dataclass(frozen=True)
class Clause:
    """The words around the value of one field; clauses meet at white space, so that they can be tokenised singly."""

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
        """The fields in the order of the prompt."""
        return tuple(clause.field for clause in self.clauses)

    def text(self, values: Mapping[str, str]) -> str:
        """The whole text for ``values`` (field → value in words)."""
        return self.prefix + "".join(clause.text(values[clause.field]) for clause in self.clauses)


@dataclass(frozen=True)
class PromptTemplate:
    """A checked template for one dataset."""

    segments: tuple[SegmentTemplate, ...]  # the texts of a row, each of at least one field
    values: Mapping[str, Mapping[str, str]]  # field → {code: name}, for fields whose codes have names
    missing: str  # the words for a missing value
    join: Mapping[str, str]  # field → the text between the members of a sequence
    digits: int  # significant digits of a float

    @property
    def fields(self) -> tuple[str, ...]:
        """All fields of the prompt, segment by segment."""
        return tuple(name for segment in self.segments for name in segment.fields)

    def word(self, name: str, code: str) -> str:
        """The words for one value of the atomic file; a code without a name, where others have one, is a ValueError."""
        if name in self.values:
            if code not in self.values[name]:
                raise ValueError(f"template.values.{name} has no name for the value {code!r}: add one")
            code = self.values[name][code]
        return " ".join(code.split()) or self.missing

    def sequence(self, name: str, members: Iterable[str]) -> str:
        """The words for a sequence of values of the atomic file."""
        return self.join.get(name, ", ").join(self.word(name, member) for member in members) or self.missing

    def numbers(self, name: str, members: Iterable[float]) -> str:
        """The words for a sequence of floats."""
        return self.join.get(name, ", ").join(map(self.number, members))

    def number(self, value: float) -> str:
        """A float in ``digits`` significant digits, or its whole part if that has more; NaN is missing."""
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
    sequences: Collection[str] | None = None,
) -> PromptTemplate:
    """Check a ``template:`` section and make a :class:`PromptTemplate` of it.

    Args:
        spec: the section; parts that are missing get default wording from the names of the fields.
        sources: every field that may be in a prompt → ``user``, ``item`` or ``context``, in the dataset's order.
        scope: ``interaction`` for one text per row, ``entity`` for one per side.
        forbidden: fields that must never be in a prompt → why (label, rating, timestamp).
        default_exclude: fields left out if ``exclude`` is not given: the ids, which describe nothing.
        sequences: the fields with several values, which alone can be joined; None if that is not known.

    Returns:
        The template. A side none of whose fields is left has no segment.

    Raises:
        ValueError: an unknown or forbidden field, wording without exactly one ``{value}``, a separator without white
            space, what is no text, or a part without effect; names the part, the field and what to do.
    """
    spec, forbidden = _checked_parts(spec), forbidden or {}
    for part in ("fields", "order", "exclude", "values", "join"):
        for name in spec[part] or ():
            if name in forbidden and part != "exclude":
                raise ValueError(f"template.{part} names {name!r}, which can't be in a prompt: it is {forbidden[name]}")
            if name not in sources and name not in forbidden:
                raise ValueError(
                    f"template.{part} names the unknown field {name!r}: known are {', '.join(sources)} "
                    "(load it with load_col, or list it in prompt_only)"
                )
    _refuse_without_effect(spec, default_exclude, sequences)
    excluded = default_exclude if spec["exclude"] is None else spec["exclude"]
    names = [name for name in sources if name not in forbidden and name not in excluded]
    first = list(spec["order"] or spec["fields"])
    names = [name for name in first if name in names] + [name for name in names if name not in first]
    segments = []
    for segment in _segments(scope):
        wording = {
            name: spec["fields"].get(name, default_wording(name))
            for name in names
            if segment in (PROMPT, sources[name])
        }
        if wording:
            prefix = " ".join(spec["prefix"].get(segment, "").split())
            segments.append(SegmentTemplate(segment, prefix, _clauses(wording, spec["separator"], prefix)))
    return PromptTemplate(
        tuple(segments),
        values=_names_of_codes(spec["values"]),
        missing=" ".join(spec["missing"].split()),
        join=spec["join"],
        digits=spec["digits"],
    )


def _checked_parts(spec: Mapping[str, Any] | None) -> dict[str, Any]:
    """All parts of the section, each of the right kind; those that are not given are empty or have their default."""
    if spec is not None and not isinstance(spec, Mapping):
        raise ValueError(f"template must be a section of {', '.join(_PARTS)}, not {spec!r}")
    parts = _PARTS | dict(spec or {})
    for part in ("fields", "values", "join", "prefix"):
        parts[part] = {} if parts[part] is None else parts[part]
        if not isinstance(parts[part], Mapping):
            raise ValueError(f"template.{part} must be 'name: value' pairs, not {parts[part]!r}")
    for given, known, where in ((parts, _PARTS, ""), (parts["prefix"], _SEGMENTS, ".prefix")):
        for key in given:
            if key not in known:
                raise ValueError(f"template{where}: unknown key {key!r}; known are {', '.join(known)}")
    for part in ("order", "exclude"):
        if parts[part] is not None:
            names_in(parts[part], f"template.{part}")
    for part in ("missing", "separator"):
        _require_text(part, parts[part])
    for part in ("fields", "join", "prefix"):
        for name, words in parts[part].items():
            _require_text(f"{part}.{name}", words)
    if not parts["missing"].split():
        raise ValueError("template.missing must not be empty")
    whole(1).refuse("template.digits", parts["digits"])
    return parts


def _segments(scope: str) -> tuple[str, ...]:
    return (PROMPT,) if scope == "interaction" else (USER, ITEM, CONTEXT)


def _refuse_without_effect(
    spec: Mapping[str, Any], default_exclude: Collection[str], sequences: Collection[str] | None
) -> None:
    """Refuse parts that would change nothing: of a field left out by default, of a single value."""
    for part in ("fields", "order") if spec["exclude"] is None else ():
        for name in set(default_exclude).intersection(spec[part] or ()):
            raise ValueError(
                f"template.{part} names {name!r}, an id, which is left out by default: give template.exclude without it"
            )
    for name in spec["join"]:
        if sequences is not None and name not in sequences:
            raise ValueError(f"template.join names {name!r}, which has a single value, no sequence: leave it out")


def _clauses(wording: Mapping[str, str], separator: str, prefix: str) -> tuple[Clause, ...]:
    """Join clauses at the white space of ``separator``: the text before it closes a clause, the rest opens the next.

    So every clause but the first starts with white space, which is where all families of tokenizers separate words.
    """
    at = next((i for i, character in enumerate(separator) if character.isspace()), None)
    if at is None:
        raise ValueError(f"template.separator {separator!r} must contain a space")
    closing, opening = separator[:at], " " + " ".join(separator[at:].split())
    opening += " " if len(opening) > 1 and separator[-1].isspace() else ""
    clauses: list[Clause] = []
    for name, words in wording.items():
        if words.count(SLOT) != 1:
            raise ValueError(f"template.fields.{name}: {words!r} must contain {SLOT} exactly once")
        before, after = " ".join(words.split()).split(SLOT)
        before = (opening if clauses else " " if prefix else "") + before
        clauses.append(Clause(name, before, after + (closing if len(clauses) < len(wording) - 1 else "")))
    return tuple(clauses)


def _names_of_codes(values: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Field → {code: name}; codes may be whole numbers, as YAML reads them, and are texts in the atomic files."""
    for name, names in values.items():
        if not isinstance(names, Mapping) or not names:
            raise ValueError(f"template.values.{name} must map codes to names, not {names!r}")
        for code, word in names.items():
            if not is_whole(code):
                _require_text(f"values.{name}: the code {code!r}", code)
            elif str(code) in names:
                raise ValueError(f"template.values.{name}: {code} is given twice, as a number and as a text: leave one")
            _require_text(f"values.{name}.{code}", word)
    return {name: {str(code): word for code, word in names.items()} for name, names in values.items()}


def _require_text(where: str, given: Any) -> None:
    if not isinstance(given, str):
        bare = ": YAML reads a bare yes, no, on or off as a truth value" if isinstance(given, bool) else ""
        raise ValueError(f"template.{where} must be text, not {given!r}{bare}: quote it")
