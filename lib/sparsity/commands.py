"""What chapter 05 adds to the command line: `python -m lib train sparsity` and `python -m lib sweep sparsity`."""

from __future__ import annotations

from lib.command_line import SweepCommand, TrainingCommand

__all__ = ["COMMANDS"]


class Train(TrainingCommand):
    """Train a network with N:M pruned gradients, and print its accuracy."""

    target = "lib.sparsity.experiment:train_sparsity"


class Sweep(SweepCommand):
    """Train with several methods, patterns and seeds, and print the accuracies."""

    target = "lib.sparsity.sweep:sweep_sparsity"


#: verb -> the command
COMMANDS = {"sweep": Sweep, "train": Train}
