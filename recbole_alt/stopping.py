"""How to go on after a stop: whoever knows it says so, and the command line shows it."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from recbole_alt.files import CannotWrite

_OF_WRITING = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}


@contextmanager
def going_on(how: str) -> Iterator[None]:
    """Say ``how`` to go on when Ctrl-C, a full disk or a broken one stops the block.

    Args:
        how: Such as ``go on with --resume=FOLDER``; it becomes a note of the exception, which
            :func:`recbole_alt.cli.errors.exit_status` shows.

    Raises:
        CannotWrite: also where another library could not write its file.
    """
    try:
        yield
    except (CannotWrite, KeyboardInterrupt) as error:
        error.add_note(how)
        raise
    except OSError as error:
        if error.errno not in _OF_WRITING:
            raise
        refused = CannotWrite(error.filename or "a log file or TensorBoard's curves", error)
        refused.add_note(how)
        raise refused from error
