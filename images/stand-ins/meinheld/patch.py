"""Nothing to patch: requests are served by threads, not by greenlets."""


def patch_all():
    """Do nothing."""


def patch_socket():
    """Do nothing."""
