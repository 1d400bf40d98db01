"""Tiny language models of every family: random weights, and a tokenizer of the family's kind trained here."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

CORPUS = [
    "age is 24. gender is male. title is Toy Story. genre is Animation, Comedy. occupation is writer.",
    "A user: age 53; gender female | The Heat of the Night (1967), L'Amour & Co. is crime, thriller, romance.",
    "« Amélie » naïve façade Ünïcode, ελληνικά, русский, 千と千尋の神隠し 中文 the quick brown fox's dog; and it's.",
] * 4
BERT_TOKENS = {
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "mask_token": "[MASK]",
}
ROBERTA_TOKENS = {
    "bos_token": "<s>",
    "pad_token": "<pad>",
    "eos_token": "</s>",
    "unk_token": "<unk>",
    "mask_token": "<mask>",
    "cls_token": "<s>",
    "sep_token": "</s>",
}
#: How Qwen and Llama 3 split texts before merging bytes.
_WORDS = Regex(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def wordpiece() -> PreTrainedTokenizerFast:
    """BERT's kind."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = list(BERT_TOKENS.values())
    trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return _around(tokenizer, "[CLS]", "[SEP]", **BERT_TOKENS)


def byte_bpe(*, split: bool = False, **special: str) -> PreTrainedTokenizerFast:
    """GPT-2's kind; ``split`` as Qwen does before."""
    tokenizer = Tokenizer(models.BPE())
    levels = [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not split)]
    words = [pre_tokenizers.Split(_WORDS, "isolated")] if split else []
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*words, *levels])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=list(dict.fromkeys(special.values())),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return _around(tokenizer, special.get("cls_token"), special.get("sep_token"), **special)


def unigram(**special: str) -> PreTrainedTokenizerFast:
    """SentencePiece's Unigram, as of ALBERT, XLM-RoBERTa and DeBERTa."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=220,
        special_tokens=list(dict.fromkeys(special.values())),
        unk_token=special["unk_token"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return _around(tokenizer, special["cls_token"], special["sep_token"], **special)


def metaspace_bpe() -> PreTrainedTokenizerFast:
    """SentencePiece's BPE with bytes for what is unknown, as of Llama 2: the start of a text gets a space."""
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    learner = Tokenizer(models.BPE(unk_token="<unk>"))
    learner.pre_tokenizer = pre_tokenizers.Metaspace()
    tokens = [*special.values(), *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=700, special_tokens=tokens, show_progress=False)
    learner.train_from_iterator(CORPUS, trainer)
    learned = json.loads(learner.to_str())["model"]
    merges = [tuple(merge) for merge in learned["merges"]]
    tokenizer = Tokenizer(models.BPE(learned["vocab"], merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return _around(tokenizer, "<s>", None, **special)


def _around(tokenizer: Tokenizer, before: str | None, after: str | None, **special: str) -> PreTrainedTokenizerFast:
    if before or after:
        template = " ".join(filter(None, [before, "$A", after]))
        ids = [(name, tokenizer.token_to_id(name)) for name in dict.fromkeys(filter(None, [before, after]))]
        tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=ids)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


_SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


@dataclass(frozen=True)
class TinyModel:
    """How a family's tiny model is made.

    Attributes:
        tokenizer: makes the tokenizer.
        config: name of the configuration class in ``transformers``.
        keys: of that class.
    """

    tokenizer: Callable[[], PreTrainedTokenizerFast]
    config: str
    keys: dict[str, Any]

    def save(self, folder: Path) -> str:
        """Make it and write it to ``folder``, as a downloaded model stands on disk."""
        tokenizer = self.tokenizer()
        tokenizer.save_pretrained(folder)
        torch.manual_seed(7)
        ids = {
            f"{name}_token_id": getattr(tokenizer, f"{name}_token_id")
            for name in ("pad", "bos", "eos", "cls", "sep")
            if getattr(tokenizer, f"{name}_token_id") is not None
        }
        config = getattr(transformers, self.config)(vocab_size=len(tokenizer), **ids, **self.keys)
        transformers.AutoModel.from_config(config).save_pretrained(folder)
        return str(folder)


def _unigram_of(tokens: dict[str, str]) -> Callable[[], PreTrainedTokenizerFast]:
    return lambda: unigram(**tokens)


_ROBERTA_SIZE = {**_SMALL, "max_position_embeddings": 66}
_DECODER = {**_SMALL, "num_key_value_heads": 1, "max_position_embeddings": 64}
_QWEN = lambda: byte_bpe(split=True, eos_token="<|im_end|>", pad_token="<|endoftext|>")  # noqa: E731

#: By Hugging Face's ``model_type``.
TINY: dict[str, TinyModel] = {
    "bert": TinyModel(wordpiece, "BertConfig", {**_SMALL, "max_position_embeddings": 64}),
    "roberta": TinyModel(lambda: byte_bpe(**ROBERTA_TOKENS), "RobertaConfig", _ROBERTA_SIZE),
    "xlm-roberta": TinyModel(_unigram_of(ROBERTA_TOKENS), "XLMRobertaConfig", _ROBERTA_SIZE),
    "distilbert": TinyModel(wordpiece, "DistilBertConfig", {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64}),
    "albert": TinyModel(_unigram_of(BERT_TOKENS), "AlbertConfig", {**_SMALL, "embedding_size": 16}),
    "electra": TinyModel(wordpiece, "ElectraConfig", {**_SMALL, "embedding_size": 16}),
    "mpnet": TinyModel(wordpiece, "MPNetConfig", _ROBERTA_SIZE),
    "deberta-v2": TinyModel(
        _unigram_of(BERT_TOKENS),
        "DebertaV2Config",
        {**_SMALL, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False},
    ),
    "modernbert": TinyModel(
        lambda: byte_bpe(**BERT_TOKENS), "ModernBertConfig", {**_SMALL, "global_attn_every_n_layers": 2}
    ),
    "gpt2": TinyModel(
        lambda: byte_bpe(eos_token="<|endoftext|>"),
        "GPT2Config",
        {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64},
    ),
    "qwen2": TinyModel(_QWEN, "Qwen2Config", _DECODER),
    "qwen3": TinyModel(_QWEN, "Qwen3Config", {**_DECODER, "head_dim": 16}),
    "llama": TinyModel(metaspace_bpe, "LlamaConfig", _DECODER),
}
