"""Prometheus text of mooring's own numbers, and the merge of what the application counts."""
