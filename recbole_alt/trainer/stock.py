"""The trainer stock RecBole picks for ``ALT_<backbone>``: alignment, then finetuning, behind one ``fit``."""

from pathlib import Path
from typing import Any

from recbole_alt import checkpoints
from recbole_alt.data.steps import training_loader
from recbole_alt.keys import check_stages
from recbole_alt.launch import require_one_process
from recbole_alt.model.build import build_alignment
from recbole_alt.model.machine import settle_machine
from recbole_alt.stages import stage_config
from recbole_alt.trainer.finetune import ALTTrainer
from recbole_alt.trainer.pretrain import ALTPretrainTrainer
from recbole_alt.trainer.start import load_aligned, seed_stage, start_from_aligned


class ALTStockTrainer(ALTTrainer):
    """For ``recbole.quick_start.run_recbole``, which knows one model and one ``fit``.

    Aligns on the training data first, or takes the towers of ``pretrained_checkpoint``, then finetunes in the model's
    mode, with the same keys and, with the same seed, the same result as ``run_recbole_alt``. The aligned towers are
    kept beside the model as ``<name>-pretrain.pth``.
    """

    def __init__(self, config: Any, model: Any):
        require_one_process("RecBole's run_recbole", "use run_recbole_alt, which takes several")
        check_stages(config["finetune"] or {}, strict=False)  # RecBole refuses no key that it does not know
        settle_machine(config)
        super().__init__(stage_config(config, model.mode), model)
        self._of_run = config
        self._rng = checkpoints.rng_state()  # as building the model left it, from which finetuning goes on

    def fit(self, train_data: Any, valid_data: Any = None, *args: Any, **kwargs: Any) -> Any:
        """See :meth:`ALTTrainer.fit`."""
        modes = self._of_run["finetune_modes"] or []
        if len(modes) > 1:
            self.logger.warning(
                f"RecBole trains one model: finetuning in mode {self.model.mode!r} only; "
                f"run_recbole_alt runs all of {modes}"
            )
        file = self.config["pretrained_checkpoint"] or self._align(train_data, kwargs.get("show_progress", False))
        dataset = train_data._dataset
        start_from_aligned(self, load_aligned(self.config, file, dataset), dataset)
        checkpoints.set_rng_state(self._rng)
        loader = training_loader(self.config, train_data, encodes_texts=self.model.encodes_texts)
        return super().fit(loader, valid_data, *args, **kwargs)

    def _align(self, train_data: Any, show_progress: bool) -> Path:
        best = Path(self.saved_model_file)
        file = best.with_name(f"{best.stem}-pretrain.pth")
        dataset = train_data._dataset
        seed_stage(self._of_run)
        alignment = build_alignment(self._of_run, dataset, self.model.backbone_class)
        ALTPretrainTrainer(self._of_run, alignment, dataset, file).fit(show_progress=show_progress)
        return file
