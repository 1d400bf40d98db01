"""Texts of any kind come through a conversion into the prompts, and converted data train."""

from __future__ import annotations

import tempfile
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import raw_files
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas._libs.parsers import STR_NA_VALUES
from raw_files import configured, converted
from rows import built

from recbole_alt import run_recbole_alt


def spaced(text: str) -> str:
    """What the prompt must say: the text on one line with single spaces."""
    line = "".join(" " if unicodedata.category(c) in ("Cc", "Cs") else c for c in text)
    return " ".join(line.split()) or "unknown"


LATIN = st.characters(max_codepoint=255, exclude_categories=["Cc"])
ANY = st.text(st.characters(exclude_categories=["Cs"]) | st.just("\ud800"), max_size=30)  # half a character, too
DUMPED = st.text(LATIN | st.sampled_from('\t\n\r;\\"&'), max_size=20).filter(lambda text: text.count("\n") < 3)


def movielens_titles(raw: Path, pairs: list[tuple[str, str]]) -> str:
    """A title of its own alone, in the one column the format has."""
    ids = range(1, len(pairs) + 1)
    movies = [f"{i}::é {title} (1990)::Drama" for i, (title, _) in zip(ids, pairs, strict=True)]
    raw_files.movielens(raw, ["1::F::1::10::48067"], movies, [f"1::{i}::{1 + i % 5}::{i}" for i in ids])
    return "ml-1m"


def book_crossing_titles(raw: Path, pairs: list[tuple[str, str]]) -> str:
    texts = [(raw_files.quoted(title), raw_files.quoted(author)) for title, author in pairs]
    books = [f'"{i}";{title};{author};"1990";"P";{raw_files.URLS}' for i, (title, author) in enumerate(texts)]
    raw_files.book_crossing(raw, ['"1";"oslo";NULL'], books, [f"1;{i};{i % 11}" for i in range(len(books))])
    return "book-crossing"


def goodreads_titles(raw: Path, pairs: list[tuple[str, str]]) -> str:
    books = [raw_files.book(i, title=title) for i, (title, _) in enumerate(pairs)]
    names = {str(100 + i): author for i, (_, author) in enumerate(pairs)}
    raw_files.goodreads(raw, books, [raw_files.interaction(1, i) for i in range(len(books))], names=names)
    return "goodreads"


FORMATS = [
    (movielens_titles, st.text(LATIN, max_size=30), "movie_title", None, "é "),
    (book_crossing_titles, DUMPED, "book_title", "book_author", ""),
    (goodreads_titles, ANY, "title", "author_name", ""),
]


@pytest.mark.parametrize(("write", "texts", "title", "author", "before"), FORMATS, ids=["ml-1m", "bx", "goodreads"])
def test_any_title_and_author_reaches_the_prompt(
    write: Callable[[Path, list[tuple[str, str]]], str], texts: Any, title: str, author: str | None, before: str
) -> None:
    # a token that reads as "no value" is one to RecBole, in every column the CTR model sees
    authors = texts.filter(lambda text: spaced(text) not in STR_NA_VALUES or not author or author == "author_name")

    @settings(max_examples=30, deadline=None)
    @given(st.lists(st.tuples(texts, authors), min_size=5, max_size=40))
    def check(pairs: list[tuple[str, str]]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            dataset = write(root / "raw", pairs)
            options = {"genre": "poetry"} if dataset == "goodreads" else {}
            converted(dataset, root / "raw", root / "out", **options)
            data = built(configured(dataset, root / "out"))
        rows = data[:]
        for name, which in ((title, 0), (author, 1)):
            if name is not None:
                field = data._field_words[name]
                said = [field.words[entry] for entry in field.read(rows)]
                assert said == [spaced(before + pair[which] if which == 0 else pair[which]) for pair in pairs]

    check()


def enough(dataset: str, raw: Path) -> dict[str, Any]:
    """Raw files with enough rows to train and to score on."""
    if dataset == "ml-1m":
        users = [f"{i}::{'FM'[i % 2]}::{(1, 18, 25)[i % 3]}::{i % 21}::{10000 + i}" for i in range(1, 13)]
        raw_files.movielens(raw, users)
    elif dataset == "book-crossing":
        readers = [f'"{i}";"town {i % 3}, usa";"{20 + i}"' for i in range(12)]
        isbns = [line.split('"')[1] for line in raw_files.BOOKS]
        ratings = [f"{u};{isbn};{(3 * u + 2 * n) % 11}" for u in range(12) for n, isbn in enumerate(isbns)]
        raw_files.book_crossing(raw, readers, ratings=ratings)
    else:
        books = [raw_files.book(n, average_rating=f"{3 + n / 10}", num_pages=str(40 * n)) for n in range(1, 8)]
        dates = [f"Fri Apr {day:02d} 08:15:15 -0700 2013" for day in range(1, 31)]
        pairs = [(u, n) for u in range(12) for n in range(1, 8)]
        shelved = [raw_files.interaction(u, n, (u + n) % 6, dates[(5 * u + n) % 30]) for u, n in pairs]
        raw_files.goodreads(raw, books, shelved)
    return {"genre": "poetry"} if dataset == "goodreads" else {}


@pytest.mark.parametrize("dataset", ["ml-1m", "book-crossing", "goodreads"])
def test_converted_data_train(dataset: str, tmp_path: Path, small_bert: str, one_thread: None) -> None:
    converted(dataset, tmp_path / "raw", tmp_path / "out", **enough(dataset, tmp_path / "raw"))
    keys = {"data_path": str(tmp_path / "out"), "language_model": small_bert, "show_progress": False,
            "show_plan": False, "state": "ERROR",
            "pretrain_steps": 1, "epochs": 1, "embedding_size": 8, "mlp_hidden_size": [16, 8], "precision": "fp32",
            "finetune_modes": ["joint"], "finetune": {"joint": {"epochs": 1}}}  # fmt: skip
    results = run_recbole_alt("ALT_DCN", dataset, None, keys)["record"]["results"]
    assert {"plain", "joint"} <= set(results)
    assert all(0 <= results[stage]["test"]["auc"] <= 1 for stage in ("plain", "joint"))
