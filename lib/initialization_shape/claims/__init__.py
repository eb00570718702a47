"""The claims of chapter 01 as functions that measure.

"Derived here" marks results that are not stated in the paper; k is our k, the square root of the paper's.
"""

from lib.initialization_shape.claims import diagonal_networks, neurons

TOPICS = (diagonal_networks, neurons)
