"""The claims of chapter 05: masks of blocks, and what they do to a gradient and to training."""

from lib.sparsity.claims import gradients, masks, networks

TOPICS = (masks, gradients, networks)
