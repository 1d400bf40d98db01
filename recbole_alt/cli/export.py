"""``recbole-alt export``: the models of a run for other programs."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from recbole_alt.cli.command import Command


def _add_options(parser: ArgumentParser) -> None:
    parser.add_argument("model_file", help="a .pth file in the folder of a run, or the folder")
    parser.add_argument("--mode", help="of the model, where a folder is given (default: the best on validation)")
    parser.add_argument("--recbole", metavar="FILE", help="write the CTR model for plain RecBole")
    parser.add_argument("--huggingface", metavar="FOLDER", help="write the language model for AutoModel")
    parser.add_argument("--onnx", metavar="FOLDER", help="write the model in ONNX, and the ids of raw values")


def _work(options: Namespace, _: list[str]) -> None:
    from recbole_alt.export import to_huggingface, to_recbole
    from recbole_alt.finished import finetuned_file

    if not (options.recbole or options.huggingface or options.onnx):
        raise ValueError("nothing to do: give --recbole=FILE, --huggingface=FOLDER, --onnx=FOLDER, or several of them")
    is_run = options.mode is not None or Path(options.model_file).is_dir()
    file = finetuned_file(options.model_file, options.mode) if is_run else options.model_file
    if options.recbole:
        to_recbole(file, options.recbole)
        print(f"Written: {options.recbole}, {options.recbole}.yaml")
    if options.huggingface:
        to_huggingface(file, options.huggingface)
        print(f"Written: {options.huggingface}")
    if options.onnx:
        from recbole_alt.serving import to_onnx

        print(to_onnx(file, options.onnx).summary())


COMMAND = Command("take a run's models elsewhere: to plain RecBole, to Hugging Face, to ONNX", _add_options, _work)
