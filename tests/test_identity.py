"""Weights belong to their data: other ids or another split are refused by name, wherever the same data may lie."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recbole.utils import get_model

from recbole_alt import checkpoints, load_data_and_model, run_recbole_alt
from recbole_alt.config import ALTConfig
from recbole_alt.data.identity import IDENTITY_KEY, DataIdentity, Vocabulary, require_same_data
from recbole_alt.exporting import to_huggingface, to_recbole
from recbole_alt.files import read_record, write_record
from recbole_alt.loading import load_data
from recbole_alt.model import kd_dagfm
from recbole_alt.questions.diagnose import diagnose
from recbole_alt.questions.probe import probe
from recbole_alt.trainer.finetune import ALTTrainer
from recbole_alt.trainer.pretrain import ALTPretrainTrainer

pytestmark = pytest.mark.usefixtures("one_thread")

Keys = Callable[..., dict[str, Any]]
Change = Callable[[Path], None]
OTHER = "was made from other data than are there now"


@pytest.fixture
def data(data_path: Path, tmp_path: Path) -> Path:
    """A copy of the dataset ``tiny`` that a test may change."""
    return shutil.copytree(data_path, tmp_path / "data")


def run(given: dict[str, Any]) -> Path:
    return Path(run_recbole_alt("ALT_DCN", "tiny", None, given)["folder"])


def identity(given: dict[str, Any]) -> DataIdentity:
    return load_data(ALTConfig("ALT_DCN", "tiny", None, given))[1]._dataset.identity


def edit(data: Path, suffix: str, change: Callable[[list[str]], list[str]]) -> None:
    """Change the rows of one file; the header stays."""
    file = data / "tiny" / f"tiny.{suffix}"
    header, *rows = file.read_text().splitlines()
    file.write_text("\n".join([header, *change(rows)]) + "\n")


def replaced(old: str, new: str) -> Callable[[list[str]], list[str]]:
    return lambda rows: [row.replace(old, new) for row in rows]


def rename_a_user(data: Path) -> None:
    for suffix in ("user", "inter"):
        edit(data, suffix, replaced("u3\t", "x3\t"))


def turn_items_round(data: Path) -> None:
    edit(data, "item", lambda rows: rows[::-1])


def turn_interactions_round(data: Path) -> None:
    edit(data, "inter", lambda rows: rows[::-1])


def swap_labels(data: Path) -> None:
    def swapped(row: str) -> str:
        user, item, rating, *rest = row.split("\t")
        return "\t".join([user, item, "1" if float(rating) >= 3 else "5", *rest])

    edit(data, "inter", lambda rows: [swapped(row) for row in rows])


def uses(folder: Path, given: dict[str, Any]) -> dict[str, Callable[[], Any]]:
    """Everything that takes up the checkpoints of a run."""
    return {
        "resume": lambda: run(given | {"resume": str(folder)}),
        "pretrained_checkpoint": lambda: run(given | {"pretrained_checkpoint": str(folder / "pretrain.pth")}),
        "load_data_and_model": lambda: load_data_and_model(folder / "ctr.pth"),
        "export": lambda: to_recbole(folder / "ctr.pth", "dcn.pth"),
        "probe": lambda: probe(folder),
        "diagnose": lambda: diagnose(folder),
    }


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (rename_a_user, r"field 'user_id' has 4 values, as now, but with other ids"),
        (turn_items_round, r"field 'year' has 3 values, as now, but .* \(id 1 was '1995' and is '2001' now"),
        (turn_interactions_round, r"field 'user_id' has 4 values"),
        (swap_labels, r"of the split, '(train|valid)' has \d+ rows, as now, but other ones"),
    ],
)
def test_other_data_are_refused_by_name_wherever_a_checkpoint_is_used(
    change: Change, named: str, keys: Keys, data: Path
) -> None:
    given = keys(data_path=str(data), finetune_modes=["ctr"], pretrain_steps=1, epochs=0, plain_baseline=False)
    folder = run(given)
    change(data)
    for name, use in uses(folder, given).items():
        with pytest.raises(ValueError, match=OTHER) as caught:
            use()
        message = str(caught.value)
        caught.match(named)
        assert str(folder) in message and "train anew" in message and "\n" not in message, name
        assert message.startswith((f"{name}: ", "'")), name


def test_the_same_data_are_taken_wherever_they_lie_and_however_their_numbers_are_written(
    keys: Keys, data: Path, tmp_path: Path
) -> None:
    given = keys(data_path=str(data), finetune_modes=["ctr"], pretrain_steps=1, epochs=0, plain_baseline=False)
    folder, before = run(given), identity(given)
    for use in uses(folder, given).values():
        use()
    moved = tmp_path / "moved"
    data.rename(moved)
    edit(moved, "inter", lambda rows: [row.replace("\t5\t", "\t5.0\t").replace("\t1\t", "\t1e0\t") for row in rows])
    given["data_path"] = str(moved)
    assert identity(given) == before
    for name in ("resume", "pretrained_checkpoint"):
        uses(folder, given)[name]()


def test_every_checkpoint_and_the_configuration_hold_the_record(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "unlink", lambda *args, **kwargs: None)  # keeps <mode>-last.pth
    given = keys(pretrain_steps=1, epochs=1)
    folder, expected = run(given), identity(given)
    names = {file.name for file in folder.glob("*.pth")}
    assert names >= {"pretrain.pth", *(f"{m}{s}.pth" for m in ("plain", "ctr", "lm", "joint") for s in ("", "-last"))}
    for name in names:
        assert DataIdentity.from_plain(checkpoints.load(folder / name)[IDENTITY_KEY]) == expected, name
    assert DataIdentity.from_plain(json.loads((folder / "config.json").read_text())[IDENTITY_KEY]) == expected
    assert {name: part.rows for name, part in expected.parts.items()} == {"train": 128, "valid": 16, "test": 16}
    assert expected.vocabularies["genre"].size == 5 and "title" not in expected.vocabularies


def test_an_alignment_is_refused_where_it_may_have_seen_what_is_held_out(keys: Keys) -> None:
    given = keys(finetune_modes=["ctr"], pretrain_steps=1, epochs=0, plain_baseline=False, split_seed=1)
    given["pretrained_checkpoint"] = str(run(given) / "pretrain.pth")
    other = {"split": {"RS": [0.6, 0.2, 0.2]}, "order": "RO", "group_by": None, "mode": "labeled"}
    for split in ({"split_seed": 2}, {"eval_args": other}):
        with pytest.raises(ValueError, match=rf"^pretrained_checkpoint: .*{OTHER}: of the split, 'valid' .*split_seed"):
            run(given | split)
    run(given | {"train_share": 0.5, "seed": 5})  # fewer training rows, and the same ones held out


def test_a_training_that_goes_on_needs_its_own_rows(keys: Keys, tmp_path: Path) -> None:
    given = keys(finetune_modes=["ctr"], pretrain_steps=1, epochs=0, plain_baseline=False)
    folder = run(given)
    config = ALTConfig("ALT_DCN", "tiny", None, given | {"train_share": 0.5})
    dataset = load_data(config)[1]._dataset
    _, model, *_ = load_data_and_model(folder / "ctr.pth")
    trainer = ALTTrainer(config, model)
    trainer.saved_model_file, trainer.epochs = str(tmp_path / "x.pth"), 0
    model.identity = dataset.identity
    for read in (
        lambda: ALTPretrainTrainer.resume(_resting(dataset, folder / "pretrain.pth")),
        lambda: trainer.resume_checkpoint(_as_last(folder / "ctr.pth", tmp_path / "ctr-last.pth")),
        lambda: trainer.evaluate([1], model_file=folder / "ctr.pth"),
    ):
        with pytest.raises(ValueError, match=r"of the split, 'train' had 128 rows and has 64 now"):
            read()


def _resting(dataset: Any, file: Path) -> Any:
    trainer = ALTPretrainTrainer.__new__(ALTPretrainTrainer)
    trainer.dataset, trainer.file, trainer.device = dataset, file, "cpu"
    return trainer


def _as_last(best: Path, last: Path) -> Path:
    checkpoints.save(checkpoints.load(best) | {"step": 0}, last)
    return last


def test_stock_recbole_refuses_other_ids_too(keys: Keys, data: Path) -> None:
    """Its ``load_data_and_model``, line by line."""
    given = keys(data_path=str(data), finetune_modes=[], epochs=0)
    file = run(given) / "plain.pth"
    turn_items_round(data)
    state = torch.load(file, weights_only=True)
    config = state["config"]
    model = get_model(config["model"])(config, load_data(config)[1]._dataset)
    model.load_state_dict(state["state_dict"])  # of the same sizes
    with pytest.raises(ValueError, match=r"field 'year' has 3 values"):
        model.load_other_parameter(state.get("other_parameter"))
    with pytest.raises(ValueError, match=rf"^warm_up: .*{OTHER}: field 'year'"):
        kd_dagfm._warm_up_weights(str(file), load_data(config)[1]._dataset)


def test_a_range_that_numbers_are_cut_by_belongs_to_the_data(keys: Keys, data: Path) -> None:
    columns = keys()["load_col"] | {"item": ["item_id", "year", "genre", "length", "scores"]}
    numbers = {"numerical_features": ["length", "scores"], "normalize_field": ["scores"]}
    given = keys(data_path=str(data), load_col=columns, finetune_modes=[], epochs=0, **numbers)
    given |= {"discretization": {"length": {"method": "ED", "bucket": 3}}}
    folder = run(given)
    assert identity(given).numbers["length"].low == 81 and identity(given).numbers["length"].high == 127
    edit(data, "item", replaced("\t127\t", "\t200\t"))
    with pytest.raises(ValueError, match=r"field 'length' was from 81.0 to 127.0 in \d buckets and is .* to 200"):
        load_data_and_model(folder / "plain.pth")
    edit(data, "item", replaced("\t200\t", "\t127\t"))
    edit(data, "item", replaced("9.1 3", "9.5 3"))
    with pytest.raises(ValueError, match=r"field 'scores' was from 2.0 to 9.1 and is from 2.0 to 9.5 now"):
        load_data_and_model(folder / "plain.pth")


def test_checkpoints_of_older_versions_load_with_one_warning(
    keys: Keys, data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given = keys(data_path=str(data), finetune_modes=["ctr"], pretrain_steps=1, epochs=0, plain_baseline=False)
    folder = run(given)
    for file in folder.glob("*.pth"):
        state = checkpoints.load(file)
        del state[IDENTITY_KEY]
        checkpoints.save(state | ({"other_parameter": {}} if "other_parameter" in state else {}), file)
    values = read_record(folder / "config.json")
    del values[IDENTITY_KEY]
    write_record(folder / "config.json", values)
    dataset = load_data(ALTConfig("ALT_DCN", "tiny", None, given))[1]._dataset
    logging.getLogger().setLevel(logging.WARNING)
    for name in ("pretrain.pth", "ctr.pth"):
        caplog.clear()
        require_same_data(checkpoints.load(folder / name), dataset, file=folder / name)
        (record,) = caplog.records
        assert f"{name}' holds no record of its data" in record.getMessage()
    for use in uses(folder, given).values():
        use()


def test_a_damaged_record_is_refused() -> None:
    for damaged in ([], {}, {"vocabularies": {"a": 3}}, {"vocabularies": {}, "numbers": {}, "parts": {"train": {}}}):
        with pytest.raises(ValueError, match="the record of the data is damaged"):
            DataIdentity.from_plain(damaged)


@settings(deadline=None)
@given(st.lists(st.text(max_size=4), unique=True, max_size=8), st.data())
def test_the_digest_changes_with_the_tokens_and_their_order_alone(tokens: list[str], data: Any) -> None:
    other = data.draw(st.permutations(tokens) | st.lists(st.text(max_size=4), unique=True, max_size=8))
    first, second = Vocabulary.of(["[PAD]", *tokens]), Vocabulary.of(["[PAD]", *other])
    assert (first == second) == (first.digest == second.digest) == (tokens == list(other))
    assert first == second or first.difference(second).startswith("ha")


def test_digests_are_those_of_any_machine() -> None:
    tokens = ["[PAD]", "a", "ü", "\ud800", "a\0b", "日本"]
    assert Vocabulary.of(tokens).digest == "334af5593bfad14f057028bd32d8dcab"
    assert Vocabulary.of(["[PAD]", "ab", "c"]).digest != Vocabulary.of(["[PAD]", "a", "bc"]).digest


def test_a_checkpoint_that_is_none_is_refused_by_its_key(keys: Keys) -> None:
    torch.save(torch.zeros(3), "tensor.pth")
    torch.save({"weights": torch.zeros(3)}, "others.pth")
    whys = {"none.pth": "does not exist", "tensor.pth": "holds a Tensor", "others.pth": "holds no backbone"}
    for file, why in whys.items():
        with pytest.raises(ValueError, match=rf"pretrained.checkpoint.*{why}"):
            run(keys(finetune_modes=["ctr"], epochs=0, plain_baseline=False, pretrained_checkpoint=file))


# -- shapes ------------------------------------------------------------------------------------------------


def test_weights_of_another_shape_are_refused_by_key_and_field(keys: Keys) -> None:
    given = keys(finetune_modes=["ctr"], pretrain_steps=1, epochs=0, plain_baseline=False)
    folder = run(given)
    towers = {"pretrained_checkpoint": str(folder / "pretrain.pth")}
    with pytest.raises(ValueError, match=r"embedding_size was 8 and is 4 now") as caught:
        run(given | towers | {"embedding_size": 4})
    caught.match(r".*token_embedding_table.* \(of user_id, .*, year\) has shape \[25, 8\] there and \[25, 4\] here")
    with pytest.raises(ValueError, match=r"mlp_hidden_size was \[16, 8\] and is \[16\] now"):
        run(given | towers | {"mlp_hidden_size": [16]})
    state = checkpoints.load(folder / "ctr.pth")
    state["config"]["embedding_size"] = 4
    checkpoints.save(state, "ctr.pth")
    with pytest.raises(ValueError, match=r"^'ctr\.pth': these weights do not fit .*\(of user_id, .*, year\)") as caught:
        load_data_and_model("ctr.pth")
    assert "\n" not in str(caught.value)


def test_an_exported_language_model_that_no_longer_fits_is_one_line(keys: Keys, tmp_path: Path) -> None:
    folder = run(keys(finetune_modes=["lm"], pretrain_steps=0, epochs=0, plain_baseline=False))
    state = checkpoints.load(folder / "lm.pth")
    state["state_dict"]["text.language_model.encoder.embeddings.word_embeddings.weight"] = torch.zeros(3, 32)
    checkpoints.save(state, "lm.pth")
    with pytest.raises(ValueError, match=r"^'lm\.pth' does not fit the language_model .* has shape \[3, 32\] there"):
        to_huggingface("lm.pth", tmp_path / "out")
