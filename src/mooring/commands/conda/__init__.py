"""The `conda` and `mamba` of the conda images: what Dockerfiles ask of conda, done by py-rattler.

It is not conda itself, and says so where it cannot do what is asked. `layout.py` makes the folder that it
works on; `command.py` is the command. Not a command of mooring's own: only the images have it.
"""
