"""Families of language models: where their layers are, and what can be done to them."""

from dataclasses import dataclass, replace
from logging import getLogger
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Family:
    """What is known of one architecture.

    Attributes:
        name: as its authors write it.
        layers: dotted path of its transformer layers inside an ``AutoModel``.
        embeddings: dotted paths of what stands before the first layer.
        causal: whether a token's state sees only the tokens before it.
        shared: whether all layers are one layer, used again and again.
        packs: whether texts that stand one after the other need nothing but positions and attention of their own.
    """

    name: str
    layers: str
    embeddings: tuple[str, ...] = ("embeddings",)
    causal: bool = False
    shared: bool = False
    packs: bool = False


#: The families the tests check, by Hugging Face's ``model_type``.
FAMILIES: dict[str, Family] = {
    "bert": Family("BERT", "encoder.layer", packs=True),
    "roberta": Family("RoBERTa", "encoder.layer", packs=True),
    "xlm-roberta": Family("XLM-RoBERTa", "encoder.layer", packs=True),
    "distilbert": Family("DistilBERT", "transformer.layer"),
    "albert": Family("ALBERT", "encoder.albert_layer_groups", shared=True, packs=True),
    "electra": Family("ELECTRA", "encoder.layer", ("embeddings", "embeddings_project"), packs=True),
    "mpnet": Family("MPNet", "encoder.layer"),
    "deberta-v2": Family("DeBERTa-v2", "encoder.layer"),
    "modernbert": Family("ModernBERT", "layers"),
    "gpt2": Family("GPT-2", "h", ("wte", "wpe"), causal=True, packs=True),
    "qwen2": Family("Qwen2", "layers", ("embed_tokens",), causal=True, packs=True),
    "qwen3": Family("Qwen3", "layers", ("embed_tokens",), causal=True, packs=True),
    "llama": Family("Llama", "layers", ("embed_tokens",), causal=True, packs=True),
}


def check_architecture(config: Any, name: str) -> None:
    """Refuse the configuration of an ``AutoModel``, called ``name``, that is no single stack of layers over one text.

    Raises:
        ValueError: names the key of ``config.json``.
    """
    wrong = None
    if getattr(config, "is_encoder_decoder", False):
        wrong = "is an encoder-decoder (is_encoder_decoder)"
    elif not hasattr(config, "hidden_size") or not hasattr(config, "vocab_size"):
        wrong = "reads no texts (it has no hidden_size or no vocab_size)"
    elif not hasattr(config, "num_hidden_layers"):
        wrong = "is no stack of layers (it has no num_hidden_layers)"
    if wrong:
        tested = ", ".join(family.name for family in FAMILIES.values())
        raise ValueError(
            f"language_model: {name}, of model_type {config.model_type} in its config.json, {wrong}, not a single "
            f"encoder or decoder of texts: choose a model of {tested} or one alike"
        )
    where, layers, padding = (
        f"in the config.json of {name}",
        config.num_hidden_layers,
        getattr(config, "pad_token_id", None),
    )
    if layers < 1:
        raise ValueError(f"language_model: num_hidden_layers {where} must be 1 or more, not {layers}")
    if padding is not None and padding >= config.vocab_size:
        size = f"its vocab_size of {config.vocab_size}"
        raise ValueError(f"language_model: pad_token_id {where} must be below {size}, not {padding}")


def family_of(encoder: Any) -> Family:
    """The family of a loaded ``AutoModel``; one not in :data:`FAMILIES` is looked at, with a warning."""
    kind = encoder.config.model_type
    if kind in FAMILIES:
        turned = bool(getattr(encoder.config, "is_decoder", False))  # an encoder whose tokens see only those before
        return replace(FAMILIES[kind], causal=FAMILIES[kind].causal or turned)
    from transformers.models.auto import modeling_auto as auto  # late: a plain run does without

    causal = kind in auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and kind not in auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
    getLogger().warning(
        f"language_model: {kind} is not among the families this version is tested with; it is taken for "
        f"{'a decoder' if causal else 'an encoder'}"
    )
    total = encoder.config.num_hidden_layers
    stacks = [name for name, part in encoder.named_modules() if isinstance(part, nn.ModuleList) and len(part) == total]
    words = [name for name, part in encoder.named_modules() if part is encoder.get_input_embeddings()]
    return Family(kind, stacks[0] if len(stacks) == 1 else "", tuple(words), causal=causal)


def keep_first_layers(encoder: Any, layers: int) -> None:
    """Drop all transformer layers of ``encoder`` after the first ``layers``, in place.

    Raises:
        ValueError: it has fewer, or its layers can't be found.
    """
    family, total = family_of(encoder), _checked_number("language_model_layers", layers, encoder, least=1)
    if layers == total:
        return
    if not family.shared:
        del layers_of(encoder, family, "language_model_layers")[layers:]
    elif len(layers_of(encoder, family, "language_model_layers")) > 1:
        raise ValueError(f"language_model_layers: the layers of this {family.name} are in groups, which can't be cut")
    encoder.config.num_hidden_layers = layers
    if getattr(encoder.config, "layer_types", None):
        encoder.config.layer_types = encoder.config.layer_types[:layers]


def freeze_first_layers(encoder: Any, layers: int) -> None:
    """Keep the embeddings and the first ``layers`` transformer layers as they are, in place.

    Raises:
        ValueError: it has fewer, they are one shared layer, or can't be found.
    """
    family = family_of(encoder)
    _checked_number("frozen_layers", layers, encoder, least=0)
    if family.shared:
        raise ValueError(f"frozen_layers: all layers of {family.name} are one; use lora_rank, or train it whole")
    present = dict(encoder.named_modules())  # ELECTRA projects its embeddings only where widths differ
    embeddings = [present[path] for path in family.embeddings if path in present]
    for part in [*embeddings, *layers_of(encoder, family, "frozen_layers")[:layers]]:
        part.requires_grad_(False)


def layers_of(encoder: Any, family: Family, key: str) -> nn.ModuleList:
    """The transformer layers of ``encoder``; a ValueError that begins with ``key`` if they can't be found."""
    if not family.layers:
        raise ValueError(f"{key}: can't tell which part of {type(encoder).__name__} are its layers")
    return encoder.get_submodule(family.layers)


def _checked_number(key: str, layers: int, encoder: Any, *, least: int) -> int:
    total = int(encoder.config.num_hidden_layers)
    if not least <= layers <= total:
        raise ValueError(f"{key} must be between {least} and {total} for this model, not {layers}")
    return total
