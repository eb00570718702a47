"""The claims of chapter 06: of single layers, and of whole networks."""

from lib.alias_free import layer_claims, network_claims

__all__ = ["layer_claims", "network_claims"]
