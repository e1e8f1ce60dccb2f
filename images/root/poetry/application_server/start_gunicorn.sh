#!/bin/sh
. /application_server/activate.sh
exec mooring run "$@"
