"""Process 1: keeps as many workers as are wanted, and replaces, drains and ends them."""
