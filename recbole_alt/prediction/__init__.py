"""Scores of rows that a run never saw: ids and values that are new to it, and texts of new users and items."""

from recbole_alt.prediction.scoring import Prediction, predict

__all__ = ["Prediction", "predict"]
