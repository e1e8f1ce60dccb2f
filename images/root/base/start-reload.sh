#!/usr/bin/env -S --block-signal=TERM,INT,QUIT sh
# Process 1 loses a signal that it does not handle: blocked, it waits until mooring does.
exec mooring dev "$@"
