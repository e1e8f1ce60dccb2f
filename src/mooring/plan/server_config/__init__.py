"""A server's own configuration that the user brought: found, and evaluated in a process of its own."""
