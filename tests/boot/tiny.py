"""Kernels of a few instructions, made at test time: Multiboot by address header, 32-bit."""

import functools
import subprocess

from umbra_tools.base import BUILD

HEADER = """
	.code32
	.globl _start
_start:
	.balign 4
header:	.long 0x1badb002, 0x10000, -(0x1badb002 + 0x10000)
	.long header, _start, end, end, entry
"""
ECHO = """
entry:	mov $0x90000, %esp
	mov $text, %esi
1:	lodsb
	test %al, %al
	jz 3f
	call put
	jmp 1b
3:	mov $0x3fd, %edx
	in (%dx), %al
	test $1, %al
	jz 3b
	mov $0x3f8, %edx
	in (%dx), %al
	cmp $'q', %al
	je 4f
	call put
	jmp 3b
4:	mov $VALUE, %eax
	mov $0xf4, %edx
	out %eax, (%dx)
5:	hlt
	jmp 5b
put:	mov %al, %bl
6:	mov $0x3fd, %edx
	in (%dx), %al
	test $0x20, %al
	jz 6b
	mov $0x3f8, %edx
	mov %bl, %al
	out %al, (%dx)
	ret
text:	.asciz "ready\\r\\n"
end:
"""


HALTED = """
entry:	mov $0x3f8, %edx
	mov $'r', %al
	out %al, (%dx)
	sti
1:	hlt
	jmp 1b
end:
"""


@functools.lru_cache(None)
def echo_kernel(value):
    """Path of a kernel that echoes its serial port, and at `q` writes `value` to isa-debug-exit."""
    return assembled(f"echo-{value}", ECHO, f"--defsym=VALUE={value}")


@functools.lru_cache(None)
def halted_kernel():
    """Path of a kernel that writes `r` to its serial port and waits for what never comes."""
    return assembled("halted", HALTED)


def assembled(name, source, *options):
    folder = BUILD / "boot-tests"
    folder.mkdir(parents=True, exist_ok=True)
    base = folder / name
    obj, elf, out = (base.with_suffix(s) for s in (".o", ".elf", ".bin"))
    subprocess.run(["as", "--32", *options, "-o", obj], input=HEADER + source, text=True, check=True)
    subprocess.run(["ld", "-m", "elf_i386", "-Ttext", "0x100000", "-o", elf, obj], check=True)
    subprocess.run(["objcopy", "-O", "binary", elf, out], check=True)
    return out
