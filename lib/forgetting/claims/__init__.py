"""The claims of chapter 03: about projections and two tasks."""

from lib.forgetting.claims import projections

TOPICS = (projections,)
