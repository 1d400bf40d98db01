"""Errors end in one line and an exit status; a fault of our own leaves its traceback in the log file."""

import logging
import os
import sys
import tempfile
import traceback
from collections.abc import Callable

import torch

from recbole_alt.launch import let_the_first_tell

#: Exit statuses: of bad input and of a machine that refuses, of a fault of our own (``EX_SOFTWARE``), and of Ctrl-C.
REFUSED, FAULT, STOPPED = 2, 70, 130


def exit_status(work: Callable[[], object], stopped: str = "") -> int:
    """Call ``work`` and turn what it raises into one line on standard error and an exit status.

    Args:
        work: The command.
        stopped: What to say on Ctrl-C where :func:`~recbole_alt.stopping.going_on` says nothing.

    Returns:
        The exit status: 0; 2 for bad input (``ValueError``), too little memory and files that can't be read or
        written; 130 for Ctrl-C; 70 for anything else, which is a fault of our own and stands with its traceback in the
        log file.
    """
    logging.raiseExceptions = False  # a log on a full disk is no reason for a traceback
    try:
        work()
    except ValueError as error:
        logging.getLogger().debug("where it happened", exc_info=True)  # --state=debug
        return _refuse(error, str(error))
    except KeyboardInterrupt as error:
        print(": ".join(["stopped", *(_notes(error) or filter(None, [stopped]))]), file=sys.stderr)
        return STOPPED
    except BrokenPipeError:  # whoever read our output has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        trace = traceback.format_exc()
        if isinstance(error, OSError) and error.errno is not None:
            _log(logging.ERROR, trace)
            where = f"{os.fsdecode(error.filename)!r}: " if isinstance(error.filename, (str, bytes)) else ""
            return _refuse(error, f"{where}{error.strerror}")
        if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error):
            _log(logging.ERROR, trace)
            return _refuse(error, "not enough memory: lower train_batch_size, pretrain_batch_size, text_batch_size, "
                                  "eval_batch_size, or take a smaller language model")  # fmt: skip
        what = " ".join(f"{type(error).__name__}: {error}".split())
        file = _log(logging.CRITICAL, trace) or _kept(trace)
        print(f"error: internal error {what}: please report it with the log file {file}", file=sys.stderr)
        return FAULT
    return 0


def _refuse(error: BaseException, message: str) -> int:
    let_the_first_tell()
    line = "error: " + " and ".join([" ".join(message.split()), *_notes(error)])
    _log(logging.ERROR, line)
    print(line, file=sys.stderr)
    return REFUSED


def _notes(error: BaseException) -> list[str]:
    return list(getattr(error, "__notes__", []))


def _log(level: int, text: str) -> str | None:
    """Write ``text`` into the run's log file and nowhere else; the file's name, None where there is no log file yet."""
    record = logging.getLogger().makeRecord(__name__, level, __file__, 0, text, (), None)
    files = [handler for handler in logging.getLogger().handlers if isinstance(handler, logging.FileHandler)]
    for handler in files:
        handler.handle(record)
    return os.path.relpath(files[0].baseFilename) if files else None


def _kept(trace: str) -> str:
    """A new file with ``trace``, for a fault before there is a log file."""
    with tempfile.NamedTemporaryFile("w", prefix="recbole_alt-", suffix=".log", delete=False, encoding="utf-8") as file:
        file.write(trace)
    return file.name
