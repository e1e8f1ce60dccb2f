"""The worker class, for gunicorn."""

from gunicorn.workers.gthread import ThreadWorker


class MeinheldWorker(ThreadWorker):
    """gunicorn's threads under the name that configurations have."""
