#!/bin/sh
exec mooring dev "$@"
