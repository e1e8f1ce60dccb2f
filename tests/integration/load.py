"""A light load, each request on a connection of its own: what was answered, and what was not."""

from __future__ import annotations

import threading


class Load:
    """Asks for a path in a few threads until the end; `answers` has every body, `failed` every error."""

    def __init__(self, app, path="/", threads=3):
        self.app, self.path, self.answers, self.failed = app, path, [], []
        self._end = threading.Event()
        self.threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]

    def _run(self):
        while not self._end.is_set():
            try:
                self.answers.append(self.app.get(self.path).text)
            except (OSError, ValueError) as error:
                self.failed.append(error)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._end.set()
        for thread in self.threads:
            thread.join()
