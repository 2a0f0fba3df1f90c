"""Holds the image to its word: small, nobody's root, no shell, and nothing in it that is not its own business."""

import json
import os
import re
import subprocess
import tarfile

from system import VERSION, command, fail, say

MOST = 150_000_000
MOST_UNOPTIMIZED = 250_000_000  # of a debug binary, POSTHORN_TEST_BINARY
LABELS = ["title", "description", "source", "licenses", "version", "revision"]
SHELLS = "sh bash dash ash busybox zsh python3 perl apt apt-get dpkg curl wget su sudo".split()
# What a secret looks like in a name, or in a command of the image's history.
SECRET = re.compile(r"secret|password|passwd=|token|credential|\.env\b|id_rsa|\.(pem|key|p12)$", re.IGNORECASE)


def look_at(image):
    found = list(wrong(image))
    if found:
        fail("the image: " + "; ".join(found))
    say("the image is small, has no shell, no root and no secrets")


def wrong(image):
    """All that must not be."""
    about = json.loads(command("docker", "image", "inspect", image))[0]
    most = MOST_UNOPTIMIZED if "POSTHORN_TEST_BINARY" in os.environ else MOST
    if about["Size"] > most:
        yield f"it has {about['Size']} bytes"
    if not re.fullmatch(r"[1-9]\d*:[1-9]\d*", about["Config"]["User"]):
        yield f"it runs as the user {about['Config']['User']!r}"
    labels = about["Config"].get("Labels") or {}
    for label in (f"org.opencontainers.image.{name}" for name in LABELS):
        if not labels.get(label):
            yield f"it has no label {label}"
    if labels.get("org.opencontainers.image.version") != VERSION:
        yield "its version is not the one it was built with"
    for line in command("docker", "history", "--no-trunc", "--format", "{{.CreatedBy}}", image).splitlines():
        if SECRET.search(line):
            yield f"a secret in its history? {line}"
    yield from wrong_files(image)


def wrong_files(image):
    container = command("docker", "create", image)
    try:
        with subprocess.Popen(["docker", "export", container], stdout=subprocess.PIPE) as export:
            binaries = 0
            for member in tarfile.open(fileobj=export.stdout, mode="r|"):
                name = os.path.basename(member.name)
                binaries += member.name == "usr/local/bin/posthorn"
                if name in SHELLS:
                    yield f"there is {member.name}"
                if member.isfile() and member.mode & 0o6000:
                    yield f"{member.name} changes its user"
                if SECRET.search(name):
                    yield f"a secret? {member.name}"
            if binaries != 1:
                yield "the binary is not there"
    finally:
        command("docker", "rm", container)
