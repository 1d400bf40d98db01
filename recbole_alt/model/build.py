"""Where configuration becomes towers and objectives."""

import os
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import torch

from recbole_alt.data.prompts import PromptTable
from recbole_alt.key_table import OBJECTIVES
from recbole_alt.model.alignment import AlignmentModel
from recbole_alt.model.backbones import Backbone
from recbole_alt.model.eight_bits import require_onnx
from recbole_alt.model.language import LanguageModel, load_language_model
from recbole_alt.model.objectives.objective import Objective
from recbole_alt.model.pruning import prune_vocabulary
from recbole_alt.model.state_store import StateFolder
from recbole_alt.model.text_tower import TextTower


def build_backbone(config: Any, dataset: Any, model_class: type) -> Backbone:
    """The CTR model of ``model_class``, initialised as RecBole does, as a tower.

    Raises:
        ValueError: its constructor or its forward fails, as they do where sizes do not go together.
    """
    try:
        return Backbone(
            model_class(config, dataset).to(config["device"]),
            dataset[:2].to(config["device"]),
            join_field_embeddings=config["join_field_embeddings"],
        )
    except (ValueError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # an assertion, an index out of range, …: RecBole's models check little
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(
            f"{model_class.__name__} can't be built with these keys and data ({said}): see which keys it reads in "
            "RecBole's properties, and what they may be in docs/keys.md"
        ) from error


def load_configured_language_model(config: Any) -> LanguageModel:
    """The pretrained language model the configuration names."""
    same = ("pooling", "precision", "gradient_checkpointing", "frozen_layers", "lora_rank", "lora_alpha")
    language_model = load_language_model(
        config["language_model"],
        layers=config["language_model_layers"],
        random_seed=config["seed"] if config["language_model_weights"] == "random" else None,
        **{key: config[key] for key in same},
    )
    language_model.state_folder = state_folder(config)
    language_model.eight_bits = config["encoder_runtime"] == "onnx-int8"
    if language_model.eight_bits:
        if not language_model.is_fixed:
            raise ValueError("encoder_runtime: onnx-int8 can't train the language model: set frozen_layers: all")
        if config["device"].type != "cpu":
            raise ValueError("encoder_runtime: onnx-int8 runs on processors: set use_gpu: false, or give torch")
        require_onnx()
    return language_model


def state_folder(config: Any) -> StateFolder | None:
    """Where states of texts are kept for other runs, as ``text_cache_dir`` and ``text_cache_gib`` say."""
    given = config["text_cache_dir"]
    if given is None:
        return None
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    root = cache / "recbole_alt" if given == "auto" else Path(given).expanduser()
    return StateFolder(root, int(config["text_cache_gib"] * 2**30))


def build_text(config: Any, prompts: PromptTable) -> TextTower:
    """The language model with its pretrained weights, over the dataset's segments."""
    language_model = load_configured_language_model(config)
    longest = language_model.max_tokens
    if longest is not None and config["max_text_tokens"] > longest:
        raise ValueError(f"max_text_tokens={config['max_text_tokens']}, but {config['language_model']} reads {longest}")
    return TextTower(language_model, len(prompts.segments))


def build_alignment(config: Any, dataset: Any, model_class: type) -> AlignmentModel:
    """Both towers and the objectives asked for; the backbone first, so that it starts like the plain one."""
    backbone = build_backbone(config, dataset, model_class)
    prompts = dataset.prompts
    text = build_text(config, prompts)
    if config["language_model_vocabulary"] == "prompts":
        prune_vocabulary(text.language_model.encoder, prompts.token_ids)
    objectives: dict[str, Objective] = {
        name: resolve_name(place).build(config, backbone, text, dataset)
        for name, place in OBJECTIVES.items()
        if name in config["objectives"]
    }
    if not objectives:
        raise ValueError(f"objectives is empty: it must name at least one of {', '.join(OBJECTIVES)}")
    weights = config["objective_weights"] or {}
    for name in weights:
        if name not in objectives:
            raise ValueError(f"objective_weights: {name!r} is not among the objectives {', '.join(objectives)}")
    model = AlignmentModel(backbone, text, objectives, weights=weights, mask_id=prompts.special.mask)
    return model.to(config["device"])
