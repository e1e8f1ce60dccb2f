"""Find a server's own configuration that the user brought, and evaluate it in a process of its own."""
