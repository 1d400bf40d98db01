"""The published procedure of pretraining, as a reference for speed and memory.

One text per interaction, tokenised as it is loaded and padded to 100 tokens; three passes of the language model a step
(complete text for the sentence, complete text for the tokens, masked text); the vocabulary head on every position; all
in 32 bits. Towers and heads are those of this package, so that only the procedure differs.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_alt import pretrained
from recbole_alt.data.masking import draw_field_mask
from recbole_alt.model.attention import SegmentStates
from recbole_alt.model.backbones import mask_table
from recbole_alt.model.build import build_backbone
from recbole_alt.model.objectives.contrastive import ContrastiveObjective
from recbole_alt.model.objectives.masked_tabular import MaskedTabularObjective
from recbole_alt.model.targets import TableTargets

MAX_TOKENS = 100


class PublishedPretraining(nn.Module):
    """Both towers, three objectives and the optimiser.

    Args:
        config: of an ``ALT_<backbone>`` with ``prompt_scope: interaction``.
        dataset: the built training dataset.
        model_class: the backbone's class.
    """

    def __init__(self, config: Any, dataset: Any, model_class: type):
        super().__init__()
        self.dataset, self.prompts = dataset, dataset.prompts
        self.tokenizer = pretrained.load_tokenizer(config["language_model"])
        self.encoder = pretrained.load_encoder(config["language_model"])
        self.encoder.pooler = None
        if config["language_model_layers"]:
            del self.encoder.encoder.layer[config["language_model_layers"] :]
        self.backbone = build_backbone(config, dataset, model_class)
        text, table = self.encoder.config.hidden_size, self.backbone.representation_size
        self.targets = TableTargets(dataset, self.backbone.fields, bins=config["float_target_bins"])
        self.contrast = ContrastiveObjective(table, text, head="published")
        self.tabular = MaskedTabularObjective(table, text, self.targets.fields)
        self.language = nn.Sequential(
            nn.Linear(text + table, text), nn.Tanh(), nn.Dropout(0.2), nn.Linear(text, self.encoder.config.vocab_size)
        )
        self.optimizer = torch.optim.AdamW(self.parameters(), lr=1e-4, weight_decay=1e-3)
        self.generator = torch.Generator().manual_seed(0)

    def step(self, rows: Any) -> int:
        """One optimiser step; returns the number of interactions."""
        ids, mask, masked_ids = self.collate(rows)
        v = self.backbone(rows).representation
        sentence = self._states(ids, mask)[:, 0]
        tokens = self._states(ids, mask)
        masked = self._states(masked_ids, mask)
        logits = self.language(torch.cat([masked, v.unsqueeze(1).expand(-1, MAX_TOKENS, -1)], -1))
        hidden = torch.where(masked_ids != ids, ids, -100)
        loss = F.cross_entropy(logits.flatten(0, 1), hidden.flatten())
        loss = loss + self.contrast(v, sentence)[0]
        fields = self.backbone.fields
        table_mask = draw_field_mask(len(rows), len(fields), 0.15, self.generator)
        v_masked = self.backbone(mask_table(rows, fields, table_mask)).representation
        texts = SegmentStates(tokens, mask, sentence, torch.arange(len(rows)))
        hidden = self.tabular.hidden_values(table_mask, self.targets.read(rows))
        loss = loss + self.tabular(v_masked, [texts], hidden)[0]
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return len(rows)

    def collate(self, rows: Any) -> tuple[Tensor, Tensor, Tensor]:
        """Token ids, attention mask and masked token ids, each [B, 100], made row by row."""
        (template,) = self.prompts.template.segments
        pieces = self.prompts.pieces(self.prompts.segments[0], rows)
        chosen = draw_field_mask(len(rows), len(template.clauses), 0.15, self.generator)
        ids, masks, masked = [], [], []
        for entry, hide in zip(pieces, chosen, strict=True):
            text, spans = "", []
            for clause, i in zip(template.clauses, entry, strict=True):
                word = self.prompts.words[clause.field][i]
                spans.append((len(text) + len(clause.before), len(text) + len(clause.before) + len(word)))
                text += clause.text(word)
            encoded = self.tokenizer(
                text, padding="max_length", truncation=True, max_length=MAX_TOKENS, return_offsets_mapping=True
            )
            one = torch.tensor(encoded["input_ids"])
            at = torch.tensor(encoded["offset_mapping"])
            hidden = torch.zeros(MAX_TOKENS, dtype=torch.bool)
            for (first, last), out in zip(spans, hide.tolist(), strict=True):
                if out:
                    hidden |= (at[:, 0] < last) & (at[:, 1] > first)
            ids.append(one)
            masks.append(torch.tensor(encoded["attention_mask"]))
            masked.append(one.masked_fill(hidden, self.tokenizer.mask_token_id))
        return torch.stack(ids), torch.stack(masks), torch.stack(masked)

    def _states(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
