"""States on disk are read back to the bit, or not at all."""

from __future__ import annotations

import errno
import logging
import os
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import MINILM
from safetensors.torch import load_file
from torch import Tensor

from recbole_alt.model import state_store
from recbole_alt.model.fingerprint import fingerprint
from recbole_alt.model.language import load_language_model
from recbole_alt.model.state_store import StateFolder, StateStore

GIB = 2**30


def made_up(count: int, seed: int = 0) -> dict[bytes, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {f"{seed} {i}".encode(): torch.randn(1 + i % 5, 8, generator=generator) for i in range(count)}


def equal(one: dict[bytes, Tensor], two: dict[bytes, Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[text], two[text]) for text in one)


def files(root: Path) -> list[Path]:
    return sorted(root.glob("*/*"))


@pytest.fixture
def folder(tmp_path: Path) -> StateFolder:
    return StateFolder(tmp_path / "kept", GIB)


def test_states_are_read_back(folder: StateFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_store, "_FILE_BYTES", 500)
    states, others = made_up(40), made_up(40, seed=1)
    store = StateStore(folder, "one")
    assert store.read("tokens", states) == {}
    store.write("tokens", states)
    store.write("pooled", others)
    for reader in (store, StateStore(folder, "one")):
        assert equal(reader.read("tokens", [*states, *others]), states)
        assert equal(reader.read("pooled", [*states, *others]), others)
    assert StateStore(folder, "another").read("tokens", states) == {}
    assert len(files(folder.root)) > 4


def test_only_what_is_new_is_written(folder: StateFolder) -> None:
    states = made_up(40)
    late = StateStore(folder, "one")
    assert late.read("tokens", states) == {}
    StateStore(folder, "one").write("tokens", dict(list(states.items())[:30]))
    late.write("tokens", states)
    late.write("tokens", states)
    assert sorted(len(load_file(file)["texts"]) for file in files(folder.root)) == [10, 30]
    for reader in (late, StateStore(folder, "one")):
        assert equal(reader.read("tokens", states), states)


@pytest.mark.parametrize("how", ["a bit of a state", "a bit of the list of texts", "cut off", "empty"])
def test_a_damaged_file_is_deleted_in_one_line(how: str, folder: StateFolder, caplog: Any) -> None:
    states = made_up(40)
    StateStore(folder, "one").write("tokens", states)
    (file,) = files(folder.root)
    content = bytearray(file.read_bytes())
    if "bit" in how:
        digest = state_store._digest(next(iter(states)))
        content[-1 if "state" in how else content.index(digest)] ^= 1
    file.write_bytes(content[: {"cut off": len(content) // 2, "empty": 0}.get(how, len(content))])
    reader = StateStore(folder, "one")
    with caplog.at_level(logging.WARNING):
        assert reader.read("tokens", states) == {}
    (record,) = caplog.records
    assert str(file) in record.getMessage() and "\n" not in record.getMessage() and not file.exists()
    reader.write("tokens", states)
    assert equal(StateStore(folder, "one").read("tokens", states), states)


def test_what_was_not_used_for_longest_is_deleted(folder: StateFolder) -> None:
    parts = [made_up(40, seed) for seed in range(3)]
    for number, part in enumerate(parts[:2]):
        StateStore(folder, f"run {number}").write("tokens", part)
    size = max(file.stat().st_size for file in files(folder.root))
    for number, file in enumerate(files(folder.root)):
        os.utime(file, (number, number))
    assert equal(StateStore(folder, "run 0").read("tokens", parts[0]), parts[0])  # used now
    StateStore(StateFolder(folder.root, int(size * 2.5)), "run 2").write("tokens", parts[2])
    found = [len(StateStore(folder, f"run {number}").read("tokens", part)) for number, part in enumerate(parts)]
    assert found == [40, 0, 40]


def test_more_than_the_limit_is_not_written(folder: StateFolder, caplog: Any) -> None:
    store = StateStore(StateFolder(folder.root, 1000), "one")
    with caplog.at_level(logging.WARNING):
        store.write("tokens", made_up(400))
        store.write("tokens", made_up(400, seed=1))
    assert files(folder.root) == [] and len(caplog.records) == 1


def test_a_full_disk_costs_one_line(folder: StateFolder, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    states = made_up(40)
    StateStore(folder, "one").write("tokens", states)
    store = StateStore(folder, "one")
    monkeypatch.setattr(os, "fsync", refuse)
    with caplog.at_level(logging.WARNING):
        store.write("tokens", made_up(40, seed=1))
        store.write("tokens", made_up(40, seed=2))
    (record,) = caplog.records
    assert "No space left" in record.getMessage() and "make room" in record.getMessage()
    assert equal(store.read("tokens", states), states) and len(files(folder.root)) == 1


def test_nothing_is_written_where_that_is_not_allowed(folder: StateFolder, tmp_path: Path, caplog: Any) -> None:
    StateStore(StateFolder(folder.root, GIB, read_only=True), "one").write("tokens", made_up(9))
    assert not folder.root.exists() and not caplog.records
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING):
        StateStore(StateFolder(tmp_path / "file", GIB), "one").write("tokens", made_up(9))
    assert len(caplog.records) == 1


def test_several_may_write_at_once(folder: StateFolder) -> None:
    parts = [made_up(30, seed) | made_up(30, seed=99) for seed in range(6)]
    threads = [threading.Thread(target=lambda p=part: StateStore(folder, "one").write("tokens", p)) for part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    states = {text: of for part in parts for text, of in part.items()}
    assert equal(StateStore(folder, "one").read("tokens", states), states)
    assert sum(len(file.read_bytes()) for file in files(folder.root)) < 2 * 7 * 30 * 8 * 4 * 5


def test_a_fingerprint_is_of_weights_and_computation(small_bert: str) -> None:
    cpu = torch.device("cpu")

    def of(name: str = small_bert, **keys: Any) -> str:
        keys = {"precision": "fp32", "frozen_layers": "all"} | keys
        return fingerprint(load_language_model(name, **keys), cpu)

    expected = of()
    assert of(pooling="cls") == of(frozen_layers=None) == expected
    moved = load_language_model(small_bert, precision="fp32")
    next(moved.parameters()).data[0, 0] += 1e-6
    torch.set_num_threads(torch.get_num_threads() % 2 + 1)
    names = [expected, of(), of(layers=1), of(precision="bf16"), of(random_seed=3), of(MINILM, layers=1)]
    assert len({*names, fingerprint(moved, cpu)}) == 7
