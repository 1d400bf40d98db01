"""What holds on a GPU: losses and gradients are the processor's, a stopped run goes on with the same bits."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from gpu_setup import advance, aligner, configure, finetuned, language_model
from harness import Result
from recbole.utils import get_model, init_seed
from setup import prepare, synthetic
from torch import Tensor, nn

from recbole_alt import config as alt_config
from recbole_alt.config import ALTConfig
from recbole_alt.launch import joined, start_processes
from recbole_alt.model.language import load_language_model
from recbole_alt.stages import stage_config

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
_STOPPED_AT, _STEPS = 3, 6


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
