"""The scores of a campaign's run: kept row by row, and its metrics as one line of the report has them."""

from recbole_alt.experiment import Experiment
from recbole_alt.scores import Scores, slice_metrics
from recbole_alt.trainer.finetune import ALTTrainer


def metrics(scores: Scores) -> dict[str, float | int | None]:
    """AUC, LogLoss and GAUC over all rows at once, and the AUC of the rows of rare items, new items and new users.

    A metric is None if it is not defined: for want of one of the classes, or of ids.
    """
    slices, nobody = slice_metrics(scores), {"rows": 0, "auc": None}
    result = {"gauc": None, "gauc_users": None, "gauc_left_out": None} | slices["all"]
    for name in ("rare_item", "new_item", "new_user"):
        result |= {f"{name}_{metric}": value for metric, value in slices.get(f"{name}s", nobody).items()}
    return result


class ScoredExperiment(Experiment):
    """An experiment that keeps the score of every test row, or leaves the test set untouched."""

    def _test(self, trainer: ALTTrainer, stage: str, progress: bool) -> dict[str, float]:
        super()._test(trainer, stage, progress)
        if trainer.scores is None:  # a trial: nothing but validation may choose
            return {}
        trainer.scores.save(self.folder / "scores.npz")
        return {name: value for name, value in metrics(trainer.scores).items() if value is not None}
