"""GoodReads, from the UCSD Book Graph: gzip files with one JSON object a line, streamed.

A genre is read from its own files (``goodreads_interactions_poetry.json.gz``, ``goodreads_books_poetry.json.gz``) or,
where these are not there, filtered from the whole ones by ``goodreads_book_genres_initial.json.gz``. Only ids, and
the names, kinds and genres that kept books refer to, stay in memory.
"""

import json
from calendar import timegm
from collections.abc import Collection, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from recbole_alt.convert.writing import Conversion, damaged

#: Genre → its name in the genre file, and the books and interactions published for its own files, where there are any
#: (https://mengtingwan.github.io/data/goodreads.html).
GENRES: dict[str, tuple[str, int | None, int | None]] = {
    "children": ("children", 124_082, 10_059_349),
    "comics_graphic": ("comics, graphic", 89_411, 7_347_630),
    "fantasy_paranormal": ("fantasy, paranormal", 258_585, 55_397_550),
    "fiction": ("fiction", None, None),
    "history_biography": ("history, historical fiction, biography", 302_935, 31_479_229),
    "mystery_thriller_crime": ("mystery, thriller, crime", 219_235, 24_799_896),
    "non_fiction": ("non-fiction", None, None),
    "poetry": ("poetry", 36_514, 2_734_350),
    "romance": ("romance", 335_449, 42_792_856),
    "young_adult": ("young-adult", 93_398, 34_919_254),
}
#: Files beside books and interactions, with their published numbers of rows.
EXTRAS = {
    "authors": ("goodreads_book_authors.json.gz", 829_529),
    "works": ("goodreads_book_works.json.gz", 1_521_962),
    "genres": ("goodreads_book_genres_initial.json.gz", 2_360_655),
}
BOOKS = 2_360_655  # of the whole; no number of interactions is published for the very file with all of them
YEARS = (1450, 2018)  # the first printed book; the year after the crawl

_TOKENS = {named: genre for genre, (named, _, _) in GENRES.items()}
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_ITEM = (
    "item_id:token title:token_seq genres:token_seq average_rating:float reviews:float author_id:token "
    "author_name:token_seq pages:float is_ebook:token format:token publisher:token publication_year:token "
    "work_id:token media_type:token"
)


def convert(conversion: Conversion, *, genre: str | None = None, without: Collection[str] = ()) -> None:
    """Write ``goodreads.item`` and ``.inter``; GoodReads says nothing of its users but their ids.

    Args:
        genre: one of :data:`GENRES`; all books without.
        without: which of :data:`EXTRAS` are not at hand; the fields they give stay empty.
    """
    if genre is not None and genre not in GENRES:
        raise ValueError(f"genre must be one of {', '.join(GENRES)}, not {genre!r}")
    unknown = [name for name in without if name not in EXTRAS]
    if unknown:
        raise ValueError(f"without must be of {', '.join(EXTRAS)}, not {unknown[0]!r}")
    books, interactions = (_file(conversion, kind, genre) for kind in ("books", "interactions"))
    counts: tuple[int | None, int | None] = (BOOKS, None)
    among, genres = None, None
    if genre is not None and books.name == f"goodreads_books_{genre}.json.gz":
        counts = GENRES[genre][1:]
    elif genre is not None:
        if "genres" in without:
            raise ValueError(f"without: genres are needed to find {genre!r} among all books: get {EXTRAS['genres'][0]}")
        among = genres = _genres(conversion, None, genre)

    ids = _ids(books, conversion, among, counts[0])
    if genres is None:
        genres = {} if "genres" in without else _genres(conversion, ids["books"], None)
    extras = {"genres": genres}
    for extra, key, value in (("authors", "author_id", "name"), ("works", "work_id", "media_type")):
        extras[extra] = {} if extra in without else _extra(conversion, extra, key, value, ids[extra])
    _write_books(conversion, books, ids["books"], extras, without)
    _write_interactions(conversion, interactions, ids["books"], counts[1], among is not None)


def _file(conversion: Conversion, kind: str, genre: str | None) -> Path:
    """The file of the genre where one of its two is there, else the whole."""
    own = conversion.raw / f"goodreads_{kind}_{genre}.json.gz"
    if genre and any((conversion.raw / f"goodreads_{k}_{genre}.json.gz").is_file() for k in ("books", "interactions")):
        return own
    names = [f"goodreads_{kind}.json.gz"]
    if kind == "interactions":
        names.insert(0, "goodreads_interactions_dedup.json.gz")  # what the whole are published as
    there = [conversion.raw / name for name in names if (conversion.raw / name).is_file()]
    if not there:
        wanted = [own.name, *names] if genre else names
        raise ValueError(f"there is no file {' or '.join(wanted)} in {conversion.raw}: download one")
    return there[0]


def _rows(
    conversion: Conversion, file: Path, what: str, published: int | None, *needed: str
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The ``published`` number of objects of a file, each with the fields ``needed``."""
    number = 0
    for number, line in conversion.lines(file, "utf-8"):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise damaged(file, number, f"not JSON from position {error.pos} ({error.msg})") from None
        absent = [name for name in needed if not isinstance(row, dict) or name not in row]
        if absent:
            raise damaged(file, number, f"no field {absent[0]!r} in {line[:80]!r}")
        yield number, row
    conversion.check_count(file, what, number, published)


def _ids(books: Path, conversion: Conversion, among: Collection[str] | None, published: int | None) -> dict[str, set]:
    """What the books to keep are called, and whom and what they refer to."""
    ids: dict[str, set] = {"books": set(), "authors": set(), "works": set()}
    for number, row in _rows(conversion, books, "books", published, "book_id", "work_id", "authors", "title"):
        if not str(row["book_id"]):
            raise damaged(books, number, "the book_id is empty")
        if among is None or str(row["book_id"]) in among:
            ids["books"].add(str(row["book_id"]))
            ids["works"].add(str(row["work_id"]))
            ids["authors"].add(_author(books, number, row))
    return ids


def _author(file: Path, number: int, row: dict[str, Any]) -> str:
    """The id of the first author, which is the one a book is shown with."""
    try:
        return str(row["authors"][0]["author_id"]) if row["authors"] else ""
    except (TypeError, KeyError, IndexError):
        raise damaged(file, number, f"the field 'authors' is {row['authors']!r}") from None


def _genres(conversion: Conversion, among: Collection[str] | None, having: str | None) -> dict[str, str]:
    """Book → its genres, most often named first, for the books ``among`` these or ``having`` a genre."""
    name, published = EXTRAS["genres"]
    file, genres = conversion.raw / name, {}
    for number, row in _rows(conversion, file, "books", published, "book_id", "genres"):
        if not isinstance(row["genres"], dict):
            raise damaged(file, number, f"the field 'genres' is {row['genres']!r}")
        unknown = [named for named in row["genres"] if named not in _TOKENS]
        if unknown:
            raise damaged(file, number, f"the genre must be one of {'; '.join(_TOKENS)}, not {unknown[0]!r}")
        tokens = [_TOKENS[named] for named in sorted(row["genres"], key=lambda named: -int(row["genres"][named]))]
        book = str(row["book_id"])
        if (among is None or book in among) and (having is None or having in tokens):
            genres[book] = " ".join(tokens)
    return genres


def _extra(conversion: Conversion, extra: str, key: str, value: str, ids: Collection[str]) -> dict[str, str]:
    """``key`` → ``value`` of the rows of a file whose key is among ``ids``."""
    name, published = EXTRAS[extra]
    found = {}
    for _, row in _rows(conversion, conversion.raw / name, extra, published, key, value):
        if str(row[key]) in ids:
            found[str(row[key])] = str(row[value])
    return found


def _write_books(
    conversion: Conversion, file: Path, books: set[str], extras: dict[str, dict[str, str]], without: Collection[str]
) -> None:
    """Write the rows of ``books``, with the values of ``extras``: file → key → value."""
    table, left = conversion.table("item", _ITEM), set(books)
    genres, names, kinds = extras["genres"], extras["authors"], extras["works"]
    used = ("average_rating", "text_reviews_count", "num_pages", "is_ebook", "format", "publisher", "publication_year")
    for number, row in _rows(conversion, file, "books", None, *used):
        book, author, work = str(row["book_id"]), _author(file, number, row), str(row["work_id"])
        if book not in left:
            conversion.note("books left out: of another genre, or listed a second time")
            continue
        left.remove(book)
        for extra, key in (("genres", book), ("authors", author), ("works", work)):
            if extra not in without and key not in extras[extra]:
                conversion.note(f"books without an entry in {EXTRAS[extra][0]}")
        rating, reviews, pages, ebook, form, publisher, year = (str(row[name]) for name in used)
        rating = conversion.number(rating, 0, 5, "average ratings")
        reviews = conversion.number(reviews, 0, 1e9, "numbers of reviews")
        pages = conversion.number(pages, 1, 1e5, "numbers of pages")
        year = conversion.number(year, *YEARS, "publication years")
        about = (genres.get(book, ""), rating, reviews, author, names.get(author, ""), pages, ebook.lower())
        table.add(book, str(row["title"]), *about, form, publisher, year, work, kinds.get(work, ""))


def _write_interactions(
    conversion: Conversion, file: Path, books: Collection[str], published: int | None, filtered: bool
) -> None:
    table = conversion.table("inter", "user_id:token item_id:token rating:float timestamp:float")
    needed = ("user_id", "book_id", "rating", "date_added")
    for number, row in _rows(conversion, file, "interactions", published, *needed):
        user, book, rating = (str(row[name]) for name in needed[:3])
        if not user or rating not in ("0", "1", "2", "3", "4", "5"):
            raise damaged(file, number, f"the user_id {user!r} is empty or the rating {rating!r} is not from 0 to 5")
        time = seconds(str(row["date_added"]))
        if book not in books:
            conversion.note(f"interactions left out: their book is {'of another genre' if filtered else 'not listed'}")
        elif time is None:
            conversion.note("interactions left out: their date_added is no date")
        else:
            table.add(user, book, rating, str(time))


def seconds(date: str) -> int | None:
    """``"Fri Apr 19 08:15:15 -0700 2013"`` as seconds since 1970; None for what is no date."""
    try:
        _, month, day, clock, zone, year = date.split()
        hour, minute, second = (int(part) for part in clock.split(":"))
        east = int(zone[:3]) * 3600 + int(zone[0] + zone[3:]) * 60
        return _midnight(int(year), _MONTHS.index(month) + 1, int(day)) + hour * 3600 + minute * 60 + second - east
    except (ValueError, IndexError):
        return None


@lru_cache(maxsize=10_000)
def _midnight(year: int, month: int, day: int) -> int:
    return timegm((year, month, day, 0, 0, 0))
