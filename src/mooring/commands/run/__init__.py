"""The start, in order: settings, pre-start hook, settings again, plan, listeners, worker 0, supervisor."""
