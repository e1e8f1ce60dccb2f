"""Prometheus text of mooring's own facts, and the merge of what the application counts."""
