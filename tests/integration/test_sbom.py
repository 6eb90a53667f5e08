"""tools/sbom on a small tree: what it says of packages that are there, changed, or gone since they were installed."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.agents import ROOT
from tests.support.cyclonedx import sbom_problems

WHEEL = "5f" * 32
STATUS = """\
Package: alpha
Status: install ok installed
Maintainer: Ada <ada@a.example>
Architecture: amd64
Source: alphas (1.2)
Version: 1:1.2+dfsg-3~bpo
Pre-Depends: beta (>= 2)
Depends: nothing | meta, gone (= 1)
Description: the first
 and more of it

Package: beta
Status: install ok installed
Maintainer: Bea <bea@a.example>
Architecture: all
Version: 2
Description: the second

Package: gone
Status: install ok installed
Maintainer: Bea <bea@a.example>
Architecture: amd64
Version: 1

Package: meta
Status: install ok installed
Maintainer: Bea <bea@a.example>
Architecture: all
Version: 3

Package: purged
Status: deinstall ok config-files
Maintainer: Bea <bea@a.example>
Architecture: all
Version: 4
"""
FILES = {
    "etc/os-release": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\nVERSION_ID="12"\n',
    "var/lib/dpkg/status": STATUS,
    "var/lib/dpkg/info/alpha:amd64.list": "/.\n/usr/bin/alpha\n/usr/bin/alpha-too\n/usr/share/doc/alpha/copyright",
    "var/lib/dpkg/info/beta.list": "/usr/lib/beta\n",
    "var/lib/dpkg/info/gone.list": "/usr/bin/gone\n/usr/share/doc/gone/copyright\n",
    "var/lib/dpkg/info/meta.list": "/.\n/usr/share/doc/meta/copyright\n",
    "usr/bin/alpha": "a",
    "usr/bin/alpha-too": "a",
    "usr/bin/gone": "g",
    "usr/lib/beta": "b",
    "usr/share/doc/alpha/copyright": "Format: x\n\nFiles: *\nLicense: GPL-2+ or Expat\n\nLicense: Expat\n text\n",
    "usr/share/doc/beta/copyright": "Free. On Debian systems see /usr/share/common-licenses/LGPL-2.1.\n",
    "usr/share/doc/meta/copyright": "Python's:\n\nPYTHON SOFTWARE FOUNDATION LICENSE VERSION 2\n",
    "usr/share/doc/gone/copyright": "Format: x\nLicense: MIT\n",
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A root with four installed packages and two distributions."""
    root = tmp_path / "root"
    for path, content in FILES.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content)
    folder = root / "opt/node-hardening"
    for name in ("idna", "certifi"):
        for file in importlib.metadata.files(name) or ():
            source = Path(str(file.locate()))
            # As pip --target has it: scripts lie in the folder, too.
            target = folder.joinpath(*(part for part in file.parts if part != ".."))
            if source.suffix != ".pyc":
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, target)
    return root


def sbom(*words: str | Path, epoch: int = 1_767_225_600) -> str:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools/sbom"), *map(str, words)],
        env={"PATH": os.defpath, "SOURCE_DATE_EPOCH": str(epoch)},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def written(tree: Path, noted: str | None = None) -> str:
    """The document of the tree as it is now, noted as it was then."""
    folder = tree.parent
    (folder / "noted.json").write_text(sbom("note", tree) if noted is None else noted)
    (folder / "wheels.json").write_text(json.dumps({"idna": WHEEL, "certifi": WHEEL}))
    return sbom("write", tree, folder / "noted.json", folder / "wheels.json", "1.0")


def components(text: str) -> dict[str, dict[str, Any]]:
    return {one["bom-ref"]: one for one in json.loads(text)["components"]}


def test_it_is_valid_and_the_same_for_the_same_image(tree: Path) -> None:
    """By CycloneDX's schema, to the byte; another image has another serial number."""
    first = written(tree)
    assert sbom_problems(first) == ""
    assert written(tree) == first
    (tree / "usr/bin/alpha-too").unlink()
    other = written(tree, json.dumps({**json.loads(sbom("note", tree))}))
    assert json.loads(other)["serialNumber"] != json.loads(first)["serialNumber"]


def test_packages_have_version_licence_and_place(tree: Path) -> None:
    """Licences by a copyright file's fields, or the common ones that it points at; configuration is no package."""
    found = components(written(tree))
    assert {ref for ref in found if ref.startswith("deb:")} == {"deb:alpha", "deb:beta", "deb:gone", "deb:meta"}
    alpha = found["deb:alpha"]
    assert alpha["version"] == "1:1.2+dfsg-3~bpo"
    assert alpha["purl"] == "pkg:deb/debian/alpha@1:1.2%2Bdfsg-3~bpo?arch=amd64&distro=debian-12"
    assert alpha["supplier"] == {"name": "Ada"}
    assert alpha["licenses"] == [{"license": {"name": "Expat"}}, {"license": {"name": "GPL-2+"}}]
    assert [one["value"] for one in alpha["properties"]] == ["alphas", "2 of 2"]
    assert found["deb:beta"]["licenses"] == [{"license": {"name": "LGPL-2.1"}}]
    assert found["deb:meta"]["licenses"] == [{"license": {"name": "PSF-2"}}]
    assert found["os:debian-12"]["version"] == "12"


def test_what_was_taken_out_is_no_component(tree: Path) -> None:
    """A package without one of its files is named apart; one of which some are left says how many; licences were noted
    before they went."""
    noted = sbom("note", tree)
    for path in ("usr/bin/gone", "usr/bin/alpha-too"):
        (tree / path).unlink()
    shutil.rmtree(tree / "usr/share/doc")
    shutil.rmtree(tree / "var/lib/dpkg/info")
    text = written(tree, noted)
    assert sbom_problems(text) == ""
    found = components(text)
    assert "deb:gone" not in found
    assert json.loads(text)["metadata"]["properties"] == [
        {"name": "node-hardening-agent:debian-packages-taken-out", "value": "gone"}
    ]
    assert found["deb:alpha"]["properties"][1]["value"] == "1 of 2"
    assert found["deb:alpha"]["licenses"]
    # It never had a file.
    assert "deb:meta" in found


def test_distributions_have_their_wheels_hash_and_what_was_changed(tree: Path) -> None:
    """pip's own report names the wheel; RECORD tells what is not as the wheel had it."""
    packages = tree / "opt/node-hardening"
    (packages / "certifi/cacert.pem").unlink()
    (packages / "certifi/__init__.py").write_text("# another\n")
    found = components(written(tree))
    for name in ("idna", "certifi"):
        one = found[f"pypi:{name}"]
        assert one["version"] == importlib.metadata.version(name)
        assert one["hashes"] == [{"alg": "SHA-256", "content": WHEEL}]
        assert one["licenses"]
    assert found["pypi:certifi"]["pedigree"]["notes"] == "tools/prune-image: 1 files of the wheel taken out, 1 changed"
    assert "pedigree" not in found["pypi:idna"]


def test_wheels_have_the_hash_that_pip_took(tmp_path: Path) -> None:
    """In the forms of pip's report over the years; a wheel from a folder, which has none there, is read."""
    wheel = tmp_path / "c d.whl"
    wheel.write_bytes(b"wheel")
    links: dict[str, dict[str, Any]] = {
        "A_a": {"url": "https://a.example/a.whl", "archive_info": {"hash": f"sha256={WHEEL}"}},
        "b": {"url": "https://a.example/b.whl", "archive_info": {"hash": "x", "hashes": {"sha256": WHEEL}}},
        "c": {"url": wheel.as_uri(), "archive_info": {}},
    }
    report = tmp_path / "report.json"
    report.write_text(
        json.dumps({"install": [{"metadata": {"name": name}, "download_info": link} for name, link in links.items()]})
    )
    read = hashlib.sha256(b"wheel").hexdigest()
    assert json.loads(sbom("wheels", report)) == {"a-a": WHEEL, "b": WHEEL, "c": read}


def test_it_says_what_needs_what(tree: Path) -> None:
    """The first alternative that is there; the image needs the agent and what nothing else asks for."""
    document = json.loads(written(tree))
    needs = {one["ref"]: one.get("dependsOn", []) for one in document["dependencies"]}
    assert needs["deb:alpha"] == ["deb:beta", "deb:gone", "deb:meta"]
    assert needs["agent:node-hardening-agent"] == ["pypi:certifi", "pypi:idna"]
    assert needs["image"] == ["agent:node-hardening-agent", "deb:alpha", "os:debian-12"]
    assert set(needs) == {"image", *components(json.dumps(document))} - {"os:debian-12"}
