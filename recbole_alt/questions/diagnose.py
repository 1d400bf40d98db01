"""Why text helps a run, or does not: ``recbole-alt diagnose RUN --json=diagnosis.json``.

Three questions to a finished run: does the alignment hold for interactions it never saw, how far does finetuning carry
each field's embeddings away from it, and do users and items with similar texts have similar embeddings?
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from recbole.utils import get_model, init_seed
from torch import Tensor

from recbole_alt import checkpoints
from recbole_alt.config import base_model_name
from recbole_alt.data.identity import require_same_data
from recbole_alt.data.masking import Masks, step_generator
from recbole_alt.data.steps import build_masking
from recbole_alt.files import read_record
from recbole_alt.loading import Data, load_data_of
from recbole_alt.markdown import markdown_table
from recbole_alt.model.alignment import AlignmentModel
from recbole_alt.model.backbones import Backbone, table_fields
from recbole_alt.model.build import build_alignment, build_backbone
from recbole_alt.model.captures import FIELD_EMBEDDINGS, reached
from recbole_alt.model.weights import load_weights
from recbole_alt.questions.likeness import likeness
from recbole_alt.questions.reading import sample

_ROWS = 1024  # that the losses are read from, and that embeddings are averaged over


@dataclass
class Diagnosis:
    """What :func:`diagnose` found.

    Attributes:
        model, dataset: of the run.
        rows: how many training and how many validation rows were read.
        alignment: split (``train``, ``valid``) → objectives' losses and accuracies on rows of it, and ``retrieval by
            chance``: how often the text of a row drawn at random is the same.
        values: table field → split → how often its hidden value scores above the noise.
        embeddings: field → ``norm_<stage>`` (initial, aligned, and each finetuned stage; mean length over training
            rows), and for each finetuned stage but ``plain`` ``moved_<stage>`` (length of what finetuning added, over
            all rows together, as a share of the aligned one's) and ``cosine_<stage>`` (to the aligned ones).
        likeness: segment of the prompt (user, item) → stage → whether similar texts have similar embeddings there; see
            :class:`~recbole_alt.questions.likeness.Likeness`.
    """

    model: str
    dataset: str
    rows: dict[str, int]
    alignment: dict[str, dict[str, float]] = field(default_factory=dict)
    values: dict[str, dict[str, float]] = field(default_factory=dict)
    embeddings: dict[str, dict[str, float]] = field(default_factory=dict)
    likeness: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)


def diagnose(folder: str | os.PathLike[str], data: Data | None = None) -> Diagnosis:
    """Look into a run.

    Args:
        folder: of a run; of ``plain.pth``, ``ctr.pth`` and ``joint.pth`` those are read that are there.
        data: what :func:`~recbole_alt.loading.load_data` made for the run, so as not to read it again.

    Raises:
        ValueError: no run there, or its data are other ones now.
    """
    if Path(folder).is_file():
        raise ValueError(f"{os.fspath(folder)!r} is a file: give the folder of the run")
    settings = Path(folder, "config.json")
    given = read_record(settings).get("pretrained_checkpoint") if settings.is_file() else None
    file = Path(given or Path(folder, "pretrain.pth"))
    aligned = checkpoints.load(file)
    config = aligned["config"]
    train, valid = (loader._dataset for loader in load_data_of(aligned, file, data)[1:3])
    model_class = get_model(config["model"]).backbone_class
    init_seed(config["seed"], config["reproducibility"])
    model = build_alignment(config, train, model_class)
    backbones = {"initial": build_seeded(config, train, model_class), "aligned": model.backbone}
    for name in ("backbone", "text", "objectives"):
        load_weights(getattr(model, name), aligned[name], f"{str(file)!r} does not fit its own {name}")
    for stage in ("ctr", "joint", "plain"):
        if (stage_file := Path(folder, f"{stage}.pth")).is_file():
            state = checkpoints.load(stage_file)
            require_same_data(state, train, file=stage_file, held_out_only=True)
            weights = state["state_dict"].items()
            own = {key.removeprefix("backbone."): v for key, v in weights if key.startswith("backbone.")}
            backbones[stage] = build_seeded(config, train, model_class)
            load_weights(backbones[stage], own, f"{str(stage_file)!r} does not fit the model of {str(file)!r}")
    parts = {"train": train, "valid": valid}
    rows = {name: part[sample(len(part), _ROWS, config["seed"])] for name, part in parts.items()}
    found = Diagnosis(config["model"], config["dataset"], {name: len(part) for name, part in rows.items()})
    for name, part in rows.items():
        found.alignment[name], by_field = read_objectives(config, model, train.prompts, part)
        for field_name, value in by_field.items():
            found.values.setdefault(field_name, {})[name] = value
    found.embeddings = movements(backbones, rows["train"].to(config["device"]))
    found.likeness = likeness(config, backbones, train)
    return found


def build_seeded(config: Any, dataset: Any, model_class: type) -> Backbone:
    """The backbone as every stage of the run initialises it."""
    init_seed(config["seed"], config["reproducibility"])
    return build_backbone(config, dataset, model_class).eval()


@torch.no_grad()
def read_objectives(
    config: Any, model: AlignmentModel, prompts: Any, rows: Any
) -> tuple[dict[str, float], dict[str, float]]:
    """Losses and accuracies of ``rows``, masked as in training; and each table field's accuracy, hidden alone."""
    model.eval()
    device = config["device"]
    texts = prompts.batches(rows)
    masking = build_masking(config, prompts, [f.name for f in model.backbone.fields])
    masks = masking.draw(texts, len(rows), step_generator(config["seed"], 0, 0))

    def read(masks: Masks) -> dict[str, float]:
        init_seed(config["seed"], config["reproducibility"])  # of the noise
        output = model(model.prepare(rows, texts, masks).to(device))
        values = {f"{name} loss": loss for name, loss in output.losses.items()} | output.metrics
        return {name: float(value) for name, value in values.items()}

    whole = read(masks)
    contrasted = np.stack([text.row[: config["contrast_rows"] or len(rows)].numpy() for text in texts], 1)
    shares = np.unique(contrasted, axis=0, return_counts=True)[1] / len(contrasted)
    whole["retrieval by chance"] = float(shares @ shares)  # that another row, drawn at random, has the same text
    by_field = {}
    if "masked_tabular" in model.objectives:
        for column, table_field in enumerate(model.backbone.fields):
            one = torch.zeros_like(masks.table)
            one[:, column] = True
            by_field[table_field.name] = read(Masks([torch.zeros_like(t) for t in masks.tokens], one))["value_accuracy"]
    return whole, by_field


@torch.no_grad()
def field_embeddings(backbone: Backbone, rows: Any) -> dict[str, Tensor]:
    """Field → what the CTR model embeds of it, [B, E]; empty where a model does not read its fields so (LR, FFM).

    RecBole puts sequences first (``embed_input_fields`` in ``recbole/model/abstract_recommender.py``).
    """
    if not reached(backbone.model, FIELD_EMBEDDINGS, rows):
        return {}
    order = ("token_seq", "token", "float_seq", "float")
    fields = table_fields(backbone.model)
    names = [table_field.name for kind in order for table_field in fields if table_field.kind == kind]
    return dict(zip(names, backbone.model.concat_embed_input_fields(rows).unbind(1), strict=False))


def movements(backbones: Mapping[str, Backbone], rows: Any) -> dict[str, dict[str, float]]:
    """Lengths of each field's embeddings, and what finetuning did to the aligned ones; see :class:`Diagnosis`."""
    embedded = {stage: field_embeddings(backbone, rows) for stage, backbone in backbones.items()}
    found: dict[str, dict[str, float]] = {}
    for name, aligned in embedded["aligned"].items():
        of_field = {stage: vectors[name] for stage, vectors in embedded.items()}
        line = {f"norm_{stage}": vectors.norm(dim=1).mean().item() for stage, vectors in of_field.items()}
        for stage in (stage for stage in of_field if stage not in ("initial", "aligned", "plain")):
            line[f"moved_{stage}"] = ((of_field[stage] - aligned).norm() / aligned.norm()).item()
            line[f"cosine_{stage}"] = F.cosine_similarity(of_field[stage].flatten(), aligned.flatten(), dim=0).item()
        found[name] = line
    return found


def to_markdown(found: Diagnosis) -> str:
    """Three tables."""
    read = f"{found.rows['train']:,} training and {found.rows['valid']:,} validation rows"
    parts = [f"# {base_model_name(found.model)} aligned on {found.dataset}: {read}"]
    names = list(dict.fromkeys(name for line in found.alignment.values() for name in line))
    rows = [[name, *(found.alignment[split].get(name) for split in ("train", "valid"))] for name in names]
    rows += [[f"{name} found again", line["train"], line["valid"]] for name, line in found.values.items()]
    parts.append(_table("After alignment", ["", "training rows", "validation rows"], rows))
    alike = {f"{name}, {stage}": line for name, of in found.likeness.items() for stage, line in of.items()}
    titles = {"Embeddings": found.embeddings, "Like texts, like embeddings": alike}
    for title, lines in titles.items():
        if lines:
            names = list(next(iter(lines.values())))
            rows = [[name, *(line[key] for key in names)] for name, line in lines.items()]
            parts.append(_table(title, ["", *(key.replace("_", " ") for key in names)], rows))
    return "\n\n".join(parts) + "\n"


def _table(title: str, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    cells = [[cell if isinstance(cell, str) else "" if cell is None else f"{cell:.3f}" for cell in r] for r in rows]
    return f"## {title}\n\n{markdown_table(header, cells, 'lr')}"
