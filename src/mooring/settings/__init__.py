"""The table of settings, their parsers, the profiles, the engines by name; how settings get their values."""
