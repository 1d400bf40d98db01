"""A comparison in one call, from Python."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from recbole_alt.frames import FrameDataset
from recbole_alt.kinds import TEXT
from recbole_alt.reporting.report import read_rows
from recbole_alt.study.campaign import Campaign
from recbole_alt.study.comparison import run_campaign


def compare(
    models: str | Sequence[str],
    datasets: str | Sequence[str | FrameDataset],
    out: str | os.PathLike[str],
    *,
    keys: Mapping[str, Any] | None = None,
    **axes: Any,
) -> pd.DataFrame:
    """Compare plain backbones with aligned ones, as ``recbole-alt compare`` does.

    Args:
        models: RecBole's CTR models, such as ``DCN``.
        datasets: names, as on the command line; or what :func:`~recbole_alt.from_frames` made, which stands alone.
        out: folder of the comparison; one that exists goes on where it was. The report is in ``out/report``.
        keys: of the configuration, for every run.
        **axes: the other options of the command, such as ``seeds=3``, ``modes=["ctr"]`` or ``params_file="none"``; see
            :class:`~recbole_alt.study.campaign.Campaign`.

    Returns:
        A row for each model, variant and mode: means, standard deviations, differences with intervals and p, costs; the
        columns of ``report/results.json``.

    Raises:
        ValueError: bad options, configuration, data or weights, or another comparison in ``out``.

    Example:
        >>> table = compare(["DCN"], ["ml-100k@time"], "campaigns/first", seeds=3, modes=["ctr"])
    """
    TEXT.refuse("out", os.fspath(out))
    frames = [data for data in datasets if isinstance(data, FrameDataset)]
    if frames and len(datasets) > 1:
        raise ValueError(f"datasets: {frames[0]} is made of frames, whose keys hold for all runs: compare it alone")
    of_frames = frames[0].keys if frames else {}
    given = {
        "models": models,
        "datasets": datasets if isinstance(datasets, str) else [str(data) for data in datasets],
        "keys": {**of_frames, **(keys or {})},
        **axes,
    }
    run_campaign(Campaign.from_mapping(given), Path(out))
    return pd.DataFrame(read_rows(Path(out) / "report" / "results.json"))
