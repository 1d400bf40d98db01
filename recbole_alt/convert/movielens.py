"""MovieLens-1M: ``users.dat``, ``movies.dat`` and ``ratings.dat``, latin-1, ``::`` between fields.

The atomic files are RecBole's own: the title without its year, the year beside it, genres separated by spaces.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from recbole_alt.convert.writing import Conversion, damaged

USERS, MOVIES, RATINGS = 6_040, 3_883, 1_000_209  # https://files.grouplens.org/datasets/movielens/ml-1m-README.txt
GENDERS = {"M", "F"}
AGES = {"1", "18", "25", "35", "45", "50", "56"}
OCCUPATIONS = {str(code) for code in range(21)}
YEARS = (1888, 2003)  # the first film; the data set's release

_YEAR = re.compile(r"(.*?)\s*\((\d{4})\)", re.DOTALL)


def convert(conversion: Conversion) -> None:
    """Write ``ml-1m.user``, ``.item`` and ``.inter``."""
    users, movies = _users(conversion), _movies(conversion)
    file = conversion.raw / "ratings.dat"
    table = conversion.table("inter", "user_id:token item_id:token rating:float timestamp:float")
    for number, line in _lines(conversion, file, "ratings", RATINGS):
        user, movie, rating, time = _fields(file, number, line, ("user id", "movie id", "rating", "timestamp"))
        if rating not in ("1", "2", "3", "4", "5"):
            raise damaged(file, number, f"the rating must be from 1 to 5, not {rating!r}")
        if not time.isdecimal():
            raise damaged(file, number, f"the timestamp {time!r} is no number of seconds")
        if user not in users:
            conversion.note("ratings left out: their user is not in users.dat")
        elif movie not in movies:
            conversion.note("ratings left out: their movie is not in movies.dat")
        else:
            table.add(user, movie, rating, time)


def _users(conversion: Conversion) -> set[str]:
    file = conversion.raw / "users.dat"
    table = conversion.table("user", "user_id:token age:token gender:token occupation:token zip_code:token")
    seen: set[str] = set()
    for number, line in _lines(conversion, file, "users", USERS):
        names = ("user id", "gender", "age", "occupation", "zip code")
        user, gender, age, occupation, zip_code = _fields(file, number, line, names)
        _add_new(seen, user, file, number, "user")
        gender = _known(conversion, gender, GENDERS, "genders")
        age = _known(conversion, age, AGES, "ages")
        table.add(user, age, gender, _known(conversion, occupation, OCCUPATIONS, "occupations"), zip_code)
    return seen


def _movies(conversion: Conversion) -> set[str]:
    file = conversion.raw / "movies.dat"
    table = conversion.table("item", "item_id:token movie_title:token_seq release_year:token genre:token_seq")
    seen: set[str] = set()
    for number, line in _lines(conversion, file, "movies", MOVIES):
        movie, first, rest = line.partition("::")
        title, last, genres = rest.rpartition("::")  # so that a title may hold colons
        if not (first and last):
            raise damaged(file, number, f"{line!r} does not have the 3 fields movie id::title::genres")
        _add_new(seen, movie, file, number, "movie")
        if any(character.isspace() for character in genres):
            raise damaged(file, number, f"the genres {genres!r} must be single words with | between them")
        match = _YEAR.fullmatch(title.strip())
        year = ""
        if match:
            title, year = match[1], conversion.number(match[2], *YEARS, "release years")
        else:
            conversion.note("movies without a release year at the end of their title")
        table.add(movie, title, year, genres.replace("|", " "))
    return seen


def _lines(conversion: Conversion, file: Path, what: str, published: int) -> Iterator[tuple[int, str]]:
    """The numbered lines of a file, which must be ``published`` in number."""
    number = 0
    for number, line in conversion.lines(file, "latin-1"):
        if not line.endswith("\n"):
            raise damaged(file, number, f"cut off after {line[-20:]!r}, where the line has no end")
        if not line.isascii() and _is_utf8(line):
            raise damaged(file, number, "in UTF-8, where the official file is in latin-1")
        yield number, line.rstrip("\r\n")
    conversion.check_count(file, what, number, published)


def _is_utf8(line: str) -> bool:
    try:
        line.encode("latin-1").decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _fields(file: Path, number: int, line: str, names: tuple[str, ...]) -> list[str]:
    fields = line.split("::")
    if len(fields) != len(names):
        raise damaged(file, number, f"{line!r} has {len(fields)} fields, not the {len(names)} {'::'.join(names)}")
    return fields


def _add_new(seen: set[str], key: str, file: Path, number: int, what: str) -> None:
    if not key.isdecimal():
        raise damaged(file, number, f"the {what} id {key!r} is no number")
    if key in seen:
        raise damaged(file, number, f"the {what} {key} is listed twice")
    seen.add(key)


def _known(conversion: Conversion, code: str, known: set[str], what: str) -> str:
    if code and code not in known:
        conversion.note(f"{what} made missing: a code the data set does not define")
    return code if code in known else ""
