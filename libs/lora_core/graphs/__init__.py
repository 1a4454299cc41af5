"""Decoding in CUDA graphs: the model's own forward, captured for buckets of rows, with adapters by row.

A graph repeats the same kernels on the same addresses. Which adapter a row uses is therefore a number in a tensor, and
the kernels read it: one graph serves any mix of adapters and base rows. On a processor the captured function is called
directly, so that everything but the kernels is the same there.
"""
