"""How fast it is on a GPU: steps of alignment against the encoder's bare passes, and a whole run in minutes."""

import statistics
import tempfile
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from gpu_setup import BERT_BASE, TOKENIZER, aligner, configure, language_model
from harness import Result
from pretraining import bare, recorded
from setup import SYNTHETIC, ml_1m, prepare
from torch import nn

from recbole_alt import run_recbole_alt
from recbole_alt.memory import PeakMemory
from recbole_alt.trainer.pretrain import ALTPretrainTrainer


def milliseconds(act: Callable[[], Any]) -> float:
    """How long ``act`` and the work that it gives the GPU take."""
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize()
    begin.record()
    act()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end)


def peak_flops() -> float:
    """Operations a second of a large product of matrices in bf16, with random entries: this card's practical peak."""
    size = 8192
    a, b = (torch.randn(size, size, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    times = [milliseconds(lambda: a @ b) for _ in range(12)][2:]
    return 2 * size**3 / (statistics.median(times) / 1e3)


def flops_of(encoder: nn.Module, tokens: int) -> float:
    """Of forward and backward: six for each token and each weight of the layers; attention itself is left out."""
    weights = sum(p.numel() for name, p in encoder.named_parameters() if "embeddings" not in name and p.ndim > 1)
    return 6.0 * weights * tokens


def steps_of(trainer: ALTPretrainTrainer, steps: int) -> None:
    """As in training: the batches made ahead, the measurements read a step late."""
    for _ in range(steps):
        trainer._train_step(trainer._ahead.get(trainer.step))


def published_scope() -> dict[str, dict[str, Any]]:
    """Keys of the published scope: one text for each interaction, and BERT's size; 512 are the rows of its 8 GPUs."""
    shape = {"language_model": language_model("BertConfig", **BERT_BASE), "prompt_scope": "interaction"}
    compiled = shape | {"compile_language_model": True}
    return {
        "interaction/BERT-base/64": shape | {"pretrain_batch_size": 64},
        "interaction/BERT-base/512": shape | {"pretrain_batch_size": 512},
        "interaction/BERT-base/2048": shape | {"pretrain_batch_size": 2048},
        "interaction/BERT-base/512/compiled": compiled | {"pretrain_batch_size": 512},
        "interaction/BERT-base/2048/compiled": compiled | {"pretrain_batch_size": 2048},
        "interaction/BERT-base/4096/compiled": compiled | {"pretrain_batch_size": 4096},
    }


def blocks() -> dict[str, dict[str, Any]]:
    """Keys of the default scope: one text for each user and each item, and blocks of interactions that share them."""
    shape = {"prompt_scope": "entity"}
    return {
        "entity/MiniLM/6000": shape | {"language_model": TOKENIZER},
        "entity/BERT-base/6000": shape | {"language_model": language_model("BertConfig", **BERT_BASE)},
    }


def step_speed(data_path: str, rounds: int, variants: dict[str, dict[str, Any]]) -> Iterator[Result]:
    """Steps of alignment against the encoder alone, what they reach of the card, and whether they wait for it."""
    dataset, path = ml_1m(data_path)
    peak = peak_flops()
    for name, keys in variants.items():
        config = configure("cuda", dataset, path, precision="bf16", pretrain_steps=10**5, **keys)
        trainer = aligner(config, training_rows(dataset, path, config["prompt_scope"]))
        encoder = trainer.model.text.language_model
        begun = perf_counter()
        steps_of(trainer, 4)
        first_steps = perf_counter() - begun
        memory = PeakMemory(torch.device("cuda"))
        with recorded(encoder) as calls:
            whole = milliseconds(lambda t=trainer: steps_of(t, rounds)) / rounds
        alone = milliseconds(lambda c=calls, e=encoder: [bare(e, [one]) for one in c]) / rounds
        tokens = sum(int(given[1].sum()) for given in calls) / rounds
        tflops = flops_of(encoder.encoder, round(tokens)) / (whole / 1e3) / 1e12
        busy, kernels = busy_share(lambda t=trainer: steps_of(t, rounds))
        waits = waits_of(lambda t=trainer: steps_of(t, 3))
        details = {"step_ms": whole, "bare_ms": alone, "tokens": tokens, "first_steps_seconds": first_steps}
        details |= {"peak_memory_mib": memory.mib(), "kernels_ms": kernels}
        yield Result.of(f"gpu_step/{name}", [whole / alone], 1.25, at_most=True, **details)
        yield Result.of(
            f"gpu_share_of_peak/{name}", [tflops * 1e12 / peak], 0.4, tflops=tflops, peak_tflops=peak / 1e12
        )
        yield Result.of(f"gpu_busy/{name}", [busy], 0.9)
        yield Result.of(f"gpu_waits/{name}", [sum(waits.values()) / 3], 0, at_most=True, where=waits)
        del trainer, encoder, calls
        torch.cuda.empty_cache()


def waits_of(act: Callable[[], Any]) -> dict[str, int]:
    """Where Python waits for the GPU: places in the source, and how often."""
    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        act()
    torch.cuda.set_sync_debug_mode("default")
    places = [f"{Path(w.filename).name}:{w.lineno}" for w in seen if "synchronizing" in str(w.message)]
    return {place: places.count(place) for place in dict.fromkeys(places)}


def busy_share(act: Callable[[], Any]) -> tuple[float, dict[str, float]]:
    """The share of the time in which the GPU runs some kernel, and the milliseconds of the costliest ones."""
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        wall = milliseconds(act)
    spans = sorted((e.time_range.start, e.time_range.end) for e in profile.events() if e.device_type.name == "CUDA")
    busy, until = 0.0, 0.0
    for start, end in spans:
        busy += max(0.0, end - max(start, until))
        until = max(until, end)
    kernels = sorted(profile.key_averages(), key=lambda e: -e.self_device_time_total)[:12]
    return busy / 1e3 / wall, {e.key[:80]: e.self_device_time_total / 1e3 for e in kernels}


@cache
def training_rows(dataset: str, data_path: str, scope: str) -> Any:
    """The training dataset, read once."""
    return prepare(configure("cuda", dataset, data_path, prompt_scope=scope))[0]._dataset


def whole_run(data_path: str) -> Iterator[Result]:
    """ml-1m aligned with a trained encoder, the aligned CTR model and the plain one finetuned and tested: minutes."""
    dataset, path = ml_1m(data_path)
    keys = {
        "use_gpu": True,
        "frozen_layers": None,
        "finetune_modes": ["ctr"],
        "data_path": path,
        "show_progress": False,
    }
    keys |= {"checkpoint_dir": tempfile.mkdtemp(), "text_cache_dir": None, "state": "WARNING", "show_plan": False}
    made_up = SYNTHETIC if dataset.startswith("synthetic") else {}
    record = {}
    whole = milliseconds(lambda: record.update(run_recbole_alt("ALT_DCN", dataset, None, made_up | keys)["record"]))
    stages = {name: stage["seconds"] for name, stage in record["stages"].items()}
    details = {"seconds": stages, "results": record["results"], "dataset": dataset}
    yield Result.of("gpu_minutes", [whole / 6e4], 8, at_most=True, **details)
