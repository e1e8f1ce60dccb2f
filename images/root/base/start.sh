#!/bin/sh
exec mooring run "$@"
