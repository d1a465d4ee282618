"""Files that hold models: their checksums and formats."""
