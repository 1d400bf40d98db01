"""Attention grouped by text equals the one that copies every text to each of its interactions."""

from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from recbole_alt.model.attention import SegmentStates, attend, take_rows


def naive(query: Tensor, segments: list[SegmentStates]) -> Tensor:
    """Each interaction alone: its texts' real tokens in one list, a softmax, a weighted sum."""
    rows = []
    for i in range(len(query)):
        tokens = torch.cat([s.states[s.row[i]][s.attention_mask[s.row[i]].bool()] for s in segments])  # [T, H]
        share = (tokens @ query[i] / math.sqrt(query.shape[1])).softmax(0)
        rows.append(share @ tokens)
    return torch.stack(rows)


@st.composite
def problems(draw: st.DrawFn) -> tuple[Tensor, list[SegmentStates]]:
    rows, width = draw(st.integers(1, 7)), draw(st.integers(1, 5))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    segments = []
    for _ in range(draw(st.integers(1, 3))):
        texts, length = draw(st.integers(1, 5)), draw(st.integers(1, 6))
        lengths = torch.tensor(draw(st.lists(st.integers(1, length), min_size=texts, max_size=texts)))
        mask = (torch.arange(length) < lengths[:, None]).long()
        row = torch.tensor(draw(st.lists(st.integers(0, texts - 1), min_size=rows, max_size=rows)))  # some unused
        states = torch.randn(texts, length, width, generator=generator, dtype=torch.float64, requires_grad=True)
        segments.append(SegmentStates(states, mask, states[:, 0], row))
    return torch.randn(rows, width, generator=generator, dtype=torch.float64, requires_grad=True), segments


def with_row(segment: SegmentStates, row: Tensor) -> SegmentStates:
    return SegmentStates(segment.states, segment.attention_mask, segment.pooled, row)


@settings(max_examples=60, deadline=None)
@given(problem=problems())
def test_value_and_gradient_equal_the_naive_ones(problem: tuple[Tensor, list[SegmentStates]]) -> None:
    query, segments = problem
    inputs = [query, *(s.states for s in segments)]
    ours, theirs = attend(query, segments), naive(query, segments)
    torch.testing.assert_close(ours, theirs)
    weight = torch.randn_like(ours)
    for got, expected in zip(
        torch.autograd.grad((ours * weight).sum(), inputs),
        torch.autograd.grad((theirs * weight).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(got, expected)


@settings(max_examples=40, deadline=None)
@given(problem=problems(), data=st.data())
def test_permuting_interactions_permutes_the_result(
    problem: tuple[Tensor, list[SegmentStates]], data: st.DataObject
) -> None:
    query, segments = problem
    order = torch.tensor(data.draw(st.permutations(range(len(query)))))
    permuted = attend(query[order], [with_row(s, s.row[order]) for s in segments])
    torch.testing.assert_close(permuted, attend(query, segments)[order])


@settings(max_examples=40, deadline=None)
@given(problem=problems(), garbage=st.sampled_from([1e4, -1e4, 7.0]))
def test_padding_states_never_matter(problem: tuple[Tensor, list[SegmentStates]], garbage: float) -> None:
    query, segments = problem
    dirty = []
    for s in segments:
        padding = (s.attention_mask == 0).unsqueeze(-1)
        dirty.append(SegmentStates(s.states.detach().masked_fill(padding, garbage), s.attention_mask, s.pooled, s.row))
    torch.testing.assert_close(attend(query, dirty), attend(query, segments))
    gradients = torch.autograd.grad(attend(query, segments).sum(), [s.states for s in segments])
    for s, gradient in zip(segments, gradients, strict=True):
        assert not gradient[s.attention_mask == 0].any()


@settings(max_examples=40, deadline=None)
@given(
    shape=st.lists(st.integers(1, 4), min_size=2, max_size=3),
    rows=st.lists(st.integers(0, 99), min_size=1, max_size=9),
)
def test_take_rows_is_indexing(shape: list[int], rows: list[int]) -> None:
    table = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    row = torch.tensor(rows) % shape[0]
    ours, theirs = take_rows(table, row), table[row]
    assert torch.equal(ours, theirs)
    weight = torch.randn_like(ours)
    (got,) = torch.autograd.grad((ours * weight).sum(), table)
    (expected,) = torch.autograd.grad((theirs * weight).sum(), table)
    torch.testing.assert_close(got, expected)
