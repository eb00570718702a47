"""What `accelerate launch` runs: a training of each of three chapters, one after another in the same processes."""

import sys
from pathlib import Path

from lib.__main__ import app
from tests.alias_free.test_commands import TINY
from tests.flood.test_learning import train_together

EDGE = ("--count", 20, "--n-steps", 20, "--every", 20, "--tol", 1e-2, "--rtol", 1e-2)

if __name__ == "__main__":
    out = Path(sys.argv[1])
    for chapter, options in (("alias-free", TINY), ("edge-of-stability", EDGE)):
        app(["train", chapter, "--out", str(out / chapter), *map(str, options)], standalone_mode=False)
    train_together(out / "flood")
