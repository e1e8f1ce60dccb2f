"""Linux behind small functions: processes, signals, sockets, files in memory, users."""
