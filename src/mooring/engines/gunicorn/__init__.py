"""gunicorn as an engine: its arbiter is one worker to the supervisor, and has workers of its own."""
