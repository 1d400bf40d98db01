"""The evidence: plain backbones against aligned ones, over models, datasets and seeds, with its statistics."""

from recbole_alt.benchmark.campaign import run_campaign
from recbole_alt.benchmark.plan import Campaign
from recbole_alt.study.axes import ABLATIONS
from recbole_alt.study.report import join_reports, write_report

__all__ = ["ABLATIONS", "Campaign", "join_reports", "run_campaign", "write_report"]
