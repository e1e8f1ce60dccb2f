"""The application's own metrics: what its workers record with prometheus_client, as one page.

client.py is the supervisor's side; it runs helper.py in a process beside it, which reads the workers' files
(files.py) from a folder (folder.py), adds them up (merge.py), writes the page (text.py) and keeps the folder
small (fold.py). prometheus_client itself is never imported: it costs 10 MiB and 0.1 s, may not be where
mooring is, and one bad file spoils its whole page. Tests compare the results with its own collector's.
"""
