"""scripts/mutate: break Umbra on purpose, one place at a time, and see that a test notices.

Each tests/mutations/NAME.txt describes one mutation:

    what: a generation that is not bumped when a mapping is removed
    file: hv/ept/ept_gen.c
    test: unit ept
    --- old
    <lines as they stand in the file, exactly once>
    --- new
    <lines that replace them>

`test: unit NAME` is the unit test tests/unit/NAME; `test: run ARGUMENTS` is scripts/run with these
arguments (--guests, --emulator, --cpu, ...). The mutation is found if the test fails; before, the
same test has to pass on the unchanged tree.

Results go to build/mutate.json as they come: a run that was broken off goes on with --resume.
"""

import argparse
import concurrent.futures
import dataclasses
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import tempfile
import threading
import time

from .base import BUILD, ROOT, Failure, main, run, say

FOLDER = ROOT / "tests" / "mutations"
RESULTS = BUILD / "mutate.json"  # {mutation: {"text": of its file, "found": bool, "message": str}}
UNIT_LIMIT = 20  # seconds beyond five times the unchanged test's; a test that hangs has failed
RUN_LIMIT = 240  # seconds in the emulator; a guest that hangs is a failed test as well


@dataclasses.dataclass
class Mutation:
    name: str
    what: str
    file: str
    test: str
    old: str
    new: str
    text: str  # of the whole file


def read(path):
    text = path.read_text()
    m = re.fullmatch(r"((?:\w+: .*\n)+)--- old\n(.*?)--- new\n(.*)", text, re.S)
    if not m:
        raise Failure(f"{path}: expected what:, file:, test:, then --- old and --- new")
    head = dict(line.split(": ", 1) for line in m[1].splitlines())
    if set(head) != {"what", "file", "test"} or head["test"].split()[0] not in ("unit", "run"):
        raise Failure(f"{path}: expected what:, file:, and test: unit ... or run ...")
    return Mutation(path.stem, **head, old=m[2], new=m[3], text=text)


class Tree:
    """A copy of the sources to break, with a build folder of its own."""

    def __init__(self, folder):
        self.root = pathlib.Path(folder)
        files = run("git", "-C", ROOT, "ls-files", "-z", "--cached", "--others",
                    "--exclude-standard").split("\0")
        for name in filter(None, files):
            if (ROOT / name).is_file():
                target = self.root / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, target)
        (self.root / "build").mkdir()
        for shared in ("cache", "bochs3"):
            if (ROOT / "build" / shared).exists():
                (self.root / "build" / shared).symlink_to(ROOT / "build" / shared)
        self.passing = {}  # test: seconds it takes on the unchanged tree

    def make(self, *targets):
        done = subprocess.run(["make", "-C", self.root, "-s", "--no-print-directory", "-j2",
                               "BUILD=build", *targets], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              start_new_session=True)
        if done.returncode:
            raise Failure(f"does not build:\n{done.stdout[-2000:]}")

    def test(self, test):
        """Build what the test needs and run it; returns why it failed, or None."""
        kind, rest = test.split(maxsplit=1)
        if kind == "unit":
            self.make(f"build/unit/{rest}")
            command = [self.root / "build/unit" / rest]
            limit = UNIT_LIMIT + 5 * self.passing.get(test, 300)
        else:
            self.make("all")
            command = [self.root / "scripts/run", "--no-build", "--timeout", str(RUN_LIMIT),
                       *shlex.split(rest)]
            limit = RUN_LIMIT + 60
        try:
            done = subprocess.run(command, cwd=self.root, stdin=subprocess.DEVNULL, timeout=limit,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                  errors="replace", env=self.environment(),
                                  start_new_session=True)
        except subprocess.TimeoutExpired:
            return f"no end within {limit} s"
        if done.returncode == 0:
            return None
        for pattern in (r"^.*\[  FAILED  \] (\w+.*)$", r"^.*(AddressSanitizer: .*)$",
                        r"^.*(runtime error: .*)$", r"^(?:.*\| )?(not ok .*)$",
                        r"^.*(panic: .*)$", r"^run: (.*)$"):
            if found := re.findall(pattern, done.stdout, re.M):
                # What scripts/run says first is what it starts, and last how that ended.
                return found[-1 if pattern.startswith("^run") else 0].strip()
        return f"status {done.returncode}"

    @staticmethod
    def environment():
        return {k: v for k, v in os.environ.items() if k != "BUILD"}

    def try_mutation(self, mutation):
        """(found, message)"""
        if mutation.test not in self.passing:
            start = time.monotonic()
            if problem := self.test(mutation.test):
                return False, f"the test fails without the mutation: {problem}"
            self.passing[mutation.test] = time.monotonic() - start
        path = self.root / mutation.file
        good = path.read_text()
        if good.count(mutation.old) != 1:
            return False, f"{mutation.file} holds the old text {good.count(mutation.old)} times"
        path.write_text(good.replace(mutation.old, mutation.new))
        try:
            problem = self.test(mutation.test)
        except Failure as failure:
            return False, str(failure)
        finally:
            path.write_text(good)
        return (True, problem) if problem else (False, "SURVIVED: the test passes")


def markdown(mutations):
    lines = ["| mutation | place | what is broken | found by |", "| --- | --- | --- | --- |"]
    lines += [f"| {m.name} | `{m.file}` | {m.what} | `{m.test}` |" for m in mutations]
    return "\n".join(lines)


def grouped(mutations):
    """Lists of mutations, in the order of work. One worker takes all mutations of a test, so that
    the unchanged tree is tried once for each. Unit tests come first, as `run` builds everything;
    the longest lists come first, so that the workers end together."""
    groups = {}
    for m in mutations:
        groups.setdefault(m.test, []).append(m)
    return sorted(groups.values(), key=lambda group: (group[0].test.startswith("run"), -len(group)))


def mutate(arguments):
    p = argparse.ArgumentParser(
        prog="scripts/mutate",
        description="Apply each mutation of tests/mutations/ to a copy of the tree, build it, run "
                    "the test that the mutation names, and check that the test fails.")
    p.add_argument("-k", metavar="PATTERN", default="", help="only mutations whose name matches")
    p.add_argument("-j", metavar="N", type=int, default=2, help="at a time (default 2)")
    p.add_argument("--list", action="store_true", help="print the table of tests/README.md")
    p.add_argument("--resume", action="store_true",
                   help="leave out what earlier runs have found; for one state of the sources")
    options = p.parse_args(arguments)
    mutations = [m for m in map(read, sorted(FOLDER.glob("*.txt"))) if re.search(options.k, m.name)]
    if options.list:
        print(markdown(mutations))
        return 0
    if not mutations:
        raise Failure(f"no mutation in {FOLDER} matches {options.k!r}")

    BUILD.mkdir(parents=True, exist_ok=True)
    known = json.loads(RESULTS.read_text()) if options.resume and RESULTS.exists() else {}
    results = {m.name: known[m.name] for m in mutations
               if known.get(m.name, {}).get("text") == m.text and known[m.name]["found"]}
    before = len(results)
    print_lock, local, trees, stop = threading.Lock(), threading.local(), [], threading.Event()
    start = time.monotonic()
    with tempfile.TemporaryDirectory(dir=BUILD, prefix="mutate.") as folder:

        def work(group):
            with print_lock:
                if not hasattr(local, "tree"):
                    local.tree = Tree(pathlib.Path(folder) / f"tree{len(trees)}")
                    trees.append(local.tree)
            for m in group:
                if stop.is_set():
                    return
                try:
                    found, message = local.tree.try_mutation(m)
                except Failure as failure:
                    found, message = False, str(failure)
                with print_lock:
                    results[m.name] = {"text": m.text, "found": found, "message": message}
                    RESULTS.write_text(json.dumps({**known, **results}, indent=1))
                    print(f"{'found   ' if found else 'NOT FOUND'} {m.name}: {m.what}\n"
                          f"          {m.test}: {message}", flush=True)

        with concurrent.futures.ThreadPoolExecutor(max(1, options.j)) as pool:
            try:
                list(pool.map(work, grouped(m for m in mutations if m.name not in results)))
            finally:
                stop.set()  # after Ctrl-C what is under way goes on to its end, and that is all
    failed = sorted(name for name, result in results.items() if not result["found"])
    earlier = f" ({before} of them earlier)" if before else ""
    print(f"{len(mutations)} mutations: {len(mutations) - len(failed)} found{earlier}, "
          f"{len(failed)} not found; {time.monotonic() - start:.0f} s")
    for name in failed:
        say(f"not found: {name}: {results[name]['message']}")
    return 1 if failed else 0


if __name__ == "__main__":
    main(mutate)
