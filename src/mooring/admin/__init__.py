"""The endpoint outside the workers: liveness, readiness, status, metrics; and the instance's folder."""
