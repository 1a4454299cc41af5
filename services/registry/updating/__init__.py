"""Updates: what runs where against what is available, and what is recommended (AS-8.1)."""
