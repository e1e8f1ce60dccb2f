"""`mooring install`: the dependencies that an application's folder declares, installed by their own tool.

Not a package manager: it finds the declaration (finding.py), says which commands install what production
needs (plans.py), fetches the tools into a temporary environment (toolbox.py) and runs them (command.py).
"""
