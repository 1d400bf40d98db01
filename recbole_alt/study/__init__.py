"""Studies: many trainings over one store, to tune one stage or to compare plain backbones with aligned ones."""

from recbole_alt.study.axes import ABLATIONS
from recbole_alt.study.campaign import Campaign
from recbole_alt.study.comparing import compare
from recbole_alt.study.comparison import run_campaign
from recbole_alt.study.tune import objective_function, run_hyper_alt

__all__ = ["ABLATIONS", "Campaign", "compare", "objective_function", "run_campaign", "run_hyper_alt"]
