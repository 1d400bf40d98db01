"""Frozen text vectors, and the field that CTR models read them from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from recbole.utils import get_model, init_seed
from torch import Tensor

from recbole_alt import checkpoints, load_data_and_model, run_recbole_alt
from recbole_alt.data.words import exchange
from recbole_alt.exporting import to_recbole
from recbole_alt.loading import load_data
from recbole_alt.metrics import log_losses
from recbole_alt.model import text_vectors
from recbole_alt.model.build import build_backbone, load_text_vectors
from recbole_alt.model.captures import CAPTURES
from recbole_alt.model.text_vectors import principal_components

pytestmark = pytest.mark.usefixtures("one_thread")

Tiny = Callable[..., Any]
IN_CI = ("DCN", "DSSM", "FFM")
BACKBONES = [name if name in IN_CI else pytest.param(name, marks=pytest.mark.slow) for name in CAPTURES]


@pytest.fixture
def vectors(tiny: Tiny, small_bert: str) -> Callable[..., tuple[Any, Tensor]]:
    """``vectors(side, **keys)`` → the training part of ``tiny``, and the vectors of that side's texts."""

    def make(side: str = "item", **keys: Any) -> tuple[Any, Tensor]:
        config = tiny(language_model=small_bert, **keys)
        train = load_data(config)[1]._dataset
        return train, load_text_vectors(config, train, side, "text_field")

    return make


# -- vectors -----------------------------------------------------------------------------------------------


def test_principal_components_keep_the_angles_of_what_they_are_fitted_on() -> None:
    states = torch.randn(40, 12, generator=torch.Generator().manual_seed(1)) + 3
    known = torch.arange(40) < 30
    found = principal_components(states, known, 16)
    assert found.shape == (40, 16) and not found[:, 12:].any()
    assert found[known].square().sum(1).mean().item() == pytest.approx(1, abs=1e-5)
    centred = states - states[known].mean(0)
    ratio = torch.linalg.norm(centred[0]) / torch.linalg.norm(found[0])
    torch.testing.assert_close(found @ found.T * ratio**2, centred @ centred.T, atol=1e-3, rtol=1e-3)
    spread = found[known].var(0)[:12]
    assert torch.equal(spread.sort(descending=True).values, spread)
    others = torch.where(known[:, None], states, 100.0)
    torch.testing.assert_close(principal_components(others, known, 16)[known], found[known])  # fitted on known ones


@pytest.mark.parametrize("states", [torch.ones(5, 4), torch.randn(1, 4), torch.zeros(0, 4)])
def test_texts_that_do_not_differ_have_no_components(states: Tensor) -> None:
    assert torch.equal(
        principal_components(states, torch.ones(len(states), dtype=torch.bool), 3), torch.zeros(len(states), 3)
    )


def test_vectors_are_those_of_the_texts(vectors: Callable[..., Any]) -> None:
    train, right = vectors()
    assert right.shape == (train.item_num, 32)  # as wide as the language model
    assert not right[0].any() and right[1:].any(1).all()
    shuffled, exchanged = vectors(shuffle_texts="item")
    order = exchange(train.item_num, shuffled._split_seed)
    torch.testing.assert_close(exchanged, right[torch.from_numpy(order)])
    assert not torch.allclose(exchanged, right)
    untitled = vectors(prompt_only=None)[1]  # what only the language model reads is text, too
    assert not torch.allclose(untitled, right)
    users, of_users = vectors("user")
    assert of_users.shape == (users.user_num, 32)


def test_a_shorter_vector_holds_the_first_components(vectors: Callable[..., Any]) -> None:
    whole, short, long = (vectors(text_vector_size=size)[1] for size in (None, 1, 40))
    assert short.shape[1] == 1 and long.shape[1] == 40 and not long[:, 32:].any()
    torch.testing.assert_close(long[:, :32], whole)
    scale = short[1] / whole[1, :1]
    assert scale > 1.01  # its mean square length is 1, too
    torch.testing.assert_close(short, scale * whole[:, :1])


def test_making_vectors_draws_no_random_number(tiny: Tiny, small_bert: str) -> None:
    config = tiny(language_model=small_bert, lora_rank=2)  # adapters are drawn
    train = load_data(config)[1]._dataset
    before = torch.get_rng_state()
    load_text_vectors(config, train, "item", "text_field")
    assert torch.equal(torch.get_rng_state(), before)


def test_equal_texts_have_equal_vectors_and_missing_ones_none(own: Any, small_bert: str) -> None:
    rows = [f"u{u}\ti{i}\t{(u + i) % 2}" for _ in range(8) for u in range(1, 4) for i in range(1, 6)]
    config = own(
        "books",
        inter="\n".join(["user_id:token\titem_id:token\tlabel:float", *rows, ""]),
        user="user_id:token\tage:token\nu1\t20\nu2\t30\nu3\t40\n",
        item="item_id:token\tname:token\ni1\tWar\ni2\tPeace\ni3\tWar\ni4\t\ni5\tand\n",
        language_model=small_bert,
        eval_args={"split": {"RS": [0.8, 0.1, 0.1]}, "group_by": None, "order": "RO", "mode": "labeled"},
    )
    train = load_data(config)[1]._dataset
    found = dict(zip(train.field2id_token["item_id"], load_text_vectors(config, train, "item", "x"), strict=True))
    assert torch.equal(found["i1"], found["i3"])
    assert not torch.equal(found["i1"], found["i2"])
    assert not found["i4"].any() and not found["[PAD]"].any()
    assert found["i5"].any()


def test_components_are_fitted_on_texts_of_training_rows(
    vectors: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted: list[int] = []

    def note(states: Tensor, known: Tensor, size: int) -> Tensor:
        fitted.append(int(known.sum()))
        return principal_components(states, known, size)

    monkeypatch.setattr(text_vectors, "principal_components", note)
    train, _ = vectors(split_seed=4, train_share=0.03)
    seen = train.inter_feat["item_id"].unique()
    assert fitted == [len(seen)] and len(seen) < train.item_num - 1  # every item has a text of its own


def test_what_can_not_be_made_is_refused(tiny: Tiny, small_bert: str) -> None:
    nobody = {
        "USER_ID_FIELD": None,
        "ITEM_ID_FIELD": None,
        "load_col": {"inter": ["device", "rating"]},
        "prompt_only": None,
    }
    for keys, said in (
        ({"text_field": ["items"]}, "text_field must be a list of different values of user, item"),
        ({"text_field": ["item"], "prompt_scope": "interaction"}, "text_field: the items have no texts of their own"),
        ({"grounded": ["user"], "prompt_scope": "interaction"}, "grounded: the users have no texts of their own"),
        ({"text_field": ["item"], **nobody}, "text_field: the data have no items: give ITEM_ID_FIELD"),
    ):
        with pytest.raises(ValueError, match=said):
            keys |= {"language_model": small_bert, "finetune_modes": []}
            run_recbole_alt("ALT_DCN", "tiny", None, tiny(**keys).external_config_dict)


def test_a_column_of_that_name_is_refused(own: Any, small_bert: str) -> None:
    config = own(
        "clash",
        inter="user_id:token\titem_id:token\tlabel:float\nu1\ti1\t1\nu2\ti2\t0\nu1\ti2\t1\n",
        item="item_id:token\titem_text:token\ni1\tWar\ni2\tPeace\n",
        language_model=small_bert,
        text_field=["item"],
        eval_args={"split": {"RS": [1.0, 0.0, 0.0]}, "group_by": None, "order": "RO", "mode": "labeled"},
    )
    with pytest.raises(ValueError, match="text_field: the data have a field 'item_text' of their own: rename"):
        build_backbone(config, load_data(config)[1]._dataset, get_model("DCN"))


# -- the field ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BACKBONES)
def test_the_field_is_a_linear_map_of_the_vector_in_every_backbone(name: str, tiny: Tiny, small_bert: str) -> None:
    config = tiny(f"ALT_{name}", language_model=small_bert, text_field=["item", "user"], order_list=[4])
    train = load_data(config)[1]._dataset
    init_seed(3, True)
    backbone = build_backbone(config, train, get_model(name))
    model, rows = backbone.model.eval(), train[:64]
    assert sorted(model.float_seq_field_names) == ["item_text", "user_text"]
    assert not {"item_text", "user_text"} & {field.name for field in backbone.fields}
    of_items = load_text_vectors(config, train, "item", "text_field")
    place = model.float_seq_field_names.index("item_text")
    embedded = model.embed_float_seq_fields([rows[name] for name in model.float_seq_field_names])[:, place]
    expected = of_items[rows["item_id"]] @ model.float_seq_embedding_table[place].weight[1:]
    torch.testing.assert_close(embedded, expected)

    owners = [part for part in model.modules() if "embed_float_seq_fields" in vars(part)]
    assert owners
    for owner in owners:
        columns = [rows[name] for name in owner.float_seq_field_names]
        torch.testing.assert_close(
            owner.embed_float_seq_fields(columns), type(owner).embed_float_seq_fields(owner, columns)
        )

    loss = backbone.loss(rows)
    loss.backward()
    learned = {key for key, p in backbone.named_parameters() if p.grad is not None and p.grad.any()}
    assert any("float_seq_embedding" in key for key in learned)
    hidden = backbone.hide_texts(rows)
    assert not torch.equal(backbone.score(hidden), backbone.score(rows))
    empty = rows["item_text"].clone()
    empty[..., 0] = 0  # the vector of a text that is missing
    rows.interaction["item_text"], rows.interaction["user_text"] = empty, hidden["user_text"]
    torch.testing.assert_close(backbone.score(rows), backbone.score(hidden))


def test_alignment_neither_reads_nor_predicts_the_field(alignment: Callable[..., Any]) -> None:
    b = alignment(text_field=["item"])
    before = b.forward().loss
    assert "item_text" in b.rows.interaction
    b.rows.interaction["item_text"] = torch.rand_like(b.rows["item_text"])
    assert torch.equal(b.forward().loss, before)
    assert not any("text" in target.name for target in b.model.objectives["masked_tabular"].targets)


def predictions(loaded: tuple[Any, ...]) -> Tensor:
    _, model, *_, test = loaded
    with torch.no_grad():
        return torch.cat([model.eval().predict(batch[0]) for batch in test])


def test_a_run_with_the_field_repeats_and_its_models_load(keys: Callable[..., dict[str, Any]]) -> None:
    given = keys(text_field=["item"], finetune_modes=["ctr"])
    first, again = (run_recbole_alt("ALT_DCN", "tiny", None, given) for _ in range(2))
    assert first["record"]["results"] == again["record"]["results"]
    for stage in ("ctr", "plain"):
        file = Path(first["folder"]) / f"{stage}.pth"
        state = checkpoints.load(file)
        assert state["config"]["text_field"] == ["item"] and not state["config"]["numerical_features"]
        loaded = load_data_and_model(file)
        label = torch.cat([batch[0]["label"] for batch in loaded[-1]])
        logloss = log_losses(label.numpy(), predictions(loaded).numpy()).mean()
        assert logloss == pytest.approx(first["record"]["results"][stage]["test"]["logloss"], abs=1e-5)
        with pytest.raises(ValueError, match="text_field"):
            to_recbole(file, "model.pth")
    without = run_recbole_alt("ALT_DCN", "tiny", None, keys(finetune_modes=[]))
    only = run_recbole_alt(
        "ALT_DCN", "tiny", None, keys(finetune_modes=[], finetune={"plain": {"text_field": ["item"]}})
    )
    assert only["record"]["results"]["plain"] == first["record"]["results"]["plain"]
    assert only["record"]["results"]["plain"] != without["record"]["results"]["plain"]
