"""Write docs/models.md from the code: every CTR model and what is read off it, every family of language models.

``python docs/list_models.py``
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, init_seed

from recbole_alt.config import ALTConfig
from recbole_alt.families import FAMILIES, Family
from recbole_alt.model.build import build_backbone
from recbole_alt.model.captures import CAPTURES
from recbole_alt.model.recording import CapturePoint

HEAD = """# Models

Made by `python docs/list_models.py`; sizes are those on ml-100k with the defaults of `properties/overall.yaml`.
"""

BACKBONES = """
## CTR models

| model | representation | size | logit | field embeddings joined | notes |
|---|---|---:|---|---|---|
"""

AFTER_BACKBONES = """
A representation is what the model's last layers read, put side by side. Where that is a sum over pairs of fields no
wider than one field's embedding, it no longer tells which field had which value, and that is what alignment asks: the
embeddings of all fields are joined to it. `join_field_embeddings: true` or `false` decides otherwise, for stage 1
alone: scores are always the plain model's.

A context-aware model of your own is registered by `recbole_alt.register(MyCTR)`: its representation is declared by a
class attribute `captures`, or found (the input of the linear layers with one output), or else its field embeddings.
To one that was found they are joined only by `join_field_embeddings: true`, and only where the model's forward calls
`concat_embed_input_fields`; a declaration says so itself, by `Captures(..., join=True)`. Keys that your model reads are
declared by a class attribute `keys = ("my_width",)`; others that RecBole does not have are refused as misspelt.
"""


FAMILIES_HEAD = """
## Language models

| family | `model_type` | a token's state sees | `pooling` | what can be cut, frozen or adapted |
|---|---|---|---|---|
"""

AFTER_FAMILIES = """
`language_model` is a folder, the name of an installed package that ships one, or a hub id. The model must be a single
stack of layers that `AutoModel` loads without code of its own, with a fast tokenizer. Another such architecture is
taken as it is, with a warning; an encoder-decoder is refused.

Clauses are tokenised one by one and joined. The tests show that these are the tokens of the whole sentence for
WordPiece, byte-level BPE (RoBERTa's, GPT-2's, Qwen's), Unigram and SentencePiece's BPE; for any other tokenizer the
first texts are compared at the start, and a difference is reported. A tokenizer without a mask token gets one,
`[MASK]`, whose embedding starts as the mean of all; one without a padding token pads with any other, since none attends
to it.
"""


def words(points: Sequence[CapturePoint]) -> str:
    """Capture points in words."""
    reduced = ["" if point.reduce == "flatten" else f", {point.reduce}" for point in points]
    where = ["" if point.side == "attribute" else f"{point.side} of " for point in points]
    return " ⊕ ".join(f"{a}`{point.module}`{how}" for a, point, how in zip(where, points, reduced, strict=True))


def backbone_row(name: str) -> str:
    """The table's row of one CTR model."""
    config = ALTConfig(f"ALT_{name}", "ml-100k", None, {"state": "ERROR"})
    init_seed(config["seed"], config["reproducibility"])
    dataset = data_preparation(config, create_dataset(config))[0]._dataset
    backbone = build_backbone(config, dataset, get_model(name))
    captures = backbone.captures
    joined = "never" if captures.field_embeddings is None else "yes" if captures.join else "no"
    cells = [
        f"`ALT_{name}`",
        words(captures.representation),
        str(backbone.representation_size),
        words([captures.logits]) if captures.logits else "what `forward` returns",
        joined,
        captures.note,
    ]
    return "| " + " | ".join(cells) + " |\n"


def family_row(kind: str, family: Family) -> str:
    """The table's row of one family of language models."""
    sees = "the tokens before it" if family.causal else "all tokens"
    pooling = "`mean`, `last`" if family.causal else "`mean`, `cls`, `last`"
    cuts = "`language_model_layers`" if family.shared else "`language_model_layers`, `frozen_layers`"
    return f"| {family.name} | `{kind}` | {sees} | {pooling} | {cuts}, `lora_rank` |\n"


def page() -> str:
    """The whole page, section by section."""
    backbones = BACKBONES + "".join(map(backbone_row, CAPTURES)) + AFTER_BACKBONES
    families = FAMILIES_HEAD + "".join(family_row(*item) for item in FAMILIES.items()) + AFTER_FAMILIES
    return HEAD + backbones + families


if __name__ == "__main__":
    Path(__file__).with_name("models.md").write_text(page())
