"""Data that plain RecBole reads otherwise are not exported for it; what is exported, it reads and scores as the run."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ITEMS
from recbole.data import create_dataset

from recbole_alt import run_recbole_alt
from recbole_alt.config import ALTConfig
from recbole_alt.data.plain_reading import check_plain_reading
from recbole_alt.exporting import to_recbole

pytestmark = pytest.mark.usefixtures("one_thread")

INTER = "user_id:token\titem_id:token\tlabel:float\n" + "".join(f"u{n % 5}\ti{n % 4}\t{n % 2}\n" for n in range(20))
ITEM = "item_id:token\tgenre:token_seq\tyear:token\tlength:float\ttitle:token\n"
ROWS = ["i0\tComedy Crime\t1995\t1.5\tToy", "i1\t\t1996\t.1\t", "i2\tWar\t\t\tHeat", "i3\tWar\t1997\t1e3\tx"]
LOADED = {"inter": ["user_id", "item_id", "label"], "item": ["item_id", "genre", "year", "length"]}


def items(changes: dict[int, str], end: str = "\n") -> str:
    return ITEM.replace("\n", end) + "".join(changes.get(i, row) + end for i, row in enumerate(ROWS))


FINE: dict[str, Any] = {
    "plain": items({}),
    "crlf": items({}, "\r\n"),
    "members": items({0: "i0\tNA Crime\tNAN\t1.5\tToy"}),  # only whole cells, in certain spellings, are missing
    "marks-inside": items({0: 'i0\tCo"medy" Crime"\t19"95\t1.5\tToy'}),
    "unloaded": items({0: 'i0\tComedy\t1995\t1.5\t"Toy"', 1: "i1\t\t1996\t.1\tNA"}),
    "letters": items({0: "i0\tCom\u00e9die\u2028x Crime\t19\x1f95\t1.5\tToy"}),
}
FAULTS: dict[str, tuple[Any, str]] = {
    **{
        word: (items({1: f"i1\tWar\t{word}\t1\tx"}), rf"line 3: column 'year' is '{word}', .* reads as missing: write")
        for word in ("NA", "null", "nan", "None", "#N/A", "n/a")
    },
    "sequence": (
        items({2: "i2\tNA\t1\t1\tx", 3: "i3\tNA\t1\t1\tx"}),
        r"line 4: column 'genre' is 'NA', .* as missing \(so in 2 rows\): write .* and train again",
    ),
    "id": (items({1: "null\tWar\t1\t1\tx"}), r"line 3: column 'item_id' is 'null'"),
    "quoted": (items({1: 'i1\tWar\t"96"\t1\tx'}), r"line 3: column 'year' is '\"96\"', whose .* mark and train again"),
    "open": (items({1: 'i1\t"War"s\t96\t1\tx'}), r"line 3: column 'genre' is '\"War\"s', whose quotation mark"),
    "over-lines": (
        items({1: 'i1\tWar\t96\t1\t"x', 2: 'i2\tWar\t96\t1\tx"'}),
        r"line 3: column 'title' is '\"x', .* stays",
    ),
    "byte-order": ("\ufeff" + items({}), r"item, line 1: .* mark '\\ufeff' .* column 'item_id': save .* without it"),
    "trailing": (
        items({i: row + "\t" for i, row in enumerate(ROWS)}),
        r"line 2: column 'item_id' is 'i0', .* takes another cell .*: take these out",
    ),
    "truth": (items({1: "i1\tWar\t96\tTrue\tx"}), r"line 3: column 'length' is 'True', where .*: write 1 for true"),
    "lone-cr": (
        items({1: "i1\tWar\t9\r6\t1\tx"}),
        r"line 3: column 'year' is '9\\r6', which plain RecBole reads as '9'",
    ),
}

_STOCK = """
import json, sys
import numpy as np
removed = {"float_": np.float64, "complex_": np.complex128, "unicode_": np.str_, "long": np.int_, "bool8": np.bool_}
for name, target in removed.items():
    name in np.__dict__ or setattr(np, name, target)
import torch
torch.set_num_threads(1)
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.trainer import Trainer
from recbole.utils import get_model, init_seed
given, sys.argv = sys.argv[1:], ["plain"]
found = {}
for name in given:
    try:
        if name.endswith(".yaml"):  # the program of docs/export.md
            config = Config(config_file_list=[name])
            init_seed(config["seed"], config["reproducibility"])
            train, _, test = data_preparation(config, create_dataset(config))
            trainer = Trainer(config, get_model(config["model"])(config, train._dataset))
            trainer.eval_collector.data_collect(train)
            found[name] = trainer.evaluate(test, model_file=name.removesuffix(".yaml"))
        else:
            data = create_dataset(Config("DCN", name, config_file_list=["stock.json"]))
            tokens = {field: list(map(str, known)) for field, known in data.field2id_token.items()}
            found[name] = [str(data.item_feat.to_dict("list")), tokens]
    except Exception as error:
        found[name] = repr(error)
assert "recbole_alt" not in sys.modules
print(json.dumps(found))
"""


def stock(*names: str) -> dict[str, Any]:
    """What RecBole without this package reads of datasets, or makes of exported checkpoints."""
    done = subprocess.run([sys.executable, "-c", _STOCK, *names], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_refused_is_what_stock_recbole_reads_otherwise(own: Callable[..., ALTConfig], tmp_path: Path) -> None:
    contents = FINE | {name: item for name, (item, _) in FAULTS.items()}
    keys = {"load_col": LOADED, "numerical_features": ["length"]}
    shared = {"data_path": str(tmp_path), "LABEL_FIELD": "label", "state": "ERROR", "train_neg_sample_args": None}
    Path("stock.json").write_text(json.dumps(shared | keys))
    configs = {f"case{n}": own(f"case{n}", inter=INTER, item=item, **keys) for n, item in enumerate(contents.values())}
    theirs = stock(*configs)
    for (dataset, config), name in zip(configs.items(), contents, strict=True):
        data = create_dataset(config)
        tokens = {field: list(map(str, known)) for field, known in data.field2id_token.items()}
        alike = theirs[dataset] == [str(data.item_feat.to_dict("list")), tokens]
        assert alike == (name in FINE), (name, theirs[dataset])
        if alike:
            check_plain_reading(config.final_config_dict)
            continue
        with pytest.raises(ValueError, match=FAULTS[name][1]) as error:
            check_plain_reading(config.final_config_dict)
        assert dataset in str(error.value) and "\n" not in str(error.value)


def test_a_mark_for_which_stock_recbole_refuses_a_file_is_said(own: Callable[..., ALTConfig], caplog: Any) -> None:
    item = items({1: 'i1\tWar\t96\t1\t"Heat" of the Night'})
    with caplog.at_level("WARNING"):
        check_plain_reading(own("said", inter=INTER, item=item, load_col=LOADED).final_config_dict)
    (said,) = [record.getMessage() for record in caplog.records]
    assert "said.item, line 3: column 'title' is '\"Heat\" of the Night'" in said and "the model stays" in said
    both = own("both", inter=INTER, item=item.replace("\tWar\t1997", "\tNA\t1997"), load_col=LOADED)
    with pytest.raises(ValueError, match=r"line 5: column 'genre' is 'NA'"):
        check_plain_reading(both.final_config_dict)


def test_parquet_is_refused(own: Callable[..., ALTConfig], tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    config = own("table", inter=INTER, load_col=None)
    rows = [line.split("\t") for line in INTER.splitlines()]
    columns = {name: [row[i] for row in rows[1:]] for i, name in enumerate(rows[0])}
    columns["label:float"] = list(map(float, columns["label:float"]))
    (tmp_path / "table" / "table.inter").unlink()
    import pyarrow.parquet

    pyarrow.parquet.write_table(pa.table(columns), tmp_path / "table" / "table.inter.parquet")
    with pytest.raises(ValueError, match=r"inter\.parquet: plain RecBole reads no Parquet: .* as table\.inter; "):
        check_plain_reading(config.final_config_dict)


@pytest.fixture
def trained(keys: Callable[..., dict[str, Any]], data_path: Path, tmp_path: Path) -> Callable[..., Any]:
    """``trained(items, encoding)``: a run on ``tiny`` with these items, and the file of them."""

    def run(content: str, encoding: str = "utf-8") -> tuple[dict[str, Any], Path]:
        file = shutil.copytree(data_path, tmp_path / "data") / "tiny" / "tiny.item"
        file.write_bytes(content.replace('"', "").encode(encoding))
        changes = {"data_path": str(tmp_path / "data"), "encoding": encoding, "finetune_modes": [], "epochs": 1}
        return run_recbole_alt("ALT_DCN", "tiny", None, keys(**changes)), file

    return run


def test_stock_recbole_scores_a_run_in_another_encoding(trained: Callable[..., Any]) -> None:
    run, _ = trained(ITEMS.replace("Comedy", "Com\u00e9die"), "latin-1")
    to_recbole(Path(run["folder"]) / "plain.pth", "dcn.pth")
    assert yaml.safe_load(Path("dcn.pth.yaml").read_text())["encoding"] == "latin-1"
    expected = run["record"]["results"]["plain"]["test"]
    assert stock("dcn.pth.yaml")["dcn.pth.yaml"] == pytest.approx(expected, abs=1e-6)


def test_a_refused_export_writes_nothing(trained: Callable[..., Any]) -> None:
    run, file = trained(ITEMS.replace("Crime\t", "NA\t"))
    with pytest.raises(ValueError, match=r"tiny\.item, line 3: column 'genre' is 'NA'"):
        to_recbole(Path(run["folder"]) / "plain.pth", "out/dcn.pth")
    assert not Path("out").exists()
    file.unlink()
    shutil.rmtree(file.parent)
    to_recbole(Path(run["folder"]) / "plain.pth", "out/dcn.pth")  # where there are no data to compare
    assert Path("out/dcn.pth").is_file()
