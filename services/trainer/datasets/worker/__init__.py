"""The building subprocess: rows in, sorted and split records out. Knows no bus, database or object store."""
