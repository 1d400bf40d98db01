"""What ``import recbole_alt`` offers; RecBole finds every ``ALT_<backbone>`` once this module is imported."""

_RECBOLE = "1.2.1"
try:
    from recbole import __version__ as _found
except ModuleNotFoundError:
    _found = "none"
if _found != _RECBOLE:  # no dependency in setup.cfg, as it asks for a ray that has no build for Python 3.12
    _remedy = f"pip install --no-deps recbole=={_RECBOLE}"
    raise ImportError(f"recbole_alt needs RecBole {_RECBOLE}, and finds {_found}: {_remedy}")

from recbole_alt import compat  # noqa: E402

compat.install()

from recbole_alt import registry  # noqa: E402
from recbole_alt.config import ALTConfig  # noqa: E402
from recbole_alt.exporting import export  # noqa: E402
from recbole_alt.extending import Extension, extend  # noqa: E402
from recbole_alt.frames import FrameDataset, from_frames  # noqa: E402
from recbole_alt.plan import Plan  # noqa: E402
from recbole_alt.prediction import Prediction, predict  # noqa: E402
from recbole_alt.quick_start import load_data_and_model, plan_recbole_alt, run_recbole_alt  # noqa: E402
from recbole_alt.registry import make_config, register  # noqa: E402
from recbole_alt.serving import Exported  # noqa: E402
from recbole_alt.study import compare, objective_function, run_hyper_alt  # noqa: E402

registry.install()

__all__ = [
    "ALTConfig",
    "Exported",
    "Extension",
    "FrameDataset",
    "Plan",
    "Prediction",
    "compare",
    "export",
    "extend",
    "from_frames",
    "load_data_and_model",
    "make_config",
    "objective_function",
    "plan_recbole_alt",
    "predict",
    "register",
    "run_hyper_alt",
    "run_recbole_alt",
]
