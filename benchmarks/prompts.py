"""How long the prompts of a million ratings take to be ready, and how much memory they need."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

from harness import Result, seconds, status
from recbole.data import create_dataset
from setup import configure, ml_1m


def prompts(quick: bool, data_path: str) -> Iterator[Result]:
    """From RecBole's dataset to ready prompts, in a process of its own; ratios are to the limits."""
    dataset, path = ml_1m(data_path)
    done = subprocess.run([sys.executable, __file__, dataset, path], check=True, capture_output=True, text=True)
    took, megabytes = map(float, done.stdout.strip().splitlines()[-1].split())
    yield Result.of(f"prompts/{dataset}/seconds", [took / 10], 1, at_most=True, seconds=took, limit=10)
    yield Result.of(f"prompts/{dataset}/memory", [megabytes / 64], 1, at_most=True, megabytes=megabytes, limit=64)


def _measure(dataset: str, path: str) -> None:
    from recbole_alt.pretrained import load_tokenizer

    config = configure(dataset, data_path=path)
    data = create_dataset(config)
    load_tokenizer(config["language_model"])("warm")
    before = status("VmRSS")
    took, table = seconds(lambda: data.prompts)
    assert table.segments
    print(took, (status("VmRSS") - before) / 1024)


if __name__ == "__main__":
    _measure(sys.argv[1], sys.argv[2])
