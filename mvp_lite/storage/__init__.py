"""Pruned models in folders: weights, tokenizer, and a card that says how they were made."""
