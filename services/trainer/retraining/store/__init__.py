"""SQL of retraining: one statement a function, connection first."""
