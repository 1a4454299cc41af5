"""What is brought into slots before anybody asks, what leaves under memory pressure, and the presets of both."""
