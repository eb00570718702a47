"""The claims of chapter 04: about rounding, integers and memory, then about gradients and training."""

from lib.four_bit import rounding_claims, training_claims

__all__ = ["rounding_claims", "training_claims"]
