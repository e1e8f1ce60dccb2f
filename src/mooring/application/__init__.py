"""Find the application, import it, and say what it is or why it fails."""
