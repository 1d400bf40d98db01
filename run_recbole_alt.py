"""Align, finetune and compare: ``python run_recbole_alt.py --model=ALT_DCN --dataset=ml-100k``."""

import sys

from recbole_alt_command import main

if __name__ == "__main__":
    sys.exit(main("run"))
