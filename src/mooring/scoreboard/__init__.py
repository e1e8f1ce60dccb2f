"""Shared memory: each worker's row and ring, and the totals of workers that have ended."""
