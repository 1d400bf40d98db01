"""Checks that a loaded encoder has every weight of its files, and that the files have every weight of it."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from recbole_alt.model_folder import read_object, unusable

#: Files of weights, in the order in which they are looked for.
FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")

_UNREAD = ("pooler.",)  # weights that no token's state depends on
_FLOATS = ("F64", "F32", "F16", "BF16", "float64", "float32", "float16", "bfloat16")


@dataclass(frozen=True)
class StoredWeight:
    """The file that holds a tensor, and its data type as the file names it."""

    file: Path
    dtype: str


def stored_weights(folder: Path) -> dict[str, StoredWeight]:
    """The tensors in the weight files of ``folder`` by their keys; the tensors themselves stay on disk.

    Files that are damaged, missing, or hold code or anything else than tensors are refused.
    """
    first = next(folder / name for name in FILES if (folder / name).is_file())
    stored: dict[str, StoredWeight] = {}
    for file in _shards(first) if first.suffix == ".json" else [first]:
        stored |= _tensors(file)
    return stored


def _shards(index: Path) -> list[Path]:
    weights = read_object(index).get("weight_map")
    if not isinstance(weights, dict) or not weights or not all(isinstance(name, str) for name in weights.values()):
        raise ValueError(f"language_model: weight_map in {str(index)!r} must say in which file each weight is")
    shards = [index.parent / name for name in sorted(set(weights.values()))]
    absent = [shard.name for shard in shards if not shard.is_file()]
    if absent:
        there = f"{'it is' if len(absent) == 1 else 'they are'} not there"
        raise unusable(
            index, f"names {_listed(absent)}, of {len(shards)} files of weights, and {there}: get the missing"
        )
    return shards


def _tensors(file: Path) -> dict[str, StoredWeight]:
    from safetensors import SafetensorError, safe_open

    try:
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt") as tensors:
                return {key: StoredWeight(file, tensors.get_slice(key).get_dtype()) for key in tensors.keys()}  # noqa: SIM118
        content = torch.load(file, map_location="meta", weights_only=True)
    except (SafetensorError, OSError) as error:
        raise unusable(file, f"is damaged ({_one_line(error)}); get it again") from None
    except Exception as error:  # a damaged or a malicious pickle surfaces as almost any type
        code = re.search(r"GLOBAL (\S+)", str(error))
        wrong = f"holds code ({code[1]}), which is never run" if code else f"is damaged ({_one_line(error)})"
        raise unusable(file, f"{wrong}: give model.safetensors") from None
    if not isinstance(content, Mapping) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise unusable(file, "must hold tensors by their keys, and nothing else")
    return {str(key): StoredWeight(file, str(value.dtype).removeprefix("torch.")) for key, value in content.items()}


def check(encoder: Any, report: Mapping[str, Any], stored: Mapping[str, StoredWeight], name: str) -> None:
    """Refuse an encoder whose weights are not those in the files.

    Every weight that the configuration asks for must be in the files, in its shape, as finite real numbers, and the
    files must hold no further weight of a layer. A pooler may be missing and heads may be left over: neither is used.

    Args:
        encoder: an ``AutoModel``.
        report: the loading report of ``from_pretrained(..., output_loading_info=True)``.
        stored: the tensors in its files; see :func:`stored_weights`.
        name: what errors call the model if no file can be named.

    Raises:
        ValueError: names the file and the key.
    """
    kind = type(encoder).__name__
    files = sorted({weight.file for weight in stored.values()})
    where = name if not files else str(files[0] if len(files) == 1 else files[0].parent)
    if report["error_msgs"]:
        raise unusable(where, f"can't be loaded ({' '.join(' '.join(report['error_msgs']).split())})")
    missing = sorted(key for key in report["missing_keys"] if not key.startswith(_UNREAD))
    if missing:
        prefix, own = f"{encoder.base_model_prefix}.", set(encoder.state_dict())
        prefixes = _other_prefix(missing, {key for key in stored if not own & {key, key.removeprefix(prefix)}})
        if prefixes is not None:
            theirs, ours = prefixes
            wanted = repr(ours) if ours else f"{prefix!r} or none"
            raise ValueError(
                f"language_model: the keys in {where!r} have the prefix {theirs!r} "
                f"({theirs}{missing[0].removeprefix(ours)}), {kind} looks for {wanted} ({missing[0]}): rename them"
            )
        raise unusable(
            where,
            f"lacks {_listed(missing)}: {len(missing)} of the weights {kind} computes with, which would be random; "
            "give the complete weights, and the config.json they were saved with",
        )
    for key, found, expected in sorted(report["mismatched_keys"]):
        raise ValueError(
            f"language_model: {key} in {_place(key, stored, where)} has the shape {tuple(found)}, config.json asks for "
            f"{tuple(expected)}: give the weights and the config.json that belong together"
        )
    _check_numbers(encoder, stored, where)
    _check_left_over(encoder, report["unexpected_keys"], stored, where)


def _check_numbers(encoder: Any, stored: Mapping[str, StoredWeight], where: str) -> None:
    """Refuse weights that are not finite real numbers, or that are stored both with and without the model's prefix."""
    prefix = f"{encoder.base_model_prefix}."
    for key, tensor in encoder.state_dict().items():
        if key in stored and prefix + key in stored:
            raise ValueError(
                f"language_model: {key} is also {prefix + key} in {str(stored[key].file)!r}, and may differ: keep one"
            )
        if not tensor.is_floating_point():
            continue
        weight = _stored_as(key, stored)
        if weight is not None and weight.dtype not in _FLOATS:
            raise ValueError(
                f"language_model: {key} in {str(weight.file)!r} is stored as {weight.dtype}, quantised or not a "
                "weight at all: give the model in fp32, fp16 or bf16"
            )
        wrong = int((~torch.isfinite(tensor)).sum())
        if wrong:
            raise ValueError(
                f"language_model: {key} in {_place(key, stored, where)} holds NaN or infinity ({wrong} of "
                f"{tensor.numel()} numbers): get the file again, or another model"
            )


def _check_left_over(encoder: Any, unexpected: Collection[str], stored: Mapping[str, StoredWeight], where: str) -> None:
    """Refuse weights of more layers than the configuration has, and weights that a layer does not use."""
    layers = {_pattern(key) for key in encoder.state_dict()}
    modules = {name for name, module in encoder.named_modules() if name and any(True for _ in module.parameters(False))}
    for key in sorted(unexpected):
        own = key.removeprefix(f"{encoder.base_model_prefix}.")
        if own.startswith(_UNREAD):
            continue
        parts = own.split(".")
        if _pattern(own) in layers or any(".".join(parts[:end]) in modules for end in range(1, len(parts))):
            raise ValueError(
                f"language_model: {key} in {_place(key, stored, where)} belongs to a layer, but with this config.json "
                f"{type(encoder).__name__} leaves it out: give the config.json these weights were saved with "
                "(language_model_layers takes the first layers)"
            )


def _pattern(key: str) -> str:
    return re.sub(r"\.\d+(?=\.)", ".*", f".{key}")


def _other_prefix(missing: list[str], left: Collection[str]) -> tuple[str, str] | None:
    """The prefixes in the files and in the model without which most missing keys are among the unused ones."""
    parts = max(missing, key=lambda key: key.count(".")).split(".")
    for start in range(len(parts) - 1):
        ending, ours = ".".join(parts[start:]), "".join(f"{part}." for part in parts[:start])
        for key in sorted(left):
            if key == ending or key.endswith(f".{ending}"):
                theirs = key[: len(key) - len(ending)]
                there = sum(k.startswith(ours) and theirs + k.removeprefix(ours) in left for k in missing)
                if 2 * there > len(missing):
                    return theirs, ours
    return None


def _stored_as(key: str, stored: Mapping[str, StoredWeight]) -> StoredWeight | None:
    """The stored tensor of a weight of the model; its key there may have a prefix more or less."""
    if key in stored:
        return stored[key]
    alike = (name for name in stored if name.endswith(f".{key}") or key.endswith(f".{name}"))
    return next((stored[name] for name in alike), None)


def _place(key: str, stored: Mapping[str, StoredWeight], otherwise: str) -> str:
    weight = _stored_as(key, stored)
    return repr(otherwise if weight is None else str(weight.file))


def _listed(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def _one_line(error: Exception) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:200]
