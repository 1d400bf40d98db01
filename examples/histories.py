"""What a user's earlier clicks would add to a plain model: ``python examples/histories.py CAMPAIGN``.

Models that read histories see what a user did just before, in the test set, too; a model of single interactions does
not. Of each test row's user, all earlier rows, those of the test set included, are summed up: how many, the share of
clicks, and the share among the last ten. Boosted trees predict the click from these and the plain model's score; they
are fitted with one half of the users and judged on the other, both ways round. With the score alone they say what the
fitting costs.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score

from recbole_alt.cli.errors import exit_status
from recbole_alt.cli.parser import Parser
from recbole_alt.config import ALTConfig
from recbole_alt.files import check_file, read_record, write_json
from recbole_alt.loading import load_data
from recbole_alt.markdown import markdown_table
from recbole_alt.reporting.runs import PLAIN, Run
from recbole_alt.scores import Scores
from recbole_alt.study.campaign import Campaign

#: Ratings that a user is taken to have had before the first one, at the average share of clicks.
_PRIOR = 5
_RECENT = 10


@dataclass
class HistoryGain:
    """What users' earlier clicks add to the plain runs of one model.

    Attributes:
        data, train_share, model: of the campaign.
        alone: test AUC of each seed's run.
        refitted: by boosted trees on its score alone.
        with_histories: by boosted trees on its score and the histories.
    """

    data: str
    train_share: float
    model: str
    alone: list[float] = field(default_factory=list)
    refitted: list[float] = field(default_factory=list)
    with_histories: list[float] = field(default_factory=list)


def histories(users: np.ndarray, clicks: np.ndarray, first: int) -> np.ndarray:
    """Of rows ``first`` and later: their user's earlier rows [N, 3], as log count, click rate and recent click rate.

    Args:
        users, clicks: [M] of all rows, the earliest first.
        first: where the test rows begin.
    """
    average = float(clicks[:first].mean())
    count, clicked = np.zeros(users.max() + 1), np.zeros(users.max() + 1)
    recent: dict[int, deque[int]] = {}
    found = np.empty((len(users) - first, 3))
    for row, (user, click) in enumerate(zip(users.tolist(), clicks.tolist(), strict=True)):
        latest = recent.setdefault(user, deque(maxlen=_RECENT))
        if row >= first:
            rates = (
                (n + _PRIOR * average) / (of + _PRIOR)
                for n, of in ((clicked[user], count[user]), (sum(latest), len(latest)))
            )
            found[row - first] = (np.log1p(count[user]), *rates)
        count[user] += 1
        clicked[user] += click
        latest.append(click)
    return found


def refitted(features: np.ndarray, clicks: np.ndarray, users: np.ndarray) -> float:
    """AUC of boosted trees on the half of the users that they were not fitted with, both halves' rows together."""
    half = np.random.default_rng(0).permutation(users.max() + 1)[users] % 2
    scores = np.empty(len(clicks))
    for left_out in (0, 1):
        trees = HistGradientBoostingClassifier(max_leaf_nodes=15, random_state=0)
        trees.fit(features[half != left_out], clicks[half != left_out])
        scores[half == left_out] = trees.predict_proba(features[half == left_out])[:, 1]
    return float(roc_auc_score(clicks, scores))


def measure(folder: Path, data_path: str | None = None) -> list[HistoryGain]:
    """Of each dataset and model of a campaign: what histories add to its plain runs.

    Args:
        folder: of the campaign.
        data_path: where the datasets are; None for RecBole's ``dataset/``.

    Raises:
        ValueError: no campaign, no plain run, a split that is not by time, or test rows that the data do not have now.
    """
    if not (folder / "campaign.json").is_file():
        raise ValueError(f"{str(folder)!r} holds no campaign: campaign.json is missing")
    planned = read_record(folder / "campaign.json")
    axes = ("models", "datasets", "seeds", "train_shares", "keys")
    campaign = Campaign.from_mapping({name: planned[name] for name in axes} | {"params_file": "none"})
    if data_path is not None:
        campaign.keys["data_path"] = data_path  # campaigns do not keep it
    plain = _plain_runs(folder)
    gains: dict[tuple[str, float, str], HistoryGain] = {}
    for data, share in product(campaign.datasets, campaign.train_shares):
        here = [
            record for record in plain if (record["run"]["data"], record["run"]["train_share"]) == (data.label, share)
        ]
        if not here:
            continue
        any_run = Run(data.label, share, campaign.models[0], None, PLAIN, "plain", campaign.seeds[0])
        past, users, clicks = _test_rows(campaign.config(any_run, {}))
        for record in here:
            scores = Scores.load(record["scores"])
            same = scores.user is not None and np.array_equal(scores.user, users)
            if not (same and np.array_equal(scores.label, clicks)):
                raise ValueError(f"{str(record['scores'])!r} is of other test rows than {data.label} has now")
            score = scores.score.astype(float)[:, None]
            place = (data.label, share, record["run"]["model"])
            gain = gains.setdefault(place, HistoryGain(*place))
            gain.alone.append(record["test"]["auc"])
            gain.refitted.append(refitted(score, clicks, users))
            gain.with_histories.append(refitted(np.hstack([score, past]), clicks, users))
    if not gains:
        raise ValueError(f"{str(folder)!r} has no finished run of a plain model")
    return list(gains.values())


def _plain_runs(folder: Path) -> list[dict[str, Any]]:
    files = sorted(folder.glob("runs/*.json"))
    records = [read_record(file) | {"scores": file.with_suffix("") / "scores.npz"} for file in files]
    return [
        record for record in records if record["run"]["variant"] == PLAIN and record["tested"] and not record["error"]
    ]


def _test_rows(config: ALTConfig) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The histories [N, 3], users [N] and clicks [N] of the test rows."""
    if config["eval_args"]["order"] != "TO":
        raise ValueError(
            f"{config['dataset']}: histories need a split by time: give the dataset as {config['dataset']}@time"
        )
    parts = [part._dataset for part in load_data(config)[1:]]
    users, clicks = (
        np.concatenate([part.inter_feat[name].numpy() for part in parts]).astype(int)
        for name in (parts[0].uid_field, parts[0].label_field)
    )
    first = len(users) - len(parts[-1])
    return histories(users, clicks, first), users[first:], clicks[first:]


def to_markdown(found: Sequence[HistoryGain]) -> str:
    """A table: mean ± standard deviation over seeds."""
    rows = []
    for gain in found:
        cells = [
            gain.data if gain.train_share == 1 else f"{gain.data}, {gain.train_share:.0%}",
            gain.model,
            str(len(gain.alone)),
        ]
        for reached in (gain.alone, gain.refitted, gain.with_histories):
            cells.append(f"{fmean(reached):.4f}" + (f" ± {stdev(reached):.4f}" if len(reached) > 1 else ""))
        rows.append(cells)
    return markdown_table(["data", "model", "seeds", "test AUC", "refitted", "with histories"], rows, "llr") + "\n"


def main() -> int:
    """Print the table; exit statuses as of :func:`recbole_alt.cli.errors.exit_status`."""
    parser = Parser(description="What a user's earlier clicks would add to plain models.")
    parser.add_argument("folder", type=Path, help="of a campaign whose datasets are split by time")
    parser.add_argument("--data_path", help="where the datasets are (default: dataset)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write what was found there, too")
    arguments = parser.parse_args()

    def work() -> None:
        if arguments.json:
            check_file("json", arguments.json)
        found = measure(arguments.folder, arguments.data_path)
        print(to_markdown(found))
        if arguments.json:
            write_json(arguments.json, [asdict(one) for one in found])

    return exit_status(work)


if __name__ == "__main__":
    sys.exit(main())
