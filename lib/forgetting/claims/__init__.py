"""The claims of chapter 03: about projections and two tasks, then about cycles."""

from lib.forgetting.claims import cycles, projections

TOPICS = (projections, cycles)
