"""Shared memory: each worker's row and ring, and the totals of those that have ended."""
