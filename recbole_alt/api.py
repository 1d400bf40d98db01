"""What ``import recbole_alt`` offers; RecBole finds every ``ALT_<backbone>`` once this module is imported."""

from recbole_alt import compat

compat.install()

from recbole_alt import registry  # noqa: E402
from recbole_alt.config import ALTConfig  # noqa: E402
from recbole_alt.quick_start import load_data_and_model, plan_recbole_alt, run_recbole_alt  # noqa: E402
from recbole_alt.registry import make_config, register  # noqa: E402
from recbole_alt.study import objective_function, run_hyper_alt  # noqa: E402

registry.install()

__all__ = [
    "ALTConfig",
    "load_data_and_model",
    "make_config",
    "objective_function",
    "plan_recbole_alt",
    "register",
    "run_hyper_alt",
    "run_recbole_alt",
]
