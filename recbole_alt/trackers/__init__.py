"""Trackers of experiments beside TensorBoard: Weights & Biases and MLflow.

A run of this package is one run there. The name of a curve begins with its stage: ``pretrain/loss/contrastive``,
``ctr/valid/auc``. The steps of a curve only rise: a stage that goes on from a checkpoint makes some steps a second
time, with the same values, and what is known to be there is left out.
"""

from recbole_alt.trackers.trackers import TRACKERS, StageWriter, Trackers, check_trackers

__all__ = ["TRACKERS", "StageWriter", "Trackers", "check_trackers"]
