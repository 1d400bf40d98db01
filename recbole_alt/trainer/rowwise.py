"""``RowwiseAdamW``: AdamW whose step costs what the rows of embedding tables cost that a batch reads."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import chain
from typing import Any, cast

import torch
from torch import Tensor, nn

from recbole_alt import processes

#: After so many missed steps the first moment has faded, and a row does not move any more.
_FADED = 256
_ROWS_AT_ONCE = 65536


class RowwiseAdamW(torch.optim.AdamW):
    """AdamW, in which embedding tables have one second moment per row, and a row is computed when it is read.

    Of a row ``p`` [D] with gradient ``g``, the second moment is ``v ← β₂·v + (1−β₂)·mean(g²)``, a single number, as in
    the partial row-wise Adam of FBGEMM (TorchRec's ``PARTIAL_ROWWISE_ADAM``); the rest is AdamW (arXiv 1711.05101).
    Other parameters are trained as by :class:`torch.optim.AdamW`.

    A step in which nothing reads a row is one with a gradient of zero: the weight decays, both moments fade, and what
    remains of the first moment still moves the row. All this is made up for when the row is next read, in one go, so
    that lazy and immediate steps give the same row except for rounding (and for ε, which fades with ``√v`` here). Of
    a row that was last computed at step ``s``, the steps ``i`` from ``s+1`` to ``t`` make

    - ``a + K(s,t)·(p − a − m / (√v + ε)·Σ c_i·(β₁/√β₂)^(i−s) / K(s,i))``, in which ``a`` is what it decays to,
      ``c_i = lr_i·√(1−β₂^i) / (1−β₁^i)``, and ``K(s,i)`` the product of ``1 − lr·decay`` over the steps up to ``i``;
    - ``β₁^(t−s)·m`` and ``β₂^(t−s)·v`` of its moments.

    Sums and products, which no row has a say in, are kept in 64 bits for each ``s``, whatever the schedule of the
    learning rate. A dense gradient, such as that of a penalty on a whole table, reads all rows.

    Args:
        groups: as for any optimiser of torch.
        tables: the embedding tables; those that are not in ``groups`` stay as they are.
        **options: of :class:`torch.optim.AdamW`.

    Attributes:
        anchors: table's weight → the values [V, D] that it decays to; zero for those not in it.

    Raises:
        ValueError: several processes train the model.
    """

    def __init__(self, groups: Iterable[Any], tables: Iterable[nn.Embedding], **options: Any):
        if processes.count() > 1:
            raise ValueError("embedding_optimizer: rowwise trains in one process: give dense, or run without --nproc")
        super().__init__(groups, **options)
        held = {id(parameter) for group in self.param_groups for parameter in group["params"]}
        self.tables = [table for table in tables if id(table.weight) in held]
        self.anchors: Mapping[nn.Parameter, Tensor] = {}
        self._rowwise = {table.weight for table in self.tables}
        self._step_supports_amp_scaling = False  # a scaler divides gradients before a step, also where this is fused
        self.register_step_pre_hook(lambda *_: self._step_rows())

    @contextmanager
    def training(self) -> Iterator[None]:
        """For the while, tables have sparse gradients, and rows are computed as they are read."""
        with ExitStack() as undo:
            for table in self.tables:
                undo.callback(table.register_forward_pre_hook(self._before_reading).remove)
                undo.callback(setattr, table, "sparse", table.sparse)
                table.sparse = True
            yield

    @torch.no_grad()
    def settle(self) -> None:
        """Compute all rows, so that the tables are what immediate steps would have made of them."""
        for table in self.tables:
            for start in range(0, table.num_embeddings if table.weight in self.state else 0, _ROWS_AT_ONCE):
                rows = torch.arange(start, min(start + _ROWS_AT_ONCE, table.num_embeddings))
                self._catch_up(cast(nn.Parameter, table.weight), rows.to(table.weight.device))

    def load_state_dict(self, state_dict: Any) -> None:
        """As torch's, which would make all of the state numbers of the parameters' type."""
        super().load_state_dict(state_dict)
        numbers = chain.from_iterable(group["params"] for group in state_dict["param_groups"])
        parameters = chain.from_iterable(group["params"] for group in self.param_groups)
        for number, parameter in zip(numbers, parameters, strict=True):
            if parameter in self._rowwise and number in state_dict["state"]:
                kept = state_dict["state"][number].items()
                device = parameter.device
                self.state[parameter] = {k: v.to(device, copy=True) if torch.is_tensor(v) else v for k, v in kept}

    def _before_reading(self, table: nn.Module, given: tuple[Tensor, ...]) -> None:
        weight: Any = table.weight
        if weight in self.state:
            with torch.no_grad():
                self._catch_up(weight, given[0].reshape(-1))

    @torch.no_grad()
    def _step_rows(self) -> None:
        """A step of all tables, whose gradients are gone after it, so that AdamW passes them over."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight in self._rowwise and weight.grad is not None:
                    self._step_table(group, weight, weight.grad)
                    weight.grad = None

    def _step_table(self, group: Mapping[str, Any], weight: nn.Parameter, grad: Tensor) -> None:
        if grad.is_sparse:
            grad = grad.coalesce()
            rows, grad = grad.indices()[0], grad.values()  # [n], [n, D]
        else:
            rows = torch.arange(len(weight), device=weight.device)
        state = self.state[weight] or self._begin(weight)
        self._catch_up(weight, rows)
        lr, (beta1, beta2), step = float(group["lr"]), self.defaults["betas"], state["steps"] + 1
        kept, scale = 1 - lr * group["weight_decay"], math.sqrt(1 - beta2**step)
        first = state["exp_avg"].index_select(0, rows).lerp_(grad, 1 - beta1)  # [n, D]
        second = state["exp_avg_sq"].index_select(0, rows).lerp_(grad.square().mean(1), 1 - beta2)  # [n]
        rate = lr * scale / (1 - beta1**step)
        move = first * (rate / (second.sqrt() + self.defaults["eps"] * scale)).unsqueeze(1)
        row = self._decayed(weight, rows, weight.index_select(0, rows), kept) - move
        for of_table, of_rows in ((weight, row), (state["exp_avg"], first), (state["exp_avg_sq"], second)):
            of_table.index_copy_(0, rows, of_rows)
        state["step"].index_fill_(0, rows, step)
        state["steps"] = step
        self._remember(state, step, rate, beta1 / math.sqrt(beta2), kept)

    @staticmethod
    def _remember(state: dict[str, Any], step: int, rate: float, fading: float, kept: float) -> None:
        """Add to the sum of each earlier step what this one adds to it, and the decay of this one."""
        if kept <= 0:
            raise ValueError("embedding_optimizer: rowwise needs learning_rate * weight_decay below 1: lower either")
        if step == len(state["moves"]):
            state.update({k: torch.cat([state[k], torch.zeros_like(state[k])]) for k in ("moves", "decays")})
        moves, decays = state["moves"], state["decays"]
        decays[step] = decays[step - 1] + math.log(kept)
        earlier = slice(max(0, step - _FADED), step)
        passed = torch.arange(step - earlier.start, 0, -1, device=moves.device)  # steps since
        moves[earlier] += rate * fading**passed * (decays[earlier] - decays[step]).exp()

    def _catch_up(self, weight: nn.Parameter, rows: Tensor) -> None:
        """Compute ``rows`` [n], of which some may be the same, up to the last step made."""
        state, (beta1, beta2) = self.state[weight], self.defaults["betas"]
        rows = rows[state["step"].index_select(0, rows) < state["steps"]].unique()
        if not len(rows):
            return
        then = state["step"].index_select(0, rows).long()
        missed = (state["steps"] - then).double()
        first, second = state["exp_avg"].index_select(0, rows), state["exp_avg_sq"].index_select(0, rows)
        size = state["moves"][then].to(second.dtype) / (second.sqrt() + self.defaults["eps"])
        kept = (state["decays"][state["steps"]] - state["decays"][then]).exp().to(weight.dtype).unsqueeze(1)
        row = weight.index_select(0, rows).addcmul_(first, size.unsqueeze(1), value=-1)
        row = self._decayed(weight, rows, row, kept)
        first *= (beta1**missed).to(first.dtype).unsqueeze(1)
        second *= (beta2**missed).to(second.dtype)
        for of_table, of_rows in ((weight, row), (state["exp_avg"], first), (state["exp_avg_sq"], second)):
            of_table.index_copy_(0, rows, of_rows)
        state["step"].index_fill_(0, rows, state["steps"])

    def _decayed(self, weight: nn.Parameter, rows: Tensor, row: Tensor, kept: float | Tensor) -> Tensor:
        """The values ``row`` [n, D] of ``rows``, of whose distance from the anchor so much is ``kept``."""
        if weight not in self.anchors:
            return row * kept
        anchor = self.anchors[weight].index_select(0, rows)
        return anchor + (row - anchor) * kept

    def _begin(self, weight: nn.Parameter) -> dict[str, Any]:
        """The state of a table before its first step.

        ``step`` [V] is the step up to which a row is computed, ``steps`` the last one made; ``moves`` and ``decays``
        are, by step, the sum of the class's docstring and the logarithm of its product from the first step on.
        """
        of_rows = weight.new_zeros(len(weight))
        state = {"exp_avg": torch.zeros_like(weight), "exp_avg_sq": of_rows, "step": of_rows.int(), "steps": 0}
        by_step = torch.zeros(1024, dtype=torch.float64, device=weight.device)
        self.state[weight] = state | {"moves": by_step, "decays": by_step.clone()}
        return self.state[weight]


@contextmanager
def lazy_rows(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """For the while, train the tables of a :class:`RowwiseAdamW` row by row; other optimisers need nothing."""
    with optimizer.training() if isinstance(optimizer, RowwiseAdamW) else ExitStack():
        yield


def settle(optimizer: torch.optim.Optimizer) -> None:
    """Let the weights be what the steps made so far come to; see :meth:`RowwiseAdamW.settle`."""
    if isinstance(optimizer, RowwiseAdamW):
        optimizer.settle()
