"""Answers that may become data: which of them, what of them, and their way out of the process."""
