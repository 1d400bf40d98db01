"""Parameter groups and learning-rate schedules."""

import math
import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.utils import clip_grad_norm_

from recbole_alt.model.backbones import Backbone, embedding_tables
from recbole_alt.model.language import LanguageModel
from recbole_alt.trainer.rowwise import RowwiseAdamW

#: Groups a parameter may be in; each has its own learning rate and weight decay.
GROUPS = ("language", "embedding", "grounding", "rest")

_NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, _NormBase)


def parameter_groups(
    model: nn.Module, learning_rates: Mapping[str, float], weight_decays: Mapping[str, float]
) -> list[dict[str, Any]]:
    """The trainable parameters in groups for any torch optimiser, each parameter in one.

    There are two for each of :data:`GROUPS`, empty ones left out. Weight decay spares ``<group>_undecayed``: biases,
    parameters of normalisation, and all of fewer than two dimensions, ``joint``'s α among them, which decay would pull
    to the language model. ``embedding`` holds the CTR model's embedding tables, ``grounding`` the maps of text vectors
    into them.
    """
    group_of: dict[nn.Parameter, str] = {}
    for module in model.modules():
        if isinstance(module, LanguageModel):
            group_of |= dict.fromkeys(module.parameters(), "language")
        elif isinstance(module, Backbone):
            group_of |= {weight: "embedding" for table in embedding_tables(module) for weight in table.parameters()}
            group_of |= dict.fromkeys(module.grounding.parameters(), "grounding")
    of_norms = {p for module in model.modules() if isinstance(module, _NORMS) for p in module.parameters(recurse=False)}
    members: dict[str, list[nn.Parameter]] = {name: [] for group in GROUPS for name in (group, f"{group}_undecayed")}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            own_name = next(part for part in reversed(name.split(".")) if not part.isdigit())
            spared = parameter.ndim < 2 or own_name.startswith("bias") or parameter in of_norms
            group = group_of.get(parameter, "rest")
            members[f"{group}_undecayed" if spared else group].append(parameter)
    decays = dict.fromkeys(members, 0.0) | {group: weight_decays[group] for group in GROUPS}
    return [
        {
            "params": held,
            "lr": learning_rates[name.removesuffix("_undecayed")],
            "weight_decay": decays[name],
            "name": name,
        }
        for name, held in members.items()
        if held
    ]


def load_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any], file: str | os.PathLike[str]) -> None:
    """Load the ``state`` of an optimiser, read from ``file``.

    Raises:
        ValueError: its groups are other ones.
    """
    theirs, ours = (
        [(group.get("name"), len(group["params"])) for group in groups]
        for groups in (state["param_groups"], optimizer.param_groups)
    )
    if theirs != ours:
        raise ValueError(
            f"{os.fspath(file)!r} groups the parameters of its optimizer otherwise, as another version of recbole_alt "
            "does: go on with that version, or start a new run"
        )
    optimizer.load_state_dict(dict(state))


def decay_towards(optimizer: torch.optim.AdamW, anchors: Mapping[nn.Parameter, Tensor]) -> None:
    """From now on the weight decay of ``optimizer`` pulls each parameter to its anchor rather than to zero.

    A step then is ``p ← p − lr·decay·(p − anchor)``, and Adam's update. Known as L2-SP (arXiv 1802.01483).
    """
    if isinstance(optimizer, RowwiseAdamW):
        optimizer.anchors = anchors

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

    ``clip`` holds the arguments of :func:`torch.nn.utils.clip_grad_norm_`; None clips nothing.
    """
    scaler.scale(loss).backward()
    if clip:
        scaler.unscale_(optimizer)
        clip_grad_norm_([_clippable(parameter) for parameter in model.parameters()], **clip)
    scaler.step(optimizer)
    scaler.update()
    if schedule is not None:
        schedule.step()


def _clippable(parameter: nn.Parameter) -> Tensor:
    """The parameter, or if its gradient is sparse, a tensor whose gradient is the rows that it holds."""
    if parameter.grad is None or not parameter.grad.is_sparse:
        return parameter
    parameter.grad = parameter.grad.coalesce()  # of a row that was read several times, the sum counts
    rows = parameter.grad.values()
    stand_in = torch.empty_like(rows)
    stand_in.grad = rows
    return stand_in
