"""Programs that nobody vouches for, run in bounds that the kernel keeps: code of answers, third parties' metrics."""
