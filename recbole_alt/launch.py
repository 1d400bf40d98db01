"""How processes that train together are started, by ``torchrun`` or here, find one another, and end."""

from __future__ import annotations

import atexit
import gc
import logging
import os
import pickle
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from importlib import import_module
from time import sleep
from typing import Any

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import ProcessExitedException
from tqdm import tqdm

from recbole_alt import processes
from recbole_alt.compat import trainers_without_curves

#: What ``torchrun`` tells a process of its place among the others.
_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_PATIENCE = timedelta(days=7)  # to wait while the first process reads data; a process that has ended is noticed at once
_POLLED, _GRACE = 0.2, 10.0  # seconds between two looks at the processes that were started, and for them to end
_TURN = 5.0  # seconds that the first process of a machine has to say what all of them would say

_was_joined = threading.Event()  # by this process, once


class LostProcess(ValueError):
    """Another process of this run has ended, so that this one can't go on."""


# -- what was asked for ------------------------------------------------------------------------------------


def launched() -> int:
    """The number of processes that this one was started among; 1 if it was started as the only one.

    Raises:
        ValueError: the environment says something else than ``torchrun`` does.
    """
    size = os.environ.get("WORLD_SIZE") or "1"
    if not size.isdigit() or int(size) < 1:
        raise ValueError(f"WORLD_SIZE is {size!r} in the environment, and must be the number of processes, or unset")
    for name in _VARIABLES if int(size) > 1 else ():
        if not os.environ.get(name):
            raise ValueError(f"WORLD_SIZE is {size!r} in the environment, and {name} is not set: start with torchrun")
    return int(size)


def require_one_process(what: str, remedy: str, config: Any = None) -> None:
    """Refuse to do something in several processes, each of which would do all of it.

    Raises:
        ValueError: ``torchrun`` or the like has started several, or ``config`` asks for them: one line with ``what``
            they would do, and a ``remedy``.
    """
    if config is not None and (config["nproc"] or 1) > 1:
        raise ValueError(f"nproc is {config['nproc']!r}, and {what} takes one process: {remedy}")
    size = os.environ.get("WORLD_SIZE") or "1"
    if size != "1":
        raise ValueError(f"WORLD_SIZE is {size!r} in the environment, and {what} takes one process: {remedy}")


def check_launch(given: Mapping[str, Any]) -> None:
    """Check RecBole's keys for several processes: ``world_size`` and ``local_rank``.

    Raises:
        ValueError: names the key, its value and what it must be.
    """
    number, size = given.get("nproc"), given.get("world_size")
    if given.get("local_rank") is not None:
        raise ValueError(f"local_rank is {given['local_rank']!r}, and must be left out: torchrun gives it, and --nproc")
    if size not in (None, -1, number or 1):
        raise ValueError(
            f"world_size is {size!r}, and must be left out or what nproc is: for several machines, start with torchrun"
        )


# -- being one of several ----------------------------------------------------------------------------------


def let_the_first_tell() -> None:
    """Wait, to be called before an error is told, for the first process of this machine to tell it and end.

    What goes wrong before processes are joined goes wrong in all of them, and ``torchrun`` ends the others with the
    first. If nothing has ended this process after some seconds, the error is its own.
    """
    if os.environ.get("LOCAL_RANK", "0") != "0" and not _was_joined.is_set():
        sleep(_TURN)


@contextmanager
def joined(config: Any) -> Iterator[None]:
    """Work together with the processes that were started with this one, if there are any, until the block ends.

    Only the first one logs and shows progress.

    Args:
        config: RecBole's; the device is read, and what a process other than the first has to be silent about is set.

    Raises:
        LostProcess: another process has ended.
    """
    if launched() == 1:
        yield
        return
    on_gpu = config["device"].type == "cuda"
    _was_joined.set()
    import_module("torch._dynamo")  # as averaging does: were the group there by then, it would be kept, and its threads
    atexit.register(gc.collect)  # models that refer to themselves keep threads of torch, which Python's end would abort
    with ExitStack() as undo:
        undo.enter_context(_stoppable())
        try:
            dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=_PATIENCE)
            undo.callback(dist.destroy_process_group)
            if not processes.is_first():
                config["show_progress"] = config["log_wandb"] = config["log_mlflow"] = False
                undo.enter_context(trainers_without_curves())
                undo.enter_context(warnings.catch_warnings())
                warnings.simplefilter("ignore")
            yield
        except RuntimeError as error:
            if not _is_of_lost_process(error):
                raise
            number = f"process {int(os.environ['RANK']) + 1} of {os.environ['WORLD_SIZE']}"
            atexit.register(_leave)
            lost = LostProcess(f"another process of this run has ended, and so does {number}")
            vars(lost).update(__notes__=getattr(error, "__notes__", []))
            raise lost from error


def _leave() -> None:
    """End at once: the interpreter would wait for the threads of what was begun with a process that has ended."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(2)


def _is_of_lost_process(error: RuntimeError) -> bool:
    return isinstance(error, dist.DistError) or "gloo" in str(error).lower()


@contextmanager
def _stoppable() -> Iterator[None]:
    """Let SIGTERM, which ``torchrun`` sends when another process has ended, stop this one as Ctrl-C does, and once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signals = (signal.SIGTERM, signal.SIGINT)

    def stop(*_: Any) -> None:
        for number in signals:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


# -- starting several --------------------------------------------------------------------------------------


def start_processes(number: int, work: Callable[..., Any], given: Sequence[Any]) -> Any:
    """Call ``work(*given)`` in ``number`` new processes of this machine, which are :func:`joined` in it.

    Returns:
        What it returns in the first of them.

    Raises:
        LostProcess: one was killed.
        ValueError: one could not be started, as from a script that does not guard what it does.
        Exception: what ``work`` raises.
    """
    context = torch.multiprocessing.get_context("spawn")
    receivers, senders = zip(*(context.Pipe(duplex=False) for _ in range(number)), strict=True)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    threads = str(max(1, (os.cpu_count() or 1) // number))
    environment = {"WORLD_SIZE": str(number), "MASTER_ADDR": "localhost", "MASTER_PORT": port}
    environment["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", threads)
    logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)  # which tells of each that it ends
    started: Any = torch.multiprocessing.spawn(_enter, (environment, work, tuple(given), senders), number, join=False)
    returned: dict[int, Any] = {}
    raised: list[BaseException] = []
    killed: list[BaseException] = []
    ended, which = False, "a process"
    while not ended:
        try:
            ended = started.join(_POLLED, grace_period=_GRACE)
        except ProcessExitedException as error:
            ended = True
            which = f"process {error.error_index + 1} of {number}"
            if error.signal_name is not None:
                killed.append(LostProcess(f"{which} was killed ({error.signal_name})"))
        except KeyboardInterrupt:
            for process in started.processes:
                process.terminate()
        for rank, receiver in enumerate(receivers):
            if not receiver.poll():
                continue
            result, stopped_by = receiver.recv()
            if stopped_by is None:
                returned[rank] = result
            else:
                raised.append(stopped_by)
    if not raised and not killed:
        if 0 not in returned:
            raise ValueError(
                f"{which} ended before it began, as it says above: with nproc, a Python file must call this under "
                "if __name__ == '__main__':, and can't be standard input; or start with torchrun"
            )
        return returned[0]
    causes = [error for error in raised if not isinstance(error, (LostProcess, KeyboardInterrupt))]
    cause = [*causes, *killed, *(e for e in raised if isinstance(e, KeyboardInterrupt)), *raised][0]
    notes = [note for error in raised for note in getattr(error, "__notes__", [])]
    vars(cause).update(__notes__=list(dict.fromkeys(notes)))
    raise cause


def _enter(number: int, environment: Mapping[str, str], work: Callable[..., Any], given: Any, senders: Any) -> None:
    """What a process that was started does."""
    os.environ.update(environment, RANK=str(number), LOCAL_RANK=str(number))
    torch.set_num_threads(int(environment["OMP_NUM_THREADS"]))
    tqdm.set_lock(threading.RLock())  # its own outlives a process that is killed, and Python tells of it
    result, error = None, None
    try:
        result = work(*given)
    except BaseException as raised:
        error = _portable(raised)
    senders[number].send((result if number == 0 else None, error))
    if error is not None:
        sys.exit(1)


def _portable(error: BaseException) -> BaseException:
    """``error`` as another process can have it: with what it says, what it notes, and no traceback."""
    try:
        return pickle.loads(pickle.dumps(error))
    except Exception:
        kind = ValueError if isinstance(error, ValueError) else RuntimeError
        plain = kind(str(error) if kind is ValueError else f"{type(error).__name__}: {error}")
        vars(plain).update(__notes__=getattr(error, "__notes__", []))
        return plain
