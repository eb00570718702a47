"""The claims of chapter 10: about the solver, then about coarse maps."""

from lib.flood.claims import coarse_maps, solver

TOPICS = (solver, coarse_maps)
