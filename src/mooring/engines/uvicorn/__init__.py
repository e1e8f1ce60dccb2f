"""uvicorn as an engine."""
