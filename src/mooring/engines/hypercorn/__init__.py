"""hypercorn as an engine."""
