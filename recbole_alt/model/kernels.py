"""Linear layers of the CTR model by oneDNN, whose products in 32 bits outrun those of the BLAS that torch calls on some
processors, AMD's above all. They round otherwise.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def use_fast_linear(model: nn.Module) -> None:
    """From now on train the linear layers of ``model``, those with a single output left out, by oneDNN.

    Weights and their names stay. Without training, and where torch was built without oneDNN, nothing changes.
    """
    if torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        for module in model.modules():
            if type(module) is nn.Linear and module.out_features > 1:
                module.__class__ = FastLinear


class FastLinear(nn.Linear):
    """As torch's, except for rounding, in training on a processor."""

    def forward(self, input: Tensor) -> Tensor:
        """[B, out_features] of [B, in_features]; other shapes and types of numbers are left to torch."""
        trains = self.training and torch.is_grad_enabled() and not torch.is_autocast_enabled(input.device.type)
        plain = input.ndim == 2 and input.device.type == "cpu" and input.dtype == self.weight.dtype == torch.float32
        if not (trains and plain and len(input)):
            return super().forward(input)
        output: Tensor = _Linear.apply(input, self.weight, self.bias)
        return output


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(input, weight)
        return _multiply(input, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (input, weight), (of_input, of_weight, of_bias) = ctx.saved_tensors, ctx.needs_input_grad
        return (
            _multiply(grad, weight.t()) if of_input else None,
            _multiply(grad.t(), input.t()) if of_weight else None,
            grad.sum(0) if of_bias else None,
        )


def _multiply(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``input @ weight.T + bias``; the operator is the one that torch's compiler calls for a linear layer."""
    product: Tensor = torch.ops.mkldnn._linear_pointwise(input, weight, bias, "none", [], "")
    return product
