"""What is brought into slots before any request, what leaves under memory pressure, and the presets of both."""
