"""What ``recbole-alt extend`` is worth: ``python benchmarks/extending.py --json=FILE --data_path=FOLDER``.

A fifth of the items is held out of everything that a run sees: their interactions and their rows of the ``.item`` file.
Then they are added to the run, and their interactions with users whom the run knows are scored, by embeddings that are

- ``extended``: as the command makes them;
- ``others``: those of other new items, dealt out at random, a control;
- ``zero``: zeros;
- ``hidden``: that of a missing item.

All else is equal: the models, the rows, and the other features of the items. The file has an entry for each data set,
seed, mode, and way of training; what is in it already is not made again.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import pandas as pd
import torch
from recbole.data.interaction import Interaction

from recbole_alt import extend, load_data_and_model, run_recbole_alt
from recbole_alt.metrics import auc
from recbole_alt.model.growing import rows_by_field

DATA = ("ml-1m", "book-crossing")
_HELD_OUT = 0.2  # share of the items
_BATCH = 4096

Keys = dict[str, Any]
Tables = dict[str, tuple[torch.nn.Embedding, int]]


class HeldOut:
    """One data set without a fifth of its items, drawn by ``seed``.

    Args:
        source: the folder with its atomic files.
        root: where those without the held-out items are written, in a folder of the same name.
        share: of the other items' interactions, how many are used.
        most: the most rows of held-out items to score.

    Attributes:
        items: the file about the held-out items.
        rows: their interactions, texts in all columns.
    """

    def __init__(self, source: Path, root: Path, seed: int, share: float, most: int):
        rng, name = np.random.default_rng(seed), source.name
        (root / name).mkdir(parents=True)
        frames = {suffix: _read(source / f"{name}.{suffix}") for suffix in ("inter", "user", "item")}
        inter, item = frames["inter"], frames["item"]
        ids = item["item_id:token"]
        out = set(rng.permutation(ids.to_numpy())[: round(_HELD_OUT * len(ids))])
        known, new = inter[~inter["item_id:token"].isin(out)], inter[inter["item_id:token"].isin(out)]
        frames["inter"] = known.iloc[np.sort(rng.permutation(len(known))[: round(share * len(known))])]
        frames["item"] = item[~ids.isin(out)]
        for suffix, frame in frames.items():
            _write(frame, root / name / f"{name}.{suffix}")
        self.items = root / "new.item"
        _write(item[ids.isin(out)], self.items)
        rows = new[new["user_id:token"].isin(set(frames["inter"]["user_id:token"]))]
        self.rows = rows.iloc[np.sort(rng.permutation(len(rows))[:most])].rename(columns=lambda one: one.split(":")[0])


def _read(file: Path) -> pd.DataFrame:
    return pd.read_csv(file, sep="\t", dtype=str, keep_default_na=False, quoting=3, encoding="utf-8")


def _write(frame: pd.DataFrame, file: Path) -> None:
    lines = ["\t".join(frame), *map("\t".join, frame.itertuples(index=False, name=None))]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def item_tables(model: Any, train: Any) -> Tables:
    """Path of each table with rows of items → the table, and its row of no item."""
    paths = {part: path for path, part in model.backbone.model.named_modules()}
    return {paths[table]: (table, first) for table, first in rows_by_field(model.backbone, train)["item_id"].items()}


@torch.no_grad()
def reached(run: Path, extended: Path, mode: str, rows: pd.DataFrame, seed: int) -> dict[str, float | None]:
    """AUC on ``rows`` of new items, by each of the ways to embed these."""
    config, old, _, old_train, *_ = load_data_and_model(run / f"{mode}.pth")
    _, model, _, train, *_ = load_data_and_model(extended / f"{mode}.pth")
    dataset = train._dataset
    ((rating, least),) = config["threshold"].items()
    clicked = (rows[rating].astype(float) >= least).to_numpy()
    ids = Interaction({name: dataset.token2id(name, rows[name].to_numpy()) for name in ("user_id", "item_id")})
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
    found = {}
    for way, embeddings in ways.items():
        for path, (table, first) in tables.items():
            table.weight[first + before : first + size] = embeddings[path]
        parts = [model.predict(dataset.join(ids[i : i + _BATCH])).numpy() for i in range(0, len(rows), _BATCH)]
        found[way] = auc(clicked.astype(float), np.concatenate(parts).reshape(-1))
    return found


def study(held_out: HeldOut, data: str, root: Path, common: Keys, name: Mapping[str, Any]) -> dict[str, Any]:
    """Train a run without the held-out items, add them, and score their rows: an entry."""
    mode, aligned = name["mode"], name["mode"] != "plain"
    keys = {
        "data_path": str(root),
        "checkpoint_dir": str(root / "saved"),
        "seed": name["seed"],
        "grounded": ["item"] if name["grounded"] else [],
        "finetune_modes": [mode] if aligned else [],
        "plain_baseline": not aligned,
    }
    run = Path(run_recbole_alt("ALT_DCN", data, None, common | keys)["folder"])
    extended = Path(f"{run}-extended")
    made = extend(run, extended, item=held_out.items, neighbours=name["neighbours"])
    of_rows = reached(run, extended, mode, held_out.rows, name["seed"])
    how = {"by_map": made.by_map[mode]["item"], "by_neighbours": made.by_neighbours[mode]["item"]}
    return {**name, "items": made.added["item"], "rows": len(held_out.rows), **how, "auc": of_rows}


def main() -> int:
    """Make the entries that are missing."""
    parser = argparse.ArgumentParser(description="What adding items to a finished run is worth, over seeds.")
    parser.add_argument("--json", metavar="FILE", required=True, help="results; those there are kept")
    parser.add_argument("--data_path", required=True, help=f"folder of {'/, '.join(DATA)}/")
    parser.add_argument("--only", choices=DATA, help="one of the data sets")
    parser.add_argument("--modes", default="plain", help="plain, ctr, joint, separated by commas (default %(default)s)")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--share", type=float, default=0.2, help="of the other items' interactions (default %(default)s)"
    )
    parser.add_argument("--rows", type=int, default=20_000, help="most rows of new items (default %(default)s)")
    parser.add_argument("--neighbours", type=int, default=10)
    parser.add_argument("--steps", type=int, help="of alignment (default: from the data)")
    arguments = parser.parse_args()
    file = Path(arguments.json)
    entries: list[dict[str, Any]] = json.loads(file.read_text()) if file.is_file() else []
    common: Keys = {"show_progress": False, "show_plan": False, "state": "ERROR"}
    common |= {} if arguments.steps is None else {"pretrain_steps": arguments.steps}
    for data in [arguments.only] if arguments.only else DATA:
        for seed in range(2020, 2020 + arguments.seeds):
            asked = {"data": data, "seed": seed, "share": arguments.share, "neighbours": arguments.neighbours}
            asked |= {"steps": arguments.steps}
            cells = [{"mode": mode, "grounded": of} for mode in arguments.modes.split(",") for of in (False, True)]
            names = [asked | cell for cell in cells]
            names = [name for name in names if not any(entry.items() >= name.items() for entry in entries)]
            with TemporaryDirectory() as folder:
                root = Path(folder)
                source = Path(arguments.data_path) / data
                held_out = HeldOut(source, root, seed, arguments.share, arguments.rows) if names else None
                for name in names:
                    assert held_out is not None
                    entries.append(study(held_out, data, root, common, name))
                    print(json.dumps(entries[-1]), flush=True)
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_text(json.dumps(entries, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
