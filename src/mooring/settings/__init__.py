"""The table of settings, the parsers, the profiles, the engines by name; from their origins to values."""
