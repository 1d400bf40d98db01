"""Checks of the files in a language model's folder, made before anything is loaded from them."""

import json
from pathlib import Path
from typing import Any

#: Files that hold a tokenizer's vocabulary; byte-level BPE needs both ``vocab.json`` and ``merges.txt``.
TOKENIZER_FILES = (
    "tokenizer.json", "vocab.txt", "vocab.json", "merges.txt", "tokenizer.model", "spiece.model",
    "sentencepiece.bpe.model", "spm.model", "tekken.json",
)  # fmt: skip


def unusable(file: Path | str, why: str) -> ValueError:
    """The error for a file, a folder or the name of a language model; ``why`` follows its name."""
    return ValueError(f"language_model: {str(file)!r} {why}")


def read_json(file: Path) -> Any:
    """Read a JSON file; the ValueError of one that can't be read or is no JSON names the file and the line."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise unusable(file, f"is damaged: no JSON from {where} on ({error.msg}); get the file again") from None
    except (OSError, ValueError, RecursionError) as error:
        raise unusable(file, f"can't be read ({' '.join(str(error).split())})") from None


def read_object(file: Path) -> dict[str, Any]:
    """Read a JSON file that must hold an object; see :func:`read_json`."""
    content = read_json(file)
    if not isinstance(content, dict):
        raise unusable(file, f"must hold keys and values, not a {type(content).__name__}")
    return content


def transformer_folder(folder: Path) -> Path:
    """``folder`` itself, or its transformer's folder if sentence-transformers wrote it (``modules.json``).

    Raises:
        ValueError: ``modules.json`` is damaged, or names no transformer or a folder that is not there.
    """
    listing = folder / "modules.json"
    if not listing.is_file():
        return folder
    modules = _modules(listing)
    transformer = next((path for kind, path in modules if kind == "Transformer"), None)
    if transformer is None:
        kinds = ", ".join(kind for kind, _ in modules) or "nothing"
        raise unusable(listing, f"names no module of type Transformer but {kinds}: give a model that has one")
    inside = folder / transformer
    if not inside.is_dir() or not inside.resolve().is_relative_to(folder.resolve()):
        raise unusable(listing, f"has the transformer in {transformer!r}, which is no folder beside it")
    return inside


def pooling_of(folder: Path) -> tuple[str | None, list[str]]:
    """How a folder of sentence-transformers pools, and the types of its modules after the transformer.

    Returns:
        ``mean``, ``cls``, ``last``, another name of sentence-transformers, or None if nothing is said; module types.
    """
    listing = folder / "modules.json"
    modules = [one for one in _modules(listing) if one[0] != "Transformer"] if listing.is_file() else []
    kinds = [kind for kind, _ in modules]
    file = next((folder / path / "config.json" for kind, path in modules if kind == "Pooling"), None)
    if file is None or not file.is_file():
        return None, kinds
    keys = read_object(file)
    names = {"cls_token": "cls", "mean_tokens": "mean", "lasttoken": "last"}
    on = [key.removeprefix("pooling_mode_") for key in keys if key.startswith("pooling_mode_") and keys[key] is True]
    said = [str(keys["pooling_mode"])] if keys.get("pooling_mode") else on
    return "+".join(names.get(name, name) for name in said) or None, kinds


def _modules(listing: Path) -> list[tuple[str, str]]:
    """The type, without its package, and the folder of each module that ``modules.json`` names."""
    modules = read_json(listing)
    if not isinstance(modules, list) or not all(
        isinstance(module, dict) and isinstance(module.get("type"), str) and isinstance(module.get("path", ""), str)
        for module in modules
    ):
        raise unusable(listing, "must be a list of modules, each with its type and path")
    return [(module["type"].rpartition(".")[2], module.get("path", "")) for module in modules]


def check_config(folder: Path) -> None:
    """Refuse a ``config.json`` that names no architecture, quantised weights, and adapters; names file and key."""
    file, adapter = folder / "config.json", folder / "adapter_config.json"
    keys = read_object(file)
    if not isinstance(keys.get("model_type"), str) or not keys["model_type"]:
        given = f"not {keys['model_type']!r}" if "model_type" in keys else "and is not there"
        raise ValueError(f"language_model: model_type in {str(file)!r} must name an architecture (bert, say), {given}")
    if keys.get("quantization_config"):
        raise unusable(
            file,
            "has a quantization_config: its weights are quantised and can't be trained; give the model in fp32, fp16 "
            "or bf16",
        )
    if adapter.is_file():
        raise unusable(
            adapter,
            "makes this an adapter to another model: merge it into that model (merge_and_unload, then "
            "save_pretrained) and give the merged folder",
        )


def check_tokenizer_files(folder: Path) -> None:
    """Refuse a folder without a tokenizer's vocabulary or with a damaged tokenizer file; names the files."""
    there = {file for file in TOKENIZER_FILES if (folder / file).is_file()}
    if not there:
        raise ValueError(
            f"language_model: the folder {str(folder)!r} has no tokenizer (none of {', '.join(TOKENIZER_FILES)}): "
            "put the tokenizer's files beside config.json (tokenizer.save_pretrained writes them)"
        )
    if len(there) == 1 and there <= {"vocab.json", "merges.txt"}:
        raise ValueError(
            f"language_model: the folder {str(folder)!r} has only {there.pop()} of vocab.json and merges.txt: "
            "a tokenizer needs both, or tokenizer.json"
        )
    for name in ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"):
        if (folder / name).is_file():
            read_object(folder / name)


def damaged_tokenizer_file(folder: Path) -> str | None:
    """What is wrong with ``tokenizer.json`` in one line, or None; to explain why loading has failed."""
    from tokenizers import Tokenizer

    file = folder / "tokenizer.json"
    try:
        if file.is_file():
            read_object(file)
            Tokenizer.from_file(str(file))
    except ValueError as error:
        return str(error)
    except Exception as error:  # the library raises Exception itself
        return str(unusable(file, f"is damaged: no tokenizer ({' '.join(str(error).split())[:200]})"))
    return None
