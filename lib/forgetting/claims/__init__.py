"""The claims of chapter 03: projections and two tasks, cycles, random orders, and what real data say."""

from lib.forgetting.claims import cycles, experiments, projections, random_orders

TOPICS = (projections, cycles, random_orders, experiments)
