#!/bin/sh
# As in the newer images, whose entry point was python: options are python's, and so is a script. Their own launcher
# is mooring here.
case "$*" in
"-m inboard.start" | "python -m inboard.start" | "python3 -m inboard.start") exec mooring run ;;
"/bin/sh -c python -m inboard.start" | "/bin/sh -c python3 -m inboard.start") exec mooring run ;;
-*) exec python "$@" ;;
esac
case ${1:-} in
*.py) [ -x "$1" ] || exec python "$@" ;;
esac
exec "$@"
