"""Where stock RecBole finds ALT: every ``ALT_<backbone>`` as a model, its dataset and its trainer.

RecBole looks a model up by name in ``recbole.model.context_aware_recommender.<name in lower case>``, its
dataset as ``recbole.data.dataset.<name>Dataset`` and its trainer as ``recbole.trainer.<name>Trainer``
(``recbole/utils/utils.py``, ``recbole/data/utils.py``). :func:`install` puts all three in place;
:mod:`recbole_alt.config` lets RecBole's own ``Config`` read our property files for those names.
"""

import functools
import importlib
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import recbole.data.dataset
import recbole.trainer
from recbole.model.abstract_recommender import ContextRecommender
from recbole.utils import get_model

from recbole_alt.checkpoints import trust
from recbole_alt.config import PLACE, PREFIX, ALTConfig
from recbole_alt.data.dataset import ALTDataset
from recbole_alt.model import kd_dagfm  # noqa: F401  # mends RecBole's
from recbole_alt.model.captures import CAPTURES
from recbole_alt.model.recommender import ALTRecommender
from recbole_alt.trainer.stock import ALTStockTrainer


def register(backbone_class: type) -> type[ALTRecommender]:
    """Make ``ALT_<backbone_class.__name__>`` known to RecBole.

    Args:
        backbone_class: a RecBole context-aware model, or the user's own; for where its representation is
            looked for, see :func:`recbole_alt.model.captures.captures_of`.

    Returns:
        The recommender class RecBole will build for that name.

    Raises:
        ValueError: not a context-aware model.
    """
    if not (isinstance(backbone_class, type) and issubclass(backbone_class, ContextRecommender)):
        raise ValueError(f"{backbone_class!r} is not a subclass of recbole's ContextRecommender")
    name, about = PREFIX + backbone_class.__name__, f"ALT on RecBole's {backbone_class.__name__}."
    module = ModuleType(PLACE + name.lower(), about)
    module.__spec__ = ModuleSpec(module.__name__, loader=None)
    content = {"__module__": module.__name__, "__doc__": about, "backbone_class": backbone_class}
    face = type(name, (ALTRecommender,), content)
    setattr(module, name, face)
    sys.modules[module.__name__] = module
    setattr(recbole.data.dataset, name + "Dataset", ALTDataset)
    setattr(recbole.trainer, name + "Trainer", ALTStockTrainer)
    trust(face)
    return face


def register_path(path: str) -> type[ALTRecommender]:
    """:func:`register` the class at ``package.module.Class``; a ValueError if it can't be imported."""
    module, _, name = path.rpartition(".")
    try:
        return register(getattr(importlib.import_module(module), name))
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"backbone: can't use {path!r} as package.module.Class ({error})") from None


#: An :class:`~recbole_alt.config.ALTConfig`, whose ``model: ALT`` registers the class that the key ``backbone`` names.
make_config = functools.partial(ALTConfig, register=register_path)


def install() -> None:
    """Register every backbone with known capture points; safe to run again."""
    for backbone in CAPTURES:
        register(get_model(backbone))
