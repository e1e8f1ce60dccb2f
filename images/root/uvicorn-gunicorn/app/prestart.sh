#!/bin/sh
# Sourced before the server starts. Put a file of your own in its place.
echo "Running inside /app/prestart.sh, you could add migrations to this file: alembic upgrade head"
