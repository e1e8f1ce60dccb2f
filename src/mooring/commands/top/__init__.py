"""`mooring top`: the running instance, live in a terminal."""
