"""All SQL of the registry: `versions` for transitions, `usage` for counters, `listing` for what readers ask."""
