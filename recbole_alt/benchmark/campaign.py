"""A whole campaign: its folder, its runs and its report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from filelock import FileLock, Timeout
from recbole.utils import init_logger

from recbole_alt.benchmark.plan import Campaign
from recbole_alt.benchmark.report import write_report
from recbole_alt.benchmark.runner import Runner
from recbole_alt.files import check_folder, read_record, write_record
from recbole_alt.keys import FREE
from recbole_alt.stopping import going_on
from recbole_alt.tuning.ranges import needed
from recbole_alt.tuning.trials import logger, quiet

#: Axes that may grow when a campaign goes on; the rest must be as before.
_AXES = {"models", "datasets", "language_models", "seeds", "modes", "ablations", "variants", "budgets", "tuned_alone",
         "train_shares"}  # fmt: skip


def run_campaign(campaign: Campaign, folder: Path, command: Sequence[str] = ()) -> None:
    """Make the runs of ``campaign`` that ``folder`` lacks, and its report.

    Raises:
        ValueError: bad configuration, data or weights; another campaign in ``folder``, or one at work there.
    """
    needed("matplotlib.figure")  # now, not after hours
    check_folder("out", folder)
    try:
        with FileLock(folder / "campaign.lock", timeout=0), going_on("go on with the same command"):
            configs = [campaign.config(run, {}) for run in campaign.runs() if run.seed == campaign.seeds[0]]
            _open(campaign, folder)  # every configuration is sound
            init_logger(configs[0])
            configs[0].log_notes()
            with quiet():
                Runner(folder, campaign, command).go()
                for file in write_report(folder):
                    logger.info(f"written: {file}")
        for lock in folder.rglob("*.lock"):
            lock.unlink()
    except Timeout:
        raise ValueError(f"out: a campaign is at work in {str(folder)!r}") from None


def _open(campaign: Campaign, folder: Path) -> None:
    now = json.loads(json.dumps({**campaign.to_json(), "grid": campaign.grid}))
    now["keys"] = {key: value for key, value in now["keys"].items() if key not in FREE}
    file = folder / "campaign.json"
    if file.is_file():
        before = read_record(file)
        tuned = campaign.tuning_seeds
        before["seeds"], seeds = before["seeds"][:tuned], now["seeds"][:tuned]
        for key in sorted(now.keys() - _AXES | {"seeds"}):
            if before.get(key) != (seeds if key == "seeds" else now[key]):
                raise ValueError(
                    f"out: {key} was {before.get(key)!r} in {str(folder)!r} and is {now[key]!r} now: give the same "
                    "(the axes may grow), or another folder"
                )
    write_record(file, now)
