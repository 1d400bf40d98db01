"""What ``recbole-alt extend`` is worth: ``python benchmarks/extending.py --json=FILE --data_path=FOLDER``.

Items are held out of everything that a run sees: their interactions and their rows of the ``.item`` file. Then they are
added to the run, and their interactions with users whom the run knows are scored. Half of them are for validation.
These arms are compared:

- ``plain``: embeddings of zeros, or that of a missing item, as validation prefers;
- ``neighbours``: the same models, with the embeddings that the command makes of those of neighbours in text;
- ``grounded``: models with maps of text vectors, by which the command makes the embeddings;
- both with ``others' texts``: the embeddings so made are dealt out among the new items.

The parameters of every arm are chosen by validation on new items, among the same draws for all. Records of trainings
are kept in ``--work``; what is there is not made again.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from shutil import rmtree
from statistics import fmean
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import optuna
import pandas as pd
import torch
import yaml
from recbole.data.interaction import Interaction

from recbole_alt import extend, load_data_and_model, run_recbole_alt
from recbole_alt.config import properties_dir
from recbole_alt.metrics import auc
from recbole_alt.model.growing import rows_by_field
from recbole_alt.study.ranges import Range, lies_within, read_ranges, widen

_BATCH = 4096

Keys = dict[str, Any]
Tables = dict[str, tuple[torch.nn.Embedding, int]]


@dataclass(frozen=True)
class Source:
    """Where a data set comes from.

    Attributes:
        folder: with its atomic files.
        campaign: the file whose keys its runs have, if any.
        share: of the known items' interactions that are used.
        rules: the file in ``properties/dataset`` with another label rule, if any.
        least: rows with a lower rating are left out.
    """

    folder: str
    campaign: str | None = None
    share: float = 1.0
    rules: str | None = None
    least: float = 0.0

    def keys(self) -> Keys:
        """Those of the campaign and of the label rule."""
        files = {"campaigns": self.campaign, "dataset": self.rules}
        read = {folder: _yaml(properties_dir() / folder / f"{name}.yaml") for folder, name in files.items() if name}
        return read.get("campaigns", {}).get("keys", {}) | read.get("dataset", {})


#: The data sets, by name.
DATA: dict[str, Source] = {
    "ml-1m": Source("ml-1m", campaign="ml-1m-plots", share=0.2),
    "ml-100k-plots": Source("ml-100k-plots", campaign="ml-100k-plots-time"),
    "book-crossing": Source("book-crossing"),
    "book-crossing-explicit": Source("book-crossing", rules="book-crossing-explicit", least=1.0),
}
#: How models are trained, by kind.
KINDS: dict[str, Keys] = {"plain": {}, "grounded": {"grounded": ["item"]}}
#: Kind of model and ways to embed new items, one of which validation chooses.
ARMS: dict[str, tuple[str, tuple[str, ...]]] = {
    "plain": ("plain", ("zero", "hidden")),
    "neighbours": ("plain", ("extended",)),
    "neighbours, others' texts": ("plain", ("others",)),
    "grounded": ("grounded", ("extended",)),
    "grounded, others' texts": ("grounded", ("others",)),
}
#: The same for all: the split within the known items, and how long is trained.
COMMON: Keys = {
    "eval_args": {"split": {"RS": [0.8, 0.1, 0.1]}, "group_by": None, "order": "RO", "mode": "labeled"},
    "schedule": "constant",
    "epochs": 30,
    "stopping_step": 3,
    "fast_kernels": True,
    "text_vector_size": 64,  # as in docs/extending.md
    "finetune": {},
    "finetune_modes": [],
    "plain_baseline": True,
    "show_progress": False,
    "show_plan": False,
    "state": "ERROR",
}


# -- data --------------------------------------------------------------------------------------------------


class HeldOut:
    """One data set without a fifth of its items, drawn by ``seed``; half of these are for validation.

    Args:
        source: the folder with its atomic files.
        about: what of these is used.
        root: where those without the held-out items are written, in a folder of the same name.
        most: the most rows of validation, and of test.

    Attributes:
        items: the file about the held-out items.
        rows: interactions with them, texts in all columns, of ``valid`` and ``test``.
    """

    def __init__(self, source: Path, about: Source, root: Path, seed: int, most: int):
        rng, name = np.random.default_rng(seed), source.name
        (root / name).mkdir(parents=True, exist_ok=True)
        frames = {suffix: _read(source / f"{name}.{suffix}") for suffix in ("inter", "user", "item")}
        inter, item = frames["inter"], frames["item"]
        inter = inter[inter["rating:float"].astype(float) >= about.least]
        ids = item["item_id:token"]
        valid, test, _ = np.split(rng.permutation(ids.to_numpy()), [len(ids) // 10, len(ids) // 5])
        out = {*valid, *test}
        known, new = inter[~inter["item_id:token"].isin(out)], inter[inter["item_id:token"].isin(out)]
        frames["inter"] = known.iloc[np.sort(rng.permutation(len(known))[: round(about.share * len(known))])]
        frames["item"] = item[~ids.isin(out)]
        for suffix, frame in frames.items():
            _write(frame, root / name / f"{name}.{suffix}")
        self.items, self.root, self.rows = root / "new.item", root, {}
        _write(item[ids.isin(out)], self.items)
        new = new[new["user_id:token"].isin(set(frames["inter"]["user_id:token"]))]
        for part, of_part in (("valid", valid), ("test", test)):
            rows = new[new["item_id:token"].isin(set(of_part))]
            rows = rows.iloc[np.sort(rng.permutation(len(rows))[:most])]
            self.rows[part] = rows.rename(columns=lambda one: one.split(":")[0])


def _read(file: Path) -> pd.DataFrame:
    return pd.read_csv(file, sep="\t", dtype=str, keep_default_na=False, quoting=3, encoding="utf-8")


def _yaml(file: Path) -> Any:
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def _write(frame: pd.DataFrame, file: Path) -> None:
    lines = ["\t".join(frame), *map("\t".join, frame.itertuples(index=False, name=None))]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


# -- one training ------------------------------------------------------------------------------------------


def item_tables(model: Any, train: Any) -> Tables:
    """Path of each table with rows of items → the table, and its row of no item."""
    paths = {part: path for path, part in model.backbone.model.named_modules()}
    return {paths[table]: (table, first) for table, first in rows_by_field(model.backbone, train)["item_id"].items()}


@torch.no_grad()
def reached(run: Path, extended: Path, rows: Mapping[str, pd.DataFrame], seed: int) -> dict[str, dict[str, float]]:
    """AUC on each of the ``rows`` of new items, by each of the ways to embed these."""
    config, old, _, old_train, *_ = load_data_and_model(run / "plain.pth")
    _, model, _, train, *_ = load_data_and_model(extended / "plain.pth")
    dataset = train._dataset
    ((rating, least),) = config["threshold"].items()
    before, size = old_train._dataset.num("item_id"), dataset.num("item_id")
    order = torch.from_numpy(np.random.default_rng(seed).permutation(size - before))
    hidden = {path: table.weight[first] for path, (table, first) in item_tables(old, old_train._dataset).items()}
    tables = item_tables(model.eval(), dataset)
    made = {path: table.weight[first + before : first + size].clone() for path, (table, first) in tables.items()}
    ways = {
        "extended": made,
        "others": {path: of[order] for path, of in made.items()},
        "zero": {path: torch.zeros_like(of) for path, of in made.items()},
        "hidden": {path: hidden[path].expand_as(of) for path, of in made.items()},
    }
    found: dict[str, dict[str, float]] = {part: {} for part in rows}
    for way, embeddings in ways.items():
        for path, (table, first) in tables.items():
            table.weight[first + before : first + size] = embeddings[path]
        for part, of_part in rows.items():
            clicked = (of_part[rating].astype(float) >= least).to_numpy().astype(float)
            columns = {name: of_part[name].to_numpy() for name in ("user_id", "item_id")}
            ids = Interaction({name: dataset.token2id(name, tokens) for name, tokens in columns.items()})
            scores = [model.predict(dataset.join(ids[i : i + _BATCH])).numpy() for i in range(0, len(ids), _BATCH)]
            value = auc(clicked, np.concatenate(scores).reshape(-1))
            assert value is not None
            found[part][way] = value
    return found


@dataclass
class Study:
    """Trainings on one data set.

    Attributes:
        name: of the data set.
        data_path: the folder of the folders with atomic files.
        work: where records of trainings are kept.
        rows: the most rows of validation, and of test.
    """

    name: str
    data_path: Path
    work: Path
    rows: int
    neighbours: int
    held_out: dict[int, HeldOut] = field(default_factory=dict)

    @property
    def about(self) -> Source:
        """Where the data come from."""
        return DATA[self.name]

    def trained(self, kind: str, parameters: Keys, seed: int) -> dict[str, dict[str, float]]:
        """AUC of validation and test on new items, by way to embed them: ``valid`` and ``test``."""
        about = {"data": self.name, "kind": kind, "parameters": parameters, "seed": seed}
        about |= {"rows": self.rows, "neighbours": self.neighbours}
        digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
        file = self.work / self.name / f"{digest}.json"
        if not file.is_file():
            print(f"{self.name}, {kind}, seed {seed}, {parameters}", flush=True)
            found = self._train(kind, parameters, seed)
            print(json.dumps(found), flush=True)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps({**about, "auc": found}) + "\n", encoding="utf-8")
        return json.loads(file.read_text(encoding="utf-8"))["auc"]

    def _train(self, kind: str, parameters: Keys, seed: int) -> dict[str, dict[str, float]]:
        root = self.work / f"{self.name}-{seed}"
        if seed not in self.held_out:
            source = self.data_path / self.about.folder
            self.held_out[seed] = HeldOut(source, self.about, root, seed, self.rows)
        held_out, saved = self.held_out[seed], root / "saved"
        rmtree(saved, ignore_errors=True)
        keys = {**self.about.keys(), **COMMON, **KINDS[kind], **parameters, "seed": seed}
        keys |= {"data_path": str(root), "checkpoint_dir": str(saved)}
        run = Path(run_recbole_alt("ALT_DCN", self.about.folder, None, keys)["folder"])
        extended = Path(f"{run}-extended")
        extend(run, extended, item=held_out.items, neighbours=self.neighbours)
        return reached(run, extended, held_out.rows, seed)


# -- search ------------------------------------------------------------------------------------------------


def draw(ranges: Sequence[Range], tried: Sequence[Range], count: int, seed: int) -> Iterator[Keys]:
    """Parameters at random, each with a value outside the ranges that were ``tried``."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    while count:
        drawn = study.ask({one.name: one.distribution for one in ranges}).params
        parameters = {one.name: one.decode(drawn[one.name]) for one in ranges}
        if not lies_within(parameters, tried):
            count -= 1
            yield parameters


@dataclass
class Chosen:
    """What validation chose for an arm: ``score`` is the mean of its AUC over the seeds of the search."""

    score: float
    way: str
    parameters: Keys


def search(study: Study, seeds: Sequence[int], trials: int, widenings: int) -> tuple[dict[str, Chosen], list[Range]]:
    """Choose the parameters of every arm, and the ranges that they were chosen from in the end.

    Where a value is chosen at an end of its range, it is made wider for all, and all have half as many trials more.
    """
    tried: list[Range] = []
    ranges = [one for one in read_ranges("compatibility") if one.name != "unseen_values"]
    best: dict[str, Chosen] = {}
    for number in range(1 + widenings):
        for parameters in draw(ranges, tried, trials if number == 0 else -(-trials // 2), seeds[0] + number):
            for kind in KINDS:
                found = [study.trained(kind, parameters, seed)["valid"] for seed in seeds]
                for arm, (of_arm, ways) in ARMS.items():
                    for way in ways if of_arm == kind else ():
                        score = fmean(auc[way] for auc in found)
                        if arm not in best or score > best[arm].score:
                            best[arm] = Chosen(score, way, parameters)
        wider = widen(ranges, [one.parameters for one in best.values()])
        if number == widenings or wider == ranges:
            break
        print(f"chosen at an end of its range: {'; '.join(str(one) for one in wider if one not in ranges)}", flush=True)
        tried, ranges = ranges, wider
    return best, ranges


def compare(study: Study, seeds: Sequence[int], tuning_seeds: int, trials: int, widenings: int) -> dict[str, Any]:
    """Search, then train with every seed: an entry of the file."""
    chosen, ranges = search(study, seeds[:tuning_seeds], trials, widenings)
    ends = {one.name: one.end_at for one in ranges}
    arms = {}
    for arm, one in chosen.items():
        found = [study.trained(ARMS[arm][0], one.parameters, seed) for seed in seeds]
        arms[arm] = {
            "way": one.way,
            "parameters": one.parameters,
            "at_ends": [name for name, value in one.parameters.items() if ends[name](value)],
            **{part: [auc[part][one.way] for auc in found] for part in ("valid", "test")},
        }
    about = {"data": study.name, "share": study.about.share, "seeds": list(seeds), "tuning_seeds": tuning_seeds}
    return {**about, "trials": trials, "rows": study.rows, "arms": arms}


def main() -> int:
    """Make what is missing."""
    parser = argparse.ArgumentParser(description="What adding items to a finished run is worth, over seeds.")
    parser.add_argument("--json", metavar="FILE", required=True, help="results; those of other data there are kept")
    parser.add_argument("--data_path", required=True, help="folder of ml-1m/, ml-100k-plots/ and book-crossing/")
    parser.add_argument("--work", default="campaigns/extending", help="records of trainings (default %(default)s)")
    parser.add_argument("--only", choices=DATA, help="one of the data sets")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--tuning_seeds", type=int, default=2, help="of these, with which parameters are chosen")
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--widenings", type=int, default=1)
    parser.add_argument("--rows", type=int, default=20_000, help="most rows of new items (default %(default)s)")
    parser.add_argument("--neighbours", type=int, default=10)
    given = parser.parse_args()
    file = Path(given.json)
    for data in [given.only] if given.only else DATA:
        study = Study(data, Path(given.data_path), Path(given.work), given.rows, given.neighbours)
        seeds = range(2020, 2020 + given.seeds)
        entry = compare(study, seeds, given.tuning_seeds, given.trials, given.widenings)
        entries = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
        entries = [one for one in entries if one["data"] != data] + [entry]
        entries.sort(key=lambda one: [*DATA].index(one["data"]))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("[\n" + ",\n".join(map(json.dumps, entries)) + "\n]\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
