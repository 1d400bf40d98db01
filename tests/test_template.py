"""Templates: wording, order, names of codes, segments, and what may never be in a prompt."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_alt.data.template import PromptTemplate, build_template, default_wording
from recbole_alt.template_layers import refuse_excluded

SOURCES = {
    "user_id": "user",
    "age": "user",
    "gender": "user",
    "item_id": "item",
    "title": "item",
    "release_year": "item",
    "rating": "context",
    "timestamp": "context",
    "label": "context",
    "device": "context",
}
FORBIDDEN = {"rating": "the rating", "timestamp": "the timestamp", "label": "the label"}
IDS = ("user_id", "item_id")


def build(spec: dict[str, Any] | None = None, scope: str = "interaction", **kwargs: Any) -> PromptTemplate:
    given_ = {"forbidden": FORBIDDEN, "default_exclude": IDS} | kwargs
    return build_template(spec, SOURCES, scope=scope, **given_)


def texts(template: PromptTemplate) -> dict[str, str]:
    """Each segment's text, every value being the field's name in capitals."""
    return {s.name: s.text({name: name.upper() for name in s.fields}) for s in template.segments}


def one(spec: dict[str, Any] | None = None) -> str:
    return texts(build(spec))["prompt"]


def fails(match: str, spec: dict[str, Any], **kwargs: Any) -> None:
    with pytest.raises(ValueError, match=match) as caught:
        build(spec, **kwargs)
    assert "\n" not in str(caught.value)


# -- wording -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "wording"),
    [("age", "age is {value}."), ("release_year", "release year is {value}."), ("a__b_", "a b is {value}.")],
)
def test_default_wording_is_the_name_in_words(name: str, wording: str) -> None:
    assert default_wording(name) == wording


def test_without_a_template_every_allowed_field_is_named_in_dataset_order() -> None:
    assert one() == ("age is AGE. gender is GENDER. title is TITLE. release year is RELEASE_YEAR. device is DEVICE.")
    assert build().fields == ("age", "gender", "title", "release_year", "device")


def test_wording_replaces_the_default_of_its_field_only() -> None:
    text = one({"fields": {"title": "The film «{value}»;"}, "order": ["title"], "exclude": [*IDS, "device"]})
    assert text == "The film «TITLE»; age is AGE. gender is GENDER. release year is RELEASE_YEAR."


def test_order_comes_first_and_the_others_follow_in_dataset_order() -> None:
    assert build({"order": ["device", "title"]}).fields == ("device", "title", "age", "gender", "release_year")


def test_exclude_replaces_the_default_exclusion_of_ids() -> None:
    assert build({"exclude": ["age", "gender"]}).fields == ("user_id", "item_id", "title", "release_year", "device")
    assert build({"exclude": []}).fields[0] == "user_id"


@pytest.mark.parametrize("scope", ["entity", "interaction"])
def test_ids_are_put_into_words_only_if_exclude_asks(scope: str) -> None:
    bare = {"user_id": "user", "item_id": "item", "label": "context"}
    sources = bare | {"title": "item"}
    template = build_template(None, sources, scope=scope, forbidden=FORBIDDEN, default_exclude=IDS)
    assert [s.name for s in template.segments] == (["item"] if scope == "entity" else ["prompt"])
    assert template.fields == ("title",)
    device = build_template(None, bare | {"device": "context"}, scope=scope, forbidden=FORBIDDEN, default_exclude=IDS)
    assert device.fields == ("device",)
    assert not build_template(None, bare, scope=scope, forbidden=FORBIDDEN, default_exclude=IDS).segments
    asked = build_template({"exclude": []}, bare, scope=scope, forbidden=FORBIDDEN, default_exclude=IDS)
    assert asked.fields == IDS


@pytest.mark.parametrize(
    ("separator", "text"),
    [
        (" ", "A is AGE. G GENDER"),
        ("; ", "A is AGE.; G GENDER"),
        (" | ", "A is AGE. | G GENDER"),
        (", and ", "A is AGE., and G GENDER"),
        ("\n", "A is AGE. G GENDER"),
    ],
)
def test_separator_stands_between_clauses_and_nowhere_else(separator: str, text: str) -> None:
    others = [name for name in SOURCES if name not in ("age", "gender", *FORBIDDEN)]
    spec = {"separator": separator, "exclude": others, "fields": {"age": "A is {value}.", "gender": "G {value}"}}
    template = build(spec)
    assert texts(template) == {"prompt": text}
    first, second = template.segments[0].clauses
    assert not first.before[0].isspace()
    assert second.before[0].isspace()
    assert not first.text("x")[-1].isspace()


# -- words ---------------------------------------------------------------------------------------------------


def test_codes_get_their_names_whatever_yaml_made_of_the_keys() -> None:
    spec = yaml.safe_load("values: {gender: {M: male, F: female}, age: {1: under 18, 25: 25-34}}")
    template = build(spec)
    assert template.word("gender", "M") == "male"
    assert template.word("age", "1") == "under 18"
    assert template.word("title", "M") == "M"


def test_code_without_a_name_is_an_error_that_names_field_and_code() -> None:
    template = build({"values": {"gender": {"M": "male"}}})
    with pytest.raises(ValueError, match=r"gender.*'X9'"):
        template.word("gender", "X9")
    with pytest.raises(ValueError, match=r"gender.*'X9'"):
        template.sequence("gender", ["M", "X9"])


@pytest.mark.parametrize(("code", "word"), [("a  b\t c ", "a b c"), ("", "unknown"), (" \n", "unknown")])
def test_white_space_collapses_and_nothing_is_missing(code: str, word: str) -> None:
    assert build().word("title", code) == word


def test_missing_words_are_the_users() -> None:
    template = build({"missing": "not   given"})
    assert template.missing == template.word("title", "") == template.sequence("title", []) == "not given"
    assert template.number(float("nan")) == "not given"


def test_sequences_are_joined_and_named() -> None:
    template = build({"join": {"title": " / "}, "values": {"gender": {"M": "male", "F": "female"}}})
    assert template.sequence("title", ["a", "b", "c"]) == "a / b / c"
    assert template.sequence("device", ["a", "b"]) == "a, b"
    assert template.sequence("gender", ["F", "M"]) == "female, male"


@pytest.mark.parametrize(
    ("digits", "value", "words"),
    [(4, 1.8123, "1.812"), (2, 1.8123, "1.8"), (4, 1995.0, "1995"), (4, 0.5, "0.5"), (4, -3.0, "-3"), (4, 0.0, "0")],
)
def test_floats_have_at_most_so_many_digits(digits: int, value: float, words: str) -> None:
    assert build({"digits": digits}).number(value) == words


@pytest.mark.parametrize("value", [94110.0, 123456.0, 1_000_000.0])
def test_large_numbers_are_written_out(value: float) -> None:
    words = build().number(value)
    assert "e" not in words
    assert float(words) == pytest.approx(value, rel=1e-3)


# -- segments ------------------------------------------------------------------------------------------------


def test_entity_scope_has_a_text_per_side_each_with_its_prefix() -> None:
    spec = {"prefix": {"user": " User: ", "item": "Film:"}, "exclude": [*IDS, "gender", "release_year"]}
    template = build(spec, scope="entity")
    assert texts(template) == {
        "user": "User: age is AGE.",
        "item": "Film: title is TITLE.",
        "context": "device is DEVICE.",
    }


def test_interaction_scope_has_one_text_with_one_prefix() -> None:
    kept = {"prefix": {"prompt": "A visit:"}, "order": ["device", "age"]}
    assert one(kept | {"exclude": [*IDS, "gender", "title", "release_year"]}) == (
        "A visit: device is DEVICE. age is AGE."
    )


def test_a_side_without_fields_has_no_segment() -> None:
    names = [s.name for s in build({"exclude": ["device", *IDS]}, scope="entity").segments]
    assert names == ["user", "item"]
    names = [s.name for s in build({"exclude": ["user_id", "age", "gender", "item_id"]}, scope="entity").segments]
    assert names == ["item", "context"]


def test_both_scopes_word_a_field_alike() -> None:
    spec = {"fields": {"title": "called {value}", "age": "{value} years"}, "separator": "; "}
    entity, whole = build(spec, scope="entity"), build(spec)
    assert sorted(entity.fields) == sorted(whole.fields)
    bare = {c.field: (c.before + "{}" + c.after).strip(" ;") for s in whole.segments for c in s.clauses}
    assert bare == {c.field: (c.before + "{}" + c.after).strip(" ;") for s in entity.segments for c in s.clauses}


# -- errors --------------------------------------------------------------------------------------------------

_PARTS = {"fields": "x {value}", "values": {"a": "b"}, "join": " "}


def naming(part: str, name: str) -> dict[str, Any]:
    return {part: {name: _PARTS[part]} if part in _PARTS else [name]}


@pytest.mark.parametrize("part", ["fields", "order", "exclude", "values", "join"])
def test_unknown_field_is_named_with_the_known_ones(part: str) -> None:
    fails(rf"template\.{part}.*'agee'.*age", naming(part, "agee"))


@pytest.mark.parametrize("name", FORBIDDEN)
@pytest.mark.parametrize("part", ["fields", "order", "values", "join"])
def test_forbidden_field_is_named_with_the_reason(part: str, name: str) -> None:
    fails(rf"template\.{part}.*{name!r}.*{FORBIDDEN[name]}", naming(part, name))


@pytest.mark.parametrize("wording", ["age", "{value} or {value}", "age is {}", "age is {age}"])
def test_wording_needs_the_value_exactly_once(wording: str) -> None:
    fails("age.*{value}", {"fields": {"age": wording}})


@pytest.mark.parametrize("separator", [";", "", "-"])
def test_separator_needs_a_space(separator: str) -> None:
    fails(f"separator {separator!r}", {"separator": separator})


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        ({"seperator": " "}, "'seperator'.*separator"),
        ({"prefix": {"users": "x"}}, r"prefix.*'users'.*user"),
        ({"values": {"gender": "male"}}, r"values\.gender.*'male'"),
        ({"values": {"gender": {}}}, r"values\.gender"),
        ({"missing": "  "}, "missing"),
        ({"missing": None}, "missing"),
        ({"missing": False}, r"template\.missing must be text, not False.*quote it"),
        ({"missing": ["a"]}, r"template\.missing must be text, not \['a'\]: quote it"),
        ({"separator": None}, r"template\.separator must be text"),
        ({"prefix": {"prompt": True}}, r"template\.prefix\.prompt must be text, not True.*quote it"),
        ({"join": {"title": False}}, r"template\.join\.title must be text, not False.*quote it"),
        ({"join": {"title": 5}}, r"template\.join\.title must be text, not 5: quote it"),
        ({"fields": {"age": False}}, r"template\.fields\.age must be text, not False.*quote it"),
        ({"values": {"gender": {"M": None}}}, r"template\.values\.gender\.M must be text, not None: quote it"),
        ({"values": {"gender": {"M": 1}}}, r"template\.values\.gender\.M must be text, not 1: quote it"),
        ({"values": {"gender": {True: "yes"}}}, r"template\.values\.gender: the code True.*text, not True.*quote it"),
        ({"values": {"age": {1.5: "a"}}}, r"template\.values\.age: the code 1\.5.*quote it"),
        ({"values": {"age": {25: "a", "25": "b"}}}, r"template\.values\.age: 25 is given twice"),
        ({"order": ["age", "age"]}, r"template\.order names 'age' twice"),
        ({"order": ["item_id"]}, r"template\.order names 'item_id'.*left out by default.*exclude"),
        ({"fields": {"user_id": "{value}"}}, r"template\.fields names 'user_id'.*left out by default.*exclude"),
        ({"digits": 0}, "digits.*0"),
        ({"digits": "four"}, "digits.*'four'"),
        ({"digits": True}, "digits.*True"),
    ],
)
def test_other_mistakes_are_named(spec: dict[str, Any], match: str) -> None:
    fails(match, spec)


def test_only_sequences_are_joined() -> None:
    fails(r"template\.join names 'age'.*no sequence", {"join": {"age": " "}}, sequences=["title"])
    assert build({"join": {"title": " / "}}, sequences=["title"]).join == {"title": " / "}


@pytest.mark.parametrize("part", ["fields", "order"])
def test_one_place_does_not_word_or_order_what_it_leaves_out(part: str) -> None:
    with pytest.raises(ValueError, match=rf"template\.{part} names 'age', which template\.exclude leaves out"):
        refuse_excluded(naming(part, "age") | {"exclude": ["age"]})
    for spec in (None, "short", naming(part, "age"), {"exclude": ["age"]}, {"exclude": "age", part: ["age"]}):
        refuse_excluded(spec)


# -- no label in any prompt ----------------------------------------------------------------------------------

_FIELD = st.sampled_from(sorted(SOURCES))
_WORDING = st.sampled_from(["{value}", "it is {value}.", "«{value}» there", "{value}, rated"])
_SPEC = st.fixed_dictionaries(
    {},
    optional={
        "fields": st.dictionaries(_FIELD, _WORDING, max_size=6),
        "order": st.lists(_FIELD, unique=True),
        "exclude": st.lists(_FIELD, unique=True),
        "separator": st.sampled_from([" ", "; ", " | "]),
        "values": st.dictionaries(_FIELD, st.just({"a": "b"}), max_size=2),
        "join": st.dictionaries(_FIELD, st.just(" "), max_size=2),
    },
)


@settings(max_examples=300, deadline=None)
@given(spec=_SPEC, scope=st.sampled_from(["entity", "interaction"]), sides=st.permutations(sorted(SOURCES)))
def test_no_template_puts_label_rating_or_timestamp_into_a_prompt(
    spec: dict[str, Any], scope: str, sides: list[str]
) -> None:
    sources = {name: SOURCES[name] for name in sides}
    wanted = {name for part in ("fields", "order", "values", "join") for name in spec.get(part, ())}
    try:
        template = build_template(spec, sources, scope=scope, forbidden=FORBIDDEN, default_exclude=IDS)
    except ValueError as error:
        assert any(repr(name) in str(error) for name in (*FORBIDDEN, *IDS))  # nothing else here is a mistake
        return
    assert not wanted & FORBIDDEN.keys()
    assert not FORBIDDEN.keys() & set(template.fields)
    whole = " ".join(texts(template).values())
    assert not any(name.upper() in whole or name in whole for name in FORBIDDEN)
    for name in template.fields:
        assert whole.count(name.upper()) == 1
