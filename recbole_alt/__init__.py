"""recbole_alt: align a language model with a CTR model, inside RecBole (ALT, arXiv 2310.19453)."""

import importlib
import sys
from typing import Any

__version__ = "0.1.0"

if not getattr(sys.modules.get("recbole_alt_command"), "starting", False):  # which answers --help first
    from recbole_alt.api import *  # noqa: F403


def __getattr__(name: str) -> Any:
    """A name of :mod:`recbole_alt.api` in a process that ``recbole_alt_command`` started."""
    api = None if name.startswith("_") else importlib.import_module("recbole_alt.api")
    if api is None or name not in api.__all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(api, name)
