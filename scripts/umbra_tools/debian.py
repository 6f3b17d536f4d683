"""Files from the Debian archive by a private apt: the machine's own sources are read, not edited.

The mirror is the one that the machine's apt already uses, in whatever form it is given there
(http, https, mirror+file, ...), for another suite if need be.
"""

import hashlib
import pathlib
import re

from .base import Failure, run

SUITES = ("bookworm", "trixie")  # Debian 12 and 13
ALIASES = ("oldstable", "stable", "testing")
KEYRINGS = [f"/usr/share/keyrings/debian-archive-keyring.{ext}" for ext in ("gpg", "pgp")]


def _deb822(text):
    """Stanzas of a .sources file as dictionaries with lower-case keys."""
    for block in re.split(r"\n\s*\n", text):
        stanza, key = {}, None
        for line in block.splitlines():
            if line.startswith("#"):
                continue
            if line[:1] in (" ", "\t") and key:
                stanza[key] += "\n" + line.strip()
            elif ":" in line:
                key, value = line.split(":", 1)
                key = key.strip().lower()
                stanza[key] = value.strip()
        if stanza:
            yield stanza


def _entries(etc):
    """(URI, suite, components, signed-by) of every enabled binary source of the machine."""
    etc = pathlib.Path(etc)
    for file in [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*.list"))]:
        if not file.is_file():
            continue
        for line in file.read_text(errors="replace").splitlines():
            m = re.match(r"\s*deb\s+(?:\[([^]]*)\]\s+)?(\S+)\s+(\S+)\s+([^#]*)", line)
            if m:
                options = dict(o.split("=", 1) for o in (m[1] or "").split() if "=" in o)
                yield m[2], m[3], m[4].split(), options.get("signed-by")
    for file in sorted((etc / "sources.list.d").glob("*.sources")):
        for stanza in _deb822(file.read_text(errors="replace")):
            if stanza.get("enabled", "yes").lower() in ("no", "false", "0"):
                continue
            if "deb" not in stanza.get("types", "").split():
                continue
            for uri in stanza.get("uris", "").split():
                for suite in stanza.get("suites", "").split():
                    yield (uri, suite, stanza.get("components", "").split(),
                           stanza.get("signed-by"))


def mirror(etc="/etc/apt"):
    """(URI, signed-by path or None) of the Debian archive that this machine uses."""
    for uri, suite, components, key in _entries(etc):
        if suite in SUITES + ALIASES and "main" in components and "security" not in uri:
            key = key if key and key.startswith("/") and pathlib.Path(key).exists() else None
            return uri, key
    raise Failure(f"no Debian mirror found in {etc}/sources.list or sources.list.d: "
                  "an entry for suite bookworm or trixie, component main, is needed")


class PrivateApt:
    """An apt with its own lists, cache and package state under `folder`, for one suite."""

    def __init__(self, folder, suite, kind):
        self.folder = pathlib.Path(folder)
        self.suite, self.kind = suite, kind
        for sub in ("lists/partial", "cache/archives/partial"):
            (self.folder / sub).mkdir(parents=True, exist_ok=True)
        (self.folder / "status").touch()
        (self.folder / "preferences").touch()
        self.options = [word for option in (
            f"Dir::Etc::sourcelist={self.folder}/sources.list",
            "Dir::Etc::sourceparts=/dev/null",
            f"Dir::Etc::preferences={self.folder}/preferences",
            "Dir::Etc::preferencesparts=/dev/null",
            f"Dir::State={self.folder}",
            f"Dir::State::lists={self.folder}/lists",
            f"Dir::State::status={self.folder}/status",
            f"Dir::Cache={self.folder}/cache",
            f"Dir::Cache::archives={self.folder}/cache/archives",
            # Container images switch these off; without them each call parses all lists: a second.
            "Dir::Cache::pkgcache=pkgcache.bin", "Dir::Cache::srcpkgcache=srcpkgcache.bin",
            "APT::Architecture=amd64", "APT::Architectures=amd64",
            "APT::Install-Recommends=false", "APT::Sandbox::User=",
            "APT::Keep-Downloaded-Packages=true", "Binary::apt-get::APT::Keep-Downloaded-Packages=true",
            "DPkg::Post-Invoke=", "APT::Update::Post-Invoke=", "Acquire::Languages=none",
            "Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false",
            "APT::Update::Error-Mode=any", "Acquire::Retries=3") for word in ("-o", option)]

    def _sources(self, trusted):
        uri, key = mirror()
        # The archive's own keyring knows every suite; the user's key may be for one only.
        keys = [k for k in KEYRINGS if pathlib.Path(k).exists()] or ([key] if key else [])
        option = "trusted=yes" if trusted else f"signed-by={keys[0]}" if keys else ""
        text = f"{self.kind} [{option}] " if option else f"{self.kind} "
        (self.folder / "sources.list").write_text(text + f"{uri} {self.suite} main\n")

    def update(self, pinned=False):
        """Fetch the package lists. `pinned`: the caller checks a SHA-256 of its own, so an archive
        whose signature this machine cannot check (keys too old or too new) will do."""
        try:
            self._sources(trusted=False)
            self.get("update")
        except Failure:
            if not pinned:
                raise
            self._sources(trusted=True)
            self.get("update")

    def get(self, *words, **options):
        return run("apt-get", "-qq", *self.options, *words,
                   label=f"apt-get {' '.join(words)} (suite {self.suite} of {mirror()[0]})",
                   **options)

    def show(self, package):
        """The control fields of the version that would be installed, by name."""
        text = run("apt-cache", *self.options, "show", "--no-all-versions", package,
                   label=f"apt-cache show {package} (suite {self.suite} of {mirror()[0]})")
        return dict(re.findall(r"^([A-Za-z0-9-]+): (.*)$", text.strip().split("\n\n")[0], re.M))

    def download(self, folder, *packages):
        """Fetch packages, without what they depend on, into `folder`; apt checks their sums."""
        folder.mkdir(parents=True, exist_ok=True)
        self.get("download", *packages, cwd=folder)


def depends(fields):
    """Names of the packages that one depends on, of alternatives the first."""
    names = []
    for field in ("Pre-Depends", "Depends"):
        for entry in fields.get(field, "").split(","):
            if m := re.match(r"\s*([a-z0-9][a-z0-9+.-]*)", entry):
                names.append(m[1])
    return names


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
