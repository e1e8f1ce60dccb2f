#!/bin/sh
trap "exit 0" TERM INT QUIT # until it becomes the command; process 1 loses a signal that it does not handle
# As in the older image, any other command than the server's sees which application and configuration hold.
case ${1:-} in
/start.sh | /start-reload.sh | mooring) exec "$@" ;;
esac
first() {
  for file; do
    [ -f "$file" ] && echo "$file" && return
  done
  echo "$file"
}
case $(first /app/app/main.py /none) in
/app/app/main.py) module=app.main ;;
*) module=main ;; # the demo's place, while there is no application
esac
export APP_MODULE="${APP_MODULE:-${MODULE_NAME:-$module}:${VARIABLE_NAME:-app}}"
export GUNICORN_CONF="${GUNICORN_CONF:-$(first /app/gunicorn_conf.py /app/app/gunicorn_conf.py /gunicorn_conf.py)}"
exec "$@"
