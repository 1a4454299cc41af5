"""Calls of functions: the forms in which models write them, held while they write, and read as they come."""
