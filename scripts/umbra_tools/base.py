"""Paths of the tree, messages, and running commands."""

import contextlib
import fcntl
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
# The Makefile's BUILD; relative paths are taken from the top of the tree.
BUILD = ROOT / (os.environ.get("BUILD") or "build")
# What is fetched from the archive; one place for every build directory.
CACHE = ROOT / "build" / "cache"
BOCHS3 = ROOT / "build" / "bochs3"

EXIT_HYPERVISOR = 70  # EX_SOFTWARE: panic, never started, emulator died
EXIT_VM_FAULT = 71  # a VM that Umbra had to end
EXIT_TIMEOUT = 124  # as timeout(1)


class Failure(Exception):
    """Something the user can act on: printed without a traceback."""


def say(text):
    print(f"{pathlib.Path(sys.argv[0]).stem}: {text}", file=sys.stderr, flush=True)


def run(*command, label=None, **options):
    """Run a command; its output is shown only if it fails. Returns standard output as text."""
    command = [str(word) for word in command]
    if "input" not in options:
        options["stdin"] = subprocess.DEVNULL
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", **options)
    except FileNotFoundError:
        raise Failure(f"{command[0]} is not installed: run scripts/setup") from None
    if done.returncode:
        raise Failure(f"{label or ' '.join(command)} failed ({done.returncode}):\n"
                      f"{done.stdout}{done.stderr}".rstrip())
    return done.stdout


def build(*targets):
    """make TARGETS, quietly unless something fails."""
    done = subprocess.run(["make", "-C", str(ROOT), "--no-print-directory", "-s", "-j",
                           str(os.cpu_count() or 1), f"BUILD={os.path.relpath(BUILD, ROOT)}",
                           *targets], stdin=subprocess.DEVNULL, stdout=sys.stderr)
    if done.returncode:
        raise Failure("the build failed, see above")


@contextlib.contextmanager
def locked(folder):
    """Hold `folder` (created if need be) against other scripts that fill it."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


def main(function):
    """Run function(arguments) as a script: failures become a message and exit status 1."""
    try:
        sys.exit(function(sys.argv[1:]))
    except Failure as failure:
        say(failure)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(141)
