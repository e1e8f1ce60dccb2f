"""The application's own metrics: what its workers record with prometheus_client, merged into one page.

client.py is the supervisor's side; it runs helper.py in a process of its own, which reads the workers' files
(files.py) from a folder (folder.py), adds them up (merge.py), writes the page (text.py) and keeps the folder
small (fold.py). prometheus_client itself is never imported here: it costs 10 MiB and 0.1 s, it may not be
installed beside mooring, and one bad file makes it fail for the whole page. Tests compare the results with
those of its own collector.
"""
