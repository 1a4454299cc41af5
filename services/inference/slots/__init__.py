"""Adapters in the slots of one base model: who owns their states, who waits, who gives way."""
