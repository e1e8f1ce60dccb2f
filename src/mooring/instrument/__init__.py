"""The wrapper around the application, on each request's path: counts, ids, proxy headers, limits, log."""
