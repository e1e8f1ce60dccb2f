"""The supervisor: keeps the wanted number of workers running; replaces, drains and ends workers."""
