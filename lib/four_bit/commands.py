"""What chapter 04 adds to the command line: `python -m lib train four-bit` and `python -m lib sweep four-bit`."""

from __future__ import annotations

from lib.command_line import SweepCommand, TrainingCommand

__all__ = ["COMMANDS"]


class Train(TrainingCommand):
    """Train a network with 4-bit matrix products, and print its accuracy."""

    target = "lib.four_bit.experiment:train_four_bit"


class Sweep(SweepCommand):
    """Train in several ways with several seeds, and print their accuracies."""

    target = "lib.four_bit.sweep:sweep_four_bit"


#: verb -> the command
COMMANDS = {"sweep": Sweep, "train": Train}
