"""Configuration: RecBole's ``Config`` with our defaults, stricter about what it is given.

Later layers win: RecBole's ``overall.yaml`` and its files for the *base* model and the dataset, our
``overall.yaml``, ``model/ALT_<backbone>.yaml`` and ``dataset/<dataset>.yaml``, the user's files, the
dictionary, the arguments.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from logging import getLogger
from pathlib import Path
from typing import Any

import torch
from recbole.config import Config
from recbole.utils import EvaluatorType

from recbole_alt import checkpoints
from recbole_alt.arguments import parse_arguments
from recbole_alt.compat import replaces
from recbole_alt.evaluation import check_direction, check_evaluation
from recbole_alt.keys import check_names, check_stages, check_values
from recbole_alt.launch import check_launch, launched
from recbole_alt.template_layers import refuse_excluded, without_fields
from recbole_alt.values import parse_value
from recbole_alt.yaml_files import read_yaml

PREFIX = "ALT_"

#: The model and the dataset of a configuration that names none.
DEFAULT_MODEL, DEFAULT_DATASET = "ALT_DCN", "ml-100k"

#: Of the modules of our models: where RecBole looks for one by its name in lower case.
PLACE = "recbole.model.context_aware_recommender."


def properties_dir() -> Path:
    """The folder of our YAML files: inside an installed package, or at the top of a checkout."""
    installed = Path(__file__).resolve().with_name("properties")
    return installed if installed.is_dir() else installed.parent.with_name("properties")


def base_model_name(model: str) -> str | None:
    """``"ALT_DCN"`` → ``"DCN"``; None for a model that is not ours."""
    return model[len(PREFIX) :] if model.startswith(PREFIX) else None


@replaces(Config, "_load_internal_config_dict")
def _load_layers(original: Callable[..., None], self: Any, model: str, model_class: type, dataset: str) -> None:
    """For our models, load RecBole's layers of the base model, then ours; RecBole knows no file of ours."""
    base = base_model_name(model)
    original(self, base or model, model_class, dataset)
    root = properties_dir()
    files = (root / "overall.yaml", root / "model" / f"{model}.yaml", root / "dataset" / f"{dataset}.yaml")
    for file in files if base else ():
        if file.is_file():
            ours = read_yaml(file)
            stages = merge_stages(self.internal_config_dict.get("finetune"), ours.get("finetune"))
            self.internal_config_dict.update(ours | {"finetune": stages})
    given = self.external_config_dict
    if base and "finetune" in given:  # RecBole would put it in place of the stages that it does not name
        given["finetune"] = merge_stages(self.internal_config_dict.get("finetune"), given["finetune"])


class ALTConfig(Config):
    """RecBole's ``Config`` for an ``ALT_<backbone>`` model.

    Unlike RecBole's, it never reads the command line; it reads values given as text as Python literals or YAML and
    never evaluates them; it refuses unknown keys and values that :data:`recbole_alt.keys.KEYS` does not allow; and it
    can be saved and loaded without running code.

    Args:
        model: ``ALT_<backbone>``, or ``ALT`` for the class that the key ``backbone`` names.
        dataset: Name of the atomic files.
        config_file_list: YAML files; a later one wins.
        config_dict: Further keys, which win over the files.
        arguments: Keys as on a command line, such as ``["--epochs=3"]``, which win over everything else;
            ``--config_files=A B`` adds to the YAML files.
        register: Turns the path ``package.module.Class`` of ``backbone`` into a registered model's class;
            :func:`recbole_alt.registry.make_config` passes it.

    Attributes:
        arguments: The arguments as given.
        in_python: Whether keys were given otherwise, too: as a dictionary or in ``config_file_list``.
        notes: Warnings about the configuration, kept until there is a log; see :meth:`log_notes`.

    Raises:
        ValueError: unknown model, unknown key, value out of range; the message says what to write.
    """

    def __init__(
        self,
        model: str | None = None,
        dataset: str | None = None,
        config_file_list: list[str] | None = None,
        config_dict: dict[str, Any] | None = None,
        arguments: Sequence[str] = (),
        register: Callable[[str], type] | None = None,
    ):
        self.notes: list[str] = []
        self.arguments = list(arguments)
        self.in_python = bool(config_dict or config_file_list)
        self._register = register
        named = parse_arguments(self.arguments).get("config_files", "").split()
        super().__init__(model, dataset, [*(config_file_list or []), *named], dict(config_dict or {}))
        if self.final_config_dict["eval_type"] == EvaluatorType.VALUE:  # every run reports both
            given = self.final_config_dict["metrics"]
            absent = [name for name in ("AUC", "LogLoss") if name.lower() not in {m.lower() for m in given}]
            self.final_config_dict["metrics"] = [*given, *absent]

    def log_notes(self) -> None:
        """Write the notes to the log, which begins after the configuration is made."""
        for note in self.notes:
            getLogger().warning(note)

    def _update_internal_config_dict(self, file: str) -> dict[str, Any]:
        """Read a file of RecBole's, as :func:`~recbole_alt.yaml_files.read_yaml` reads ours."""
        content = read_yaml(file)
        self.internal_config_dict.update(content)
        return content

    def _load_config_files(self, file_list: list[str] | None) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        for file in file_list or []:
            content = read_yaml(file)
            if "config_files" in content:
                write = "which would not be read: write --config_files='first.yaml second.yaml'"
                raise ValueError(f"config file {file!r}: config_files can't be named inside a file, {write}")
            merged.update(content)
        return merged

    def _convert_config_dict(self, config_dict: dict[str, Any]) -> dict[str, Any]:
        return {key: parse_value(key, value) if isinstance(value, str) else value for key, value in config_dict.items()}

    def _load_cmd_line(self) -> dict[str, Any]:
        return self._convert_config_dict(parse_arguments(self.arguments))

    def _get_model_and_dataset(self, model: str | None, dataset: str | None) -> tuple[str, type, str]:
        check_launch(self.external_config_dict)  # before RecBole waits for the others
        name = self._named("model", model, DEFAULT_MODEL)
        if name != "ALT" and self.external_config_dict.get("backbone") is not None:
            own = self.external_config_dict["backbone"]
            raise ValueError(f"backbone needs --model=ALT: beside model: {name}, {own!r} would not be read")
        name = self._own_model() if name == "ALT" else name
        if not isinstance(name, str) or _registered(name) is None:
            raise ValueError(f"model must be one of {', '.join(registered_models())}, not {name!r}")
        dataset = self._named("dataset", dataset, DEFAULT_DATASET)
        if not isinstance(dataset, str):
            raise ValueError(f"dataset must be the name of atomic files, not {dataset!r}: quote it")
        return super()._get_model_and_dataset(name, dataset)

    def _named(self, key: str, given: Any, default: str) -> Any:
        """The argument, or else what a file or the command line says; a ValueError if that is empty."""
        name = self.external_config_dict.get(key, default) if given is None else given
        if name in (None, ""):
            raise ValueError(f"{key} is empty: name one, or leave it out, which means {default}")
        return name

    def _own_model(self) -> str:
        """Register the class that ``backbone`` names, and return the name of its model."""
        path = self.external_config_dict.get("backbone")
        if not isinstance(path, str):
            raise ValueError("model: ALT needs --backbone=package.module.Class, a ContextRecommender of your own")
        if self._register is None:
            raise ValueError(
                f"model: ALT needs backbone={path!r} registered: call recbole_alt.make_config instead of ALTConfig, or "
                "recbole_alt.register(Class) and give model: ALT_<Class>"
            )
        return self._register(path).__name__

    def _get_final_config_dict(self) -> dict[str, Any]:
        """All layers merged and checked, before RecBole derives anything from them."""
        values = super()._get_final_config_dict()
        stages = merge_stages(self.internal_config_dict.get("finetune"), self.external_config_dict.get("finetune"))
        values["finetune"] = stages
        shipped, given = (layer.get("template", {}) for layer in (self.internal_config_dict, self.external_config_dict))
        for wording in (shipped, given):
            refuse_excluded(wording)
        if isinstance(shipped, dict) and isinstance(given, dict):  # a user's parts, and the others of the dataset's
            values["template"] = {**without_fields(shipped, values.get("unused_col")), **given}
        values.pop("local_rank", None)  # RecBole takes the key alone for a launch of its own
        own = _own_keys(_registered(self.model))
        strict = not values.get("allow_unknown_keys")
        if strict:
            check_names(self.external_config_dict, {*own, *self.internal_config_dict})
        check_stages(stages, own, strict)
        check_values(values)
        self.notes += check_evaluation(values)
        check_direction(values["valid_metric"], self.external_config_dict.get("valid_metric_bigger"))
        return values

    def _init_device(self) -> None:
        """Use no GPU where ``use_gpu`` is false, and without ``gpu_id`` those in ``CUDA_VISIBLE_DEVICES``.

        RecBole reads ``gpu_id`` only, whose default is 0, and puts it into that variable. Of several processes, each
        uses one of the GPUs: the first the first one.
        """
        variable, values = "CUDA_VISIBLE_DEVICES", self.final_config_dict
        visible = os.environ.get(variable)
        if values["use_gpu"] is False:
            values["gpu_id"] = ""
        elif visible is not None and "gpu_id" not in self.external_config_dict:
            values["gpu_id"] = visible
        elif launched() > 1 and "gpu_id" not in self.external_config_dict:
            values["gpu_id"] = ",".join(map(str, range(int(os.environ.get("LOCAL_WORLD_SIZE") or launched()))))
        super()._init_device()
        if launched() > 1 and values["device"].type == "cuda":
            values["device"] = _gpu_of_process(int(os.environ["LOCAL_RANK"]))
        if values["use_gpu"] is False:  # RecBole has hidden all GPUs, from other configurations, too
            os.environ.pop(variable, None)
            os.environ.update({} if visible is None else {variable: visible})

    @classmethod
    def snapshot(cls, config: Config) -> ALTConfig:
        """A copy of any RecBole ``Config`` that :func:`torch.load` reads with ``weights_only=True``."""
        copy = cls.__new__(cls)
        copy.__setstate__(cls.__getstate__(config))
        return copy

    def __getstate__(self) -> dict[str, Any]:
        return {"values": {key: checkpoints.to_plain(value) for key, value in self.final_config_dict.items()}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.notes, self.arguments, self.in_python = [], [], False
        self.compatibility_settings()
        self._init_parameters_category()
        self.final_config_dict = {key: checkpoints.from_plain(value) for key, value in state["values"].items()}
        self.model = self.final_config_dict["model"]
        self.dataset = self.final_config_dict["dataset"]
        self.model_class = _registered(self.model)
        self.yaml_loader = self._build_yaml_loader()


checkpoints.trust(ALTConfig)


def _gpu_of_process(number: int) -> torch.device:
    """The GPU of the process with this number on its machine; a ValueError if there are too few of them."""
    if number >= torch.cuda.device_count():
        raise ValueError(
            f"process {number + 1} of this machine has no GPU of its own, as {torch.cuda.device_count()} can be used: "
            "start as many processes as GPUs, name these with gpu_id, or set use_gpu: false"
        )
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


def registered_models() -> list[str]:
    """Names of every ALT model RecBole can find."""
    start = PLACE + PREFIX.lower()
    modules = [module for name, module in sys.modules.items() if name.startswith(start)]
    return sorted(name for module in modules for name in vars(module) if name.startswith(PREFIX))


def require_registered(model: str, file: str | os.PathLike[str]) -> None:
    """Refuse the ``model`` of a checkpoint that nobody registered; code that a file names is never imported."""
    if _registered(model) is None:
        register = "import its backbone's class and call recbole_alt.register(Class) first"
        raise ValueError(f"{os.fspath(file)!r} is of {model}, which is not registered: {register}")


def _registered(name: Any) -> type | None:
    if not isinstance(name, str) or not name.startswith(PREFIX):
        return None
    return getattr(sys.modules.get(PLACE + name.lower()), name, None)


def _own_keys(model: type | None) -> tuple[str, ...]:
    """Names of the keys that a backbone of the user's own declares by an attribute ``keys``."""
    return tuple(getattr(getattr(model, "backbone_class", None), "keys", ()))


def merge_stages(*layers: Mapping[str, Any] | None) -> dict[str, dict[str, Any]]:
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
