"""Typed Python client of the fleet's HTTP services, async and sync."""
