"""Where configuration becomes towers and objectives."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from recbole_alt.data.prompts import PromptTable
from recbole_alt.model.alignment import AlignmentModel
from recbole_alt.model.backbones import Backbone
from recbole_alt.model.language import LanguageModel, TextTower, load_language_model
from recbole_alt.model.objectives.contrastive import ContrastiveObjective
from recbole_alt.model.objectives.masked_language import MaskedLanguageObjective
from recbole_alt.model.objectives.masked_tabular import MaskedTabularObjective
from recbole_alt.model.pruning import prune_vocabulary
from recbole_alt.model.targets import TableTargets


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
    return load_language_model(
        config["language_model"],
        layers=config["language_model_layers"],
        pooling=config["pooling"],
        precision=config["precision"],
        gradient_checkpointing=bool(config["gradient_checkpointing"]),
        frozen_layers=config["frozen_layers"],
        lora_rank=config["lora_rank"],
        lora_alpha=config["lora_alpha"],
        random_seed=config["seed"] if config["language_model_weights"] == "random" else None,
    )


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
    table_size, text_size = backbone.representation_size, text.hidden_size
    objectives: dict[str, nn.Module] = {}
    targets = None
    if "contrastive" in config["objectives"]:
        objectives["contrastive"] = ContrastiveObjective(
            table_size,
            text_size,
            size=config["contrast_size"],
            head=config["contrast_head"],
            temperature=config["contrast_temperature"],
            max_rows=config["contrast_rows"],
        )
    if "masked_language" in config["objectives"]:
        vocabulary = text.language_model.encoder.config.vocab_size
        token_ids = prompts.value_token_ids if config["masked_language_vocabulary"] == "prompts" else range(vocabulary)
        objectives["masked_language"] = MaskedLanguageObjective(
            text_size, table_size, torch.as_tensor(np.asarray(token_ids))
        )
    if "masked_tabular" in config["objectives"]:
        targets = TableTargets(dataset[:], backbone.fields, bins=config["float_target_bins"])
        objectives["masked_tabular"] = MaskedTabularObjective(
            table_size,
            text_size,
            targets.fields,
            loss=config["masked_tabular_loss"],
            n_noise=config["masked_tabular_noise"],
            size=config["masked_tabular_size"],
        )
    if not objectives:
        raise ValueError("objectives is empty: name at least one of contrastive, masked_language, masked_tabular")
    weights = config["objective_weights"] or {}
    for name in weights:
        if name not in objectives:
            raise ValueError(f"objective_weights: {name!r} is not among the objectives {', '.join(objectives)}")
    model = AlignmentModel(backbone, text, objectives, weights=weights, targets=targets, mask_id=prompts.special.mask)
    return model.to(config["device"])
