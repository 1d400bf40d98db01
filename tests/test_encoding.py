"""States of a text are the same bits whatever else is in its batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from conftest import MINILM
from hypothesis import example, given
from hypothesis import strategies as st

from recbole_alt.model.encoding import STEP, TOKENS, _batches, encode_each
from recbole_alt.model.language import LanguageModel, load_language_model

pytestmark = pytest.mark.usefixtures("one_thread")
CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=["fp32", "bf16"])
def minilm(request: pytest.FixtureRequest) -> LanguageModel:
    layers = {"fp32": 2, "bf16": 1}[request.param]  # many processors only imitate bf16
    return load_language_model(MINILM, layers=layers, frozen_layers="all", precision=request.param).eval()


def made_up(lengths: list[int], seed: int) -> list[bytes]:
    rng = np.random.default_rng(seed)
    return [rng.integers(1000, 20000, length).tobytes() for length in lengths]


def states_of(model: LanguageModel, texts: list[bytes]) -> dict[bytes, tuple[torch.Tensor, torch.Tensor]]:
    found = {}
    for made in encode_each(model, texts, CPU):
        lengths = made.attention_mask.sum(1).tolist()
        found |= {t: (made.states[i, : lengths[i]], made.pooled[i]) for i, t in enumerate(made.texts)}
    return found


def test_states_do_not_depend_on_other_texts(minilm: LanguageModel) -> None:
    texts = made_up([2, 3, 4, 7, 8, 15, 16, 16, 17, 30, 31, 32, 33, 100], seed=0)
    others = made_up([1 + i % 40 for i in range(40)], seed=1)
    expected = states_of(minilm, texts)
    among = states_of(minilm, others[:20] + texts[::-1] + others[20:])
    for text in texts:
        (alone,) = states_of(minilm, [text]).values()
        for made in (alone, among[text]):
            assert all(torch.equal(a, b) for a, b in zip(expected[text], made, strict=True))


def test_states_are_those_of_the_language_model(minilm: LanguageModel) -> None:
    texts = made_up([5, 9, 9, 24], seed=2)
    before = minilm.texts_encoded
    found = states_of(minilm, texts)
    assert minilm.texts_encoded - before == len(texts)
    near = {"fp32": 1e-5, "bf16": 3e-2}[minilm.precision]
    for text, (states, pooled) in found.items():
        ids = torch.from_numpy(np.frombuffer(text, dtype=np.int64).copy())[None]
        with torch.no_grad():
            one, of_one = minilm(ids, torch.ones_like(ids))
        torch.testing.assert_close(states, one[0], atol=near, rtol=near)
        torch.testing.assert_close(pooled, of_one[0], atol=near, rtol=near)


@example([100] * 7, 512)
@given(st.lists(st.integers(1, 130), max_size=300), st.sampled_from(sorted(TOKENS.values())))
def test_the_shape_of_a_batch_follows_from_the_lengths_of_its_texts(lengths: list[int], tokens: int) -> None:
    sizes, seen, shapes = np.asarray(lengths, dtype=np.int64), [], {}
    for part, rows, length in _batches(sizes, tokens):
        assert shapes.setdefault(length, rows) == rows and 0 < len(part) <= rows
        assert (sizes[part] <= length).all() and (sizes[part] > length - STEP).all()
        assert len(part) < rows or (sizes[part] < length).any()  # there is padding
        seen += part.tolist()
    assert sorted(seen) == list(range(len(lengths)))
