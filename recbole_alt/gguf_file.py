"""GGUF files, which hold a quantised language model with its configuration and tokenizer, as llama.cpp reads them.

transformers makes a model of such a file, slowly. So it does this once a file: what comes out is kept in the user's
cache as a folder like any other, with all weights in 32 bits. Any such folder may be deleted at any time.
"""

import functools
import hashlib
import importlib.metadata
import io
import shutil
import tempfile
from collections.abc import Callable, Iterable
from contextlib import redirect_stderr
from logging import getLogger
from math import prod
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import save_file

from recbole_alt import weights
from recbole_alt.families import check_architecture
from recbole_alt.files import cache_folder
from recbole_alt.model_folder import unusable
from recbole_alt.quiet import quiet

_MAGIC = b"GGUF"
_FOLDER = "gguf"
_PARTIAL = "partial-"
_PACKAGES = ("gguf", "accelerate", "transformers")
_OUTPUT = ("output.weight", "output.bias")  # the layer that predicts tokens, which an AutoModel leaves out


def is_gguf(file: Path) -> bool:
    """True if ``file`` begins as a GGUF file does; a ValueError if it can't be read."""
    if not file.is_file():
        return False
    try:
        with file.open("rb") as stream:
            return stream.read(len(_MAGIC)) == _MAGIC
    except OSError as error:
        raise unusable(file, f"can't be read ({error.strerror})") from None


def folder_of(file: Path) -> Path:
    """The folder with ``config.json``, ``model.safetensors`` and tokenizer that is made of the GGUF ``file``, once.

    It belongs to the contents of the file and to the versions of the packages that read it. One that is damaged is
    made again.

    Raises:
        ValueError: a package is missing, the file is damaged or cut short, transformers can't read its architecture or
            reads only a part of it, or the cache can't be written; names the file and what to do.
    """
    about = file.stat()
    return _folder_of(file.resolve(), about.st_size, about.st_mtime_ns, cache_folder() / _FOLDER)


@functools.lru_cache(maxsize=4)
def _folder_of(file: Path, size: int, changed: int, root: Path) -> Path:
    key = hashlib.sha256(f"{_digest([file])} {_versions(file)}".encode()).hexdigest()[:16]
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / ".lock"):  # others wait for what this process makes
            return _kept(root, key) or _convert(file, root, key)
    except (OSError, SafetensorError) as error:  # the latter is of the operating system, in words of its own
        raise ValueError(
            f"language_model: {str(file)!r} can't be kept in 32 bits in {str(root)!r} ({error}): make room, or set "
            "XDG_CACHE_HOME to a folder that can be written"
        ) from None


def _versions(file: Path) -> dict[str, str]:
    try:
        return {name: importlib.metadata.version(name) for name in _PACKAGES}
    except importlib.metadata.PackageNotFoundError as error:
        raise unusable(
            file, f"is a GGUF file; to read it, {error.name} is needed: pip install 'recbole_alt[gguf]'"
        ) from None


def _kept(root: Path, key: str) -> Path | None:
    """The folder that :func:`_convert` made, unless it is missing; a damaged one is deleted."""
    for folder in root.glob(f"{key}-*"):
        if folder.name == f"{key}-{_digest(sorted(folder.iterdir()))}":
            return folder
        getLogger().warning(f"language_model: {str(folder)!r} is damaged: it is made again")
        shutil.rmtree(folder)
    return None


def _convert(file: Path, root: Path, key: str) -> Path:
    for left in root.glob(f"{_PARTIAL}*"):  # by a process that was killed: this one has the lock
        shutil.rmtree(left)
    with tempfile.TemporaryDirectory(dir=root, prefix=_PARTIAL) as partial:
        made = Path(partial, "model")
        config, encoder, tokenizer = _read(file, Path(partial))
        state = {name: tensor.contiguous() for name, tensor in encoder.state_dict().items()}
        made.mkdir()
        save_file(state, made / "model.safetensors", metadata={"format": "pt"})
        config.save_pretrained(made)
        tokenizer.save_pretrained(made)
        folder = root / f"{key}-{_digest(sorted(made.iterdir()))}"
        getLogger().info(f"language_model: {file.name} is kept in 32 bits in {folder}")
        return made.rename(folder)


def _read(file: Path, empty: Path) -> tuple[Any, Any, Any]:
    """The configuration, the encoder in 32 bits and the tokenizer in ``file``; ``empty`` is a folder without files."""
    from gguf import GGUFReader
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    options: dict[str, Any] = {"gguf_file": str(file), "trust_remote_code": False, "local_files_only": True}
    report = {"output_loading_info": True, "ignore_mismatched_sizes": True}  # what does not match is refused below
    getLogger().info(f"language_model: {file.name} is read for the first time, which takes a while")
    config = _made(file, lambda: AutoConfig.from_pretrained(empty, **options))
    check_architecture(config, repr(str(file)))
    tokenizer = _made(file, lambda: AutoTokenizer.from_pretrained(empty, **options))
    options |= {"config": config, "dtype": torch.float32}
    encoder, loaded = _made(file, lambda: AutoModel.from_pretrained(empty, **report, **options))
    weights.check(encoder, loaded, {}, str(file))
    reader = _made(file, lambda: GGUFReader(file))
    there = sum(prod(map(int, tensor.shape)) for tensor in reader.tensors if tensor.name not in _OUTPUT)
    read = sum(tensor.numel() for tensor in encoder.state_dict().values())
    if read != there:
        raise unusable(
            file,
            f"holds {there} numbers below its output layer, of which transformers makes a {type(encoder).__name__} "
            f"with {read}: give a file that it reads whole",
        )
    for key in reader.fields:
        if ".rope.scaling." in key:
            raise unusable(file, f"has the key {key}, which transformers does not read: give another model")
    return config, encoder, tokenizer


def _made(file: Path, make: Callable[[], Any]) -> Any:
    """What ``make`` returns, without its reports and bars of progress."""
    try:
        with quiet(), redirect_stderr(io.StringIO()):  # which reading from GGUF files writes to in any case
            return make()
    except Exception as error:  # damaged files and unknown architectures surface as almost any type
        said = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise unusable(
            file,
            f"can't be read: it is damaged or cut short, or of an architecture that transformers does not read from "
            f"GGUF files ({said}); get it again, or give another model",
        ) from None


def _digest(files: Iterable[Path]) -> str:
    """The SHA-256 of the contents of ``files``."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while part := stream.read(2**20):
                digest.update(part)
    return digest.hexdigest()
