"""Versions against one another: what differs, what is better, and whether that is significant (AM-3.3, LA-1.4)."""
