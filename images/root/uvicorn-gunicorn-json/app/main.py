"""The demo, served until there is an application: remove it, or put yours in its place."""

from mooring import demo

app = demo.json_app
