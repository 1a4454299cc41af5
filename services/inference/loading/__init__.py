"""An adapter's way into a slot: object store, disk cache, engine, and the proof of its effect."""
