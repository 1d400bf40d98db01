"""What a campaign compares: its axes, its single runs in order, and the configuration of each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from itertools import product
from pathlib import Path
from typing import Any

from recbole_alt.config import PREFIX, ALTConfig, registered_models
from recbole_alt.keys import FREE, MODES
from recbole_alt.reporting.runs import COMPLETE, CONTROL, PLAIN, Run, is_control
from recbole_alt.stages import stages_of
from recbole_alt.study.axes import ABLATIONS, SPLITS, DataSpec
from recbole_alt.study.axis_values import read_axes
from recbole_alt.study.given_keys import (
    OF_SINGLE_RUNS,
    OWN_KEYS,
    check_tuned,
    passed_over,
    refuse_own,
    refuse_tuned,
    refuse_without_effect,
    tuned_names,
)
from recbole_alt.study.ranges import read_ranges
from recbole_alt.unread import unread_keys

_MAY_BE_EMPTY = ("modes", "ablations", "budgets", "controls", "tuned_alone")


@dataclass
class Campaign:
    """Everything that is to be compared.

    Raises:
        ValueError: Unknown names, no seed, and the like.
    """

    models: list[str]  #: CTR models, as RecBole names them; ``all`` for every one there is.
    datasets: list[DataSpec]
    language_models: list[str | None] = field(default_factory=lambda: [None])  #: None for the configured one.
    seeds: list[int] = field(default_factory=lambda: list(range(2020, 2025)))  #: The first one also splits.
    modes: list[str] = field(default_factory=lambda: list(MODES))  #: Of finetuning.
    ablations: list[str] = field(default_factory=list)  #: Names from :data:`ABLATIONS`.
    variants: dict[str, dict[str, Any]] = field(default_factory=dict)  #: More of these, name → changes.
    budgets: list[int] = field(default_factory=list)  #: Further ``pretrain_steps``, as variants ``steps_<n>``.
    controls: list[str] = field(default_factory=list)  #: Variants to be made with others' texts, too, or ``all``.
    tuned_alone: list[str] = field(default_factory=list)  #: Variants with parameters of their own, or ``all``.
    train_shares: list[float] = field(default_factory=lambda: [1.0])  #: Of the training interactions.
    params_file: str = "compatibility"  #: Ranges searched on validation for each mode, or ``none``.
    tuning_trials: int = 10  #: At most so many draws from these are tried,
    tuning_seeds: int | None = None  #: each with so many of the first seeds, 2 by default; their mean chooses.
    widenings: int = 2  #: So often ranges become wider where a value at an end was chosen; half as many trials each.
    keys: dict[str, Any] = field(default_factory=dict)  #: Of the configuration, for every run.

    def __post_init__(self) -> None:
        self.ranges = [] if self.params_file == "none" else read_ranges(self.params_file)
        self._configs: dict[Run, ALTConfig] = {}
        self.notes: list[str] = []  # for the log
        self._check_variants()
        with_texts = [name for name in self.changes if not is_control(name)]
        self.controls = with_texts if self.controls == ["all"] else self.controls
        changed = [name for name in self.changes if name != COMPLETE]
        models = [name.removeprefix(PREFIX) for name in registered_models()]
        self.models = models if self.models == ["all"] else self.models
        self.tuned_alone = changed if self.tuned_alone == ["all"] else self.tuned_alone
        known = {"models": models, "modes": MODES, "ablations": list(ABLATIONS), "tuned_alone": changed}
        known["controls"] = with_texts
        for axis, values in ((axis, getattr(self, axis)) for axis in AXES):
            for value in values if isinstance(values, list) else ():
                if value not in known.get(axis, values):
                    allowed = ", ".join(known[axis]) or "the ablations, variants and budgets, of which there are none"
                    raise ValueError(f"{axis} must be among {allowed}, not {value!r}")
                if values.count(value) > 1:
                    raise ValueError(f"{axis} names something twice: {values}")
            if values == [] and axis not in _MAY_BE_EMPTY:
                raise ValueError(f"{axis} is empty")
        self._specs = {data.label: data for data in self.datasets}
        if len(self._specs) < len(self.datasets):
            raise ValueError("datasets: two have the same name; name their files otherwise")
        self._of_files = {data.label: data.read_keys() for data in self.datasets}
        names = [Path(name).name for name in self.language_models if name]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(
                f"language_models: two are called {twice[0]}, as runs would be: rename a folder, or make two campaigns"
            )
        self.tuning_seeds = min(2, len(self.seeds)) if self.tuning_seeds is None else self.tuning_seeds
        if not 1 <= self.tuning_seeds <= len(self.seeds):
            raise ValueError(f"tuning_seeds must be between 1 and the {len(self.seeds)} seeds, not {self.tuning_seeds}")
        check_tuned(self.ranges)
        self._check_keys()

    def _check_variants(self) -> None:
        for name, changes in self.variants.items():
            word = re.fullmatch(r"(?!steps_)[A-Za-z]\w*", name)
            if not word or name in (PLAIN, COMPLETE, *ABLATIONS):
                raise ValueError(f"variants: {name!r} is taken, or no word of letters, digits and underscores")
            if is_control(name) and (of := name.removesuffix(CONTROL)) not in self.variants:
                raise ValueError(f"variants: {name!r} is the control of {of!r}, which must be a variant, too")
            if not isinstance(changes, dict) or not all(isinstance(key, str) for key in changes):
                raise ValueError(f"variants: {name} must hold 'key: value' pairs, not {changes!r}")

    def _check_keys(self) -> None:
        own = OWN_KEYS.keys() - ({"language_model"} if self.language_models == [None] else set())
        for label, keys in self._of_files.items():
            where = f"datasets: {self._specs[label].file}: "
            refuse_own(where, keys, own - set(OF_SINGLE_RUNS))
            self.notes += passed_over(where, keys, self._specs[label].split)
        refuse_own("", self.keys, own)
        for name, changes in self.variants.items():
            refuse_own(f"variants: {name}: ", changes, own - {"finetune_modes"})
        for where, given in (("", self.keys), *((f"variants: {name}: ", of) for name, of in self.variants.items())):
            refuse_without_effect(where, given, self.datasets)
            refuse_tuned(where, given, self.ranges)
        self.notes += [f"{key} is given, and not read here: {why}" for key, why in self._unread(None, self.keys)]
        for name, changes in self.variants.items():
            for key, why in self._unread(name, changes):
                raise ValueError(f"variants: {name}: {key} changes nothing: {why}; leave it out")

    def _unread(self, variant: str | None, given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Keys, of all runs or of one variant's, that none of them reads, and why the last of them does not."""
        cells = dict.fromkeys(replace(run, seed=None) for run in self.runs() if variant in (None, run.variant))
        configs = [self.config(cell, {}) for cell in cells] if given else []
        unread = [unread_keys(config, stages_of(config)) for config in configs]
        for key in given:
            if unread and all(key in of for of in unread):
                yield key, unread[-1][key]

    @property
    def changes(self) -> dict[str, dict[str, Any]]:
        """Changes of the configuration: the complete method's, ablations', variants' and other budgets'."""
        budgets = {f"steps_{steps}": {"pretrain_steps": steps} for steps in self.budgets}
        ablations = {name: ABLATIONS.get(name, {}) for name in self.ablations}
        changes = {COMPLETE: {}, **ablations, **self.variants, **budgets}
        others = {f"{name}{CONTROL}": changes.get(name, {}) | {"shuffle_texts": "item"} for name in self.controls}
        return changes | {name: of for name, of in others.items() if name not in changes}

    def runs(self) -> list[Run]:
        """All runs; those that share data or an alignment stand together."""
        made = []
        for data, share, model in product(self._specs, self.train_shares, self.models):
            made += [Run(data, share, model, None, PLAIN, "plain", seed) for seed in self.seeds]
            for language, (variant, changes) in product(self.language_models, self.changes.items()):
                for seed, stage in product(self.seeds, changes.get("finetune_modes", self.modes)):
                    made.append(Run(data, share, model, language, variant, stage, seed))
        return made

    def tuned_as(self, run: Run) -> Run | None:
        """What, without a seed, the parameters of ``run`` are chosen for; None where nothing is tuned.

        Where ``run`` is of a variant that is not tuned alone, it is what that varies: of a control the same with its
        own texts, of others the complete method, or the plain model in its mode.
        """
        if not self.ranges:
            return None
        for variant in (run.variant, run.variant.removesuffix(CONTROL)):
            if variant in self.tuned_alone:
                return replace(run, variant=variant, seed=None)
        if run.stage == "plain":
            return replace(run, variant=PLAIN, language_model=None, seed=None)
        return replace(run, variant=COMPLETE, seed=None)

    def tuned_with(self, run: Run) -> list[Run]:
        """The runs, each with another seed, whose validation scores choose the parameters of ``run``."""
        cell = self.tuned_as(run)
        return [replace(cell, seed=seed) for seed in self.seeds[: self.tuning_seeds]] if cell else []

    def reads(self, run: Run, key: str) -> bool:
        """Whether the training of ``run`` reads a key of finetuning, under whatever name its model has for it."""
        config = self.config(run, {})
        unread = unread_keys(config, [run.stage])
        return any(name not in unread for name in as_override(key, 0, config))

    def config(self, run: Run, parameters: Mapping[str, Any]) -> ALTConfig:
        """The configuration of ``run`` with tuned ``parameters``, which win over everything in finetuning."""
        cell = replace(run, seed=None)  # seeds differ in nothing else
        if cell not in self._configs:
            self._configs[cell] = self._make_config(run)
        whole = self._configs[cell]
        config = ALTConfig.__new__(ALTConfig)
        config.__dict__.update(vars(whole), final_config_dict=dict(whole.final_config_dict))
        config["seed"] = self.seeds[0] if run.seed is None else run.seed
        overrides = dict((config["finetune"] or {}).get(run.stage) or {})
        for name, value in parameters.items():
            overrides |= as_override(name, value, config)
        config["finetune"] = {run.stage: overrides}
        return config

    def _make_config(self, run: Run) -> ALTConfig:
        keys = {**self.keys, **self.changes.get(run.variant, {})}
        if "split_seed" not in self._of_files[run.data]:
            keys = {"split_seed": self.seeds[0], **keys}
        if run.language_model is not None:
            keys["language_model"] = run.language_model
        data = self._specs[run.data]
        if data.split:
            keys["eval_args"] = SPLITS[data.split]
        keys |= {"seed": self.seeds[0], "train_share": run.train_share, "plain_baseline": run.stage == "plain"}
        keys |= {"finetune_modes": [] if run.stage == "plain" else [run.stage], "pretrained_checkpoint": None}
        return ALTConfig(PREFIX + run.model, data.name, [data.file] if data.file else [], keys)

    @property
    def defined(self) -> dict[str, dict[str, Any]]:
        """What the names of datasets and variants stand for, which must stay as it is when a campaign goes on."""
        datasets = {f"datasets: {data.label}": data.read_property_file() | data.read_keys() for data in self.datasets}
        variants = {f"variants: {name}": keys for name, keys in self.variants.items()}
        return {
            name: {key: value for key, value in keys.items() if key not in FREE}
            for name, keys in (datasets | variants).items()
        }

    def to_json(self) -> dict[str, Any]:
        """What :meth:`from_mapping` reads."""
        return {axis: getattr(self, axis) for axis in AXES} | {"datasets": list(map(str, self.datasets))}

    @classmethod
    def from_mapping(cls, given: Mapping[str, Any]) -> Campaign:
        """A campaign from plain values, as of a YAML file or the command line; see :func:`read_axes`.

        ``split`` is a list of splits for the datasets that name none.

        Raises:
            ValueError: An unknown name, or a value of the wrong kind.
        """
        values = read_axes(given)
        splits = values.pop("split", [None])
        for key in ("models", "datasets"):
            if key not in values:
                raise ValueError(f"{key} is missing: give --{key}=..., or a campaign file")
        for split in splits:
            if split is not None and split not in SPLITS:
                raise ValueError(f"split must be among {', '.join(SPLITS)}, not {split!r}")
        specs = [DataSpec.parse(text) for text in values["datasets"]]
        values["datasets"] = [replace(d, split=s) for d in specs for s in ([d.split] if d.split else splits)]
        values["models"] = [name.removeprefix(PREFIX) for name in values["models"]]
        return cls(**values)


#: What a campaign is made of: the names of its attributes, of its YAML file and of its options.
AXES = [axis.name for axis in fields(Campaign)]


def as_override(name: str, value: Any, config: Any) -> dict[str, Any]:
    """The keys of a model that ``name`` stands for; ``dropout_prob`` has other names in some, and none in others."""
    if name != "dropout_prob":
        return {name: value}
    theirs = [key for key in tuned_names(name) if config[key] is not None]
    return {key: [value] * len(config[key]) if isinstance(config[key], (list, tuple)) else value for key in theirs}
