"""Stage 2: the recommender RecBole trains and scores, in mode ``ctr``, ``lm`` or ``joint``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import AbstractRecommender
from recbole.utils import InputType, ModelType
from torch import Tensor, nn

from recbole_alt.data.identity import IDENTITY_KEY, DataIdentity, record_of
from recbole_alt.model.backbones import Backbone, embedding_tables
from recbole_alt.model.build import build_backbone, build_text
from recbole_alt.model.grounding import PREFIX, merged_state, release
from recbole_alt.model.text_cache import TextCache
from recbole_alt.model.text_tower import TextTower
from recbole_alt.model.weights import load_weights, misfit
from recbole_alt.stages import stage_config


class ALTRecommender(AbstractRecommender):
    """An aligned CTR model, an aligned language model, or both (method, finetuning).

    - ``ctr``: only the CTR model; its cost is the plain backbone's and its loss the backbone's own.
    - ``lm``: a linear layer on the pooled state of the row's texts; binary cross-entropy.
    - ``joint``: ``σ(α·z_ctr + (1−α)·z_lm)`` with α learnable; the sum of the cross-entropies of the joint
      score and of ``z_lm``, and the backbone's own loss.

    Subclasses, one per backbone, set ``backbone_class``; :mod:`recbole_alt.registry` makes them. While the language
    model does not change (in evaluation, or when frozen), each distinct text is encoded once.

    Args:
        config: RecBole's; the mode is ``finetune_mode``, or if that is empty the first of ``finetune_modes``, whose
            overrides in ``finetune`` apply.
        dataset: the built training dataset.
    """

    type = ModelType.CONTEXT
    input_type = InputType.POINTWISE
    backbone_class: ClassVar[Any]

    def __init__(self, config: Any, dataset: Any):
        super().__init__()
        self.mode = config["finetune_mode"] or next(iter(config["finetune_modes"] or []), "ctr")
        config = stage_config(config, self.mode)
        self.LABEL = config["LABEL_FIELD"]
        self.device = config["device"]
        self.identity: DataIdentity | None = getattr(dataset, "identity", None)
        self.backbone: Backbone | None = None
        self.text: TextTower | None = None
        if self.mode in ("ctr", "joint"):
            self.backbone = build_backbone(config, dataset, self.backbone_class)
        if self.mode in ("lm", "joint"):
            self.prompts = dataset.prompts
            self.text = build_text(config, self.prompts)
            self.lm_predict_layer = nn.Linear(self.text.hidden_size, 1)
            if config["freeze_language_model"]:
                self.text.language_model.requires_grad_(False)
            self.text_cache = TextCache(self.text.language_model)
        if self.mode == "joint":
            self.alpha = nn.Parameter(torch.tensor(0.5))

    @property
    def encodes_texts(self) -> bool:
        """True if every training step encodes texts: there are some, and the language model is not frozen."""
        return self.text is not None and not self.text.language_model.is_fixed

    @property
    def texts_encoded(self) -> int:
        """Texts the language model has encoded so far."""
        return self.text.language_model.texts_encoded if self.text is not None else 0

    def keep_texts(self, interaction: Interaction) -> None:
        """Encode all texts of a whole dataset, if the language model is frozen: at once is faster than in batches.

        All processes have to call this for the same dataset.
        """
        if self.text is not None and not self.encodes_texts:
            for texts in self.prompts.every(interaction):
                self.text_cache.pooled(texts, self.device, together=True)
            self.text_cache.save()

    def load_towers(
        self, towers: Mapping[str, Mapping[str, Tensor]], *, embeddings_only: bool = False
    ) -> list[nn.Parameter]:
        """Start from aligned towers: ``{"backbone": state dict, "text": state dict}``; returns what is aligned now.

        Of the CTR model only its embedding tables, with what grounds them, are taken if ``embeddings_only``. Embeddings
        that were not grounded in alignment start with nothing added to them.

        Raises:
            ValueError: they come from another backbone, language model or set of fields.
        """
        aligned: list[nn.Parameter] = []
        for name, tower in (("backbone", self.backbone), ("text", self.text)):
            if tower is None:
                continue
            if name not in towers:
                raise ValueError(f"pretrained_checkpoint holds no {name}: give the pretrain.pth of a run")
            state, taken = towers[name], dict(tower.named_parameters())
            if name == "backbone":
                own = tower.state_dict()
                if embeddings_only:
                    tables = {id(table.weight) for table in embedding_tables(tower)}
                    taken = {k: p for k, p in taken.items() if id(p) in tables or k.startswith(PREFIX)}
                    state = {key: value for key, value in state.items() if key in taken or key.startswith(PREFIX)}
                    state = own | state
                state = {key: value for key, value in own.items() if key.startswith(PREFIX)} | dict(state)
            load_weights(tower, state, f"pretrained_checkpoint does not fit this run's {name}")
            aligned += taken.values()
        self._forget_texts()
        return aligned

    def load_state_dict(self, state_dict: Mapping[str, Tensor], *args: Any, **kwargs: Any) -> Any:
        """As torch's; states of texts encoded with the old weights are forgotten.

        After weights in which grounded embeddings are added up, the embeddings are not grounded any more.

        Raises:
            ValueError: the weights are of another model.
        """
        self._forget_texts()
        if self.backbone is not None and not any(key.startswith(f"backbone.{PREFIX}") for key in state_dict):
            for side in list(self.backbone.grounding):
                release(self.backbone, side)
        try:
            return super().load_state_dict(state_dict, *args, **kwargs)
        except RuntimeError as error:
            raise ValueError(f"these weights do not fit the model: {misfit(self, state_dict, error)}") from None

    def merged_state(self) -> dict[str, Any]:
        """The state as the plain model has it: both parts of grounded embeddings added up."""
        state = self.state_dict()
        return state if self.backbone is None else merged_state(self.backbone, state, "backbone.")

    def other_parameter(self) -> dict[str, Any]:
        """What RecBole keeps beside the weights, and which data they are of."""
        return {**super().other_parameter(), **record_of(self)}

    def load_other_parameter(self, para: Mapping[str, Any] | None) -> None:
        """Take back what :meth:`other_parameter` gave.

        Raises:
            ValueError: it is of other data than this model was built for.
        """
        others = dict(para or {})
        record = others.pop(IDENTITY_KEY, None)  # only here stock RecBole says which data a checkpoint is of
        if record is not None and self.identity is not None:
            DataIdentity.from_plain(record).require_same(self.identity)
        super().load_other_parameter(others)

    def train(self, mode: bool = True) -> ALTRecommender:
        """As torch's; states of texts are forgotten where the language model is about to change."""
        super().train(mode)
        if mode and self.encodes_texts:
            self._forget_texts()
        return self

    def forward(self, interaction: Interaction) -> Tensor:
        """Logits [B] of a batch."""
        if self.backbone is None:
            return self._text_logits(interaction)
        logits = self.backbone.score(interaction)
        return logits if self.text is None else self._mix(logits, self._text_logits(interaction))

    def calculate_loss(self, interaction: Interaction) -> Tensor | tuple[Tensor, ...]:
        """The mode's loss; for ``joint`` its three parts (joint, ctr, lm), which RecBole adds up."""
        label = interaction[self.LABEL].float()
        if self.backbone is None:
            return F.binary_cross_entropy_with_logits(self._text_logits(interaction), label)
        if self.text is None:
            return self.backbone.loss(interaction)
        output = self.backbone(interaction)
        ctr_loss = self.backbone.loss(interaction, output)
        text_logits = self._text_logits(interaction)
        joint_loss = F.binary_cross_entropy_with_logits(self._mix(output.logits, text_logits), label)
        return joint_loss, ctr_loss, F.binary_cross_entropy_with_logits(text_logits, label)

    def predict(self, interaction: Interaction) -> Tensor:
        """Click probabilities [B]."""
        return torch.sigmoid(self.forward(interaction))

    def _text_logits(self, interaction: Interaction) -> Tensor:
        assert self.text is not None
        texts = self.prompts.distinct(interaction)
        if not self.encodes_texts or not (self.training or torch.is_grad_enabled()):
            known = [(self.text_cache.pooled(segment, self.device), segment.row.to(self.device)) for segment in texts]
        else:
            segments = self.text([segment.join().to(self.device) for segment in texts])
            known = [(segment.pooled, segment.row) for segment in segments]
        return self.text.score(known, self.lm_predict_layer)

    def _forget_texts(self) -> None:
        if self.text is not None:
            self.text_cache.clear()

    def _mix(self, ctr_logits: Tensor, text_logits: Tensor) -> Tensor:
        return self.alpha * ctr_logits + (1 - self.alpha) * text_logits
