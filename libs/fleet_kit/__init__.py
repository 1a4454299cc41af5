"""The base of every service: bus, outbox, inbox, leases, dead letters, database, blobs, access, telemetry, HTTP."""
