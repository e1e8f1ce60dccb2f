"""The worker class at its old place."""

from meinheld.worker import MeinheldWorker

__all__ = ["MeinheldWorker"]
