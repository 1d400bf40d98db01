"""Damaged, cut off, missing and stopped: an error names file and line, and no half file is left."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import raw_files
from raw_files import converted

from recbole_alt.cli import main
from recbole_alt.convert import convert
from recbole_alt.convert.writing import Conversion

OPTIONS: dict[str, dict[str, Any]] = {"ml-1m": {}, "book-crossing": {}, "goodreads": {"genre": "poetry"}}


def raw_of(dataset: str, raw: Path) -> Path:
    if dataset == "goodreads":
        books = [raw_files.book(n) for n in range(1, 4)]
        return raw_files.goodreads(raw, books, [raw_files.interaction(u, n) for u in range(60) for n in range(1, 4)])
    return raw_files.movielens(raw) if dataset == "ml-1m" else raw_files.book_crossing(raw)


def line(number: int, text: str) -> Callable[[bytes], bytes]:
    """Put ``text`` in the place of a line."""

    def change(content: bytes) -> bytes:
        lines = content.split(b"\n")
        lines[number - 1] = text.encode("latin-1")
        return b"\n".join(lines)

    return change


def zipped(change: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    return lambda content: gzip.compress(change(gzip.decompress(content)))


def cut(count: int) -> Callable[[bytes], bytes]:
    return lambda content: content[:-count]


BOOKS, POETRY = "goodreads_books_poetry.json.gz", "goodreads_interactions_poetry.json.gz"
DAMAGE: list[tuple[str, str, Callable[[bytes], bytes], str, str]] = [
    ("ml-1m", "ratings.dat", cut(4), "line 32", "cut off after"),
    ("ml-1m", "ratings.dat", cut(12), "line 32", "cut off"),
    ("ml-1m", "ratings.dat", line(3, "1::2::5"), "line 3", "has 3 fields, not the 4 user id::movie id::rating"),
    ("ml-1m", "ratings.dat", line(3, "1::2::6::978300760"), "line 3", "the rating must be from 1 to 5, not '6'"),
    ("ml-1m", "ratings.dat", line(3, "1::2::5::97x"), "line 3", "the timestamp '97x' is no number"),
    ("ml-1m", "users.dat", line(2, "1::F::1::10::48067"), "line 2", "the user 1 is listed twice"),
    ("ml-1m", "users.dat", line(2, "1,F,1,10,48067"), "line 2", "has 1 fields, not the 5"),
    ("ml-1m", "users.dat", line(2, ""), "line 2", "has 1 fields, not the 5"),
    ("ml-1m", "movies.dat", line(1, "1::Heat (1995)"), "line 1", "does not have the 3 fields"),
    ("ml-1m", "movies.dat", line(1, "x::Heat (1995)::Drama"), "line 1", "the movie id 'x' is no number"),
    ("ml-1m", "movies.dat", line(1, "1::Heat (1995)::Film Noir"), "line 1", "single words"),
    ("ml-1m", "movies.dat", lambda c: c.decode("latin-1").encode(), "line 2", "in UTF-8, where the official file"),
    ("book-crossing", "BX-Users.csv", lambda c: c[c.index(b"\n") + 1 :], "line 1", "the header is not User-ID;Loc"),
    ("book-crossing", "BX-Users.csv", cut(3), "line 5", "cut off"),
    ("book-crossing", "BX-Users.csv", line(3, '"2";"usa"'), "line 3", "has 2 fields, there must be 3: User"),
    ("book-crossing", "BX-Users.csv", line(3, '"2";"stockton;NULL'), "line 3", "fields, there must be 3"),
    ("book-crossing", "BX-Users.csv", line(3, '"b";"usa";NULL'), "line 3", "the User-ID 'b' is no number"),
    ("book-crossing", "BX-Books.csv", cut(20), "line 7", "cut off"),
    ("book-crossing", "BX-Books.csv", line(3, '"1";"a";"b";"c";"2000"'), "line 3", "has 5 fields, there must be 8"),
    ("book-crossing", "BX-Books.csv", line(2, f'"";"a";"b";"2";"P";{raw_files.URLS}'), "line 2", "the ISBN is empty"),
    ("book-crossing", "BX-Book-Ratings.csv", line(2, "1,0195153448,0"), "line 2: '1,01", "is not made of fields in"),
    ("book-crossing", "BX-Book-Ratings.csv", line(2, '"1";"0195153448";"11"'), "line 2", "the Book-Rating must be"),
    ("goodreads", POETRY, cut(40), "line", "the compressed file is cut off here"),
    ("goodreads", POETRY, lambda c: c[:200] + bytes(20) + c[220:], "line", "no valid gzip from here on"),
    ("goodreads", POETRY, gzip.decompress, "line 1", "no valid gzip from here on"),
    ("goodreads", POETRY, zipped(cut(30)), "line 180", "not JSON from position"),
    ("goodreads", POETRY, zipped(line(2, '["a"]')), "line 2", "no field 'user_id' in '[\"a\"]"),
    ("goodreads", POETRY, zipped(lambda c: c.replace(b'g": 4', b'g": 9', 1)), "line 1", "the rating '9' is not"),
    ("goodreads", BOOKS, zipped(lambda c: c.replace(b"Book 2", b"Book \xe9")), "line 2", "byte b'\\xe9' at position"),
    ("goodreads", BOOKS, zipped(lambda c: c.replace(b'"work_id"', b'"w"', 1)), "line 1", "no field 'work_id'"),
    ("goodreads", BOOKS, zipped(lambda c: c.replace(b'"author_id"', b'"a"', 1)), "line 1", "the field 'authors' is [{"),
    ("goodreads", "goodreads_book_genres_initial.json.gz", zipped(lambda c: c.replace(b"fiction", b"fict", 1)),
     "line 1", "the genre must be one of children; comics, graphic"),
]  # fmt: skip


@pytest.mark.parametrize(("dataset", "name", "change", "where", "what"), DAMAGE)
def test_damage_is_named_with_its_line_and_changes_nothing(
    dataset: str, name: str, change: Callable[[bytes], bytes], where: str, what: str, tmp_path: Path
) -> None:
    raw, out = raw_of(dataset, tmp_path / "raw"), tmp_path / "out"
    _, before = converted(dataset, raw, out, **OPTIONS[dataset])
    content = (raw / name).read_bytes()
    assert change(content) != content
    (raw / name).write_bytes(change(content))
    with pytest.raises(ValueError) as caught:
        convert(dataset, raw, out, any_size=True, progress=False, **OPTIONS[dataset])
    message = str(caught.value)
    assert message.startswith(f"{raw / name}, {where}")
    assert what in message and "download it again" in message and "\n" not in message
    assert sorted(file.name for file in (out / dataset).iterdir()) == sorted(f"{dataset}.{s}" for s in before)
    assert {s: (out / dataset / f"{dataset}.{s}").read_text("utf-8").splitlines() for s in before} == before
    with pytest.raises(ValueError):
        convert(dataset, raw, tmp_path / "new", any_size=True, progress=False, **OPTIONS[dataset])
    assert not (tmp_path / "new" / dataset).exists()


@pytest.mark.parametrize("dataset", list(OPTIONS))
def test_every_file_is_needed_and_counted(dataset: str, tmp_path: Path) -> None:
    raw = raw_of(dataset, tmp_path / "raw")
    with pytest.raises(ValueError, match=r"holds [3-6] \w+, the published number is \d+,\d+: .* give --any_size"):
        convert(dataset, raw, tmp_path / "out", progress=False, **OPTIONS[dataset])
    for file in sorted(raw.iterdir()):
        content = file.read_bytes()
        file.unlink()
        with pytest.raises(ValueError, match=f"there is no file .*{file.name}"):
            convert(dataset, raw, tmp_path / "out", any_size=True, progress=False, **OPTIONS[dataset])
        file.write_bytes(gzip.compress(b"") if file.suffix == ".gz" else raw_files.HEADERS.get(file.name, "").encode())
        with pytest.raises(ValueError, match=f"{file.name} holds no .*: download it again"):
            convert(dataset, raw, tmp_path / "out", any_size=True, progress=False, **OPTIONS[dataset])
        file.write_bytes(content)
    with pytest.raises(ValueError, match="there is no folder"):
        convert(dataset, tmp_path / "nowhere", tmp_path / "out")
    assert not (tmp_path / "out" / dataset).exists()
    with pytest.raises(ValueError, match="dataset must be one of ml-1m, book-crossing, goodreads, not 'ml-2m'"):
        convert("ml-2m", raw)


@pytest.mark.parametrize("dataset", list(OPTIONS))
def test_again_is_the_same_bytes(dataset: str, tmp_path: Path) -> None:
    raw = raw_of(dataset, tmp_path / "raw")
    runs = []
    for _ in range(2):
        report, _ = converted(dataset, raw, tmp_path / "out", **OPTIONS[dataset])
        runs.append((report, {file: file.read_bytes() for file in (tmp_path / "out" / dataset).iterdir()}))
    assert runs[0] == runs[1]


def stopping(after: int) -> Callable[..., Iterator[tuple[int, str]]]:
    """``Conversion.lines`` with Ctrl-C pressed while reading the last file."""
    lines = Conversion.lines

    def stopped(self: Conversion, file: Path, encoding: str) -> Iterator[tuple[int, str]]:
        for number, text in lines(self, file, encoding):
            if "atings" in file.name and number == after:
                assert any(part.name.startswith(".") for part in Path("dataset/ml-1m").iterdir())
                raise KeyboardInterrupt
            yield number, text

    return stopped


def test_a_stop_leaves_no_half_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    raw = raw_of("ml-1m", tmp_path / "raw")
    monkeypatch.setattr(Conversion, "lines", stopping(20))
    assert main(["convert", "ml-1m", str(raw), "--any_size"]) == 130
    assert capsys.readouterr().err.endswith("stopped: nothing written\n")
    assert not Path("dataset/ml-1m").exists()


def test_the_command_says_what_is_wrong_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = raw_of("ml-1m", tmp_path / "raw")
    (tmp_path / "a_file").touch()
    for argv, what in (
        (["ml-1m", str(raw)], "users.dat holds 5 users, the published number is 6,040"),
        (["ml-1m", str(raw), "--any_size", "--out=a_file"], "a_file"),
        (
            ["goodreads", str(raw), "--genre=poetry"],
            "no file goodreads_books_poetry.json.gz or goodreads_books.json.gz",
        ),
    ):
        assert main(["convert", *argv]) == 2
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith("error: ") and what in error
