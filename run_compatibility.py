"""Plain backbones against aligned ones: ``python run_compatibility.py --models=DCN,DeepFM --out=campaigns/first``."""

import sys

from recbole_alt_command import main

if __name__ == "__main__":
    sys.exit(main("compare"))
