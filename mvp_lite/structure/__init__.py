"""Heads and neurons of known model families, and smaller models made of what pruning left."""
