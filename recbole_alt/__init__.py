"""recbole_alt: align a language model with a CTR model, inside RecBole (ALT, arXiv 2310.19453)."""

import sys
from typing import Any

__version__ = "0.1.0"
__all__ = [
    "ALTConfig",
    "__version__",
    "load_data_and_model",
    "make_config",
    "objective_function",
    "register",
    "run_hyper_alt",
    "run_recbole_alt",
]

if not getattr(sys.modules.get("recbole_alt_command"), "starting", False):  # else only once --help is answered
    from recbole_alt.api import (
        ALTConfig,
        load_data_and_model,
        make_config,
        objective_function,
        register,
        run_hyper_alt,
        run_recbole_alt,
    )


def __getattr__(name: str) -> Any:
    """A name of :mod:`recbole_alt.api` in a process that the command ``recbole-alt`` started."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from recbole_alt import api  # late: it imports torch and RecBole

    return getattr(api, name)
