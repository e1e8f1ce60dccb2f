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
case $(first /app/app/main.py /app/main.py /none) in
/app/app/main.py) module=app.main variable=app ;;
/app/main.py) module=main variable=app ;;
*)
  module=main variable=app # not found, as in mooring run: the demo is served only while there is no Python file
  [ -n "$(find /app/ -name '*.py' ! -path '/app/gunicorn_conf.py' ! -path '/app/app/gunicorn_conf.py' \
    ! -path "${GUNICORN_CONF:-none}" -print -quit)" ] ||
    module=mooring.demo variable=wsgi_app
  ;;
esac
[ -z "$MODULE_NAME" ] || variable=app
export APP_MODULE="${APP_MODULE:-${MODULE_NAME:-$module}:${VARIABLE_NAME:-$variable}}"
export GUNICORN_CONF="${GUNICORN_CONF:-$(first /app/gunicorn_conf.py /app/app/gunicorn_conf.py /gunicorn_conf.py)}"
exec "$@"
