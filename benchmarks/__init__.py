"""Every claim we make, measured with its peer beside it in the same run: `python -m benchmarks.NAME [--quick]`."""
