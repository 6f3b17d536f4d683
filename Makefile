# Umbra. `make` builds the loader, the hypervisor and the guests under build/.
# scripts/setup installs what is needed; scripts/run and scripts/test call it and this file.

BUILD   ?= build
CC      := gcc
CLANG   := clang
CLANG_FORMAT := $(firstword $(wildcard /usr/bin/clang-format-14) clang-format)
LD      := ld
OBJCOPY := objcopy
PYTHON  := /usr/bin/python3

WARN := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith \
	-Wundef -Wvla -Wwrite-strings -Wcast-qual -Wno-unused-parameter -Wimplicit-fallthrough

all: hv loader guests

# --- the hypervisor ---------------------------------------------------------------------------
ZYDIS_DIR := $(BUILD)/src/zydis
STB_DIR   := /usr/include/stb

HV_CFLAGS := -std=gnu17 -O2 -g $(WARN) -ffreestanding -fno-stack-protector -fno-pic -fno-pie \
	-mcmodel=kernel -mno-red-zone -mgeneral-regs-only -fno-omit-frame-pointer -momit-leaf-frame-pointer \
	-fcf-protection=none \
	-fno-asynchronous-unwind-tables -fno-strict-aliasing -Ihv -Iinclude -I$(BUILD)/gen \
	-isystem $(STB_DIR) $(HV_EXTRA)
ZYDIS_DEFS := -DZYAN_NO_LIBC -DZYDIS_STATIC_BUILD -DZYCORE_STATIC_BUILD -DZYDIS_MINIMAL_MODE \
	-DZYDIS_DISABLE_FORMATTER -DZYDIS_DISABLE_ENCODER -DZYDIS_DISABLE_AVX512 -DZYDIS_DISABLE_KNC
ZYDIS_INC  := -isystem $(ZYDIS_DIR)/include -isystem /usr/include
ZYDIS_SRC  := Decoder DecoderData SharedData MetaInfo Utils Register Segment
ZYDIS_OBJ  := $(ZYDIS_SRC:%=$(BUILD)/hv/zydis/%.o)
LWIP_DIR   := $(BUILD)/src/lwip
LWIP_INC   := -isystem $(LWIP_DIR)/src/include -isystem hv/net/lwip_port
LWIP_SRC   := $(addprefix core/,def inet_chksum init ip mem memp netif pbuf timeouts udp) \
	$(addprefix core/ipv4/,dhcp etharp icmp ip4 ip4_addr) netif/ethernet
LWIP_OBJ   := $(LWIP_SRC:%=$(BUILD)/hv/lwip/%.o)
BEARSSL_DIR := $(BUILD)/src/bearssl
BEARSSL_INC := -isystem $(BEARSSL_DIR)/inc -isystem $(BEARSSL_DIR)/src
BEARSSL_SRC := symcipher/aes_x86ni symcipher/aes_common symcipher/aes_ct64 symcipher/aes_ct64_enc \
	symcipher/aes_ct64_dec hash/sha2small codec/dec32be codec/enc32be codec/dec32le codec/enc32le
BEARSSL_OBJ := $(BEARSSL_SRC:%=$(BUILD)/hv/bearssl/%.o)

HV_C   := $(wildcard hv/*.c hv/*/*.c)
HV_S   := $(wildcard hv/*/*.S)
HV_OBJ := $(HV_C:%.c=$(BUILD)/%.o) $(HV_S:%.S=$(BUILD)/%.S.o) $(BUILD)/hv/font.o $(ZYDIS_OBJ) $(LWIP_OBJ) \
	$(BEARSSL_OBJ)

hv: $(BUILD)/umbra.elf

# The image goes without debug information (the firmware would read megabytes of it); the symbol
# table stays for backtraces, and umbra.debug is for debuggers.
$(BUILD)/umbra.debug: $(HV_OBJ) linker.ld
	$(LD) -nostdlib -static -z max-page-size=4096 -z noexecstack --no-warn-rwx-segments \
		-T linker.ld -o $@ $(HV_OBJ)
$(BUILD)/umbra.elf: $(BUILD)/umbra.debug
	$(OBJCOPY) --strip-debug $< $@

$(BUILD)/hv/emu/%.o: HV_CFLAGS += $(ZYDIS_DEFS) $(ZYDIS_INC)
$(filter $(BUILD)/hv/emu/%,$(HV_OBJ)): | $(ZYDIS_DIR)/.stamp
$(BUILD)/hv/%.o: hv/%.c | $(BUILD)/gen/asm_offsets.h
	@mkdir -p $(@D)
	$(CC) $(HV_CFLAGS) -MMD -MP -c $< -o $@
$(BUILD)/hv/%.S.o: hv/%.S $(BUILD)/gen/asm_offsets.h
	@mkdir -p $(@D)
	$(CC) $(HV_CFLAGS) -MMD -MP -c $< -o $@
$(BUILD)/hv/zydis/%.o: $(ZYDIS_DIR)/src/%.c
	@mkdir -p $(@D)
	$(CC) -std=gnu11 -O2 -ffreestanding -mgeneral-regs-only -mno-red-zone -mcmodel=kernel -fno-pic \
		-fcf-protection=none -fno-stack-protector -fno-asynchronous-unwind-tables -w \
		$(ZYDIS_DEFS) $(ZYDIS_INC) -I$(ZYDIS_DIR)/src -c $< -o $@
# The key schedule by AES-NI uses XMM registers: hv/x86/simd.h. Nothing else that is compiled may. It
# aligns the stack itself: nothing else in the hypervisor would show that it is not.
BEARSSL_SIMD := $(BUILD)/hv/bearssl/symcipher/aes_x86ni.o
$(BUILD)/hv/bearssl/%.o: $(BEARSSL_DIR)/src/%.c
	@mkdir -p $(@D)
	$(CC) -std=gnu11 -O2 -ffreestanding -mno-red-zone -mcmodel=kernel -fno-pic -fcf-protection=none \
		$(if $(filter $@,$(BEARSSL_SIMD)),-mno-avx -mincoming-stack-boundary=3,-mgeneral-regs-only) -fno-stack-protector \
		-fno-asynchronous-unwind-tables -w -DBR_USE_UNIX_TIME=0 -DBR_USE_URANDOM=0 \
		$(BEARSSL_INC) -I$(BEARSSL_DIR)/src -c $< -o $@
$(BEARSSL_DIR)/src/%.c: | $(BEARSSL_DIR)/.stamp ;
# Unpacked once: make would remove what it takes for files on the way to a unit test.
.PRECIOUS: $(ZYDIS_DIR)/src/%.c $(LWIP_DIR)/src/%.c $(BEARSSL_DIR)/src/%.c
$(BEARSSL_DIR)/.stamp: scripts/third-party
	scripts/third-party bearssl $(BEARSSL_DIR)
SEAL_OBJ := $(BUILD)/hv/remote/seal.o $(BUILD)/hv/remote/ocb_bearssl.o
$(SEAL_OBJ): HV_CFLAGS += $(BEARSSL_INC)
$(SEAL_OBJ): | $(BEARSSL_DIR)/.stamp
$(BUILD)/hv/net/netif.o: HV_CFLAGS += $(LWIP_INC)
$(BUILD)/hv/net/netif.o: | $(LWIP_DIR)/.stamp
$(BUILD)/hv/lwip/%.o: $(LWIP_DIR)/src/%.c $(wildcard hv/net/lwip_port/*.h hv/net/lwip_port/arch/*.h)
	@mkdir -p $(@D)
	$(CC) -std=gnu11 -O2 -ffreestanding -mgeneral-regs-only -mno-red-zone -mcmodel=kernel -fno-pic \
		-fcf-protection=none -fno-stack-protector -fno-asynchronous-unwind-tables \
		-fno-strict-aliasing -U__OPTIMIZE__ -w $(LWIP_INC) -c $< -o $@
$(LWIP_DIR)/src/%.c: | $(LWIP_DIR)/.stamp ;
$(LWIP_DIR)/.stamp: scripts/third-party
	scripts/third-party lwip $(LWIP_DIR)
$(ZYDIS_DIR)/src/%.c: | $(ZYDIS_DIR)/.stamp ;
$(ZYDIS_DIR)/.stamp: scripts/third-party
	scripts/third-party zydis $(ZYDIS_DIR)

# Offsets of C structure members for the assembly files.
$(BUILD)/gen/asm_offsets.h: hv/asm_offsets.in $(wildcard hv/vm/*.h hv/x86/*.h)
	@mkdir -p $(@D)
	$(CC) $(HV_CFLAGS) -x c -S $< -o $@.s
	sed -n 's/^.*@@ \([A-Z0-9_]*\) [$$]*\([0-9-]*\)$$/#define \1 \2/p' $@.s > $@

# The guests' DSDT: iasl's own preprocessor knows no #define, so the compiler's does it; a warning is
# an error. The AML has no date and no path in it.
$(BUILD)/gen/dsdt.aml: hv/dev/dsdt.asl hv/dev/acpi_layout.h hv/pmem/pmem_layout.h
	@mkdir -p $(@D)
	$(CC) -E -P -undef -nostdinc -x c -Ihv $< -o $(@D)/dsdt.asl
	cd $(@D) && iasl -we -vw 2173 -p dsdt dsdt.asl > dsdt.log || { cat dsdt.log >&2; rm -f dsdt.aml; exit 1; }
$(BUILD)/gen/dsdt.h: $(BUILD)/gen/dsdt.aml
	{ echo 'static const unsigned char dsdt_aml[] = {'; od -An -v -tu1 $< | sed 's/[0-9][0-9]*/&,/g'; \
		echo '};'; } > $@
$(BUILD)/hv/dev/acpi_tables.o: $(BUILD)/gen/dsdt.h

# The framebuffer font: Terminus 8x16 from Debian's console-setup-linux.
$(BUILD)/hv/font.o: /usr/share/consolefonts/Lat15-Terminus16.psf.gz
	@mkdir -p $(@D)
	gzip -dc $< > $(BUILD)/hv/font.psf
	cd $(BUILD)/hv && $(LD) -r -b binary -z noexecstack -o font.o font.psf && \
		$(OBJCOPY) --rename-section .data=.rodata,alloc,load,readonly,data,contents font.o

# --- the loader -------------------------------------------------------------------------------
# Shared with the hypervisor: the capability table and small library files.
EFI_SHARED := hv/vmx/caps.c hv/lib/features.c hv/lib/crc32.c hv/lib/zmm.c
EFI_SRC    := $(wildcard boot/*.c)
EFI_OBJ    := $(EFI_SRC:%.c=$(BUILD)/%.o) $(EFI_SHARED:%.c=$(BUILD)/boot/shared/%.o) \
	$(BUILD)/boot/shared/hv/lib/crc32_fold.S.o
EFI_CFLAGS := -std=gnu17 -O2 -g $(WARN) -ffreestanding -fpic -fshort-wchar -mno-red-zone \
	-fno-stack-protector -fno-strict-aliasing -maccumulate-outgoing-args -fcf-protection=none \
	-mgeneral-regs-only -DGNU_EFI_USE_MS_ABI -DEFI_FUNCTION_WRAPPER -Iboot -Ihv -Iinclude \
	-isystem /usr/include/efi -isystem /usr/include/efi/x86_64 -isystem $(STB_DIR)

loader: $(BUILD)/BOOTX64.EFI

$(BUILD)/boot/shared/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(EFI_CFLAGS) -MMD -MP -c $< -o $@
$(BUILD)/boot/shared/%.S.o: %.S
	@mkdir -p $(@D)
	$(CC) $(EFI_CFLAGS) -MMD -MP -c $< -o $@
$(BUILD)/boot/%.o: boot/%.c
	@mkdir -p $(@D)
	$(CC) $(EFI_CFLAGS) -MMD -MP -c $< -o $@
# The start-up code of GNU-EFI 3.0.15 calls efi_main, that of 3.0.18 a wrapper in libefi, which
# would bring a second memcpy along: both get efi_main.
$(BUILD)/loader.so: $(EFI_OBJ)
	$(LD) -nostdlib -znocombreloc -shared -Bsymbolic -z noexecstack -T /usr/lib/elf_x86_64_efi.lds \
		--defsym=_entry=efi_main \
		/usr/lib/crt0-efi-x86_64.o $(EFI_OBJ) -o $@ -L/usr/lib -lgnuefi
	@! nm -u $@ | grep . || { echo "loader: undefined symbols" >&2; rm -f $@; exit 1; }
$(BUILD)/BOOTX64.EFI: $(BUILD)/loader.so
	$(OBJCOPY) -j .text -j .sdata -j .data -j .rodata -j .dynamic -j .dynsym -j .rel -j .rela \
		-j '.rel.*' -j '.rela.*' -j .reloc --target=efi-app-x86_64 --subsystem=10 $< $@

# --- the bare machine: scripts/bench's other side ---------------------------------------------
# Loader and hypervisor files for an EFI application that starts the guest's kernel without Umbra.
BARE_BOOT   := $(wildcard boot/config*.c) boot/console.c boot/file.c boot/memmap.c boot/memory.c boot/text.c
BARE_SHARED := $(wildcard hv/vm/load*.c) hv/vm/bios.c hv/dev/acpi_tables.c hv/lib/print.c \
	hv/lib/string.c hv/lib/features.c
BARE_OBJ    := $(BARE_BOOT:%.c=$(BUILD)/%.o) $(BARE_SHARED:%.c=$(BUILD)/bare/%.o) \
	$(BUILD)/bare/tests/bare/main.o $(BUILD)/bare/tests/bare/enter.S.o

bare: $(BUILD)/bare/BOOTX64.EFI

$(BUILD)/bare/%.o: %.c | $(BUILD)/gen/dsdt.h
	@mkdir -p $(@D)
	$(CC) $(EFI_CFLAGS) -I$(BUILD)/gen -MMD -MP -c $< -o $@
$(BUILD)/bare/%.S.o: %.S
	@mkdir -p $(@D)
	$(CC) $(EFI_CFLAGS) -MMD -MP -c $< -o $@
$(BUILD)/bare/loader.so: $(BARE_OBJ)
	$(LD) -nostdlib -znocombreloc -shared -Bsymbolic -z noexecstack -T /usr/lib/elf_x86_64_efi.lds \
		--defsym=_entry=efi_main \
		/usr/lib/crt0-efi-x86_64.o $(BARE_OBJ) -o $@ -L/usr/lib -lgnuefi
	@! nm -u $@ | grep . || { echo "bare: undefined symbols" >&2; rm -f $@; exit 1; }
$(BUILD)/bare/BOOTX64.EFI: $(BUILD)/bare/loader.so
	$(OBJCOPY) -j .text -j .sdata -j .data -j .rodata -j .dynamic -j .dynsym -j .rel -j .rela \
		-j '.rel.*' -j '.rela.*' -j .reloc --target=efi-app-x86_64 --subsystem=10 $< $@

# --- guest test kernels -----------------------------------------------------------------------
GUEST_CFLAGS := -std=gnu17 -O2 -g $(WARN) -ffreestanding -fno-stack-protector -fno-pic -fno-pie \
	-mno-red-zone -mgeneral-regs-only -fno-asynchronous-unwind-tables -fcf-protection=none \
	-fno-omit-frame-pointer -fno-strict-aliasing -Iguest/lib -Iinclude -isystem $(STB_DIR)
GUEST_LIB := $(patsubst %,$(BUILD)/%.o,$(basename $(wildcard guest/lib/*.c))) \
	$(patsubst %,$(BUILD)/%.S.o,$(basename $(wildcard guest/lib/*.S)))
GUESTS    := $(patsubst guest/%.c,$(BUILD)/guest/%.elf,$(wildcard guest/*.c))

# Programs for Linux guests, put in the initramfs by scripts/linux.
LINUX_CFLAGS := -std=gnu17 -O2 $(WARN) -ffreestanding -fno-stack-protector -fno-pic -fno-pie \
	-fno-asynchronous-unwind-tables -fcf-protection=none -mgeneral-regs-only -Iinclude
LINUX_PROGRAMS := $(patsubst guest/linux/%.c,$(BUILD)/guest/linux/%,$(wildcard guest/linux/*.c))

guests: $(GUESTS) $(BUILD)/guest/linuxboot.bzimage $(LINUX_PROGRAMS)

$(BUILD)/guest/linux/%: guest/linux/%.c guest/linux/sys.h include/umbra/hypercall.h
	@mkdir -p $(@D)
	$(CC) $(LINUX_CFLAGS) -static -nostdlib -Wl,--build-id=none -s -o $@ $<

$(BUILD)/guest/%.o: guest/%.c
	@mkdir -p $(@D)
	$(CC) $(GUEST_CFLAGS) -MMD -MP -c $< -o $@
$(BUILD)/guest/%.S.o: guest/%.S
	@mkdir -p $(@D)
	$(CC) $(GUEST_CFLAGS) -MMD -MP -c $< -o $@
$(BUILD)/guest/%.debug: $(BUILD)/guest/%.o $(GUEST_LIB) guest/lib/guest.ld
	$(LD) -nostdlib -static -z max-page-size=4096 -z noexecstack --no-warn-rwx-segments \
		-T guest/lib/guest.ld -o $@ $(GUEST_LIB) $<
$(BUILD)/guest/%.elf: $(BUILD)/guest/%.debug
	$(OBJCOPY) --strip-debug $< $@
# The same kernel for Linux's boot protocol: setup sectors and a flat image.
$(BUILD)/guest/%.bzimage: $(BUILD)/guest/%.debug
	$(OBJCOPY) -O binary -j .linux_setup --set-section-flags .linux_setup=alloc,load,contents \
		$< $@.setup
	$(OBJCOPY) -O binary $< $@.code
	cat $@.setup $@.code > $@
.PRECIOUS: $(BUILD)/guest/%.o $(BUILD)/guest/%.debug

# --- host unit tests and fuzzers --------------------------------------------------------------
HOST_CFLAGS := -std=gnu17 -O1 -g $(WARN) -Wno-missing-prototypes -fno-omit-frame-pointer -Ihv -Iinclude \
	-I$(BUILD)/gen \
	-Iboot -Itests/unit -DUMBRA_HOST -DDIRECT_MAP_BASE=host_direct_map -include tests/unit/host.h \
	$(ZYDIS_DEFS) $(ZYDIS_INC) $(BEARSSL_INC) -isystem $(STB_DIR)
BEARSSL_HOST := $(BEARSSL_SRC:%=$(BUILD)/host/bearssl/%.o)
$(BUILD)/host/bearssl/%.o: $(BEARSSL_DIR)/src/%.c
	@mkdir -p $(@D)
	$(CC) -std=gnu11 -O2 -g -fPIC -w $(BEARSSL_INC) -I$(BEARSSL_DIR)/src -c $< -o $@
$(BUILD)/host/%.S.o: hv/%.S
	@mkdir -p $(@D)
	$(CC) -g -c $< -o $@
.PRECIOUS: $(BUILD)/host/bearssl/%.o $(BUILD)/host/%.S.o
# Sealing, and what it needs.
SEAL_HOST := $(addprefix hv/remote/,seal.c ocb.c ocb_bearssl.c) $(BUILD)/host/remote/ocb_aesni.S.o \
	hv/x86/simd.c hv/x86/entropy.c hv/lib/zmm.c $(BEARSSL_HOST)
CRC32_HOST := hv/lib/crc32.c hv/lib/zmm.c $(BUILD)/host/lib/crc32_fold.S.o
SAN := -fsanitize=address,undefined -fno-sanitize-recover=all
-include $(wildcard tests/unit/*.mk) $(wildcard tests/fuzz/*.mk)
UNITS := $(patsubst tests/unit/%.mk,$(BUILD)/unit/%,$(wildcard tests/unit/*.mk))
FUZZERS := $(patsubst tests/fuzz/%.mk,$(BUILD)/fuzz/%,$(wildcard tests/fuzz/*.mk))

unit-build: $(UNITS)
fuzz-build: $(FUZZERS)
unit: unit-build
	@for t in $(UNITS); do echo "== $$t"; $$t || exit 1; done

$(UNITS) $(FUZZERS): | $(BUILD)/gen/dsdt.h
.SECONDEXPANSION:
# INCLUDED_NAME: files under test that tests/unit/NAME.c or tests/fuzz/NAME.c includes as a whole.
HOST_HEADERS := $(wildcard hv/*/*.h include/umbra/*.h tests/unit/*.h)
$(BUILD)/unit/%: tests/unit/%.c $$(UNIT_%) tests/unit/host.c $(HOST_HEADERS) $$(INCLUDED_%)
	@mkdir -p $(@D)
	$(CC) $(HOST_CFLAGS) $(SAN) -o $@ $(filter-out $(INCLUDED_$*),$(filter %.c %.o,$^)) -lcmocka
$(BUILD)/fuzz/%: tests/fuzz/%.c $$(FUZZ_%) tests/unit/host.c $(HOST_HEADERS) $$(INCLUDED_%)
	@mkdir -p $(@D)
	$(CLANG) $(filter-out -Wno-unused-parameter,$(HOST_CFLAGS)) -Wno-unused-parameter \
		-fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -o $@ \
		$(filter-out $(INCLUDED_$*),$(filter %.c %.o,$^))

# --- hv/rdma in host processes: docs/rdma.md --------------------------------------------------
# Without the fabric, which needs somebody who resolves addresses.
RDMA_HOST_SRC := $(filter-out hv/rdma/fabric.c,$(wildcard hv/rdma/*.c)) $(CRC32_HOST) tools/memnode/wire.c
RDMA_HOST     := $(CC) -std=gnu17 -O2 -g $(WARN) -Ihv -Itools/memnode -o
INTEROP       := $(addprefix $(BUILD)/interop/,memtest rping perftest frames)

memnode: $(BUILD)/memnode $(BUILD)/memnode-verbs $(INTEROP)
$(BUILD)/memnode: tools/memnode/main.c $(RDMA_HOST_SRC) $(wildcard hv/rdma/*.h tools/memnode/*.h)
	@mkdir -p $(@D)
	$(RDMA_HOST) $@ $(filter %.c %.o,$^)
$(BUILD)/memnode-verbs: tools/memnode/verbs.c $(wildcard hv/rdma/*.h)
	@mkdir -p $(@D)
	$(RDMA_HOST) $@ $< -lrdmacm -libverbs
$(BUILD)/interop/%: tests/interop/%.c tests/interop/peer.c $(RDMA_HOST_SRC) \
		$(wildcard hv/rdma/*.h tools/memnode/*.h tests/interop/*.h)
	@mkdir -p $(@D)
	$(RDMA_HOST) $@ $(filter %.c %.o,$^)

STORETEST_SRC := $(addprefix hv/remote/,store.c store_map.c store_repair.c) hv/rdma/fabric.c
$(BUILD)/interop/storetest: tests/interop/storetest.c $(STORETEST_SRC) $(RDMA_HOST_SRC) $(SEAL_HOST) \
		$(wildcard hv/rdma/*.h hv/remote/*.h tools/memnode/*.h)
	@mkdir -p $(@D)
	$(CC) -std=gnu17 -O2 -g $(WARN) -Ihv -Iinclude -Itools/memnode $(BEARSSL_INC) -o $@ $(filter %.c %.o,$^)

# --- housekeeping -----------------------------------------------------------------------------
check: check-layers check-format check-static
check-layers:
	scripts/check-layers
# Other versions than 14 (Debian 12's) format differently.
check-format:
	@if $(CLANG_FORMAT) --version 2>/dev/null | grep -q 'version 14\.'; then \
		$(CLANG_FORMAT) --dry-run -Werror $$(git ls-files '*.c' '*.h' 2>/dev/null | grep . || \
			find boot guest hv include tests -name '*.[ch]'); \
	else echo "skipped: the format is checked by clang-format 14 only"; fi
# Suppressed: comparing and subtracting symbols of the linker script, and what cppcheck says of its
# own limits and of syntax that it does not know.
check-static:
	cppcheck --quiet --error-exitcode=1 --std=c11 --enable=warning,portability --inline-suppr \
		--suppress=missingIncludeSystem --suppress=comparePointers \
		--suppress=subtractPointers --suppress=normalCheckLevelMaxBranches \
		--suppress=internalAstError --suppress=syntaxError:guest/sharing.c \
		--suppress=unknownMacro:guest/linux/cuts/objects.c -Ihv -Iinclude -Iguest/lib hv boot guest
clean:
	rm -rf $(BUILD)/hv $(BUILD)/boot $(BUILD)/bare $(BUILD)/guest $(BUILD)/unit $(BUILD)/fuzz $(BUILD)/gen \
		$(BUILD)/*.elf $(BUILD)/*.debug $(BUILD)/*.EFI $(BUILD)/*.so $(BUILD)/*.img

-include $(shell find $(BUILD)/hv $(BUILD)/boot $(BUILD)/guest $(BUILD)/bare -name '*.d' 2>/dev/null)
.PHONY: memnode all hv loader bare guests unit unit-build fuzz-build check check-layers check-format check-static clean
