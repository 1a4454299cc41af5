"""SQL of what data sets are made of: one statement a function, connection first."""
