"""granian as an engine."""
