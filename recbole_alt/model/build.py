"""Where configuration becomes towers and objectives."""

from collections.abc import Mapping
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import torch
from torch import Tensor

from recbole_alt.data.prompts import PromptTable
from recbole_alt.files import cache_folder
from recbole_alt.key_table import OBJECTIVES
from recbole_alt.model.alignment import AlignmentModel
from recbole_alt.model.backbones import Backbone
from recbole_alt.model.grounding import ground
from recbole_alt.model.language import LanguageModel, load_language_model
from recbole_alt.model.machine import frozen_layers_of
from recbole_alt.model.objectives.objective import Objective
from recbole_alt.model.onnx_runtime import require_onnx
from recbole_alt.model.pruning import prune_vocabulary
from recbole_alt.model.state_store import StateFolder
from recbole_alt.model.text_tower import TextTower
from recbole_alt.model.text_vectors import embed_by_product, field_name, id_field, text_vectors, with_text_fields


def build_backbone(config: Any, dataset: Any, model_class: type) -> Backbone:
    """The CTR model of ``model_class``, initialised as RecBole does, as a tower; ``text_field`` gives it more fields.

    Raises:
        ValueError: its constructor or its forward fails, as they do where sizes do not go together; or a side has no
            texts.
    """
    sides = config["text_field"] or []
    vectors = {side: load_text_vectors(config, dataset, side, "text_field") for side in sides}
    seen_by_model = with_text_fields(config, dataset, vectors)
    text_fields = [field_name(side) for side in sides]
    try:
        model = model_class(*seen_by_model).to(config["device"])
        embed_by_product(model, text_fields)
        return Backbone(
            model,
            dataset[:2].to(config["device"]),
            join_field_embeddings=config["join_field_embeddings"],
            text_fields=text_fields,
        )
    except (ValueError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # an assertion, an index out of range, …: RecBole's models check little
        said = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(
            f"{model_class.__name__} can't be built with these keys and data ({said}): see which keys it reads in "
            "RecBole's properties, and what they may be in docs/keys.md"
        ) from error


def load_text_vectors(config: Any, dataset: Any, side: str, key: str) -> Tensor:
    """See :func:`~recbole_alt.model.text_vectors.text_vectors`."""

    def load() -> LanguageModel:
        return build_text(config, dataset.prompts).language_model.to(config["device"])

    return text_vectors(dataset, side, load, key)


def ground_backbone(config: Any, backbone: Backbone, dataset: Any, known: Mapping[str, Tensor] | None = None) -> None:
    """Ground the embeddings of the sides in ``grounded``, and of those of which vectors [n, K] are ``known``.

    Raises:
        ValueError: a side has no ids or no texts, or the model scores no embeddings of its ids.
    """
    vectors = dict(known or {})
    for side in config["grounded"] or []:
        if side not in vectors:
            vectors[side] = load_text_vectors(config, dataset, side, "grounded")
    for side, of_side in vectors.items():
        field = id_field(dataset, side, "grounded")
        ground(backbone, side, field, of_side, dataset[:2].to(config["device"]))


def load_configured_language_model(config: Any) -> LanguageModel:
    """The pretrained language model the configuration names."""
    same = ("pooling", "precision", "gradient_checkpointing", "lora_rank", "lora_alpha")
    language_model = load_language_model(
        config["language_model"],
        layers=config["language_model_layers"],
        random_seed=config["seed"] if config["language_model_weights"] == "random" else None,
        frozen_layers=frozen_layers_of(config),
        device=config["device"],
        **{key: config[key] for key in same},
    )
    language_model.state_folder = state_folder(config)
    language_model.uses_onnx = config["encoder_runtime"] == "onnx"
    if language_model.uses_onnx:
        if not language_model.is_fixed:
            raise ValueError("encoder_runtime: onnx can't train the language model: set frozen_layers: all")
        if config["device"].type != "cpu":
            raise ValueError("encoder_runtime: onnx runs on processors: set use_gpu: false, or give torch")
        require_onnx()
    return language_model


def state_folder(config: Any) -> StateFolder | None:
    """Where states of texts are kept for other runs, as ``text_cache_dir`` and ``text_cache_gib`` say."""
    given = config["text_cache_dir"]
    if given is None:
        return None
    root = cache_folder() if given == "auto" else Path(given).expanduser()
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
    ground_backbone(config, backbone, dataset)
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
