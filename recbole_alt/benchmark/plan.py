"""What a campaign runs: its axes, its single runs in order, and the configuration of each."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from recbole_alt.benchmark.grid import as_override, combinations, read_grid
from recbole_alt.config import PREFIX, ALTConfig, registered_models
from recbole_alt.keys import MODES
from recbole_alt.study.axes import ABLATIONS, COMPLETE, PLAIN, SPLITS, DataSpec, Run
from recbole_alt.yaml_files import read_yaml

#: Keys of the configuration that a campaign sets itself.
_OWN_KEYS = {
    "model", "dataset", "seed", "train_share", "finetune_modes", "finetune_mode", "plain_baseline", "resume",
    "result_file", "pretrained_checkpoint",
}  # fmt: skip


def _axes() -> list[Any]:
    return [axis for axis in fields(Campaign) if axis.init]


@dataclass(frozen=True)
class Campaign:
    """Everything that is to be compared.

    Attributes:
        models: CTR models, as RecBole names them; ``all`` for every one there is.
        datasets: see :class:`DataSpec`.
        language_models: folders, packages or hub ids; none: the one that the configuration names.
        seeds: of the runs. The first one also splits.
        modes: of finetuning.
        ablations: names from :data:`ABLATIONS`.
        variants: further changes of the configuration to compare, name → keys; ``finetune_modes`` among them says which
            modes a variant makes sense for.
        budgets: further ``pretrain_steps`` to align for.
        tuned_alone: ablations, variants and budgets (``steps_<n>``) that get parameters of their own, or ``all``; the
            rest take what was chosen for the complete method.
        train_shares: of the training interactions.
        params_file: ranges searched on validation for each stage, or ``none``.
        tuning_trials: at most so many combinations of these are tried.
        tuning_seeds: each combination is tried with so many of the first seeds; their mean chooses.
        keys: of the configuration, for every run.

    Raises:
        ValueError: unknown names, no seed, and the like.
    """

    models: list[str]
    datasets: list[DataSpec]
    language_models: list[str | None] = field(default_factory=lambda: [None])
    seeds: list[int] = field(default_factory=lambda: [2020, 2021, 2022])
    modes: list[str] = field(default_factory=lambda: list(MODES))
    ablations: list[str] = field(default_factory=list)
    variants: dict[str, dict[str, Any]] = field(default_factory=dict)
    budgets: list[int] = field(default_factory=list)
    tuned_alone: list[str] = field(default_factory=list)
    train_shares: list[float] = field(default_factory=lambda: [1.0])
    params_file: str = "compatibility"
    tuning_trials: int = 6
    tuning_seeds: int = 1
    keys: dict[str, Any] = field(default_factory=dict)
    _configs: dict[Run, ALTConfig] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        known = [name.removeprefix(PREFIX) for name in registered_models()]
        if self.models == ["all"]:
            object.__setattr__(self, "models", known)
        self._check_names({"models": known, "modes": MODES, "ablations": list(ABLATIONS)})
        self._check_variants()
        changed = [name for name in self.changes if name != COMPLETE]
        if self.tuned_alone == ["all"]:
            object.__setattr__(self, "tuned_alone", changed)
        self._check_names({"tuned_alone": changed})
        self._check_lists()
        self._check_keys()

    def _check_names(self, known: Mapping[str, Sequence[str]]) -> None:
        for name, allowed in known.items():
            for value in getattr(self, name):
                if value not in allowed:
                    raise ValueError(f"{name}: {value!r} is none of {', '.join(allowed) or 'those asked for'}")

    def _check_lists(self) -> None:
        for axis in _axes():
            values = getattr(self, axis.name)
            if isinstance(values, list):
                if not values and axis.name not in ("modes", "ablations", "budgets", "tuned_alone"):
                    raise ValueError(f"{axis.name} is empty")
                if any(value in values[:i] for i, value in enumerate(values)):
                    raise ValueError(f"{axis.name} names something twice: {values}")
        if len({data.label for data in self.datasets}) < len(self.datasets):
            raise ValueError("datasets: two have the same name; name their files otherwise")
        if not 1 <= self.tuning_seeds <= len(self.seeds):
            raise ValueError(f"tuning_seeds must be between 1 and the {len(self.seeds)} seeds, not {self.tuning_seeds}")

    def _check_keys(self) -> None:
        own = _OWN_KEYS if self.language_models == [None] else _OWN_KEYS | {"language_model"}
        for key in sorted(own & self.keys.keys()):
            raise ValueError(f"{key} is what the campaign itself sets; leave it out")
        for tuned in self.grid:
            if tuned["name"] in self.keys:
                raise ValueError(f"{tuned['name']} is tuned, and --{tuned['name']} fixes it; leave one")
        if self.keys.get("split_seed", 0) is None:
            raise ValueError("split_seed: paired runs share one split; give a number, or leave it out")

    def _check_variants(self) -> None:
        if not isinstance(self.variants, dict):
            raise ValueError(f"variants must be 'name: {{key: value}}' pairs, not {self.variants!r}")
        tuned = {range_["name"] for range_ in self.grid}
        for name, changes in self.variants.items():
            if not re.fullmatch(r"(?!steps_)[A-Za-z]\w*", str(name)) or name in (PLAIN, COMPLETE, *ABLATIONS):
                raise ValueError(f"variants: {name!r} is taken, or no word of letters, digits and underscores")
            if not isinstance(changes, dict):
                raise ValueError(f"variants: {name} must hold 'key: value' pairs, not {changes!r}")
            for key in changes:
                if key in _OWN_KEYS - {"finetune_modes"}:
                    raise ValueError(f"variants: {name}: {key} is what the campaign itself sets; leave it out")
                if key in tuned:
                    raise ValueError(f"variants: {name}: {key} is tuned; name another grid in params_file")

    @property
    def changes(self) -> dict[str, dict[str, Any]]:
        """Changes of the configuration: the complete method's, ablations', variants' and other budgets'."""
        budgets = {f"steps_{steps}": {"pretrain_steps": steps} for steps in self.budgets}
        return {COMPLETE: {}, **{name: ABLATIONS[name] for name in self.ablations}, **self.variants, **budgets}

    @property
    def grid(self) -> list[dict[str, Any]]:
        """Ranges as read; empty where nothing is tuned."""
        return [] if self.params_file == "none" else read_grid(self.params_file)

    def runs(self) -> list[Run]:
        """All runs, those that share data or an alignment together."""
        made = []
        for data in self.datasets:
            for share in self.train_shares:
                for model in self.models:
                    made += [Run(data, share, model, None, PLAIN, "plain", seed) for seed in self.seeds]
                    for language in self.language_models:
                        for variant, changes in self.changes.items():
                            stages = changes.get("finetune_modes", self.modes)
                            made += [
                                Run(data, share, model, language, variant, stage, seed)
                                for seed in self.seeds
                                for stage in stages
                            ]
        return made

    def tuning_of(self, run: Run) -> Run:
        """What chooses the parameters of ``run``, here with the first seed: the complete method for most ablations."""
        own = run.variant in (PLAIN, *self.tuned_alone)
        return replace(run, variant=run.variant if own else COMPLETE, seed=self.seeds[0])

    def trained_to_tune(self, tuning: Run) -> list[Run]:
        """``tuning`` with each seed whose validation scores choose."""
        return [replace(tuning, seed=seed) for seed in self.seeds[: self.tuning_seeds]]

    def trials(self, run: Run) -> list[dict[str, Any]]:
        """Parameters to try for ``run``; one empty combination where nothing is tuned."""
        ranges = self.grid
        if run.stage == "lm":  # has no CTR model to drop anything of
            ranges = [tuned for tuned in ranges if "drop" not in tuned["name"]]
        config = self.config(run, {})
        usable = [tuned for tuned in ranges if as_override(tuned["name"], 0, config) != {}]
        return combinations(usable, self.tuning_trials)

    def config(self, run: Run, parameters: Mapping[str, Any]) -> ALTConfig:
        """The configuration of ``run`` with tuned ``parameters``, which win over everything in stage 2."""
        if run.cell not in self._configs:  # they differ in their seeds alone
            self._configs[run.cell] = self._whole_config(run)
        whole = self._configs[run.cell]
        config = ALTConfig.__new__(ALTConfig)
        config.__dict__.update(vars(whole), final_config_dict=dict(whole.final_config_dict))
        config["seed"] = run.seed
        overrides = dict((config["finetune"] or {}).get(run.stage) or {})
        for name, value in parameters.items():
            overrides |= as_override(name, value, config)
        config["finetune"] = {run.stage: overrides}
        return config

    def _whole_config(self, run: Run) -> ALTConfig:
        keys = {"split_seed": self.seeds[0], **self.keys}
        if run.variant != PLAIN:
            keys |= self.changes[run.variant]
        if run.language_model is not None:
            keys["language_model"] = run.language_model
        if run.data.split:
            keys["eval_args"] = SPLITS[run.data.split]
        keys |= {"seed": run.seed, "train_share": run.train_share, "plain_baseline": run.stage == "plain"}
        keys["finetune_modes"] = [] if run.stage == "plain" else [run.stage]
        return ALTConfig(PREFIX + run.model, run.data.name, [run.data.file] if run.data.file else [], keys)

    def to_json(self) -> dict[str, Any]:
        """What :meth:`from_mapping` reads."""
        given = {axis.name: getattr(self, axis.name) for axis in _axes()}
        spell = [f"{d.name}{':' + d.file if d.file else ''}{'@' + d.split if d.split else ''}" for d in self.datasets]
        return given | {"datasets": spell}

    @classmethod
    def from_mapping(cls, given: Mapping[str, Any]) -> Campaign:
        """A campaign from plain values, as of a YAML file or the command line; empty ones count as not given.

        ``seeds`` may be a number of seeds, ``split`` a list of splits for the datasets that name none.

        Raises:
            ValueError: an unknown name, or a value of the wrong kind.
        """
        values = {key: value for key, value in given.items() if value is not None}
        splits = values.pop("split", [None])
        for key in values.keys() - {axis.name for axis in _axes()}:
            raise ValueError(f"{key!r} is none of {', '.join(axis.name for axis in _axes())}, split")
        for key in ("models", "datasets"):
            if key not in values:
                raise ValueError(f"{key} is missing: give --{key}=..., or a campaign file")
        seeds = values.get("seeds")
        if isinstance(seeds, int):
            values["seeds"] = list(range(2020, 2020 + seeds))
        specs = [DataSpec.parse(text) for text in values["datasets"]]
        values["datasets"] = [
            replace(spec, split=split) for spec in specs for split in ([spec.split] if spec.split else splits)
        ]
        values["models"] = [str(name).removeprefix(PREFIX) for name in values["models"]]
        for split in splits:
            if split is not None and split not in SPLITS:
                raise ValueError(f"split: {split!r} is none of {', '.join(SPLITS)}")
        return cls(**values)


def read_campaign(file: str) -> dict[str, Any]:
    """The values of a YAML campaign file, for :meth:`Campaign.from_mapping`.

    Raises:
        ValueError: see :func:`recbole_alt.yaml_files.read_yaml`.
    """
    return read_yaml(file, "campaign")
