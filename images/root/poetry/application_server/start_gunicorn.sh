#!/usr/bin/env -S --block-signal=TERM,INT,QUIT sh
# Process 1 loses a signal that it does not handle: blocked, it waits until mooring does.
. /application_server/activate.sh
# The newer images' Dockerfiles (versions 1 to 3) copy to their user, and publish port 8000.
if [ "$(stat -c %U /application_root/app 2>/dev/null)" = python_application ]; then
  if [ -z "$MOORING_BIND$BIND$MOORING_HOST$HOST$MOORING_PORT$PORT" ]; then
    export PORT=8000
    echo "mooring: /application_root/app is python_application's, as in the newer images: listening on port 8000; BIND says otherwise" >&2
  fi
  if [ "$(id -u)" = 0 ]; then
    export MOORING_USER="${MOORING_USER:-python_application}"
  fi
fi
exec mooring run "$@"
