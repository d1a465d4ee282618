"""Files and formats of pruned models."""
