"""Where the time of an alignment step goes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from statistics import median
from time import perf_counter
from typing import Any

from recbole_alt.trainer.pretrain import ALTPretrainTrainer


def parts_of_a_step(trainer: ALTPretrainTrainer, step: Callable[[], Any], rounds: int) -> dict[str, float]:
    """Median seconds a step spends in the forward pass of each part, in the backward pass of all, and elsewhere."""
    model, marks = trainer.model, dict[str, float]()
    modules = {"language model": model.text.language_model, "CTR model": model.backbone, **model.objectives}
    spent: defaultdict[str, list[float]] = defaultdict(list)

    def begin(name: str) -> None:
        marks[name] = perf_counter()

    def end(name: str) -> None:
        spent[name][-1] += perf_counter() - marks[name]

    def turn_to_optimiser() -> None:
        end("backward")
        begin("optimiser")

    with ExitStack() as hooks:
        for name, module in modules.items():
            hooks.callback(module.register_forward_pre_hook(lambda *_, n=name: begin(n)).remove)
            hooks.callback(module.register_forward_hook(lambda *_, n=name: end(n)).remove)
        for handle in (
            model.register_forward_hook(lambda *_: begin("backward")),
            trainer.optimizer.register_step_pre_hook(lambda *_: turn_to_optimiser()),
            trainer.optimizer.register_step_post_hook(lambda *_: end("optimiser")),
        ):
            hooks.callback(handle.remove)
        for _ in range(rounds):
            for name in (*modules, "backward", "optimiser", "elsewhere"):
                spent[name].append(0.0)
            begin("elsewhere")
            step()
            end("elsewhere")
            spent["elsewhere"][-1] -= sum(times[-1] for name, times in spent.items() if name != "elsewhere")
    return {name: median(times) for name, times in spent.items()}
