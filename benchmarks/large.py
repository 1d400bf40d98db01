"""Data of 20 million interactions: reading, a step of training, and the start of alignment, each in a fresh process.

``python benchmarks/large.py --json=FILE``, or with ``--rows=2000000`` for a minute.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import cycle, islice
from time import perf_counter
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from harness import Result, alternate, seconds, status, write
from many import many
from recbole.utils import get_model
from setup import configure, prepare

from recbole_alt.data.steps import training_loader
from recbole_alt.loading import load_data
from recbole_alt.model.build import build_alignment
from recbole_alt.model.language import LanguageModel
from recbole_alt.stages import stage_config
from recbole_alt.trainer.finetune import ALTTrainer
from recbole_alt.trainer.pretrain import ALTPretrainTrainer
from recbole_alt.trainer.start import seed_stage, start_afresh

ROWS, USERS, ITEMS = 20_000_000, 140_000, 30_000
_FEWER = 20  # times as few rows, of the same users and items, and at least two for each
_STEPS = 20  # of a round


def large(quick: bool, data_path: str) -> Iterator[Result]:
    """What a run costs before it trains, and while it does, with ``ROWS`` rows; a tenth if ``quick``."""
    return of_rows(ROWS // 10 if quick else ROWS)


def of_rows(rows: int) -> Iterator[Result]:
    """Seconds and GiB of reading and splitting, of text and of Parquet; the step; the start of alignment."""
    name, root = many(USERS, ITEMS, rows)
    parquet = tempfile.mkdtemp()
    os.symlink(os.path.join(root, name, "parquet"), os.path.join(parquet, name))
    for form, folder in (("text", root), ("parquet", parquet)):
        read = _fresh("read", folder, name)
        yield Result.of(f"large/{rows}/seconds/{form}", [read["seconds"]], 60.0, at_most=True)
        yield Result.of(f"large/{rows}/gib/{form}", [read["gib"]], 6.0, at_most=True)
    few_name, few_root = many(USERS, ITEMS, max(rows // _FEWER, 2 * USERS))
    step = _fresh("step", root, name, few_root, few_name)
    yield Result.of(f"large/{rows}/step", step["ratios"], 1.1, at_most=True, seconds=step["many"], of_few=step["few"])
    for layers in ("all", "none"):
        start = _fresh("align", root, name, layers)
        result = Result.of(f"large/{rows}/alignment/{layers}_frozen", [start["rest"]], 60.0, at_most=True)
        result.details = start
        yield result


def _fresh(what: str, *words: str) -> Any:
    """What one of :data:`_MEASURES` returns in a process of its own."""
    command = [sys.executable, __file__, "--measure", what, *words]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def _read(folder: str, name: str) -> dict[str, float]:
    config = configure(name, data_path=folder, finetune_modes=[])
    took, _ = seconds(lambda: load_data(config))
    return {"seconds": took, "gib": status("VmHWM") / 2**20}


def _step(root: str, name: str, few_root: str, few_name: str) -> dict[str, list[float]]:
    """Seconds of a step of the plain model, loading included, with many rows and with few, and their ratios."""
    steps = {which: _steps(*of) for which, of in (("many", (root, name)), ("few", (few_root, few_name)))}
    took, reference = alternate(steps["many"], steps["few"], 10)
    return {"many": took, "few": reference, "ratios": [a / b for a, b in zip(took, reference, strict=True)]}


def _steps(root: str, name: str) -> Callable[[], float]:
    config = configure(name, data_path=root, finetune_modes=[], train_batch_size=4096)
    train = prepare(config)[0]
    of_stage = stage_config(config, "plain")
    seed_stage(of_stage)
    trainer = ALTTrainer(of_stage, get_model(config["model"])(of_stage, train._dataset))
    start_afresh(trainer, train._dataset)
    loader = training_loader(of_stage, train, encodes_texts=False)
    trainer.model.train()
    batches = (rows for _ in cycle([None]) for rows in loader)

    def steps() -> float:
        def work() -> None:
            for rows in islice(batches, _STEPS):
                trainer._train_step(rows, trainer.model.calculate_loss)

        return seconds(work)[0] / _STEPS

    return steps


def _align(root: str, name: str, frozen_layers: str) -> dict[str, float]:
    """Seconds from the built data to the first batch of alignment: in all, of encoding, and the rest."""
    frozen = "all" if frozen_layers == "all" else None
    config = configure(name, data_path=root, language_model_layers=1, frozen_layers=frozen)
    dataset = load_data(config)[1]._dataset
    encoding, encode = [0.0], LanguageModel.encode_padded

    def timed(*args: Any, **options: Any) -> Any:
        begun = perf_counter()
        made = encode(*args, **options)
        encoding[0] += perf_counter() - begun
        return made

    LanguageModel.encode_padded = timed  # type: ignore[method-assign]

    def start() -> None:
        alignment = build_alignment(config, dataset, get_model(config["model"]).backbone_class)
        trainer = ALTPretrainTrainer(config, alignment, dataset, os.path.join(tempfile.mkdtemp(), "pretrain.pth"))
        trainer._keep_texts(False)
        trainer._batch(0)

    took, _ = seconds(start)
    return {"seconds": took, "encoding": encoding[0], "rest": took - encoding[0], "gib": status("VmHWM") / 2**20}


_MEASURES: dict[str, Callable[..., Any]] = {"read": _read, "step": _step, "align": _align}


def main() -> int:
    """Measure; 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS, help="interactions")
    parser.add_argument("--json", metavar="FILE", help="write the results there; of others in it, those stay")
    parser.add_argument("--measure", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        what, *words = options.measure
        print(json.dumps(_MEASURES[what](*words)))
        return 0
    results = []
    for result in of_rows(options.rows):
        print(result, flush=True)
        results.append(result)
        if options.json:
            write(results, options.json)
    return 0 if all(result.ok for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
