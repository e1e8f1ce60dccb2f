#!/bin/sh
. /application_server/activate.sh
echo "Running black..."
exec black $* # not quoted: one element of CMD may hold several words
