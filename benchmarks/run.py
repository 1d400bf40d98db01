"""All benchmarks: ``python benchmarks/run.py --quick --json=benchmarks.json``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import encoding
import large
import plain
import pretraining
import processes
import prompts
import reading
import rowwise
import scoring
import serving
from harness import Result, write

BENCHMARKS: dict[str, Callable[[bool, str], Iterator[Result]]] = {
    "pretrain_interaction": pretraining.pretrain_interaction,
    "pretrain_entity": pretraining.pretrain_entity,
    "encoding": encoding.encoding,
    "kept_texts": pretraining.kept_texts,
    "step_overhead": pretraining.step_overhead,
    "score_lm": scoring.score_lm,
    "score_ctr": scoring.score_ctr,
    "serving": serving.serving,
    "two_processes": processes.two_processes,
    "prompts": prompts.prompts,
    "reading": reading.reading,
    "plain": plain.plain,
    "rowwise": rowwise.rowwise,
    "large": large.large,
    "memory": pretraining.memory,
    "scaling": pretraining.scaling,
}


def main() -> int:
    """Run what is asked for; 1 where a target is missed."""
    parser = argparse.ArgumentParser(description="Compare with the published procedure and with plain RecBole.")
    parser.add_argument("--only", default="", help=f"some of {','.join(BENCHMARKS)}")
    parser.add_argument("--quick", action="store_true", help="about a minute each")
    parser.add_argument("--json", metavar="FILE", help="write the results there; of others in it, those stay")
    parser.add_argument("--data_path", default="dataset", help="folder of ml-1m/; made-up data of its size without")
    arguments = parser.parse_args()
    names = arguments.only.split(",") if arguments.only else list(BENCHMARKS)
    for name in names:
        if name not in BENCHMARKS:
            parser.error(f"--only: {name!r} is none of {', '.join(BENCHMARKS)}")
    results: list[Result] = []
    for name in names:
        for result in BENCHMARKS[name](arguments.quick, arguments.data_path):
            result.details["quick"] = arguments.quick
            print(result, flush=True)
            results.append(result)
            if arguments.json:
                write(results, arguments.json)
    return 0 if all(result.ok for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
