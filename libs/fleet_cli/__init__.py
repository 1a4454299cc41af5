"""The `lorafleet` command, the typed client of the fleet, and the embedded stack."""
