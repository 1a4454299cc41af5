"""Generators: records made from records, each marked as synthetic and with the name of what made it."""
