"""Take a run's models elsewhere: the CTR model to plain RecBole, the language model to Hugging Face, both to ONNX.

``recbole-alt export RUN --mode=joint --recbole=dcn.pth --huggingface=FOLDER --onnx=FOLDER``
"""

import os
from pathlib import Path

import recbole as recbole_package
import yaml
from safetensors import SafetensorError

from recbole_alt import checkpoints, pretrained
from recbole_alt.config import base_model_name, registered_models
from recbole_alt.data.plain_reading import check_plain_reading
from recbole_alt.files import check_folder, write_text
from recbole_alt.finished import finetuned_file, trained_language_model, weights_under
from recbole_alt.loading import load_data_of
from recbole_alt.model.grounding import PREFIX
from recbole_alt.model_card import CARD, check_card, model_card
from recbole_alt.serving import Exported, to_onnx
from recbole_alt.yaml_files import read_yaml


def export(
    run: str | os.PathLike[str],
    *,
    mode: str | None = None,
    recbole: str | os.PathLike[str] | None = None,
    huggingface: str | os.PathLike[str] | None = None,
    onnx: str | os.PathLike[str] | None = None,
) -> Exported:
    """Write the models of a run for other programs.

    Args:
        run: folder of a run, or one of its checkpoints.
        mode: of the model, where a folder is given; by default the one that is best on validation.
        recbole: a file for the CTR model, as plain RecBole has it; see :func:`to_recbole`.
        huggingface: a folder for the language model; see :func:`to_huggingface`.
        onnx: a folder for the model in ONNX; see :func:`recbole_alt.serving.to_onnx`.

    Returns:
        What was written, and how far ONNX Runtime is from PyTorch.

    Raises:
        ValueError: nothing is asked for, or it can't be had; see these functions.
    """
    if not (recbole or huggingface or onnx):
        raise ValueError("nothing to do: give --recbole=FILE, --huggingface=FOLDER, --onnx=FOLDER, or several of them")
    file = finetuned_file(run, mode) if mode is not None or Path(run).is_dir() else Path(run)
    made = Exported()
    if recbole:
        to_recbole(file, recbole)
        made.files += [Path(recbole), Path(f"{os.fspath(recbole)}.yaml")]
    if huggingface:
        to_huggingface(file, huggingface)
        made.files.append(Path(huggingface))
    if onnx:
        graphs = to_onnx(file, onnx)
        made = Exported(made.files + graphs.files, graphs.differences)
    return made


def to_recbole(model_file: str | os.PathLike[str], file: str | os.PathLike[str]) -> None:
    """Write the CTR model as plain RecBole's class has it, and its configuration beside it as ``file`` + ``.yaml``.

    RecBole's ``Trainer.evaluate(data, model_file=file)`` reads the one, its ``Config`` the other; neither needs this
    package. A split at random is the run's only after RecBole's ``init_seed`` with the configuration's ``seed``.

    Args:
        model_file: ``pretrain.pth``, ``ctr.pth``, ``joint.pth`` or ``plain.pth`` of a run.
        file: the new checkpoint.

    Raises:
        ValueError: no such file, it holds no CTR model or one that plain RecBole does not have, or the data that its
            configuration names are others now, or such as plain RecBole reads otherwise.
    """
    state = checkpoints.load(model_file)
    weights = weights_under("model.", state.get("backbone")) or weights_under(
        "backbone.model.", state.get("state_dict")
    )
    if not weights:
        raise ValueError(f"{str(model_file)!r} holds no CTR model: give pretrain.pth, ctr.pth, joint.pth, plain.pth")
    config = state["config"]
    if any(key.startswith(PREFIX) for key in state.get("backbone") or ()):
        raise ValueError(
            f"{str(model_file)!r} holds grounded embeddings in two parts: give ctr.pth, joint.pth or plain.pth"
        )
    if config["text_field"]:
        raise ValueError(f"{str(model_file)!r} reads text vectors (text_field), which plain RecBole does not have")
    if config["model"] in registered_models() and Path(config["data_path"]).is_dir():
        load_data_of(state, model_file)  # plain RecBole can't tell other ids, so they are refused here
        check_plain_reading(config.final_config_dict)
    values = config.__getstate__()["values"]
    checkpoints.save({"state_dict": weights, "other_parameter": {}, "config": values, "epoch": 0}, file)
    model = base_model_name(values["model"])
    theirs = {key: values[key] for key in _keys_of_recbole(model) if values.get(key) is not None}
    theirs["encoding"] = values.get("encoding") or "utf-8"  # which is in none of those files
    if theirs["train_neg_sample_args"]["distribution"] == "none":  # which RecBole writes, but does not read
        theirs["train_neg_sample_args"] = None
    if values["split_seed"] is not None:  # plain RecBole has one seed, which splits
        theirs["seed"] = values["split_seed"]
    theirs |= {"model": model, "dataset": values["dataset"], "data_path": str(Path(values["data_path"]).parent)}
    write_text(f"{os.fspath(file)}.yaml", yaml.safe_dump(theirs, allow_unicode=True))


def _keys_of_recbole(model: str | None) -> list[str]:
    """The keys RecBole's own property files give a value."""
    root = Path(recbole_package.__file__).parent / "properties"
    files = (root / "overall.yaml", root / "dataset" / "sample.yaml", root / "model" / f"{model}.yaml")
    return list(dict.fromkeys(key for file in files if file.is_file() for key in read_yaml(file)))


def to_huggingface(model_file: str | os.PathLike[str], folder: str | os.PathLike[str]) -> None:
    """Write the language model and its tokenizer for ``AutoModel.from_pretrained``; LoRA adapters are merged in.

    Beside them is a model card, ``README.md``, made of what the run has recorded; see :mod:`recbole_alt.model_card`.

    Args:
        model_file: ``pretrain.pth``, ``lm.pth`` or ``joint.pth`` of a run.
        folder: where to.

    Raises:
        ValueError: no such file, it holds no language model, or the folder can't be written or has a ``README.md``
            that is no such card.
    """
    state = checkpoints.load(model_file)
    model, encoder = trained_language_model(state, model_file)
    check_folder("huggingface", folder)
    check_card(Path(folder) / CARD)
    tokenizer = pretrained.load_tokenizer(state["config"]["language_model"])
    try:
        encoder.save_pretrained(folder)
    except SafetensorError as error:  # of the operating system, in words of another language
        raise ValueError(f"{str(folder)!r} can't be written ({error}): make room, or give another folder") from None
    tokenizer.save_pretrained(folder)
    card = model_card(state, model_file, trained=not model.is_fixed, hidden_size=model.hidden_size)
    write_text(Path(folder) / CARD, card)
