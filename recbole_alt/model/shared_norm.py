"""Batch normalisation by the rows of all processes."""

import torch
from torch import Tensor, nn

from recbole_alt import processes


class SharedBatchNorm(nn.BatchNorm1d):
    """``BatchNorm1d`` whose statistics in training are those of the rows of all processes.

    torch's ``SyncBatchNorm`` does the same on GPUs and refuses processors.
    """

    def forward(self, rows: Tensor) -> Tensor:
        """As torch's, for [B, C] or [B, C, L]; a process may have a single row."""
        if processes.count() == 1 or not self.training:
            return super().forward(rows)
        wide, over = rows.double(), [0, 2][: rows.dim() - 1]
        own = torch.stack([torch.ones_like(wide).sum(over), wide.sum(over), wide.square().sum(over)])
        number, total, squares = processes.add_up(own)
        mean = total / number
        variance = (squares / number - mean.square()).clamp(min=0)
        self._follow(mean.detach(), (variance * number / (number - 1).clamp(min=1)).detach())
        scale = (variance + self.eps).rsqrt()
        if self.affine:
            scale = scale * self.weight
        offset = -mean * scale + self.bias if self.affine else -mean * scale
        shape = [-1, *[1] * (rows.dim() - 2)]  # of a channel's number beside [B, C, L]
        return rows * scale.to(rows.dtype).view(shape) + offset.to(rows.dtype).view(shape)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor) -> None:
        """Let the statistics that evaluation uses follow those of a batch."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked.add_(1)
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), share)
        self.running_var.lerp_(variance.to(self.running_var.dtype), share)


def share_norms(model: nn.Module) -> None:
    """Where there are several processes, let ``model`` normalise by the rows of all of them, in place."""
    for module in model.modules():
        if processes.count() > 1 and type(module) is nn.BatchNorm1d:
            module.__class__ = SharedBatchNorm
