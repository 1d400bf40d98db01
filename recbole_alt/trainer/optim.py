"""Parameter groups and learning-rate schedules."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from recbole_alt.model.backbones import Backbone, embedding_tables
from recbole_alt.model.language import LanguageModel

#: Groups a parameter may be in; each has its own learning rate and weight decay.
GROUPS = ("language", "embedding", "grounding", "mixing", "rest")
#: Learning rate of the maps of text vectors into embeddings, as a multiple of the rest's: they move all rows at once.
GROUNDING_RATE = 0.3


def parameter_groups(
    model: nn.Module, learning_rates: Mapping[str, float], weight_decays: Mapping[str, float]
) -> list[dict[str, Any]]:
    """The trainable parameters in those of :data:`GROUPS` that are not empty, for any torch optimiser; each in one.

    ``embedding`` holds the CTR model's embeddings, ``grounding`` the maps of text vectors into them, and ``mixing``
    what ``model`` owns itself rather than by a part of it: ``joint``'s α. Weight decay would pull it to 0, which is no
    smaller model but only the language model.
    """
    group_of: dict[nn.Parameter, str] = dict.fromkeys(model.parameters(recurse=False), "mixing")
    for module in model.modules():
        if isinstance(module, LanguageModel):
            group_of |= dict.fromkeys(module.parameters(), "language")
        elif isinstance(module, Backbone):
            group_of |= {weight: "embedding" for table in embedding_tables(module) for weight in table.parameters()}
            group_of |= dict.fromkeys(module.grounding.parameters(), "grounding")
    members: dict[str, list[nn.Parameter]] = {group: [] for group in GROUPS}
    for parameter in model.parameters():
        if parameter.requires_grad:
            members[group_of.get(parameter, "rest")].append(parameter)
    return [
        {"params": members[group], "lr": learning_rates[group], "weight_decay": weight_decays[group], "name": group}
        for group in GROUPS
        if members[group]
    ]


def decay_towards(optimizer: torch.optim.AdamW, anchors: Mapping[nn.Parameter, Tensor]) -> None:
    """From now on the weight decay of ``optimizer`` pulls each parameter to its anchor rather than to zero.

    A step then is ``p ← p − lr·decay·(p − anchor)``, and Adam's update. Known as L2-SP (arXiv 1802.01483).
    """

    @torch.no_grad()
    def add_anchors(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        for group in optimizer.param_groups:
            pull = group["lr"] * group["weight_decay"]
            for parameter in group["params"]:
                if pull and parameter.grad is not None and parameter in anchors:
                    parameter.add_(anchors[parameter], alpha=pull / (1 - pull))  # AdamW scales by 1 − pull next

    optimizer.register_step_pre_hook(add_anchors)


def schedule_factor(schedule: str, step: int, total: int, warmup: int) -> float:
    """Factor on the learning rate at ``step`` (from 0) of ``total``: linear warm-up, then the schedule.

    ``constant`` stays 1, ``cosine`` and ``linear`` fall to 0 at ``total``.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = min(1.0, (step - warmup) / max(1, total - warmup))
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * done))
    return 1.0 - done if schedule == "linear" else 1.0


def scheduler(
    optimizer: torch.optim.Optimizer, schedule: str, total: int, warmup_ratio: float
) -> torch.optim.lr_scheduler.LambdaLR:
    """The schedule as a torch scheduler, to be stepped after every optimiser step."""
    warmup = int(total * warmup_ratio)
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: schedule_factor(schedule, step, total, warmup))


def update(
    model: nn.Module,
    loss: Tensor,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    schedule: torch.optim.lr_scheduler.LRScheduler | None,
    clip: Mapping[str, Any] | None,
) -> None:
    """One optimiser step on the gradients of ``loss``, a scalar, added to those there are.

    ``clip`` holds the arguments of :func:`torch.nn.utils.clip_grad_norm_`; None or empty clips nothing.
    """
    scaler.scale(loss).backward()
    if clip:
        scaler.unscale_(optimizer)
        clip_grad_norm_(model.parameters(), **clip)
    scaler.step(optimizer)
    scaler.update()
    if schedule is not None:
        schedule.step()
