"""Untrusted programs, run in bounds that the kernel keeps: code of answers, third parties' metrics."""
