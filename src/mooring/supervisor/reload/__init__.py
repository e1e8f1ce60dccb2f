"""Live reload: which files count, who watches them, and what a change starts."""
