"""Pruned models in files: formats, checksums, and a card that says how a model was made."""
