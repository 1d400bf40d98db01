"""In how many bits the language model computes, and whether a processor is faster in 16: measured, once a process."""

import functools
from logging import getLogger
from time import perf_counter

import torch
from torch import nn

_ROUNDS = 5
_TEXTS = (2, 64)  # a few first: they tell enough where a processor only imitates 16 bits, and many would take a minute
_CLEAR = 3.0  # times as fast: no need to look closer
_WORTH = 1.15  # below, 32 bits are as good and more exact


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Computes in ``precision``: ``fp32``, ``bf16``, ``fp16``, or ``auto`` for what is measured to be fastest."""
    if precision == "auto":
        precision = fastest_precision(device)
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(device.type, dtype=dtype, enabled=precision != "fp32")


def gradient_scaler(device: torch.device, *, enabled: bool) -> torch.amp.GradScaler:
    """Keeps the gradients of 16-bit floats (fp16) from vanishing; does nothing where not ``enabled``."""
    return torch.amp.GradScaler(device.type, enabled=enabled)


@functools.cache
def fastest_precision(device: torch.device) -> str:
    """``fp32``, or if it is faster bf16, on graphics cards that lack it fp16; measured in at most a few seconds."""
    lacks_bf16 = device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False)
    narrow = "fp16" if lacks_bf16 else "bf16"
    with torch.random.fork_rng(), torch.enable_grad():  # nobody's draws depend on this
        layer = nn.TransformerEncoderLayer(384, 12, 1536, batch_first=True).to(device)
        for number in _TEXTS:
            gain = _gain(layer, torch.randn(number, 32, 384, device=device), narrow)
            if not 1 / _CLEAR < gain < _CLEAR:
                break
    getLogger().info(f"precision: {narrow} is {gain:.2f} times as fast as fp32 on this {device.type}")
    return narrow if gain >= _WORTH else "fp32"


def _gain(layer: nn.Module, texts: torch.Tensor, narrow: str) -> float:
    """How many times as fast as in 32 bits a step is, the best of a few each."""
    seconds: dict[str, list[float]] = {"fp32": [], narrow: []}
    for _ in range(_ROUNDS):
        for precision, taken in seconds.items():
            taken.append(_time(layer, texts, precision))
    return min(seconds["fp32"]) / min(seconds[narrow])


def _time(layer: nn.Module, texts: torch.Tensor, precision: str) -> float:
    begun = perf_counter()
    with autocast(precision, texts.device):
        layer(texts).sum().backward()
    if texts.device.type == "cuda":
        torch.cuda.synchronize()
    return perf_counter() - begun
