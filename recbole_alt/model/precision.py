"""Whether a processor is faster in 16 bits: measured, once a process."""

from __future__ import annotations

import functools
from logging import getLogger
from time import perf_counter

import torch
from torch import nn

_ROUNDS = 5
_WORTH = 1.15  # below, 32 bits are as good and more exact


def uses_bf16(precision: str, device: torch.device) -> bool:
    """Whether encoding runs in bf16 on ``device``, for a precision of ``fp32``, ``bf16`` or ``auto``."""
    return bf16_is_faster(device) if precision == "auto" else precision == "bf16"


@functools.cache
def bf16_is_faster(device: torch.device) -> bool:
    """Time forward and backward of a small transformer layer in both, a fraction of a second."""
    if device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        return False
    with torch.random.fork_rng(), torch.enable_grad():  # nobody's draws depend on this
        layer = nn.TransformerEncoderLayer(384, 12, 1536, batch_first=True).to(device)
        texts = torch.randn(64, 32, 384, device=device)
        seconds = {False: [], True: []}  # type: dict[bool, list[float]]
        for _ in range(_ROUNDS):
            for bf16, taken in seconds.items():
                taken.append(_time(layer, texts, bf16))
    gain = min(seconds[False]) / min(seconds[True])
    getLogger().info(f"precision: bf16 is {gain:.2f} times as fast as fp32 on this {device.type}")
    return gain >= _WORTH


def _time(layer: nn.Module, texts: torch.Tensor, bf16: bool) -> float:
    begun = perf_counter()
    with torch.autocast(texts.device.type, dtype=torch.bfloat16, enabled=bf16):
        layer(texts).sum().backward()
    if texts.device.type == "cuda":
        torch.cuda.synchronize()
    return perf_counter() - begun
