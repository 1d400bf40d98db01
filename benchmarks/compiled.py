"""Whether ``torch.compile`` pays: ``python benchmarks/compiled.py --json=FILE``.

Forward and backward of the language model on the texts of real alignment steps, whose shapes change from step to step,
compiled and not, alternating.
"""

from __future__ import annotations

import argparse
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from harness import Result, seconds, write
from pretraining import bare, recorded
from setup import pretraining, steps

_WARM_UP = 2  # rounds that compile


def main() -> None:
    """Measure; what the first calls take, which compile, is reported apart."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--rounds", type=int, default=8)
    arguments = parser.parse_args()
    ours = pretraining("ml-100k", scope="entity", language_model_layers=2)
    language_model = ours.model.text.language_model
    plain, compiled = language_model.encoder, torch.compile(language_model.encoder, dynamic=True)
    ratios, compiling = [], 0.0
    for i in range(_WARM_UP + arguments.rounds):
        with recorded(language_model) as calls:
            steps(ours, 1)
        taken = []
        for language_model.encoder in (plain, compiled):
            taken.append(seconds(lambda c=calls: bare(language_model, c))[0])
        language_model.encoder = plain
        if i < _WARM_UP:
            compiling += taken[1]
        else:
            ratios.append(taken[0] / taken[1])
    result = Result.of("compile", ratios, 1.0, seconds_to_compile=compiling)
    print(result)
    if arguments.json:
        write([result], arguments.json)


if __name__ == "__main__":
    main()
