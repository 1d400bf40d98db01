"""The converters: official raw files in, RecBole atomic files out, every change counted."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import raw_files
from raw_files import configured, converted
from recbole.data import create_dataset, data_preparation
from rows import built

from recbole_alt.cli import main
from recbole_alt.convert import book_crossing, convert, goodreads, movielens

# -- MovieLens-1M ----------------------------------------------------------------------------------------------------


def test_movielens(tmp_path: Path) -> None:
    report, files = converted("ml-1m", raw_files.movielens(tmp_path / "raw"), tmp_path / "out")
    assert files["user"] == [
        "user_id:token\tage:token\tgender:token\toccupation:token\tzip_code:token",
        "1\t1\tF\t10\t48067",
        "2\t56\tM\t16\t70072-1234",
        "3\t25\t\t15\t55117",
        "4\t\tM\t7\t",
        "5\t\tF\t\t06810",
    ]
    assert files["item"] == [
        "item_id:token\tmovie_title:token_seq\trelease_year:token\tgenre:token_seq",
        '1\t"Heat", It\'s Called\t1995\tAction Film-Noir',
        "2\tAlien³: Café Olé ::Director's Cut::\t1992\tSci-Fi",
        "3\tTomorrow\t\tDrama",
        "4\tBeginnings\t\tChildren's",
        "5\tUntitled\t\tDrama War",
        "6\tSlingshot, The (Kådis )\t1993\tComedy",
    ]
    assert files["inter"][:2] == ["user_id:token\titem_id:token\trating:float\ttimestamp:float", "1\t1\t3\t978303000"]
    assert len(files["inter"]) == 1 + 5 * 6
    assert report[3:] == [
        "1 ages made missing: a code the data set does not define",
        "1 occupations made missing: a code the data set does not define",
        "2 release years made missing: not a number from 1888 to 2003",
        "1 movies without a release year at the end of their title",
        "1 ratings left out: their user is not in users.dat",
        "1 ratings left out: their movie is not in movies.dat",
    ]


def test_movielens_in_prompts(tmp_path: Path) -> None:
    converted("ml-1m", raw_files.movielens(tmp_path / "raw"), tmp_path / "out")
    train = data_preparation(config := configured("ml-1m", tmp_path / "out"), create_dataset(config))[0]._dataset
    said = "".join(text for row in train.prompts.texts(train[:]) for text in row)
    assert "gender is female. age is under 18. occupation is k - 12 student." in said
    assert "gender is unknown. age is 25 - 34. occupation is scientist." in said
    assert "title is tomorrow. release year is unknown. genre is drama." in said


def test_movielens_split_and_label_rules(tmp_path: Path) -> None:
    raw = raw_files.movielens(tmp_path / "raw")
    _, files = converted("ml-1m", raw, tmp_path / "out")
    rows = [line.split("\t") for line in files["inter"][1:]]
    for rule, kept in (([], rows), (["ml-1m-3-dropped.yaml"], [row for row in rows if row[2] != "3"])):
        config = configured("ml-1m", tmp_path / "out", *rule)
        config["valid_metric"] = "LogLoss"  # of two rows, which are of one label
        parts = create_dataset(config).build()
        times = [part.inter_feat["timestamp"].tolist() for part in parts]
        assert max(times[0]) < min(times[1]) and max(times[1]) < min(times[2])
        assert [len(part) for part in parts] == [len(kept) - 2 * (len(kept) // 10), len(kept) // 10, len(kept) // 10]
        label = np.concatenate([part.inter_feat["label"].numpy() for part in parts])
        assert label.sum() == sum(row[2] in "45" for row in kept)


# -- BookCrossing ----------------------------------------------------------------------------------------------------


def test_book_crossing(tmp_path: Path) -> None:
    report, files = converted("book-crossing", raw_files.book_crossing(tmp_path / "raw"), tmp_path / "out")
    assert files["user"] == [
        "user_id:token\tlocation:token\tage:token",
        "1\toslo, norway\t",
        "2\tstockton, california, usa\t18",
        "3\t\t",
        "4\tbergen, norway\t",
    ]
    assert files["item"] == [
        "item_id:token\tbook_title:token_seq\tbook_author:token\tpublication_year:token\tpublisher:token",
        '0195153448\t"Classics"; A & B\tMark P. O. Mört\t2002\tUni <Press>',
        '0002005018\tClara; Callan\tR. "Bruce" W\t\tO\'Hara\\Sons',
        "034545104X\tTomorrow\t\t\tNULL & Void",
        "0789466953\tEnds in a backslash\tJames B.\t2000\tDK Publishing Inc",
        "078946697X\tReaders (Level 4)\tMike Title\t2000\tDK Publishing Inc",
        "0155061224\tTwo lines and a tab\tA. “N.”\t1999\tP",
    ]
    assert files["inter"][1:] == [
        *("1\t0195153448\t0", "1\t0002005018\t5", "2\t034545104X\t10"),
        *("3\t0789466953\t4", "4\t078946697X\t8", "2\t0155061224\t7"),
    ]
    assert report[3:] == [
        "3 locations without their empty parts",
        "2 ages made missing: not a number from 5 to 100",
        "2 publication years made missing: not a number from 1450 to 2005",
        "2 records mended: a backslash before the quotation mark that ends a field",
        "2 ratings left out: their ISBN, often not a valid one, is not in BX-Books.csv",
        "1 ratings left out: their User-ID is not in BX-Users.csv",
    ]
    labels = built(configured("book-crossing", tmp_path / "out")).inter_feat["label"]
    assert labels.tolist() == [0, 1, 1, 0, 1, 1]


# -- GoodReads -------------------------------------------------------------------------------------------------------

NASTY = [
    raw_files.book(1, title='Old "Possum"\t\nBook', num_pages="0", publication_year="2050"),
    raw_files.book(2, is_ebook="true", average_rating="", publisher="", authors=[]),
    raw_files.book(3, title="詩\ud800 A"),
]
SHELVES = [
    raw_files.interaction(1, 1),
    raw_files.interaction(2, 2, 0, "Sat Jan 01 00:30:00 +0530 2000"),
    raw_files.interaction(2, 3, 5, "Thu Feb 29 23:59:59 +0000 2024"),
    raw_files.interaction(2, 77),
    raw_files.interaction(3, 3, 5, "yesterday"),
]


def people(books: list[dict[str, Any]]) -> dict[str, str]:
    return {row["authors"][0]["author_id"]: f"Author\t{row['book_id']}" for row in books if row["authors"]}


def test_goodreads_genre_files(tmp_path: Path) -> None:
    raw = raw_files.goodreads(tmp_path / "raw", NASTY, SHELVES, names=people(NASTY))
    report, files = converted("goodreads", raw, tmp_path / "out", genre="poetry")
    form, publisher = "Mass Market Paperback", "Harcourt, Brace & Co."
    one = ["1", 'Old "Possum" Book', "fiction poetry", "4.09", "7", "101", "Author 1", "", "false", form, publisher, ""]
    two = ["2", "Book 2", "history_biography young_adult", "", "14", "", "", "56", "true", form, "", "1982"]
    three = ["3", "詩 A", "fiction poetry", "4.09", "21", "103", "Author 3", "56", "false", form, publisher, "1982"]
    assert [line.split("\t") for line in files["item"][1:]] == [
        [*book, work, "book"] for book, work in ((one, "5001"), (two, "5002"), (three, "5003"))
    ]
    assert files["inter"][1:] == [
        f"{1:032x}\t1\t4\t1366384515",
        f"{2:032x}\t2\t0\t946666800",
        f"{2:032x}\t3\t5\t1709251199",
    ]
    assert report[2:] == [
        "1 numbers of pages made missing: not a number from 1 to 100000",
        "1 publication years made missing: not a number from 1450 to 2018",
        "1 books without an entry in goodreads_book_authors.json.gz",
        "1 interactions left out: their book is not listed",
        "1 interactions left out: their date_added is no date",
    ]
    assert built(configured("goodreads", tmp_path / "out")).inter_num == 2  # the book without a rating is left out


def test_goodreads_whole_filtered_by_genre(tmp_path: Path) -> None:
    raw = raw_files.goodreads(tmp_path / "raw", NASTY, SHELVES, genre=None, names=people(NASTY))
    report, files = converted("goodreads", raw, tmp_path / "out", genre="poetry")
    assert [line.split("\t")[0] for line in files["item"][1:]] == ["1", "3"]
    assert [line.split("\t")[1] for line in files["inter"][1:]] == ["1", "3"]
    assert "1 books left out: of another genre, or listed a second time" in report
    assert "2 interactions left out: their book is of another genre" in report
    _, files = converted("goodreads", raw, tmp_path / "out", without=["genres", "works", "authors"])
    assert [line.split("\t")[2] for line in files["item"][1:]] == ["", "", ""]
    with pytest.raises(ValueError, match="genres are needed to find 'poetry'"):
        converted("goodreads", raw, tmp_path / "out", genre="poetry", without=["genres"])


# -- the command ---------------------------------------------------------------------------------------------------


def test_published_counts_are_enough_without_any_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, counts in ((movielens, (5, 6, 32)), (book_crossing, (4, 6, 9))):
        for name, count in zip(("USERS", "MOVIES" if module is movielens else "BOOKS", "RATINGS"), counts, strict=True):
            monkeypatch.setattr(module, name, count)
    monkeypatch.setitem(goodreads.GENRES, "poetry", ("poetry", 3, 5))
    for name in goodreads.EXTRAS:
        monkeypatch.setitem(goodreads.EXTRAS, name, (goodreads.EXTRAS[name][0], 3))
    convert("ml-1m", raw_files.movielens(tmp_path / "ml"), progress=False)
    convert("book-crossing", raw_files.book_crossing(tmp_path / "bx"), progress=False)
    raw = raw_files.goodreads(tmp_path / "gr", NASTY, SHELVES, names=people(NASTY))
    convert("goodreads", raw, progress=False, genre="poetry")
    assert sorted(file.name for file in Path("dataset").glob("*/*.inter")) == [
        *("book-crossing.inter", "goodreads.inter", "ml-1m.inter"),
    ]


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    raw = str(raw_files.movielens(tmp_path / "raw"))
    assert main(["convert", "ml-1m", raw, "--out=data", "--any_size"]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[0] == f"Written: {Path('data/ml-1m/ml-1m.user')}, 5 rows"
    assert "ratings.dat: " in printed.err
    assert main(["convert", "ml-1m", raw, "--genre=poetry"]) == 2
    assert "--genre and --without are of goodreads" in capsys.readouterr().err
