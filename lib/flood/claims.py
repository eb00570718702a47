"""The claims of chapter 10: about the solver, then about coarse maps."""

from lib.flood import coarse_claims, solver_claims

__all__ = ["coarse_claims", "solver_claims"]
