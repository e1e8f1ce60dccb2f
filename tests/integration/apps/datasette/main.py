"""Datasette, a program from PyPI: its ASGI application needs a database, so a factory makes it."""

import os

from datasette.app import Datasette


def create_app():
    return Datasette([os.environ["DATASETTE_DATABASE"]]).app()
