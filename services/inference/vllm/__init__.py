"""A base model on vLLM servers: which adapter lies where, brought there, proved, reconciled, called."""
