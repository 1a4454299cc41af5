"""What every service stands on: bus, outbox, inbox, leases, dead letters, database, blobs, access, telemetry, HTTP."""
