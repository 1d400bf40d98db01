"""What holds on a GPU, and how fast it is: ``python benchmarks/gpu.py --json=docs/results/gpu.json``.

A few minutes on one graphics card; where there is none, one line says so and nothing is measured. Correctness comes
first: losses and gradients of alignment, and logits of finetuning, are the processor's; a stopped run goes on with the
same bits; 16 bits give numbers. Then speed, against the encoder's bare forward and backward pass, and against the
largest rate of this card for a product of matrices.
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Callable, Iterator

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import torch
from gpu_fast import blocks, published_scope, step_speed, whole_run
from gpu_right import equal_to_the_processor, every_backbone, packed_and_padded, resumed, two_processes
from harness import Result, write


def main() -> int:
    """Measure; 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", metavar="FILE", help="write the results there; of others in it, those stay")
    parser.add_argument("--data_path", default="dataset", help="folder of ml-1m/; made-up data of its size without")
    parser.add_argument("--only", default="", help="some of bits,packed,equal,processes,backbones,fast,blocks,run")
    parser.add_argument("--rounds", type=int, default=20, help="steps that are timed")
    parser.add_argument("--device", default="cuda", help="cpu: only to try this file")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        print("No GPU that torch can use here: nothing is measured")
        return 0
    if arguments.device == "cuda":
        print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, CUDA {torch.version.cuda}", flush=True)
    device, data_path, rounds = arguments.device, arguments.data_path, arguments.rounds
    parts: dict[str, Callable[[], Iterator[Result]]] = {
        "bits": lambda: resumed(device),
        "packed": lambda: packed_and_padded(device),
        "equal": lambda: equal_to_the_processor(device),
        "processes": lambda: two_processes(device),
        "backbones": lambda: every_backbone(device),
        "fast": lambda: step_speed(data_path, rounds, published_scope()),
        "blocks": lambda: step_speed(data_path, rounds, blocks()),
        "run": lambda: whole_run(data_path),
    }
    results: list[Result] = []
    failed: list[str] = []
    for name in arguments.only.split(",") if arguments.only else list(parts):
        try:
            for result in parts[name]():
                print(result, flush=True)
                results.append(result)
                if arguments.json:
                    write(results, arguments.json)
        except Exception:
            traceback.print_exc()
            failed.append(name)
    return 0 if all(result.ok for result in results) and not failed else 1


if __name__ == "__main__":
    sys.exit(main())
