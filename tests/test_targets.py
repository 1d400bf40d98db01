"""The targets of masked tabular modelling, read off each field of the table."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

pytest.register_assert_rewrite("backbone_contract")

from backbone_contract import (  # noqa: E402
    DISCRETISED,
    KINDS,
    Tiny,
    build,
)

from recbole_alt.model.targets import TableTargets  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("discretised", [False, True])
def test_targets_are_in_range_and_count_training_rows_only(discretised: bool, tiny: Tiny) -> None:
    b = build(tiny, "DCN", **(DISCRETISED if discretised else {}))
    train = b.dataset[:]
    targets = TableTargets(b.dataset, b.backbone.fields, bins=4)
    everything: list[Tensor] = targets.read(b.full[:])
    expected = [name for name in (f.name for f in b.backbone.fields) if KINDS[name] != "float_seq"]
    assert [f.name for f in targets.fields] == expected
    for field, values, seen in zip(targets.fields, everything, targets.read(train), strict=True):
        assert b.backbone.fields[field.column].name == field.name
        assert not values.is_floating_point()
        assert values.min() >= 0
        assert values.max() < len(field.counts), field.name
        assert torch.equal(field.counts, torch.bincount(seen.flatten(), minlength=len(field.counts)))
        if field.name in ("user_id", "genre"):
            assert torch.equal(values, b.full[:][field.name])
    by_name = dict(zip((f.name for f in targets.fields), everything, strict=True))
    dwell = b.full[:]["dwell"]
    if discretised:
        assert torch.equal(by_name["dwell"], dwell[:, 1].long())
        assert by_name["dwell"].max() <= 5
    else:
        assert by_name["dwell"].unique().tolist() == [1, 2, 3, 4]
        order = dwell[:, 0].argsort()
        assert by_name["dwell"][order].diff().min() >= 0  # bins rise with the value


def test_float_bins_hold_like_many_training_rows(tiny: Tiny) -> None:
    b = build(tiny, "DCN")
    rows = copy.copy(b.dataset[:])
    b.dataset.inter_feat["dwell"] = torch.stack([torch.randperm(128).float(), torch.ones(128)], 1)
    targets = TableTargets(b.dataset, b.backbone.fields, bins=4)
    counts = next(f.counts for f in targets.fields if f.name == "dwell")
    assert counts.tolist() == [0, 32, 32, 32, 32]
    far = copy.copy(rows)
    far.interaction = dict(rows.interaction, dwell=torch.tensor([[-1e9, 1], [1e9, 1]]))
    read = dict(zip((f.name for f in targets.fields), targets.read(far), strict=True))["dwell"]
    assert read.tolist() == [1, 4]  # values beyond training go to the outer bins
