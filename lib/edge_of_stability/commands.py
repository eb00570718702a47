"""What chapter 02 adds to the command line: `python -m lib train edge-of-stability`."""

from __future__ import annotations

from lib.command_line import TrainingCommand

__all__ = ["COMMANDS"]


class Train(TrainingCommand):
    """Train at the edge of stability, and follow the sharpness of the gradient flow solution."""

    target = "lib.edge_of_stability.experiment:train_edge_of_stability"


#: verb -> the command
COMMANDS = {"train": Train}
