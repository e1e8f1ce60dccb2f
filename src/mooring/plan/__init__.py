"""Make the plan from settings, resources and a server's own configuration: each value with its reason."""
