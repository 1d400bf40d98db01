r"""BookCrossing: ``BX-Users.csv``, ``BX-Books.csv`` and ``BX-Book-Ratings.csv``.

A MySQL dump: latin-1 (MySQL's, which is Windows-1252), ``;`` between quoted fields, ``\"`` for a quotation mark,
line breaks inside quotes, HTML entities, NULL for nothing. Columns are named as RecBole's; a location, an author, a
year and a publisher are one token each, where RecBole's conversion cuts texts into words.
"""

import html
import re
from collections.abc import Iterator
from pathlib import Path

from recbole_alt.convert.writing import Conversion, clean, damaged

# http://www2.informatik.uni-freiburg.de/~cziegler/BX/; readers that take \" for an end of field skip 19 of the books
USERS, BOOKS, RATINGS = 278_858, 271_379, 1_149_780
AGES = (5, 100)
YEARS = (1450, 2005)  # the first printed book; the year after the crawl

_HEADERS = {
    "BX-Users.csv": "User-ID;Location;Age",
    "BX-Books.csv": "ISBN;Book-Title;Book-Author;Year-Of-Publication;Publisher;Image-URL-S;Image-URL-M;Image-URL-L",
    "BX-Book-Ratings.csv": "User-ID;ISBN;Book-Rating",
}
_FIELD = re.compile(r'"([^"\\]*(?:(?:\\.|"(?!;|\Z))[^"\\]*)*)"(?=;|\Z)|(NULL|\d*)(?=;|\Z)', re.DOTALL)
_ENTITY = re.compile(r"&(?:#\d+|#[xX][0-9a-fA-F]+|[A-Za-z][A-Za-z0-9]*);")
_WINDOWS = {code: bytes([code]).decode("cp1252", "ignore") or " " for code in range(0x80, 0xA0)}
_MOST_LINES = 5  # of one record: a quotation mark that never closes must not swallow the file


def convert(conversion: Conversion) -> None:
    """Write ``book-crossing.user``, ``.item`` and ``.inter``."""
    users, books = _users(conversion), _books(conversion)
    file = conversion.raw / "BX-Book-Ratings.csv"
    table = conversion.table("inter", "user_id:token item_id:token rating:float")
    for number, (user, isbn, rating) in _records(conversion, file, "ratings", RATINGS):
        if not rating.isdecimal() or int(rating) > 10:
            raise damaged(file, number, f"the Book-Rating must be from 0 to 10, not {rating!r}")
        if user not in users:
            conversion.note("ratings left out: their User-ID is not in BX-Users.csv")
        elif isbn not in books:
            conversion.note("ratings left out: their ISBN, often not a valid one, is not in BX-Books.csv")
        else:
            table.add(user, isbn, rating)


def _users(conversion: Conversion) -> set[str]:
    file = conversion.raw / "BX-Users.csv"
    table = conversion.table("user", "user_id:token location:token age:token")
    seen: set[str] = set()
    for number, (user, location, age) in _records(conversion, file, "users", USERS):
        if not user.isdecimal():
            raise damaged(file, number, f"the User-ID {user!r} is no number")
        if _is_new(conversion, seen, user, "users"):
            table.add(user, _place(conversion, location), conversion.number(age, *AGES, "ages"))
    return seen


def _books(conversion: Conversion) -> set[str]:
    file = conversion.raw / "BX-Books.csv"
    columns = "item_id:token book_title:token_seq book_author:token publication_year:token publisher:token"
    table = conversion.table("item", columns)
    seen: set[str] = set()
    for number, record in _records(conversion, file, "books", BOOKS):
        isbn, title, author, year, publisher = record[:5]
        if not isbn:
            raise damaged(file, number, "the ISBN is empty")
        if _is_new(conversion, seen, isbn, "books"):
            table.add(isbn, title, author, conversion.number(year, *YEARS, "publication years"), publisher)
    return seen


def _is_new(conversion: Conversion, seen: set[str], key: str, what: str) -> bool:
    if key in seen:
        conversion.note(f"{what} left out: listed a second time")
        return False
    seen.add(key)
    return True


def _place(conversion: Conversion, location: str) -> str:
    """``"oslo, n/a, norway"`` → ``"oslo, norway"``."""
    parts = [part.strip() for part in location.split(",")]
    named = [part for part in parts if part and part != "n/a"]
    if len(named) < len(parts):
        conversion.note("locations without their empty parts")
    return ", ".join(named)


def _records(conversion: Conversion, file: Path, what: str, published: int) -> Iterator[tuple[int, list[str]]]:
    """The ``published`` number of records below the header, each with its first line's; values clean, NULL empty."""
    columns = _HEADERS[file.name].split(";")
    start, text, count = 0, "", 0
    for number, line in conversion.lines(file, "latin-1"):
        if not text and not line.strip():
            conversion.note(f"empty lines left out of {file.name}")
            continue
        start, text = (start, text + line) if text else (number, line)
        record = text.rstrip("\r\n")
        fields = _split(record)
        if len(fields) != len(columns):
            mended = _mended(record, len(columns))
            if mended:
                conversion.note("records mended: a backslash before the quotation mark that ends a field")
            elif fields or number - start + 1 >= _MOST_LINES:
                raise damaged(file, start, _wrong(record, len(fields), columns))
            fields = mended
        if not fields:
            continue  # the value goes on in the next line
        text = ""
        if start > 1:
            count += 1
            yield start, [_value(field) for field in fields]
        elif fields != columns:
            raise damaged(file, 1, f"the header is not {';'.join(columns)} but {record[:100]!r}")
    if text:
        raise damaged(file, start, f"cut off: {_wrong(text, 0, columns)}")
    conversion.check_count(file, what, count, published)


def _split(record: str) -> list[str]:
    """The fields of a complete record as they stand between their quotation marks; of any other, none."""
    fields, at = [], 0
    while match := _FIELD.match(record, at):
        fields.append(match[1] if match[1] is not None else match[2].replace("NULL", ""))
        at = match.end() + 1
        if at > len(record):
            return fields
    return []


def _mended(record: str, columns: int) -> list[str]:
    r"""Three books have a title that ends in a backslash, so that ``\";`` reads as part of it."""
    if not (record.startswith('"') and record.endswith('"')):
        return []
    fields = record[1:-1].split('";"')
    if len(fields) == columns - 1 and '";' in fields[1]:
        fields[1:2] = fields[1].split('";', 1)
        fields[2] = fields[2].strip('"\\')
    if len(fields) != columns or columns < 8:
        return []
    fields[1] = fields[1].rstrip('"\\')
    return fields


def _value(field: str) -> str:
    text = re.sub(r'\\(["\\])', r"\1", field).translate(_WINDOWS)
    return clean(_ENTITY.sub(lambda entity: html.unescape(entity[0]), text))


def _wrong(record: str, found: int, columns: list[str]) -> str:
    has = f"has {found} fields" if found else "is not made of fields in quotation marks"
    return f"{record[:80]!r} {has}, there must be {len(columns)}: {';'.join(columns)}"
