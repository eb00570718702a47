"""The claims of chapter 04: about rounding, integers and memory, then about gradients and training."""

from lib.four_bit.claims import rounding, training

TOPICS = (rounding, training)
