#!/bin/sh
echo "Running inside /app/prestart.sh: put a file of yours in its place, for what has to be done before the start"
