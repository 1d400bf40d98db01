"""Raw files of our own in exactly the official formats, with their known nastiness, for the tests of the converters."""

from __future__ import annotations

import gzip
import html
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from conftest import MINILM

from recbole_alt.config import ALTConfig, properties_dir
from recbole_alt.convert import convert

HEADERS = {
    "BX-Users.csv": '"User-ID";"Location";"Age"',
    "BX-Books.csv": '"ISBN";"Book-Title";"Book-Author";"Year-Of-Publication";"Publisher";'
    '"Image-URL-S";"Image-URL-M";"Image-URL-L"',
    "BX-Book-Ratings.csv": '"User-ID";"ISBN";"Book-Rating"',
}
URLS = ";".join(f'"http://images.example/P.01.{size}ZZZ.jpg"' for size in ("THUMB", "MZZZ", "LZZZ"))

MOVIES = [
    '1::"Heat", It\'s Called (1995)::Action|Film-Noir',
    "2::Alien³: Café Olé ::Director's Cut:: (1992)::Sci-Fi",
    "3::Tomorrow (2050)::Drama",
    "4::Beginnings (0000)::Children's",
    "5::Untitled::Drama|War",
    "6::Slingshot, The (Kådis ) (1993)::Comedy",
]
USERS = ["1::F::1::10::48067", "2::M::56::16::70072-1234", "3::::25::15::55117", "4::M::::7::", "5::F::0::99::06810"]

BOOKS = [
    f'"0195153448";"\\"Classics\\"; A &amp; B";"Mark P. O. Mört";"2002";"Uni &lt;Press&gt;";{URLS}',
    f'"0002005018";"Clara; Callan";"R. "Bruce" W";"0";"O\'Hara\\Sons";{URLS}',
    f'"034545104X";"Tomorrow";"";"2050";"NULL & Void";{URLS}',
    f'"0789466953";"Ends in a backslash\\";"James B.";"2000";"DK Publishing Inc";{URLS}',
    f'"078946697X";"Readers (Level 4)\\"";Mike Title";"2000";"DK Publishing Inc";{URLS}',
    f'"0155061224";"Two\r\n lines\tand a tab";"A. \x93N.\x94";"1999";"P";{URLS}',
]
READERS = [
    '"1";"oslo, n/a, norway";NULL',
    '"2";"stockton, california, usa";"18"',
    '"3";"n/a, n/a, n/a";"239"',
    '"4";"bergen\r\n, , norway";"0"',
]
BOOK_RATINGS = ["1;0195153448;0", "1;0002005018;5", "2;034545104X;10", "3;0789466953;4", "4;078946697X;8",
                "2;0155061224;7", r"2;\"0425115801\";5", "3;N/A;3", "9;0195153448;1"]  # fmt: skip


def write_lines(file: Path, lines: Iterable[str], end: str = "\n") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes("".join(line + end for line in lines).encode("latin-1"))


def movielens(
    raw: Path, users: Sequence[str] = USERS, movies: Sequence[str] = MOVIES, ratings: Sequence[str] | None = None
) -> Path:
    """``users.dat``, ``movies.dat``, ``ratings.dat``."""
    if ratings is None:
        pairs = [(u, m) for u in range(1, len(users) + 1) for m in range(1, len(movies) + 1)]
        times = [978300000 + 1000 * ((7 * n + 3) % len(pairs)) for n in range(len(pairs))]  # far enough for float32
        ratings = [f"{u}::{m}::{1 + (u * m + m) % 5}::{t}" for (u, m), t in zip(pairs, times, strict=True)]
        ratings += ["77::1::3::978300001", "1::77::3::978300002"]  # a user and a movie nobody knows
    for name, lines in (("users", users), ("movies", movies), ("ratings", ratings)):
        write_lines(raw / f"{name}.dat", lines)
    return raw


def book_crossing(
    raw: Path,
    users: Sequence[str] = READERS,
    books: Sequence[str] = BOOKS,
    ratings: Sequence[str] = BOOK_RATINGS,
) -> Path:
    """The three ``BX-*.csv``; ratings are given without their quotation marks."""
    lines = [";".join(f'"{field}"' for field in line.split(";")) for line in ratings]
    for name, rows in (("BX-Users.csv", users), ("BX-Books.csv", books), ("BX-Book-Ratings.csv", lines)):
        write_lines(raw / name, [HEADERS[name], *rows], "\r\n" if name == "BX-Books.csv" else "\n")
    return raw


def quoted(text: str) -> str:
    """A field of BookCrossing's dump."""
    return '"' + html.escape(text, quote=False).replace("\\", "\\\\").replace('"', '\\"') + '"'


def write_json(file: Path, rows: Iterable[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(file, "wt", encoding="utf-8", newline="\n") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in rows)


def book(number: int, **changes: Any) -> dict[str, Any]:
    """One object of a ``goodreads_books*.json.gz``, everything text as in the original."""
    return {
        "isbn": "", "text_reviews_count": str(7 * number), "series": [],
        "popular_shelves": [{"count": "9", "name": "x"}],
        "is_ebook": "false", "average_rating": "4.09", "description": "…", "format": "Mass Market Paperback",
        "authors": [{"author_id": str(100 + number), "role": ""}, {"author_id": "999", "role": "Illustrator"}],
        "publisher": "Harcourt, Brace & Co.", "num_pages": "56", "publication_year": "1982",
        "book_id": str(number), "ratings_count": "15716", "work_id": str(5000 + number), "title": f"Book {number}",
    } | changes  # fmt: skip


def interaction(user: int, number: int, rating: int = 4, date: str = "Fri Apr 19 08:15:15 -0700 2013") -> dict:
    """One object of a ``goodreads_interactions*.json.gz``."""
    return {"user_id": f"{user:032x}", "book_id": str(number), "review_id": "f", "is_read": True, "rating": rating,
            "review_text_incomplete": "", "date_added": date, "read_at": "", "started_at": ""}  # fmt: skip


def goodreads(
    raw: Path,
    books: Sequence[dict[str, Any]],
    interactions: Sequence[dict[str, Any]],
    genre: str | None = "poetry",
    names: dict[str, str] | None = None,
) -> Path:
    """The files of one genre, or the whole ones; every other book is of poetry, the rest of two long genres."""
    suffix, whole = (f"_{genre}", f"_{genre}") if genre else ("", "_dedup")
    write_json(raw / f"goodreads_books{suffix}.json.gz", books)
    write_json(raw / f"goodreads_interactions{whole}.json.gz", interactions)
    authors = names or {row["authors"][0]["author_id"]: f"Author {row['book_id']}" for row in books}
    authors = {**authors, "999": "Edward Drawer"}
    write_json(raw / "goodreads_book_authors.json.gz", [{"author_id": a, "name": name} for a, name in authors.items()])
    kinds = [{"work_id": row["work_id"], "media_type": "book"} for row in books]
    write_json(raw / "goodreads_book_works.json.gz", kinds)
    genres = [{"poetry": 3, "fiction": 20}, {"history, historical fiction, biography": 2, "young-adult": 1}]
    tagged = [{"book_id": row["book_id"], "genres": genres[i % 2]} for i, row in enumerate(books)]
    write_json(raw / "goodreads_book_genres_initial.json.gz", tagged)
    return raw


def converted(dataset: str, raw: Path, out: Path, **options: Any) -> tuple[list[str], dict[str, list[str]]]:
    """The report, and the lines of each atomic file."""
    report = convert(dataset, raw, out, **{"any_size": True, "progress": False} | options)
    files = {file.suffix[1:]: file.read_text(encoding="utf-8").splitlines() for file in (out / dataset).iterdir()}
    return report, files


def configured(dataset: str, data_path: Path, *files: str, **keys: Any) -> ALTConfig:
    """The configuration of ``properties/dataset/``."""
    given = {
        "data_path": str(data_path),
        "language_model": MINILM,
        "show_progress": False,
        "show_plan": False,
        "state": "ERROR",
    }
    return ALTConfig("ALT_DCN", dataset, [str(properties_dir() / "dataset" / file) for file in files], given | keys)
