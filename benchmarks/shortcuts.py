"""Do the shortcuts cost quality? ``python benchmarks/shortcuts.py --json=docs/results/shortcuts.json``.

Alignment on ml-100k with as many texts encoded, then finetuning of the CTR model alone, for several seeds: blocks
against shuffled interactions, pruned against full vocabularies. Runs that are in the file already are not made again.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from setup import pretraining

from recbole_alt import run_recbole_alt
from recbole_alt.data.masking import step_generator

#: What is compared, and the keys that make it.
VARIANTS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "shuffled interactions": {"batch_sampling": "shuffle", "pretrain_batch_size": 128},
    "full vocabularies": {"language_model_vocabulary": "full", "masked_language_vocabulary": "full"},
}
_TRAINED = {"language_model_layers": 2, "frozen_layers": None, "pretrain_learning_rate": 1e-3}
_LOOKED_AT = 5  # steps whose texts are counted to tell how many steps a budget is


def steps_for(texts: int, **keys: Any) -> int:
    """Steps that encode about ``texts`` texts."""
    trainer = pretraining("ml-100k", scope="entity", **keys)
    counted = 0
    for step in range(_LOOKED_AT):
        rows = trainer.dataset[trainer.batches(step)]
        batches = trainer.dataset.prompts.batches(rows)
        masks = trainer.masking.draw(batches, len(rows), step_generator(trainer.config["seed"], 0, step))
        counted += sum(len(batch.input_ids) for batch in batches)
        counted += sum(int(hidden.any(1).sum()) for hidden in masks.tokens)
    return max(1, round(texts * _LOOKED_AT / counted))


def run(variant: str, seed: int, texts: int) -> dict[str, Any]:
    """One run: what it encoded, saw and reached."""
    keys = {**VARIANTS[variant], **_TRAINED}
    keys |= {"seed": seed, "finetune_modes": ["ctr"], "plain_baseline": variant == "as it is"}
    keys["pretrain_steps"] = steps_for(texts, **VARIANTS[variant], **_TRAINED)
    record = run_recbole_alt(
        "ALT_DCN", "ml-100k", None, keys | {"state": "WARNING", "show_progress": False, "show_plan": False}
    )["record"]
    stage = record["stages"]["pretrain"]
    return {
        "variant": variant,
        "seed": seed,
        "steps": stage["steps"],
        "texts_encoded": stage["texts_encoded"],
        "interactions_seen": stage["interactions_seen"],
        "seconds": stage["seconds"],
        "final": stage["final"],
        "results": record["results"],
        "versions": record["versions"],
    }


def main() -> None:
    """Make the runs that are missing."""
    parser = argparse.ArgumentParser(description="What blocks and pruning do to quality, at equal texts encoded.")
    parser.add_argument("--json", metavar="FILE", required=True, help="results; those there are kept")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--texts", type=int, default=48_000, help="texts encoded in alignment")
    arguments = parser.parse_args()
    file = Path(arguments.json)
    done: list[dict[str, Any]] = json.loads(file.read_text()) if file.is_file() else []
    plan = [(variant, 2020 + i) for i in range(arguments.seeds) for variant in VARIANTS]
    missing = [one for one in plan if one not in [(made["variant"], made["seed"]) for made in done]]
    for number, (variant, seed) in enumerate(missing, 1):
        print(f"run {number} of {len(missing)}: {variant}, seed {seed}", flush=True)
        done.append(run(variant, seed, arguments.texts))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(done, indent=1) + "\n")


if __name__ == "__main__":
    main()
