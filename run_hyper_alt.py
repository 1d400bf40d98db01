"""Tune one stage: ``python run_hyper_alt.py --model=ALT_DCN --dataset=ml-100k --params_file=finetune``."""

import sys

from recbole_alt_command import main

if __name__ == "__main__":
    sys.exit(main("tune"))
