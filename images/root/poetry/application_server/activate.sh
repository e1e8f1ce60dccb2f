# Sourced: the application's virtual environment, or one line that says how to come by one.
echo "Activating virtual environment..."
if [ ! -f "$VIRTUAL_ENVIRONMENT_PATH/bin/activate" ]; then
  echo "mooring: there is no virtual environment in $VIRTUAL_ENVIRONMENT_PATH: in the Dockerfile, COPY pyproject.toml and poetry.lock to /application_root and RUN poetry install there" >&2
  exit 3
fi
. "$VIRTUAL_ENVIRONMENT_PATH/bin/activate"
