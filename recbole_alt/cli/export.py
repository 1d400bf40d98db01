"""``recbole-alt export``: the models of a run for other programs."""

from argparse import ArgumentParser, Namespace

from recbole_alt.cli.command import Command


def _add_options(parser: ArgumentParser) -> None:
    parser.add_argument("model_file", help="a .pth file in the folder of a run")
    parser.add_argument("--recbole", metavar="FILE", help="write the CTR model for plain RecBole")
    parser.add_argument("--huggingface", metavar="FOLDER", help="write the language model for AutoModel")


def _work(options: Namespace, _: list[str]) -> None:
    from recbole_alt.export import to_huggingface, to_recbole

    if not (options.recbole or options.huggingface):
        raise ValueError("nothing to do: give --recbole=FILE, --huggingface=FOLDER, or both")
    if options.recbole:
        to_recbole(options.model_file, options.recbole)
        print(f"Written: {options.recbole}, {options.recbole}.yaml")
    if options.huggingface:
        to_huggingface(options.model_file, options.huggingface)
        print(f"Written: {options.huggingface}")


COMMAND = Command("take a run's models elsewhere: to plain RecBole, to Hugging Face", _add_options, _work)
