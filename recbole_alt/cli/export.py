"""``recbole-alt export``: the models of a run for other programs."""

from argparse import ArgumentParser, Namespace

from recbole_alt.cli.command import Command


def _add_options(parser: ArgumentParser) -> None:
    parser.add_argument("model_file", help="a .pth file in the folder of a run, or the folder")
    parser.add_argument("--mode", help="of the model, where a folder is given (default: the best on validation)")
    parser.add_argument("--recbole", metavar="FILE", help="write the CTR model for plain RecBole")
    parser.add_argument("--huggingface", metavar="FOLDER", help="write the language model for AutoModel")
    parser.add_argument("--onnx", metavar="FOLDER", help="write the model in ONNX, and the ids of raw values")


def _work(options: Namespace, _: list[str]) -> None:
    from recbole_alt.exporting import export

    where = {name: getattr(options, name) for name in ("mode", "recbole", "huggingface", "onnx")}
    print(export(options.model_file, **where).summary())


COMMAND = Command("take a run's models elsewhere: to plain RecBole, to Hugging Face, to ONNX", _add_options, _work)
