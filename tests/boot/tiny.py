"""A kernel of a few instructions, made at test time: Multiboot by address header, 32-bit, echoes its
serial port, and at `q` writes a value to isa-debug-exit."""

import functools
import subprocess

from umbra_tools.base import BUILD

SOURCE = """
	.code32
	.globl _start
_start:
	.balign 4
header:	.long 0x1badb002, 0x10000, -(0x1badb002 + 0x10000)
	.long header, _start, end, end, entry
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


@functools.lru_cache(None)
def echo_kernel(value):
    """Path of the kernel that ends with `value`."""
    folder = BUILD / "boot-tests"
    folder.mkdir(parents=True, exist_ok=True)
    base = folder / f"echo-{value}"
    obj, elf, out = (base.with_suffix(s) for s in (".o", ".elf", ".bin"))
    subprocess.run(["as", "--32", f"--defsym=VALUE={value}", "-o", obj], input=SOURCE, text=True,
                   check=True)
    subprocess.run(["ld", "-m", "elf_i386", "-Ttext", "0x100000", "-o", elf, obj], check=True)
    subprocess.run(["objcopy", "-O", "binary", elf, out], check=True)
    return out
