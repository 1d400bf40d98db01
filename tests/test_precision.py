"""The precision of the language model: which is faster, and that 16 bits teach what 32 do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from recbole_alt import checkpoints, run_recbole_alt
from recbole_alt.model import precision

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(("fp32", "bf16", "fastest"), [(1.0, 0.5, "bf16"), (1.0, 0.99, "fp32"), (1.0, 3.0, "fp32")])
def test_the_faster_one_is_chosen(fp32: float, bf16: float, fastest: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_time", lambda layer, texts, bits: {"fp32": fp32, "bf16": bf16}[bits])
    measure = precision.fastest_precision.__wrapped__  # without what this process measured before
    assert measure(torch.device("cpu")) == fastest


@pytest.mark.parametrize(
    ("few", "many", "fastest", "looks"), [(4, 0, "bf16", 1), (0.1, 9, "fp32", 1), (1, 2, "bf16", 2)]
)
def test_many_texts_are_measured_where_a_few_do_not_tell(
    few: float, many: float, fastest: str, looks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    gains = {2: few, 64: many}
    seen: list[int] = []

    def taken(layer: Any, texts: torch.Tensor, bits: str) -> float:
        seen.append(len(texts))
        return {"fp32": 1.0, "bf16": 1.0 / gains[len(texts)]}[bits]

    monkeypatch.setattr(precision, "_time", taken)
    assert precision.fastest_precision.__wrapped__(torch.device("cpu")) == fastest
    assert len(set(seen)) == looks


def test_measuring_draws_no_random_number() -> None:
    state = torch.get_rng_state()
    with torch.no_grad():  # as when scoring
        precision.fastest_precision.__wrapped__(torch.device("cpu"))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("bits", ["bf16", pytest.param("fp16", marks=pytest.mark.slow)])
def test_16_bits_teach_what_32_do(bits: str, keys: Callable[..., dict[str, Any]]) -> None:
    """The language model goes where it goes in 32 bits, up to rounding, and its weights stay in 32."""

    def weights(steps: int, precision: str) -> torch.Tensor:
        given = keys(finetune_modes=[], plain_baseline=False, pretrain_steps=steps, precision=precision)
        folder = run_recbole_alt("ALT_DCN", "tiny", None, given)["folder"]
        tower = checkpoints.load(Path(folder) / "pretrain.pth")["text"]
        assert all(weight.dtype == torch.float32 for weight in tower.values())
        return torch.cat([weight.flatten() for weight in tower.values()])

    start, way = weights(0, "fp32"), weights(6, "fp32")
    assert torch.cosine_similarity(weights(6, bits) - start, way - start, dim=0) > 0.8
