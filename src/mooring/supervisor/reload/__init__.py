"""Live reload: which files count, which process watches them, and what a change starts."""
