"""A request's line: its forms, which are written, and the process that writes them."""
