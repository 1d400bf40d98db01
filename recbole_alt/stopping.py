"""How to go on after a stop: whoever knows it says so, and the command line shows it."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from recbole_alt.files import CannotWrite

_OF_WRITING = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO}


@contextmanager
def going_on(how: str) -> Iterator[None]:
    """Say ``how`` to go on when Ctrl-C, a full disk or a broken one, or the end of another process stops the block.

    ``go on with --resume=FOLDER`` becomes a note of the exception, which :func:`recbole_alt.cli.errors.exit_status`
    shows. Where another library could not write its file, that becomes a :class:`CannotWrite`.
    """
    try:
        try:
            yield
        except OSError as error:
            if error.errno not in _OF_WRITING:
                raise
            raise CannotWrite(error.filename or "a log file or TensorBoard's curves", error) from error
    except (CannotWrite, KeyboardInterrupt, RuntimeError) as error:
        vars(error).setdefault("__notes__", []).append(how)  # as add_note does, which Python 3.10 lacks
        raise
