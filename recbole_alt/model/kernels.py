"""Faster ways to train parts of a CTR model on a processor, with the same results except for rounding."""

from types import MethodType
from typing import Any

import torch
from recbole.model.context_aware_recommender.dcn import DCN
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def use_fast_kernels(model: nn.Module) -> None:
    """From now on train the linear layers of ``model``, those with a single output left out, by oneDNN, whose products
    in 32 bits outrun those of the BLAS that torch calls on some processors, AMD's above all; and the cross network of a
    DCN by :func:`cross_network`.

    Weights and their names stay. Without training nothing changes, nor do linear layers where torch was built without
    oneDNN.
    """
    has_onednn = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    for module in model.modules():
        if type(module) is nn.Linear and module.out_features > 1 and has_onednn:
            module.__class__ = FastLinear
        if isinstance(module, DCN) and module.cross_layer_num:
            module.cross_network = MethodType(cross_network, module)


def cross_network(model: DCN, embedded: Tensor) -> Tensor:
    """The cross network of RecBole's DCN, [B, D] of ``embedded`` [B, D], by one product for all L layers.

    With :math:`x_{l+1} = x_0 (x_l^T w_l) + b_l + x_l`, every :math:`x_l` is :math:`a_l x_0 + c_l`: a number :math:`a_l`
    for each row, and the sum :math:`c_l` of the biases before l. So :math:`a_0 = 1`,
    :math:`a_{l+1} = a_l (1 + x_0^T w_l) + c_l^T w_l`.
    """
    if not (model.training and torch.is_grad_enabled()) or torch.is_autocast_enabled(embedded.device.type):
        output: Tensor = DCN.cross_network(model, embedded)
        return output
    products = embedded @ torch.stack(tuple(model.cross_layer_w), dim=1)  # [B, L]
    factor, biases = embedded.new_ones(()), embedded.new_zeros(embedded.shape[1])
    for product, weight, bias in zip(products.unbind(1), model.cross_layer_w, model.cross_layer_b, strict=True):
        factor = factor * (1 + product) + biases @ weight  # [B]
        biases = biases + bias  # [D]
    return torch.addcmul(biases, embedded, factor.unsqueeze(1))


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
