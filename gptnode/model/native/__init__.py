"""Kernels in C for steps of a few rows on the CPU, and what binds them to torch's tensors.

Optional: where they weren't compiled, `available` is False and torch's operators do everything.
"""
