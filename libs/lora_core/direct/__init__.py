"""Decoders of the Llama family computed directly: fused weights, no masks where no row is padded, no wrappers."""
