"""The claims of chapter 02 as functions that measure.

The paper's abstract is the source of the phenomenon; statements marked "derived here" are proved or measured
by us, and no constant of the paper is quoted.
"""

from lib.edge_of_stability.claims import networks, scalar_networks

TOPICS = (scalar_networks, networks)
