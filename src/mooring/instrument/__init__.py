"""The one wrapper on a request's path: it counts, identifies, believes proxies, limits, and logs."""
