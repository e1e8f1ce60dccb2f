"""A stand-in for meinheld, by mooring: meinheld has had no release since 2020, and none for this Python.

It serves by gunicorn's threads. What has `meinheld` among its requirements installs, and what names
egg:meinheld#gunicorn_worker starts. Where meinheld itself can be built, it takes this one's place:
pip install --force-reinstall.
"""

from meinheld.server import listen, run

__version__ = "1.0.2"
version_info = (1, 0, 2)

__all__ = ["__version__", "listen", "run", "version_info"]
