#!/bin/sh
. /application_server/activate.sh
echo "Running pytest..."
exec pytest $* # not quoted: one element of CMD may hold several words
