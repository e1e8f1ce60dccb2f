"""Two programs from PyPI that nobody here wrote: Radicale (WSGI) and Datasette (ASGI)."""

from __future__ import annotations

import sqlite3
import xml.etree.ElementTree as ET

import httpx
import pytest
from harness import PATIENCE
from served import Served
from variants import ASGI, WSGI, Variant

EVENT = "\r\n".join(
    [
        *(
            "BEGIN:VCALENDAR",
            "VERSION:2.0",
            "PRODID:-//mooring//tests//EN",
            "BEGIN:VEVENT",
            "UID:1@example.org",
        ),
        *("DTSTART:20260601T100000Z", "DTSTAMP:20260101T000000Z", "SUMMARY:Größe", "END:VEVENT"),
        *("END:VCALENDAR", ""),
    ]
)
PROPFIND = '<propfind xmlns="DAV:"><prop><getetag/><resourcetype/></prop></propfind>'
REPORT = (
    '<c:calendar-query xmlns="DAV:" xmlns:c="urn:ietf:params:xml:ns:caldav"><prop><c:calendar-data/></prop>'
    '<c:filter><c:comp-filter name="VCALENDAR"/></c:filter></c:calendar-query>'
)
DAV = "{DAV:}"


@pytest.mark.parametrize("variant", WSGI, ids=str)
def test_radicale_keeps_a_calendar(mooring, variant: Variant):
    folder = mooring.base / "collections"
    config = mooring.base / "radicale.conf"
    config.write_text(
        f"[auth]\ntype = none\n[rights]\ntype = authenticated\n[storage]\nfilesystem_folder = {folder}\n"
    )
    served = Served.start(mooring, variant, "radicale:application", options={}, RADICALE_CONFIG=config)
    with httpx.Client(base_url=served.url, timeout=PATIENCE, trust_env=False, auth=("anna", "any")) as client:
        assert client.request("MKCALENDAR", "/anna/work/").status_code == 201
        put = client.put("/anna/work/1.ics", content=EVENT, headers={"content-type": "text/calendar"})
        assert put.status_code == 201
        got = client.get("/anna/work/1.ics")
        assert (got.status_code, got.text) == (200, EVENT)
        assert got.headers["etag"] == put.headers["etag"]
        found = client.request("PROPFIND", "/anna/work/", content=PROPFIND, headers={"depth": "1"})
        assert found.status_code == 207
        paths = [href.text for href in ET.fromstring(found.content).iter(f"{DAV}href")]
        assert set(paths) == {"/anna/work/", "/anna/work/1.ics"}
        report = client.request("REPORT", "/anna/work/", content=REPORT, headers={"depth": "1"})
        assert (report.status_code, "Größe" in report.text) == (207, True)
        assert client.delete("/anna/work/1.ics").status_code == 200
        assert client.get("/anna/work/1.ics").status_code == 404
    assert served.app.stop() == 0


@pytest.mark.parametrize("variant", [each for each in ASGI if each.worker_class != "trio"], ids=str)
def test_datasette_publishes_a_database(mooring, variant: Variant):
    path = mooring.base / "harbours.db"
    with sqlite3.connect(path) as database:
        database.execute("create table harbours (name text primary key, depth integer)")
        database.executemany("insert into harbours values (?, ?)", [("Århus", 14), ("Kiel", 12)])
    database.close()
    served = Served.start(mooring, variant, folder="datasette", DATASETTE_DATABASE=path)
    assert served.app.status()["plan"]["app"]["value"] == "main:create_app()"
    with httpx.Client(base_url=served.url, timeout=PATIENCE, trust_env=False) as client:
        assert "harbours" in client.get("/").text
        rows = client.get("/harbours/harbours.json", params={"_shape": "array", "_sort": "name"}).json()
        assert [(row["name"], row["depth"]) for row in rows] == [("Kiel", 12), ("Århus", 14)]
        one = client.get("/harbours/harbours/~C3~85rhus.json?_shape=array")
        assert one.json()[0]["depth"] == 14
        asked = client.get(
            "/harbours.json", params={"sql": "select sum(depth) as s from harbours", "_shape": "array"}
        )
        assert asked.json() == [{"s": 26}]
        table = client.get("/harbours/harbours.csv?_stream=on")
        assert table.text.splitlines()[0] == "name,depth"
        assert client.get("/-/static/app.css").headers["content-type"].startswith("text/css")
        assert client.get("/nowhere").status_code == 404
    assert served.app.stop() == 0
