"""Find vision transformers under a budget: `python run_search.py --budget 2GFLOPs`.

The same as `nas search`; `--help` lists every option.
"""

import sys

from nas.cli import main

if __name__ == "__main__":
    sys.exit(main(["search"]))
