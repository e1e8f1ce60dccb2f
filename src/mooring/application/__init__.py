"""The application: found, imported, told what it is, or why it fails."""
