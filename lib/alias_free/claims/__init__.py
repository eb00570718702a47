"""The claims of chapter 06: of single layers, and of whole networks."""

from lib.alias_free.claims import layers, networks

TOPICS = (layers, networks)
