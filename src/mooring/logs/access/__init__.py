"""The access log: the forms of its lines, which requests have one, and the process that writes them."""
