"""One worker process: what it is given, its set-up, the import, the engine, its heartbeat."""
