"""What each command does. Imported when it is given, and not before."""
