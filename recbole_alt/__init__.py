"""recbole_alt: align a language model with a CTR model, inside RecBole (ALT, arXiv 2310.19453)."""

from recbole_alt import compat

compat.install()

from recbole_alt import registry  # noqa: E402
from recbole_alt.config import ALTConfig  # noqa: E402
from recbole_alt.quick_start import load_data_and_model, run_recbole_alt  # noqa: E402
from recbole_alt.study import objective_function, run_hyper_alt  # noqa: E402

registry.install()
register, make_config = registry.register, registry.make_config

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
