"""How a process was started: it has to be the only one, until several are supported."""

import os
from collections.abc import Mapping
from typing import Any

#: The values of RecBole's keys for several processes that stand for one process.
_OF_ONE: dict[str, tuple[Any, ...]] = {"nproc": (None, 1), "world_size": (None, -1, 1), "local_rank": (None,)}


def require_one_process(given: Mapping[str, Any]) -> None:
    """Refuse a launch of several processes, each of which would train all of it and write into the same files.

    Raises:
        ValueError: ``WORLD_SIZE``, as ``torchrun`` sets it, or a key of ``given`` asks for more than one process.
    """
    remedy = "training on several processes is not supported yet; start one, without torchrun, --nproc and --world_size"
    size = os.environ.get("WORLD_SIZE", "")
    if size not in ("", "1"):
        raise ValueError(f"WORLD_SIZE is {size!r} in the environment, and must be 1 or unset: {remedy}")
    for key, allowed in _OF_ONE.items():
        if given.get(key) not in allowed:
            must_be = f"{'1 or ' if 1 in allowed else ''}left out"
            raise ValueError(f"{key} is {given[key]!r}, and must be {must_be}: {remedy}")
