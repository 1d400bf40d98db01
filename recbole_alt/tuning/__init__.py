"""Hyper-parameter tuning of one stage, driven by RecBole's ``HyperTuning`` or by Ray Tune."""

from recbole_alt.tuning.objective import objective_function
from recbole_alt.tuning.search import run_hyper_alt

__all__ = ["objective_function", "run_hyper_alt"]
