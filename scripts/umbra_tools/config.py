"""umbra.conf (docs/configuration.md) as text that can be looked up and edited line by line.

This reader is forgiving on purpose: the loader is the judge of a configuration, and the tests feed
it wrong ones through here. Only what must be understood is: sections, keys, paths.
"""

import contextlib
import pathlib
import re

from .base import BUILD, Failure


def unquote(text):
    """The value in the text after `=`: quotes and escapes removed, comment dropped."""
    text = text.strip()
    if text.startswith('"'):
        value, escaped = "", False
        for char in text[1:]:
            if escaped:
                value, escaped = value + char, False
            elif char == "\\":
                escaped = True
            elif char == '"':
                return value
            else:
                value += char
        return value
    return re.split(r"(?:^|\s)[#;]", text, maxsplit=1)[0].strip()


def quote(value):
    """A value as it must be written after `=`."""
    value = str(value)
    if "\n" in value or "\r" in value:
        raise Failure(f"a value in umbra.conf cannot hold a line break: {value!r}")
    if value and value == value.strip() and not re.search(r'["#;\\]', value):
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def split_list(text):
    """Entries of a comma-separated list; `,,` is a literal comma."""
    entries = [e.replace("\0", ",").strip() for e in text.replace(",,", "\0").split(",")]
    return [e for e in entries if e]


class Config:
    def __init__(self, text="", name="umbra.conf", folder="."):
        self.name, self.folder = name, pathlib.Path(folder)
        self.lines = text.splitlines()
        self.origin = list(range(1, len(self.lines) + 1))  # line numbers in the file; None: added

    @classmethod
    def load(cls, path):
        path = pathlib.Path(path)
        try:
            return cls(path.read_text(errors="surrogateescape"), str(path), path.parent)
        except OSError as error:
            raise Failure(f"{path}: {error.strerror}") from None

    def text(self):
        return "".join(line + "\n" for line in self.lines)

    def entries(self):
        """(line index, section, key, value) of every entry; section is `umbra`, `vm NAME`, or ''"""
        section = ""
        for index, line in enumerate(self.lines):
            line = line.strip()
            if line.startswith("["):
                section = " ".join(line[1:].split("]")[0].split())
            elif line and line[0] not in "#;" and "=" in line:
                key, value = line.split("=", 1)
                yield index, section, key.strip(), unquote(value)

    def vms(self):
        """Names of the VMs in their order."""
        found = [" ".join(line.strip()[1:].split("]")[0].split()) for line in self.lines
                 if line.strip().startswith("[")]
        return [section[3:] for section in found if section.startswith("vm ")]

    def get(self, section, key, default=None):
        for _, s, k, value in self.entries():
            if (s, k) == (section, key):
                return value
        return default

    def set(self, section, key, value):
        line = f"{key} = {quote(value)}"
        for index, s, k, _ in self.entries():
            if (s, k) == (section, key):
                self.lines[index] = line
                return
        for index, old in enumerate(self.lines):
            old = old.strip()
            if old.startswith("[") and " ".join(old[1:].split("]")[0].split()) == section:
                self._insert(index + 1, line)
                return
        self._insert(0 if section == "umbra" else len(self.lines), f"[{section}]", line)

    def _insert(self, at, *lines):
        self.lines[at:at] = lines
        self.origin[at:at] = [None] * len(lines)

    def as_written(self, message):
        """A loader's message about umbra.conf with the name and line that the user knows."""
        def place(m):
            line = int(m[1]) - 1
            known = line < len(self.origin) and self.origin[line]
            return f"{self.name}:{known}:" if known else m[0]
        return re.sub(r"\\umbra\\umbra\.conf:(\d+):", place, message)

    def remove(self, section):
        """Drop a section with all its lines."""
        kept, inside = [], False
        for line, origin in zip(self.lines, self.origin):
            if line.strip().startswith("["):
                inside = " ".join(line.strip()[1:].split("]")[0].split()) == section
            if not inside:
                kept.append((line, origin))
        self.lines, self.origin = [line for line, _ in kept], [origin for _, origin in kept]

    def host_path(self, text, line):
        """The file on this machine that a path in the configuration names. `${BUILD}` is the build
        folder; a relative path is taken from the configuration's folder."""
        path = self.folder / text.replace("${BUILD}", str(BUILD))
        if not path.is_file():
            why = "is a folder" if path.is_dir() else "does not exist"
            raise Failure(f"{self.name}:{line + 1}: {path} {why}")
        return path

    def saved_regions(self):
        """Sizes of persistent regions that are to be saved to the disk, of all VMs, in bytes."""
        sizes = []
        for vm in self.vms():
            for entry in split_list(self.get(f"vm {vm}", "pmem", "")):
                if m := re.fullmatch(r"ram\s+(\w+?)([KMGkmg]?)B?\s+saved", entry):
                    with contextlib.suppress(ValueError):  # the loader complains
                        sizes.append(int(m[1], 0) * {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}.get(
                            m[2].upper(), 1))
        return sizes

    def pmem_bytes(self, vm):
        """Memory that a VM's persistent regions take."""
        total = 0
        for entry in split_list(self.get(f"vm {vm}", "pmem", "")):
            if m := re.match(r"(ram|model)\s+(\w+?)([KMGkmg]?)B?(\s|$)", entry):
                with contextlib.suppress(ValueError):
                    total += int(m[2], 0) * {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}.get(
                        m[3].upper(), 1) * (2 if m[1] == "model" else 1)
        return total

    def disk_bytes(self, vm):
        """Memory that a VM's disks take: the images, and the copies if every page is written to."""
        total = 0
        for entry in split_list(self.get(f"vm {vm}", "disks", "")):
            path, _, mode = entry.partition(" ")
            with contextlib.suppress(OSError):  # collect() says so
                size = (self.folder / path.replace("${BUILD}", str(BUILD))).stat().st_size
                total += size if mode.strip() == "ro" else 2 * size
        return total

    def collect(self):
        """Rewrite paths of kernels, modules and disks from this machine's to the ESP's. Returns the files to
        put there: {path on the ESP: path on this machine}."""
        files, names = {}, {}

        def place(text, line):
            host = self.host_path(text, line).resolve()
            if host not in names:
                # FAT allows fewer characters than the host; the loader splits at blanks and commas.
                stem = re.sub(r"[^A-Za-z0-9._+-]", "_", host.name)[-100:]
                taken = {name.lower() for name in files}
                name, count = f"umbra/files/{stem}", 1
                while name.lower() in taken:
                    count += 1
                    name = f"umbra/files/{count}-{stem}"
                names[host] = name
                files[name] = host
            return "/" + names[host]

        for index, section, key, value in list(self.entries()):
            if not section.startswith("vm "):
                continue
            if key == "kernel":
                self.lines[index] = f"kernel = {quote(place(value, index))}"
            elif key in ("modules", "disks"):
                entries = []
                for entry in split_list(value):
                    path, blank, arguments = entry.partition(" ")
                    entries.append(place(path, index) + blank + arguments.replace(",", ",,"))
                self.lines[index] = f"{key} = {quote(', '.join(entries))}"
        return files
