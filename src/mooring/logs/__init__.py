"""mooring's own log, and the workers' logging."""
