"""The older images' documentation as a table: each Dockerfile, each `docker` line, and what is looked at.

No part of the tests' harness: the tests that run it are test_seeds_*.py.
"""
