"""What krew, its index and its reviewers demand of a manifest and of an archive.

The rules are those of krew 0.5.0's own validation and of its validate-krew-manifest, and what the
index's guide and its reviewers ask for besides, where a program can tell.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

import yaml

Fault = str
"""What is wrong, and where."""

LAUNCHER = "kubectl-mesh"
_API_VERSION = "krew.googlecontainertools.github.com/v1alpha2"
_NAME = re.compile(r"[\w-]+", re.ASCII)
_RESERVED = re.compile(r"(?i)con|prn|aux|nul|(com|lpt)[1-9]")
_NUMBER = r"(0|[1-9]\d*)"
_WORDS = r"[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*"
_VERSION = re.compile(rf"v{_NUMBER}\.{_NUMBER}\.{_NUMBER}(-{_WORDS})?(\+{_WORDS})?", re.ASCII)
_CHECKSUM = re.compile(r"[a-f0-9]{64}")
_SHORT = 50
_COLUMNS = 80
_PLATFORMS = (
    *(("windows", arch) for arch in ("386", "amd64", "arm64")),
    *(("linux", arch) for arch in ("386", "amd64", "arm", "arm64", "ppc64le")),
    *(("darwin", arch) for arch in ("386", "amd64", "arm64")),
)
_LICENCE = re.compile(r"(?i)(license|licenses|copying)(\.txt|\.md)?")


def manifest_faults(text: str, name: str = "mesh") -> Iterator[Fault]:
    """What is wrong with a manifest; `name` is its file's, without .yaml."""
    try:
        manifest = yaml.safe_load(text)
    except yaml.YAMLError as error:
        yield f"no YAML: {error}"
        return
    if not isinstance(manifest, dict):
        yield "no mapping"
        return
    if manifest.get("apiVersion") != _API_VERSION:
        yield f"apiVersion is not {_API_VERSION}"
    if manifest.get("kind") != "Plugin":
        yield "kind is not Plugin"
    own = str((manifest.get("metadata") or {}).get("name") or "")
    if not _NAME.fullmatch(own) or _RESERVED.fullmatch(own):
        yield f"metadata.name {own!r} is no name of a plugin"
    if own != name:
        yield f"metadata.name {own!r} is not the name of the file, {name!r}"
    spec = manifest.get("spec") or {}
    yield from _texts(spec)
    platforms = spec.get("platforms") or []
    if not platforms:
        yield "spec.platforms is empty"
    for index, platform in enumerate(platforms):
        for fault in _platform(platform):
            yield f"spec.platforms[{index}]{fault}"
    for here in _PLATFORMS:
        if sum(_selects(platform, here) for platform in platforms) > 1:
            yield f"spec.platforms: several are for {'/'.join(here)}"


def _texts(spec: Mapping[str, Any]) -> Iterator[Fault]:
    if not _VERSION.fullmatch(str(spec.get("version") or "")):
        yield "spec.version is no semantic version with a v before it"
    short = str(spec.get("shortDescription") or "")
    if not short or re.search(r"[\r\n]", short) or len(short) > _SHORT:
        yield f"spec.shortDescription is not one line of 1 to {_SHORT} characters"
    if short.endswith("."):
        yield "spec.shortDescription ends with a full stop"
    for field in ("description", "homepage", "caveats"):
        value = spec.get(field)
        if not isinstance(value, str) or not value.strip():
            yield f"spec.{field} is missing"
        elif any(len(line) > _COLUMNS for line in value.splitlines()):
            yield f"spec.{field} has lines of more than {_COLUMNS} columns"


def _platform(platform: Mapping[str, Any]) -> Iterator[Fault]:
    selector = platform.get("selector") or {}
    wanted = [*(selector.get("matchLabels") or {})]
    wanted += [each.get("key") for each in selector.get("matchExpressions") or ()]
    if not wanted or selector.get("matchLabels") == {} or selector.get("matchExpressions") == []:
        yield ".selector selects nothing, or is in part empty"
    if not {*wanted} <= {"os", "arch"}:
        yield ".selector has other keys than os and arch"
    elif not any(_selects(platform, each) for each in _PLATFORMS):
        yield ".selector is for no platform that krew knows"
    if not str(platform.get("uri") or "").startswith(("https://", "http://")):
        yield ".uri is no address"
    if not isinstance(platform.get("sha256"), str) or not _CHECKSUM.fullmatch(platform["sha256"]):
        yield ".sha256 is not of 64 hexadecimal digits in lower case"
    if platform.get("bin") != LAUNCHER:
        yield f".bin is not {LAUNCHER}, the launcher at the archive's root"
    if "files" in platform:
        yield ".files is there: all of the archive is needed, which is what krew takes without it"


def _selects(platform: Mapping[str, Any], here: tuple[str, str]) -> bool:
    """Whether a platform's selector is for this operating system and architecture."""
    labels = dict(zip(("os", "arch"), here, strict=True))
    selector = platform.get("selector") or {}
    expressions = [
        {"key": key, "operator": "In", "values": [value]}
        for key, value in (selector.get("matchLabels") or {}).items()
    ]
    for each in (*expressions, *(selector.get("matchExpressions") or ())):
        value, values = labels.get(each.get("key")), each.get("values") or ()
        holds = {
            "In": value in values,
            "NotIn": value not in values,
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }
        if not holds.get(each.get("operator")):
            return False
    return True


def archive_faults(content: bytes) -> Iterator[Fault]:
    """What is wrong with a .tar.gz that krew is to unpack."""
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as packed:
        entries = {entry.name: entry for entry in packed}
        launcher = packed.extractfile(LAUNCHER) if LAUNCHER in entries else None
        if launcher and b"\r" in launcher.read():
            yield f"{LAUNCHER} has line ends that sh does not know"
    for name, entry in entries.items():
        if not (entry.isfile() or entry.isdir()):
            yield f"{name} is neither a file nor a folder: krew cannot unpack it"
        if name.startswith("/") or ".." in name:
            yield f"{name} leads out of the archive"
        if re.search(r"\.(so|pyd|dylib|dll)$", name):
            yield f"{name} is of one platform"
    if not any(_LICENCE.fullmatch(name) for name in entries):
        yield "there is no licence at its root"
    if LAUNCHER not in entries or not entries[LAUNCHER].mode & 0o111:
        yield f"{LAUNCHER} is not there, or cannot be run"
    for name in entries:
        package = re.fullmatch(r"(lib/[^/]+\.dist-info)/METADATA", name)
        if package and not any(
            each.startswith(f"{package[1]}/") and _LICENCE.fullmatch(PurePosixPath(each).name)
            for each in entries
        ):
            yield f"{package[1]} has no licence"
