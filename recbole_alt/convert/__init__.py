"""From official raw files to RecBole's atomic files: ``recbole-alt convert ml-1m RAW --out=dataset``."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from recbole_alt.convert import book_crossing, goodreads, movielens
from recbole_alt.convert.writing import Conversion
from recbole_alt.files import CannotWrite

CONVERTERS: dict[str, Callable[..., None]] = {
    "ml-1m": movielens.convert,
    "book-crossing": book_crossing.convert,
    "goodreads": goodreads.convert,
}


def convert(
    dataset: str,
    raw: str | os.PathLike[str],
    out: str | os.PathLike[str] = "dataset",
    *,
    any_size: bool = False,
    progress: bool = True,
    **options: Any,
) -> list[str]:
    """Write ``out/dataset/dataset.{inter,user,item}`` from the official files in the folder ``raw``.

    The files appear together once all are complete; after an error or a stop, what was there before is still there.

    Args:
        dataset: ``ml-1m``, ``book-crossing`` or ``goodreads``.
        raw: The folder of the unpacked download.
        out: The folder that RecBole calls ``data_path``.
        any_size: Accept row counts other than the published ones, for a subset of your own.
        progress: Show a bar for each raw file.
        options: Those of :func:`recbole_alt.convert.goodreads.convert`.

    Returns:
        Lines that say what was written, and what was changed or left out and why.

    Raises:
        ValueError: a raw file is missing, damaged, cut off or not of the published size, or ``out`` can't be written.
    """
    if dataset not in CONVERTERS:
        raise ValueError(f"dataset must be one of {', '.join(CONVERTERS)}, not {dataset!r}")
    conversion = Conversion(Path(raw), Path(out), dataset, any_size=any_size, progress=progress)
    try:
        with conversion.writing():
            CONVERTERS[dataset](conversion, **options)
    except OSError as error:  # of reading they are ValueErrors by now
        raise CannotWrite(error.filename or Path(out) / dataset, error) from error
    return conversion.messages()
