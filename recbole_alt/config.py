"""Configuration: RecBole's ``Config`` with our defaults, stricter about what it is given.

Later layers win: RecBole's ``overall.yaml`` and its files for the *base* model and the dataset, our
``overall.yaml``, ``model/ALT_<backbone>.yaml`` and ``dataset/<dataset>.yaml``, the user's files, the
dictionary, the command line.
"""

from __future__ import annotations

import ast
import difflib
import enum
import os
import sys
from collections.abc import Callable, Mapping
from logging import getLogger
from pathlib import Path
from typing import Any

import torch
import yaml
from recbole.config import Config
from recbole.utils import EvaluatorType, get_model
from recbole.utils import enum_type as recbole_enums

from recbole_alt.checks import check_values
from recbole_alt.launch import require_one_process

PREFIX = "ALT_"


def properties_dir() -> Path:
    """Folder of our YAML files: inside an installed package, or at the top of a checkout."""
    package = Path(__file__).resolve().parent
    installed = package / "properties"
    return installed if installed.is_dir() else package.parent / "properties"


def base_model_name(model: str) -> str | None:
    """``"ALT_DCN"`` → ``"DCN"``; None for a model that is not ours."""
    return model[len(PREFIX) :] if model.startswith(PREFIX) else None


def load_internal_config(
    config: Any, model: str, model_class: type, dataset: str, original: Callable[..., None]
) -> None:
    """Fill ``config.internal_config_dict``: RecBole's layers for the base model, then ours.

    Source: ``Config._load_internal_config_dict`` of ``recbole/config/configurator.py``, which ``original``
    is; it knows no file of ours and would miss the base model's.
    """
    base = base_model_name(model)
    original(config, base, model_class, dataset)
    root = properties_dir()
    for file in (root / "overall.yaml", root / "model" / f"{model}.yaml", root / "dataset" / f"{dataset}.yaml"):
        if file.is_file():
            ours = yaml.load(file.read_text(encoding="utf-8"), Loader=_yaml_loader()) or {}
            stages = _merge_stages(config.internal_config_dict.get("finetune"), ours.get("finetune"))
            config.internal_config_dict.update(ours | {"finetune": stages})


class ALTConfig(Config):
    """RecBole's ``Config`` for an ``ALT_<backbone>`` model.

    Beyond RecBole's: values given as text are read as Python literals or YAML and never evaluated;
    ``--key=value`` may hold further ``=``; a key that looks like a misspelling of a known one, or a value
    outside :data:`recbole_alt.checks.CHOICES`, is an error; the object can be saved and loaded without running code.

    Raises:
        ValueError: unknown model, misspelt key, value out of range; the message says what to write.
    """

    def __init__(
        self,
        model: str | None = None,
        dataset: str | None = None,
        config_file_list: list[str] | None = None,
        config_dict: dict[str, Any] | None = None,
    ):
        super().__init__(model, dataset, config_file_list, dict(config_dict or {}))
        self.final_config_dict["finetune"] = _merge_stages(
            self.internal_config_dict.get("finetune"), self.external_config_dict.get("finetune")
        )
        self._check_keys()
        check_values(self.final_config_dict)
        if self.final_config_dict["eval_type"] == EvaluatorType.VALUE:  # every run reports both
            given = self.final_config_dict["metrics"]
            absent = [name for name in ("AUC", "LogLoss") if name.lower() not in {m.lower() for m in given}]
            self.final_config_dict["metrics"] = [*given, *absent]

    # -- reading -----------------------------------------------------------------------------------------

    def _load_config_files(self, file_list: list[str] | None) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        for file in file_list or []:
            if not Path(file).is_file():
                raise ValueError(f"config file {file!r} does not exist")
            try:
                content = yaml.load(Path(file).read_text(encoding="utf-8"), Loader=_yaml_loader()) or {}
            except yaml.YAMLError as error:
                raise ValueError(f"config file {file!r} is not plain YAML: {' '.join(str(error).split())}") from None
            if not isinstance(content, dict):
                raise ValueError(f"config file {file!r} must hold 'key: value' pairs, not a {type(content).__name__}")
            merged.update(content)
        return merged

    def _convert_config_dict(self, config_dict: dict[str, Any]) -> dict[str, Any]:
        return {key: _parse(value) if isinstance(value, str) else value for key, value in config_dict.items()}

    def _load_cmd_line(self) -> dict[str, Any]:
        arguments = [] if "ipykernel_launcher" in sys.argv[0] else sys.argv[1:]
        given: dict[str, str] = {}
        for argument in arguments:
            key, equals, value = argument.removeprefix("--").partition("=")
            if not argument.startswith("--") or not equals:
                continue  # of the calling program, as in RecBole; run_recbole_alt.py refuses it itself
            if given.get(key, value) != value:
                raise ValueError(f"--{key} is given twice: {given[key]!r} and {value!r}")
            given[key] = value
        return self._convert_config_dict(given)

    def _get_model_and_dataset(self, model: str | None, dataset: str | None) -> tuple[str, type, str]:
        require_one_process(self.external_config_dict)  # before RecBole waits for the others
        name = model or self.external_config_dict.get("model")
        if name == "ALT":
            model = name = self._own_model()
        if isinstance(name, str) and _registered(name) is None:
            raise ValueError(f"unknown model {name!r}: choose one of {', '.join(registered_models())}")
        return super()._get_model_and_dataset(model, dataset)

    def _own_model(self) -> str:
        """Register the class that ``backbone`` names, and return its model name."""
        from recbole_alt.registry import register_path  # late: it needs this module

        path = self.external_config_dict.get("backbone")
        if not isinstance(path, str):
            raise ValueError("model: ALT needs --backbone=package.module.Class, a ContextRecommender of your own")
        return register_path(path).__name__

    def _check_keys(self) -> None:
        known = set(self.internal_config_dict) | {key for keys in self.parameters.values() for key in keys}
        known |= {"model", "dataset", "config_files"}
        stages = self.final_config_dict["finetune"]
        for where, given in {
            "": self.external_config_dict,
            **{f"finetune: {s}: ": k for s, k in stages.items()},
        }.items():
            for key in given:
                close = difflib.get_close_matches(key, known, n=1, cutoff=0.85)
                if key not in known and close:
                    raise ValueError(f"{where}unknown key {key!r}: did you mean {close[0]!r}?")
                if key not in known:
                    getLogger().warning(
                        f"{where}neither RecBole nor recbole_alt knows the key {key!r}; it is passed on"
                    )

    # -- saving ------------------------------------------------------------------------------------------

    @classmethod
    def snapshot(cls, config: Config) -> ALTConfig:
        """A copy of any RecBole ``Config`` that :func:`torch.load` reads with ``weights_only=True``."""
        copy = cls.__new__(cls)
        copy.__setstate__(cls.__getstate__(config))
        return copy

    def __getstate__(self) -> dict[str, Any]:
        return {"values": {key: _to_plain(value) for key, value in self.final_config_dict.items()}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.compatibility_settings()
        self._init_parameters_category()
        self.final_config_dict = {key: _from_plain(value) for key, value in state["values"].items()}
        self.model = self.final_config_dict["model"]
        self.dataset = self.final_config_dict["dataset"]
        self.model_class = _registered(self.model)
        self.yaml_loader = self._build_yaml_loader()


def registered_models() -> list[str]:
    """Names of every ALT model RecBole can find."""
    package = "recbole.model.context_aware_recommender"
    names = (vars(module) for name, module in sys.modules.items() if name.startswith(f"{package}.{PREFIX.lower()}"))
    return sorted(key for content in names for key in content if key.startswith(PREFIX))


def require_registered(model: str, file: str | os.PathLike[str]) -> None:
    """Refuse the model of a checkpoint that nobody registered; code that a file names is never imported.

    Raises:
        ValueError: ``model`` is not among :func:`registered_models`.
    """
    if model not in registered_models():
        raise ValueError(
            f"{os.fspath(file)!r} is of {model}, which is not registered: import its backbone's class and call "
            "recbole_alt.register(Class) first"
        )


def _registered(name: str) -> type | None:
    return get_model(name) if name in registered_models() else None


def _yaml_loader() -> type[yaml.SafeLoader]:
    """YAML's safe loader, which also reads ``1e-4`` as a number, as RecBole does."""

    class Loader(yaml.SafeLoader):
        pass

    source = Config._build_yaml_loader(None)
    for first, resolvers in source.yaml_implicit_resolvers.items():
        for tag, pattern in resolvers:
            if tag == "tag:yaml.org,2002:float":
                Loader.add_implicit_resolver(tag, pattern, [first])
    return Loader


def _merge_stages(*layers: Mapping[str, Any] | None) -> dict[str, dict[str, Any]]:
    """``finetune`` of several layers: a later one changes single keys of a stage and leaves the others.

    Raises:
        ValueError: a layer is not ``{stage: {key: value}}``.
    """
    merged: dict[str, dict[str, Any]] = {}
    for layer in layers:
        if layer is not None and not isinstance(layer, Mapping):
            raise ValueError(f"finetune must be like {{joint: {{epochs: 5}}}}, not {layer!r}")
        for stage, keys in (layer or {}).items():
            if keys is not None and not isinstance(keys, Mapping):
                raise ValueError(f"finetune: {stage} must be like {{epochs: 5}}, not {keys!r}")
            merged[stage] = {**merged.get(stage, {}), **(keys or {})}
    return merged


def _parse(text: str) -> Any:
    """A value given as text: a Python literal, a YAML list or mapping, a truth value, null, or the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        pass
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if text in ("~", "null"):
        return None
    if text[:1] in ("[", "{"):
        try:
            return yaml.load(text, Loader=_yaml_loader())
        except yaml.YAMLError:
            raise ValueError(f"{text!r} is neither a Python literal nor YAML") from None
    return text


def _to_plain(value: Any) -> Any:
    """Only what a safe unpickler reads: enums and devices become tagged dictionaries."""
    if isinstance(value, enum.Enum):
        return {"__enum__": [type(value).__name__, value.name]}
    if isinstance(value, torch.device):
        return {"__device__": str(value)}
    if isinstance(value, dict):
        return {key: _to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_to_plain(item) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)


def _from_plain(value: Any) -> Any:
    if isinstance(value, dict):
        if "__enum__" in value:
            kind, name = value["__enum__"]
            return getattr(recbole_enums, kind)[name]
        if "__device__" in value:
            device = torch.device(value["__device__"])
            return device if device.type != "cuda" or torch.cuda.is_available() else torch.device("cpu")
        return {key: _from_plain(item) for key, item in value.items()}
    return [_from_plain(item) for item in value] if isinstance(value, list) else value
