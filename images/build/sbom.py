"""sbom.py NAME FILE FOLDER...: a CycloneDX 1.6 document of the Python distributions in some folders.

With --debian as a folder, of the base image's Debian packages too. The same at each build: its serial number
is made from its content, and it bears no time but SOURCE_DATE_EPOCH.
"""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import distributions
from pathlib import Path

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

DPKG = Path("/build/dpkg-status")  # of the base image, before a compiler came


def _python(folder: str) -> Iterator[Component]:
    for found in distributions(path=[folder]):
        name, version = found.metadata["Name"].lower(), found.version
        told = found.metadata.get("License-Expression")
        yield Component(
            type=ComponentType.LIBRARY,
            name=name,
            version=version,
            purl=PackageURL("pypi", name=name.replace("_", "-"), version=version),
            licenses=[LicenseFactory().make_from_string(told)] if told else [],
        )


def _debian() -> Iterator[Component]:
    for block in DPKG.read_text().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and line[0] != " ")
        if fields.get("Status", "").endswith(" installed"):
            name, version = fields["Package"], fields["Version"]
            about = {"arch": fields.get("Architecture", "")}
            purl = PackageURL("deb", "debian", name, version, about)
            yield Component(type=ComponentType.LIBRARY, name=name, version=version, purl=purl)


def main(name: str, file: str, *folders: str) -> None:
    """Write the document."""
    bom = Bom()
    bom.metadata.timestamp = datetime.fromtimestamp(int(os.environ["SOURCE_DATE_EPOCH"]), UTC)
    bom.metadata.component = Component(type=ComponentType.CONTAINER, name=name)
    for folder in folders:
        bom.components.update(_debian() if folder == "--debian" else _python(folder))
    bom.register_dependency(bom.metadata.component, bom.components)
    for component in [bom.metadata.component, *bom.components]:  # else they are random
        component.bom_ref.value = component.purl.to_string() if component.purl else component.name
    content = "\n".join(sorted(str(component.bom_ref.value) for component in bom.components))
    bom.serial_number = uuid.uuid5(uuid.NAMESPACE_URL, content)
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    Path(file).write_text(JsonV1Dot6(bom).output_as_string(indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
