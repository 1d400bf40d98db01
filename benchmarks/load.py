"""How the example service bears load: ``python benchmarks/load.py served --json=docs/results/load.json``.

``served`` is the folder that ``recbole-alt export RUN --mode=ctr --onnx=served`` wrote. The service
(``examples/serve.py``, ``pip install fastapi uvicorn onnxruntime``) and as many clients as are asked for share this
machine's cores; each client sends one request after the other over one connection. Requests ask for one row, or for
the items of one user to be ranked: ids only, so that a model that reads fields of the interaction can't be asked.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import random
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from recbole_alt.files import write_json

ROWS = (1, 100, 1000)
CLIENTS = (1, 8)
PACKAGES = ("onnxruntime", "fastapi", "uvicorn", "numpy")


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return int(probe.getsockname()[1])


def request(about: dict[str, Any], rows: int, draw: random.Random) -> bytes:
    """The body of a request: one user with so many items, of those that the model knows."""
    user, item = (about["ids"][about["tables"][side]] for side in ("user", "item"))
    columns = {about["tables"]["user"]: [draw.choice(list(user))] * rows}
    columns[about["tables"]["item"]] = draw.choices(list(item), k=rows)
    return json.dumps(columns).encode()


def ask(port: int, bodies: list[bytes], until: float) -> list[float]:
    """Seconds of each request of one client."""
    connection, taken, number = http.client.HTTPConnection("localhost", port), [], 0
    while (begun := time.perf_counter()) < until:
        connection.request("POST", "/score", bodies[number % len(bodies)], {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"the service answers {answer.status}: {content.decode()}")
        taken.append(time.perf_counter() - begun)
        number += 1
    return taken


def main() -> int:
    """Start the service, measure, and write what was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("served", type=Path, help="folder of the exported model")
    parser.add_argument("--seconds", type=float, default=10, help="of each measurement")
    parser.add_argument("--workers", type=int, default=1, help="processes of the service")
    parser.add_argument("--json", metavar="FILE", help="write the results there")
    arguments = parser.parse_args()
    about, port, draw = json.loads((arguments.served / "ids.json").read_text()), free_port(), random.Random(0)
    examples = Path(__file__).parents[1] / "examples"
    command = [sys.executable, "-m", "uvicorn", "serve:app", f"--app-dir={examples}", f"--port={port}"]
    command += [f"--workers={arguments.workers}", "--log-level=warning", "--no-access-log"]
    service = subprocess.Popen(command, env={**os.environ, "SERVED": str(arguments.served.resolve())})
    found = []
    try:
        wait_for(port, service)
        for rows in ROWS:
            bodies = [request(about, rows, draw) for _ in range(50)]
            ask(port, bodies, time.perf_counter() + 1)  # until it is warm
            for clients in CLIENTS:
                begun = time.perf_counter()
                with ThreadPoolExecutor(clients) as pool:
                    each = pool.map(lambda _, b=bodies, t=begun: ask(port, b, t + arguments.seconds), range(clients))
                    taken = np.array([seconds for one in each for seconds in one]) * 1e3
                rate = len(taken) / (time.perf_counter() - begun)
                p50, p99 = np.percentile(taken, [50, 99])
                found.append(
                    {"rows": rows, "clients": clients, "p50_ms": p50, "p99_ms": p99, "requests_per_second": rate}
                )
                print(f"{rows:>5} rows, {clients} client(s): p50 {p50:.2f} ms, p99 {p99:.2f} ms, {rate:.0f} requests/s")
    finally:
        service.terminate()
        service.wait()
    if arguments.json:
        machine = {"cores": len(os.sched_getaffinity(0)), "workers": arguments.workers, "model": about["model"]}
        machine["versions"] = {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}
        write_json(arguments.json, {**machine, "measured": found})
    return 0


def wait_for(port: int, service: subprocess.Popen[bytes]) -> None:
    """Wait until the service listens; RuntimeError if it ends instead."""
    for _ in range(300):
        with socket.socket() as probe:
            if probe.connect_ex(("localhost", port)) == 0:
                return
        if service.poll() is not None:
            raise RuntimeError("the service did not start; what it says is above")
        time.sleep(0.1)
    raise RuntimeError("the service does not listen after 30 seconds")


if __name__ == "__main__":
    sys.exit(main())
