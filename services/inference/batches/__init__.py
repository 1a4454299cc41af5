"""Batches: files of requests that are computed aside, at the lowest priority, on any replica."""
