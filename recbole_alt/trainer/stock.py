"""The trainer stock RecBole picks for ``ALT_<backbone>``: alignment, then finetuning, behind one ``fit``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recbole_alt.model.build import build_alignment
from recbole_alt.trainer.finetune import ALTTrainer
from recbole_alt.trainer.pretrain import ALTPretrainTrainer
from recbole_alt.trainer.start import load_aligned, start_from_aligned


class ALTStockTrainer(ALTTrainer):
    """For ``recbole.quick_start.run_recbole``, which knows one model and one ``fit``.

    Aligns on the training data first, or takes the towers of ``pretrained_checkpoint``, then finetunes the
    model in its mode: ``finetune_mode``, or the first of ``finetune_modes``. The aligned towers are kept
    beside the model as ``<name>-pretrain.pth``.
    """

    def fit(self, train_data: Any, valid_data: Any = None, *args: Any, **kwargs: Any) -> Any:
        """See :meth:`ALTTrainer.fit`."""
        modes = self.config["finetune_modes"] or []
        if len(modes) > 1:
            self.logger.warning(
                f"RecBole trains one model: finetuning in mode {self.model.mode!r} only; "
                f"run_recbole_alt runs all of {modes}"
            )
        file = self.config["pretrained_checkpoint"] or self._align(train_data, kwargs.get("show_progress", False))
        dataset = train_data._dataset
        start_from_aligned(self, load_aligned(self.config, file, dataset), dataset[:])
        return super().fit(train_data, valid_data, *args, **kwargs)

    def _align(self, train_data: Any, show_progress: bool) -> Path:
        best = Path(self.saved_model_file)
        file = best.with_name(f"{best.stem}-pretrain.pth")
        dataset = train_data._dataset
        alignment = build_alignment(self.config, dataset, self.model.backbone_class)
        ALTPretrainTrainer(self.config, alignment, dataset, file).fit(show_progress=show_progress)
        return file
