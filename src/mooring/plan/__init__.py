"""Settings, resources and a server's own configuration in; a plan with the reason of each value out."""
