"""Run the tests that try hard to break a run, for longer than CI does, and write docs/reliability.md from them.

``python docs/update_reliability.py --examples=5000 --kills=50`` writes ``docs/results/reliability.json``, too.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from recbole_alt.cli.parser import Parser
from recbole_alt.files import write_json, write_text
from recbole_alt.markdown import markdown_table

ROOT = Path(__file__).resolve().parent.parent
RESULT, PAGE = ROOT / "docs" / "results" / "reliability.json", ROOT / "docs" / "reliability.md"

#: Test → what it tries, and what of.
TRIES = {
    "tests/test_reading.py::test_a_dataset_is_what_its_files_say": (
        "atomic files with any characters: rows, labels, ids and words equal those of a reader in plain Python",
        "examples",
    ),
    "tests/test_fuzz.py::test_an_edited_file_is_read_as_it_stands_or_refused": (
        "atomic files with bytes replaced: read exactly as written, or refused in one line",
        "examples",
    ),
    "tests/test_fuzz.py::test_any_value_of_any_key_is_used_or_refused": (
        "any value under any key: used, or refused in one line",
        "examples",
    ),
    "tests/test_fuzz.py::test_an_edited_yaml_file_means_what_yaml_says_or_is_refused": (
        "YAML files with characters replaced: read as YAML defines, or refused in one line",
        "examples",
    ),
    "tests/test_fuzz.py::test_an_edited_checkpoint_is_refused_or_the_same": (
        "checkpoints with bytes replaced: refused in one line",
        "examples",
    ),
    "tests/test_chaos.py::test_killed_at_random_moments": (
        "SIGKILL at random moments over alignment, `ctr`, `lm`, `joint`, `plain`, tuning and campaign: the resumed run "
        "equals the uninterrupted one bit for bit",
        "kills",
    ),
}

HEAD = """# Reliability

A run is correct, or it is refused in one line that names the file, line, field or key, the value, and what to do.
What is refused, and with which exit status, is described in [Running](running.md#errors); what a file must look like,
in [Your own data](data.md#what-a-file-must-look-like); and what each key may be, in [Keys](keys.md).

CI tries every kind of bad input that we know of, 200 random examples of each kind below, and a few kills. The table
is from a longer run by hand. A failure stays in it until it is fixed.
"""


def attempt(test: str, unit: str, number: int) -> dict[str, Any]:
    """Run one test with ``number`` examples or kills."""
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-m", "slow or not slow", "-p", "no:cacheprovider", test],
        cwd=ROOT,
        env={**os.environ, "FUZZ_EXAMPLES": str(number), "KILLS": str(number), "CI": ""},
        capture_output=True,
        text=True,
    )
    last = done.stdout.strip().splitlines()[-1]
    print(f"{test}: {number} {unit}: {last}", flush=True)
    return {
        "test": test,
        unit: number,
        "passed": done.returncode == 0,
        "said": last,
        "seconds": round(time.monotonic() - begun),
    }


def page(record: dict[str, Any]) -> str:
    """docs/reliability.md."""
    rows = []
    for one in record["tries"]:
        what, unit = TRIES[one["test"]]
        rows.append([what, f"{one[unit]:,} {unit}", "none" if one["passed"] else one["said"]])
    table = markdown_table(["what was tried", "how often", "failed"], rows, "lrl", pad=False)
    versions = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
    return f"{HEAD}\n{table}\n\nMade by `{record['command']}`: {versions}.\n"


def main() -> int:
    """Run all tests; 1 where one failed."""
    parser = Parser(description="Try hard to break a run, and write docs/reliability.md.")
    parser.add_argument("--examples", type=int, default=5000, help="of each kind of input (default %(default)s)")
    parser.add_argument("--kills", type=int, default=50, help="over all stages (default %(default)s)")
    parser.add_argument("--failed", action="store_true", help="try again only what failed, after it was mended")
    arguments = parser.parse_args()
    before = json.loads(RESULT.read_text())["tries"] if arguments.failed else []
    kept = {one["test"]: one for one in before if one["passed"]}
    numbers = {"examples": arguments.examples, "kills": arguments.kills}
    record = {
        "command": f"python docs/update_reliability.py --examples={arguments.examples} --kills={arguments.kills}",
        "versions": {"python": platform.python_version(), **{n: version(n) for n in ("torch", "recbole", "pandas")}},
        "tries": [kept.get(test) or attempt(test, unit, numbers[unit]) for test, (_, unit) in TRIES.items()],
    }
    write_json(RESULT, record)
    write_text(PAGE, page(json.loads(RESULT.read_text())))
    return 0 if all(one["passed"] for one in record["tries"]) else 1


if __name__ == "__main__":
    sys.exit(main())
