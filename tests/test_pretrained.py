"""A language model's folder is read whole and right, or refused in one line that names file and key."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from language_models import TINY
from safetensors.torch import load_file, save_file
from torch import Tensor

from recbole_alt import pretrained
from recbole_alt.data.prompts import PromptTable
from recbole_alt.data.template import build_template
from recbole_alt.model.language import load_language_model

WORD = "embeddings.word_embeddings.weight"
QUERY = "encoder.layer.1.attention.self.query.weight"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """``made("bert")`` → the folder of that family's tiny model, not to be changed."""
    folders: dict[str, Path] = {}

    def make(kind: str) -> Path:
        if kind not in folders:
            folders[kind] = tmp_path_factory.mktemp(kind)
            TINY[kind].save(folders[kind])
        return folders[kind]

    return make


@pytest.fixture
def folder(made: Callable[[str], Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(made("bert"), tmp_path / "model"))


@pytest.fixture
def saved(made: Callable[[str], Path]) -> dict[str, Tensor]:
    return load_file(made("bert") / "model.safetensors")


def refused(name: Any, *words: str, **options: Any) -> str:
    """The message loading ends in: one line that has ``language_model`` and all ``words``."""
    with pytest.raises(ValueError) as caught:
        load_language_model(name, **options)
    message = str(caught.value)
    assert "\n" not in message, message
    for word in ("language_model", *words):
        assert word in message, message
    return message


def set_key(file: Path, **keys: Any) -> None:
    content = json.loads(file.read_text()) | keys
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))


def same(name: str, weights: dict[str, Tensor]) -> None:
    """Every weight of the loaded encoder is the one given."""
    state = load_language_model(name).encoder.state_dict()
    assert set(state) == {key for key in weights if not key.startswith("pooler.")}
    for key, weight in state.items():
        assert weight.dtype == torch.float32
        assert torch.equal(weight, weights[key].float()), key


def shard(folder: Path, weights: dict[str, Tensor], suffix: str = "safetensors") -> dict[str, str]:
    """Write ``weights`` as two files and an index; returns which key is where."""
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    names = [f"{stem}-0000{i}-of-00002.{suffix}" for i in (1, 2)]
    where = {key: names[i % 2] for i, key in enumerate(weights)}
    for name in names:
        part = {key: weights[key] for key in weights if where[key] == name}
        save_file(part, folder / name) if suffix == "safetensors" else torch.save(part, folder / name)
    index = {"metadata": {}, "weight_map": where}
    (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()
    return where


# -- what is read right ------------------------------------------------------------------------------------


def test_a_whole_folder(folder: Path, saved: dict[str, Tensor]) -> None:
    same(str(folder), saved)


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_a_folder_in_shards(folder: Path, saved: dict[str, Tensor], suffix: str) -> None:
    shard(folder, saved, suffix)
    same(str(folder), saved)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(folder: Path, saved: dict[str, Tensor], dtype: torch.dtype) -> None:
    weights = {key: weight.to(dtype) for key, weight in saved.items()}
    save_file(weights, folder / "model.safetensors")
    same(str(folder), weights)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_of_tensors(folder: Path, saved: dict[str, Tensor], zipped: bool) -> None:
    (folder / "model.safetensors").unlink()
    torch.save(saved, folder / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    same(str(folder), saved)


def test_heads_may_be_there_and_the_pooler_need_not(folder: Path, saved: dict[str, Tensor]) -> None:
    weights = {f"bert.{key}": weight for key, weight in saved.items() if not key.startswith("pooler.")}
    heads = {
        "cls.predictions.bias": torch.zeros(4),
        "lm_head.weight": torch.zeros(4, 4),
        "bert.embeddings.position_ids": torch.arange(64)[None],
        "classifier.weight": torch.zeros(2, 32),
    }
    save_file(weights | heads, folder / "model.safetensors")
    same(str(folder), saved)


@pytest.mark.parametrize("path", ["", "0_Transformer"])
@pytest.mark.parametrize("kind", ["sentence_transformers.models.Transformer", "a.new.place.Transformer"])
def test_a_folder_of_sentence_transformers(folder: Path, saved: dict[str, Tensor], path: str, kind: str) -> None:
    whole = sentence_folder(folder, path, kind)
    same(str(whole), saved)
    again, original = (pretrained.load_tokenizer(str(place)) for place in (whole, folder))
    assert again("A user is 24.")["input_ids"] == original("A user is 24.")["input_ids"]


def sentence_folder(model: Path, path: str, kind: str = "sentence_transformers.models.Transformer") -> Path:
    whole = model.parent / "sentences"
    shutil.copytree(model, whole / path)
    modules = [
        {"idx": 0, "name": "0", "path": path, "type": kind},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"},
    ]
    (whole / "modules.json").write_text(json.dumps(modules))
    (whole / "1_Pooling").mkdir()
    pooling = {"word_embedding_dimension": 32, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
    (whole / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return whole


def test_what_sentence_transformers_does_otherwise_is_said(folder: Path) -> None:
    whole = str(sentence_folder(folder, ""))
    note = pretrained.other_pooling(whole, "mean")
    assert note is not None and "pools by cls" in note and "pooling is mean" in note and "Dense" in note
    assert "pools" not in str(pretrained.other_pooling(whole, "cls"))
    assert pretrained.other_pooling(str(folder), "mean") is None
    set_key(Path(whole) / "1_Pooling" / "config.json", pooling_mode="lasttoken")
    assert "pools by last," in str(pretrained.other_pooling(whole, "mean"))


@pytest.mark.parametrize(
    "modules",
    [
        {},
        [],
        [3],
        [{"path": ""}],
        [{"type": "a.Transformer", "path": 3}],
        [{"type": "a.StaticEmbedding", "path": ""}],
        [{"type": "a.Transformer", "path": "0_Transformer"}],
        [{"type": "a.Transformer", "path": ".."}],
    ],
)
def test_a_wrong_modules_json(folder: Path, modules: Any) -> None:
    whole = sentence_folder(folder, "")
    (whole / "modules.json").write_text(json.dumps(modules))
    refused(str(whole), str(whole / "modules.json"))


# -- names -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [None, "", "  ", 5, ["a"], {"a": 1}, True])
def test_no_name(name: Any) -> None:
    refused(name, "must be a folder, a GGUF file, an installed package or a hub id", repr(name))
    with pytest.raises(ValueError, match="language_model must be"):
        pretrained.load_config(name)


@pytest.mark.parametrize("name", ["__main__", "~nobody-here/model", "x" * 5000, "a\0b", "numpy", "../.."])
def test_names_that_are_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)  # as in a script
    refused(name)


def test_a_file_is_no_folder(folder: Path) -> None:
    refused(str(folder / "model.safetensors"), "model.safetensors", "is a file")


# -- config.json -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"model_type": ...}, ["config.json", "model_type", "not there"]),
        ({"model_type": 3}, ["model_type", "not 3"]),
        ({"model_type": "bertt"}, ["config.json", "bertt"]),
        ({"pad_token_id": 100_000}, ["pad_token_id", "100000", "vocab_size"]),
        ({"num_hidden_layers": 0}, ["num_hidden_layers", "not 0"]),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, ["quantization_config"]),
        ({"hidden_size": "wide"}, ["config.json", "hidden_size"]),
        ({"num_attention_heads": 5}, ["5"]),
    ],
)
def test_a_wrong_key_in_config_json(folder: Path, keys: dict[str, Any], words: list[str]) -> None:
    set_key(folder / "config.json", **keys)
    refused(str(folder), str(folder), *words)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '"bert"', "\0\1\2", '{"model_type": "bert",}'])
@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_a_damaged_json_file(folder: Path, file: str, content: str) -> None:
    (folder / file).write_text(content)
    refused(str(folder), str(folder / file))


def test_a_json_file_of_another_encoding(folder: Path) -> None:
    (folder / "config.json").write_bytes(b'{"model_type": "b\xe9rt"}')
    refused(str(folder), str(folder / "config.json"))


@pytest.mark.parametrize("kind", ["T5", "Bart"])
def test_an_encoder_decoder(folder: Path, kind: str) -> None:
    import transformers

    size = {"d_model": 16, "vocab_size": 400, "num_layers": 1, "encoder_layers": 1, "decoder_layers": 1}
    getattr(transformers, f"{kind}Config")(**size).save_pretrained(folder)
    for random_seed in (None, 1):
        message = refused(str(folder), "encoder-decoder", "is_encoder_decoder", "config.json", random_seed=random_seed)
        assert "choose a model of BERT" in message


@pytest.mark.parametrize("kind", ["ViT", "CLIP"])
def test_a_model_that_reads_no_texts(folder: Path, kind: str) -> None:
    import transformers

    getattr(transformers, f"{kind}Config")().save_pretrained(folder)
    refused(str(folder), "config.json", "reads no texts")


def test_an_encoder_turned_decoder_has_no_cls(folder: Path) -> None:
    set_key(folder / "config.json", is_decoder=True)
    with pytest.raises(ValueError, match="pooling: the first token"):
        load_language_model(str(folder), pooling="cls")


def test_an_adapter_is_not_its_model(folder: Path) -> None:
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "other", "peft_type": "LORA"}))
    refused(str(folder), "adapter_config.json", "merge")


# -- weights -----------------------------------------------------------------------------------------------


def test_missing_weights(folder: Path, saved: dict[str, Tensor]) -> None:
    del saved[QUERY]
    save_file(saved, folder / "model.safetensors")
    refused(str(folder), str(folder / "model.safetensors"), f"lacks {QUERY}:", "1 of the weights", "random")
    load_language_model(str(folder), random_seed=1)  # which reads none


def test_more_layers_than_the_weights_have(folder: Path) -> None:
    set_key(folder / "config.json", num_hidden_layers=3)
    refused(str(folder), "model.safetensors", "lacks encoder.layer.2.attention.output.LayerNorm.bias")


def test_fewer_layers_than_the_weights_have(folder: Path) -> None:
    set_key(folder / "config.json", num_hidden_layers=1)
    refused(str(folder), "model.safetensors", "encoder.layer.1.", "language_model_layers")


@pytest.mark.parametrize("extra", ["bert.encoder.layer.0.output.dense.lora_A.weight", f"{QUERY}_scale"])
def test_weights_a_layer_has_no_use_for(folder: Path, saved: dict[str, Tensor], extra: str) -> None:
    save_file(saved | {extra: torch.ones(2, 2)}, folder / "model.safetensors")
    refused(str(folder), extra, "model.safetensors", "leaves it out")


@pytest.mark.parametrize("prefix", ["model.", "0.auto_model.", "roberta.", "query_encoder.bert."])
def test_weights_under_another_prefix(folder: Path, saved: dict[str, Tensor], prefix: str) -> None:
    save_file({prefix + key: weight for key, weight in saved.items()}, folder / "model.safetensors")
    refused(str(folder), "model.safetensors", repr(prefix), "'bert.'", f"{prefix}{WORD[:11]}")


@pytest.mark.parametrize("key", [WORD, QUERY, "embeddings.position_embeddings.weight"])
def test_weights_of_another_shape(folder: Path, saved: dict[str, Tensor], key: str) -> None:
    rows, columns = saved[key].shape
    for other in (saved[key][1:].clone(), torch.zeros(0, columns), torch.zeros(rows, columns, 1)):
        save_file(saved | {key: other}, folder / "model.safetensors")
        refused(str(folder), key, str(folder / "model.safetensors"), str(tuple(other.shape)), str((rows, columns)))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("key", [WORD, QUERY, "encoder.layer.0.output.LayerNorm.bias"])
def test_weights_that_are_no_numbers(folder: Path, saved: dict[str, Tensor], key: str, number: float) -> None:
    saved[key].view(-1)[-1] = number
    save_file({f"bert.{name}": weight.half() for name, weight in saved.items()}, folder / "model.safetensors")
    refused(str(folder), key, str(folder / "model.safetensors"), "NaN", f"1 of {saved[key].numel()}")


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int64, torch.bool, torch.float8_e4m3fn])
@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_quantised_weights(folder: Path, saved: dict[str, Tensor], dtype: torch.dtype, file: str) -> None:
    saved[QUERY] = saved[QUERY].to(dtype)
    (folder / "model.safetensors").unlink()
    torch.save(saved, folder / file) if file.endswith("bin") else save_file(saved, folder / file)
    refused(str(folder), QUERY, str(folder / file), "quantised")


def test_a_shard_that_is_not_there(folder: Path, saved: dict[str, Tensor]) -> None:
    where = shard(folder, saved)
    (folder / where[QUERY]).unlink()
    refused(str(folder), where[QUERY], "model.safetensors.index.json", "not there")


def test_a_shard_that_is_damaged(folder: Path, saved: dict[str, Tensor]) -> None:
    where = shard(folder, saved)
    content = (folder / where[QUERY]).read_bytes()
    (folder / where[QUERY]).write_bytes(content[:-10])
    refused(str(folder), str(folder / where[QUERY]), "damaged")


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"weight_map": {}}', '{"weight_map": {"a": 1}}'])
def test_a_damaged_index(folder: Path, saved: dict[str, Tensor], content: str) -> None:
    shard(folder, saved)
    (folder / "model.safetensors.index.json").write_text(content)
    refused(str(folder), str(folder / "model.safetensors.index.json"))


class Malicious:
    """Unpickling it creates the file ``executed``."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, ("touch executed",))


@pytest.mark.parametrize("content", [{QUERY: Malicious()}, {"state_dict": {}}, [1], {QUERY: 3}, "text"])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_of_anything_else(folder: Path, content: Any, zipped: bool) -> None:
    (folder / "model.safetensors").unlink()
    torch.save(content, folder / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    refused(str(folder), str(folder / "pytorch_model.bin"))
    assert not Path("executed").exists()


def test_weights_that_are_there_twice(folder: Path, saved: dict[str, Tensor]) -> None:
    save_file(saved | {f"bert.{QUERY}": saved[QUERY] + 1}, folder / "model.safetensors")
    refused(str(folder), QUERY, f"bert.{QUERY}", "model.safetensors")


def test_code_in_a_pickle_is_named(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({QUERY: Malicious()}, folder / "pytorch_model.bin")
    refused(str(folder), "pytorch_model.bin", "code (posix.system)")


# -- tokenizer ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bert", "roberta", "gpt2", "xlm-roberta"])
@pytest.mark.parametrize("configured", [True, False])
def test_a_folder_without_tokenizer(made: Callable[[str], Path], tmp_path: Path, kind: str, configured: bool) -> None:
    folder = Path(shutil.copytree(made(kind), tmp_path / "model"))
    (folder / "tokenizer.json").unlink()
    if not configured:
        (folder / "tokenizer_config.json").unlink()
    refused(str(folder), str(folder), "no tokenizer", "tokenizer.json", "vocab.txt")


@pytest.mark.parametrize("file", ["vocab.json", "merges.txt"])
def test_half_a_tokenizer(made: Callable[[str], Path], tmp_path: Path, file: str) -> None:
    folder = Path(shutil.copytree(made("gpt2"), tmp_path / "model"))
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    for absent in ("tokenizer.json", "tokenizer_config.json"):
        (folder / absent).unlink()
    (folder / file).write_text(json.dumps(vocabulary) if file == "vocab.json" else "#version: 0.2\na b\n")
    refused(str(folder), "vocab.json", "merges.txt")


@pytest.mark.parametrize("file", ["vocab.txt", "tokenizer.json"])
def test_a_tokenizer_without_words(folder: Path, file: str) -> None:
    content = json.loads((folder / "tokenizer.json").read_text())
    special = [token["content"] for token in content["added_tokens"]]
    if file == "vocab.txt":
        (folder / "tokenizer_config.json").unlink()
        (folder / "tokenizer.json").unlink()
        (folder / file).write_text("\n".join(special))
    else:
        content["model"]["vocab"] = {token: i for i, token in enumerate(special)}
        (folder / file).write_text(json.dumps(content))
    refused(str(folder), str(folder), "unknown tokens only", "tokenizer.json")


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"model": {"type": "WordPiece"}}', "half"])
def test_a_damaged_tokenizer_json(folder: Path, content: str) -> None:
    whole = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(whole[: len(whole) // 2] if content == "half" else content)
    refused(str(folder), str(folder / "tokenizer.json"))


@pytest.mark.parametrize("random_seed", [None, 1])
def test_more_words_than_embeddings(folder: Path, saved: dict[str, Tensor], random_seed: int | None) -> None:
    words = len(saved[WORD])
    save_file(saved | {WORD: saved[WORD][:-1].clone()}, folder / "model.safetensors")
    set_key(folder / "config.json", vocab_size=words - 1)
    refused(str(folder), str(folder), f"{words} words", f"{words - 1} embeddings", random_seed=random_seed)


def test_spare_embeddings_are_no_fault(folder: Path, saved: dict[str, Tensor]) -> None:
    weights = saved | {WORD: torch.cat([saved[WORD], torch.zeros(5, 32)])}
    save_file(weights, folder / "model.safetensors")
    set_key(folder / "config.json", vocab_size=len(weights[WORD]))
    same(str(folder), weights)


# -- no false alarms ---------------------------------------------------------------------------------------


@pytest.fixture
def alarms() -> Iterator[list[str]]:
    """What transformers warns of meanwhile."""
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("transformers")
    logger.addHandler(handler)
    yield said
    logger.removeHandler(handler)


def test_texts_that_we_cut_are_no_alarm(folder: Path, alarms: list[str]) -> None:
    set_key(folder / "tokenizer_config.json", model_max_length=6)
    tokenizer = pretrained.load_tokenizer(str(folder))
    assert tokenizer.model_max_length == 6
    template = build_template(
        {"prefix": {"prompt": "Long before anything is said: "}}, {"title": "item", "age": "user"}, scope="interaction"
    )
    words = {"title": ["the quick brown fox's dog " * 9], "age": ["24"]}
    table = PromptTable(
        template, tokenizer, words, dict.fromkeys(words, lambda _: np.zeros(1, dtype=np.int64)), max_tokens=500
    )
    assert table.unlike_whole([0]) is None
    assert table.batches([0])[0].attention_mask.sum() > 50
    assert alarms == []
    tokenizer("a text that nobody cuts: it is longer than it may be")  # not through us: transformers says so
    assert "indexing errors" in alarms[0]


def test_a_right_folder_is_no_alarm(folder: Path, alarms: list[str]) -> None:
    load_language_model(str(folder))
    assert alarms == []
