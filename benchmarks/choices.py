"""What a choice does to quality: ``python benchmarks/choices.py unseen-values --json=docs/results/unseen-values.json``.

The variants of a study are trained with the same seeds on the same rows. For the first seed, validation chooses each
variant's point of the study's grid, mode by mode. Runs that are in the file already are not made again.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from recbole_alt import run_recbole_alt

Keys = dict[str, Any]
_SLICES = ("new_users", "new_items", "rare_items")


@dataclass(frozen=True)
class Study:
    """What is compared with what.

    Attributes:
        data: the data and the keys that make them.
        variants: the variants and their keys; the first is the one that others are compared with.
        modes: modes of finetuning, and ``plain``.
        grid: keys to choose from.
        aligns_alike: True if alignment does not depend on the variant; it is then made once for each seed.
    """

    data: dict[str, Keys]
    variants: dict[str, Keys]
    modes: list[str]
    grid: list[Keys] = field(default_factory=lambda: [{}])
    aligns_alike: bool = False


_BY_TIME = {"eval_args": {"split": {"RS": [0.8, 0.1, 0.1]}, "order": "TO", "group_by": None, "mode": "labeled"}}

STUDIES = {
    "encoder-runtime": Study(
        data={"ml-100k": {"dataset": "ml-100k", "pretrain_steps": 60}},
        variants={
            "PyTorch": {"precision": "fp32"},
            "ONNX Runtime": {"precision": "fp32", "encoder_runtime": "onnx"},
        },
        modes=["lm", "ctr"],
    ),
    "unseen-values": Study(
        data={
            "ml-100k by time": {"dataset": "ml-100k", **_BY_TIME},
            "5 % of ml-1m": {"dataset": "ml-1m", "train_share": 0.05},
        },
        variants={"zero": {"unseen_values": "zero"}, "initial": {"unseen_values": "initial"}},
        modes=["plain", "ctr"],
        grid=[{"learning_rate": rate, "weight_decay": 0.5} for rate in (1e-3, 2e-3)],
        aligns_alike=True,
    ),
}


class Runs:
    """Makes the runs of a study that a file lacks, and adds them to it.

    Args:
        study: what to run.
        file: a JSON list with an entry for each run.
        common: keys of all runs.
        folder: for checkpoints.
    """

    def __init__(self, study: Study, file: Path, common: Keys, folder: str):
        self._study, self._file, self._common, self._folder = study, file, common, folder
        self._made: list[dict[str, Any]] = json.loads(file.read_text()) if file.is_file() else []
        self._align = cache(self._aligned)

    def best(self, data: str, variant: str, mode: str, seed: int) -> Keys:
        """The point of the grid with the highest validation AUC."""
        if len(self._study.grid) == 1:
            return self._study.grid[0]
        return max(self._study.grid, key=lambda keys: self.run(data, variant, mode, seed, keys)["valid"]["auc"])

    def run(self, data: str, variant: str, mode: str, seed: int, keys: Keys) -> dict[str, Any]:
        """The entry of one run."""
        name = {"data": data, "variant": variant, "mode": mode, "seed": seed, "keys": keys}
        for made in self._made:
            if made.items() >= name.items():
                return made
        print(", ".join(str(part) for part in name.values()), flush=True)
        given = self._study.variants[variant] | keys
        if mode == "plain":
            given |= {"finetune_modes": [], "plain_baseline": True}
        else:
            aligned = self._align(data, "" if self._study.aligns_alike else variant, seed)
            given |= {"finetune_modes": [mode], "plain_baseline": False, "pretrained_checkpoint": aligned}
        found = self._record(data, seed, given)["results"][mode]
        slices = {part: {of: found["slices"][part][of]["auc"] for of in _SLICES} for part in ("valid", "test")}
        self._made.append(name | {part: found[part] for part in slices} | {"slices": slices})
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.write_text(json.dumps(self._made, indent=1) + "\n")
        return self._made[-1]

    def _aligned(self, data: str, variant: str, seed: int) -> str:
        given = self._study.variants[variant] if variant else {}
        self._record(data, seed, given | {"finetune_modes": [], "plain_baseline": False})
        folders = Path(self._folder).glob("*/pretrain.pth")
        return str(max(folders, key=lambda file: file.stat().st_mtime))

    def _record(self, data: str, seed: int, given: Keys) -> Keys:
        keys = self._common | self._study.data[data] | given
        keys |= {"seed": seed, "split_seed": self._common["seed"], "checkpoint_dir": self._folder}
        record: Keys = run_recbole_alt("ALT_DCN", keys.pop("dataset"), None, keys)["record"]
        return record


def main() -> None:
    """Make the runs that are missing."""
    parser = argparse.ArgumentParser(description="What a choice does to quality, over seeds.")
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--json", metavar="FILE", required=True, help="results; those there are kept")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--data_path", help="folder of ml-1m/")
    parser.add_argument("--only", help="some of the study's data")
    arguments = parser.parse_args()
    study = STUDIES[arguments.study]
    common: Keys = {"seed": 2020, "show_progress": False, "show_plan": False, "state": "WARNING"}
    with TemporaryDirectory() as folder:
        for data, made_by in study.data.items():
            if arguments.only not in (None, data):
                continue
            elsewhere = arguments.data_path and made_by["dataset"] != "ml-100k"  # which RecBole brings
            path = {"data_path": arguments.data_path} if elsewhere else {}
            runs = Runs(study, Path(arguments.json), common | path, folder)
            for mode in study.modes:
                best = {variant: runs.best(data, variant, mode, 2020) for variant in study.variants}
                for seed in range(2020, 2020 + arguments.seeds):
                    for variant, keys in best.items():
                        runs.run(data, variant, mode, seed, keys)


if __name__ == "__main__":
    main()
