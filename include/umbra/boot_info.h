/*
 * boot_info: everything the loader hands to the hypervisor, in one physically contiguous block
 * below 4 GiB. Versioned and self-checking: the hypervisor refuses a block whose magic, version,
 * size or checksum is wrong. All addresses are host-physical; all strings are NUL-terminated.
 *
 * Entry contract (loader -> hv `_start`, System V AMD64): RDI = host-physical address of struct
 * boot_info, which is identity-mapped; interrupts off; 64-bit mode with paging; CR3 = `boot_cr3`,
 * tables that map: the hypervisor image at its link address (write and execute allowed), the first
 * 4 GiB and all RAM identically, and all of the identity-mapped range also at DIRECT_MAP_BASE
 * (hv/lib/types.h). RSP is valid for at least 16 KiB. No boot service survives. The hypervisor
 * replaces CR3, GDT and IDT at once and never returns.
 */
#pragma once

#include <stdint.h>

#define BOOT_INFO_MAGIC	  0x4152424d55424f4full /* "OOBUMBRA" */
#define BOOT_INFO_VERSION 6

#define BOOT_MAX_MEMORY	 512
#define BOOT_MAX_CPUS	 64
#define BOOT_MAX_VMS	 32
#define BOOT_MAX_MODULES 8
#define BOOT_MAX_DISKS	 4
#define BOOT_MAX_PMEM	 4
#define BOOT_MAX_VCPUS	 16
#define BOOT_MAX_REMOTE	 4
#define BOOT_NAME_LEN	 32
#define BOOT_PATH_LEN	 128
#define BOOT_CMDLINE_LEN 1024
#define BOOT_TOKEN_LEN	 16
#define BOOT_NODE_PORT	 7471

enum boot_mem_type {
	BOOT_MEM_USABLE = 1,   /* free RAM: conventional, boot services, loader temporary */
	BOOT_MEM_RESERVED = 2, /* firmware keeps it: runtime services, reserved */
	BOOT_MEM_ACPI = 3,     /* ACPI tables (reclaimable) */
	BOOT_MEM_NVS = 4,      /* ACPI NVS */
	BOOT_MEM_MMIO = 5,
	BOOT_MEM_PERSISTENT = 6,
	BOOT_MEM_UNUSABLE = 7,
	BOOT_MEM_UMBRA = 8, /* hypervisor image, boot_info, boot page tables, guest files */
};

struct boot_range { /* sorted by base, page-aligned, no overlap, neighbours of a type merged */
	uint64_t base;
	uint64_t bytes;
	uint32_t type; /* enum boot_mem_type */
	uint32_t reserved;
};

struct boot_file {
	uint64_t base; /* page-aligned */
	uint64_t bytes;
	char path[BOOT_PATH_LEN]; /* as the configuration gave it, for messages and module names */
};

enum boot_fb_format {
	BOOT_FB_NONE,
	BOOT_FB_RGBX,
	BOOT_FB_BGRX
};

struct boot_framebuffer {
	uint64_t base;
	uint64_t bytes;
	uint32_t width, height; /* pixels */
	uint32_t stride;	/* pixels per line */
	uint32_t format;	/* enum boot_fb_format; NONE = no linear 32-bit framebuffer */
};

struct boot_cpu {
	uint32_t apic_id;
	uint32_t flags; /* BOOT_CPU_* */
};
#define BOOT_CPU_BSP 1

enum boot_poweroff {
	BOOT_POWEROFF_HALT,  /* summary on the screen, CPUs halted: a real machine's default */
	BOOT_POWEROFF_BOCHS, /* "Shutdown" to port 0x8900 */
	BOOT_POWEROFF_QEMU,  /* isa-debug-exit at 0x501, value 0x31 */
	BOOT_POWEROFF_RESET, /* reset by port 0xcf9, then i8042 */
};

enum boot_order {
	BOOT_ORDER_TOGETHER, /* every VM starts at once */
	BOOT_ORDER_SEQUENCE, /* a VM starts when the one listed before it has ended */
};

enum boot_log_level {
	BOOT_LOG_ERROR,
	BOOT_LOG_WARN,
	BOOT_LOG_INFO,
	BOOT_LOG_DEBUG
};

/* boot_options.focus: whose console the terminal shows. */
enum boot_focus {
	BOOT_FOCUS_DEFAULT, /* as ALL, and without a hint about the keys on the terminal */
	BOOT_FOCUS_ALL,	    /* every VM's lines */
	BOOT_FOCUS_MONITOR,
	BOOT_FOCUS_VM, /* + index */
};

enum boot_role {
	BOOT_ROLE_HYPERVISOR,
	BOOT_ROLE_MEMORY_NODE, /* runs no guests, lends RAM to other machines */
};

enum boot_network_mode {
	BOOT_NETWORK_NONE,
	BOOT_NETWORK_DHCP,
	BOOT_NETWORK_STATIC,
};

struct boot_network {  /* IPv4, host byte order */
	uint32_t mode; /* enum boot_network_mode; of the others, STATIC: */
	uint32_t address;
	uint32_t prefix;  /* length, 1 to 30 */
	uint32_t gateway; /* on this network; 0: none */
};

struct boot_node {     /* a machine that lends memory */
	uint32_t ip;   /* host byte order */
	uint16_t port; /* RDMA-CM, service of RDMA_PS_TCP */
	uint16_t reserved;
};

struct boot_options {		   /* [umbra] */
	uint64_t hide;		   /* optional features to pretend absent: 1 << enum feature */
	uint32_t log_level;	   /* enum boot_log_level */
	uint32_t poweroff;	   /* enum boot_poweroff */
	uint32_t order;		   /* enum boot_order */
	uint32_t cpus;		   /* use at most this many CPUs; 0 = all */
	uint32_t tick_us;	   /* longest time between two exits of a busy vCPU */
	uint32_t quantum_us;	   /* time slice where vCPUs share a CPU */
	uint16_t console_port;	   /* UART for guests' consoles; 0 = none */
	uint16_t log_port;	   /* UART for Umbra's own log; may equal console_port; 0 = none */
	uint32_t screen;	   /* 1: log on the framebuffer */
	uint32_t trace;		   /* 1: keep the ring of exits for reports */
	uint32_t report;	   /* 1: profile exits, write a report of each VM to the log */
	uint32_t focus;		   /* enum boot_focus */
	uint32_t pmem_controllers; /* of modelled NVDIMMs: 1 to 16 */
	uint32_t pmem_seed;	   /* of what happens to their queues */
	uint32_t pmem_cuts;	   /* modelled failures of power for each VM */
	uint32_t pmem_cut_within;  /* TSC ticks: a failure comes so long after the first flush */
	uint32_t pmem_partition;   /* enum boot_pmem_partition */
	uint32_t pmem_save_budget; /* pages of all saved regions that may be unsaved at any time */
	/* Modelled: from the signal that power fails until it has gone a disk takes this many
	 * sectors; 0: no limit. */
	uint32_t pmem_power_loss_sectors;
	uint32_t role; /* enum boot_role */
	struct boot_network network;
	uint32_t node_slices; /* MEMORY_NODE: 1 to 8 clients' equal shares */
	uint64_t node_memory; /* MEMORY_NODE: bytes to lend; 0: half of what is free */
	uint8_t node_token[BOOT_TOKEN_LEN]; /* MEMORY_NODE: what clients have to know */
};

enum boot_protocol {
	BOOT_PROTO_AUTO,
	BOOT_PROTO_MULTIBOOT,
	BOOT_PROTO_PVH,
	BOOT_PROTO_LINUX
};

enum boot_disk_mode {
	BOOT_DISK_COW, /* the VM writes to pages of its own */
	BOOT_DISK_RO,
};

enum boot_pmem_partition {
	BOOT_PMEM_PARTITION_AUTO, /* the one of our type on the first disk */
	BOOT_PMEM_PARTITION_NONE, /* nothing is saved */
};

enum boot_pmem_source {
	BOOT_PMEM_HOST = 1, /* a range of the host's NFIT */
	BOOT_PMEM_RAM,	    /* volatile unless it is saved */
	BOOT_PMEM_MODEL,    /* a model of an NVDIMM in RAM */
};

struct boot_pmem {
	uint64_t bytes;	      /* RAM, MODEL: a multiple of 2 MiB */
	uint32_t source;      /* enum boot_pmem_source */
	uint32_t range;	      /* HOST: the range's index in the NFIT */
	uint32_t direct;      /* HOST: 1: the page of the only flush hint may be mapped through */
	uint32_t saved;	      /* RAM: 1: to a partition, and back at the next start */
	uint32_t controllers; /* MODEL: of this one; 0: pmem_controllers */
	uint32_t reserved;
};

struct boot_vm { /* [vm NAME] */
	char name[BOOT_NAME_LEN];
	uint64_t memory;	      /* bytes, multiple of 2 MiB */
	uint32_t vcpus;		      /* 1 to BOOT_MAX_VCPUS */
	uint32_t protocol;	      /* enum boot_protocol */
	uint32_t pin_count;	      /* entries in pin[]; vCPU i runs on CPU pin[i % count] */
	uint16_t pin[BOOT_MAX_VCPUS]; /* CPU index; pin_count 0 = Umbra spreads them */
	uint32_t intercept;	      /* exception bitmap beyond what Umbra needs (testing) */
	uint32_t x2apic;	      /* 1: offer x2APIC in CPUID (default) */
	uint32_t module_count;
	uint32_t disk_count;
	uint32_t virtio_console; /* 1: a virtio console beside the UART */
	uint32_t pmem_count;
	struct boot_pmem pmem[BOOT_MAX_PMEM];
	uint64_t local; /* remote_count: bytes of `memory` that may be in frames; multiple of 2 MiB
			 */
	uint32_t remote_count; /* 0: all memory is local */
	uint32_t replicas;     /* 1 to remote_count */
	uint32_t seal;	       /* 1: pages leave encrypted and authenticated */
	uint32_t prefetch;     /* 1 */
	uint32_t async_pf;     /* 1: offer KVM's asynchronous page faults */
	struct boot_node remote[BOOT_MAX_REMOTE];
	uint8_t remote_token[BOOT_TOKEN_LEN];
	struct boot_file kernel;
	/* VMs that name the same file share it: nobody writes to it. Zeroes up to the page's end.
	 */
	struct boot_file disk[BOOT_MAX_DISKS];
	uint32_t disk_mode[BOOT_MAX_DISKS]; /* enum boot_disk_mode */
	struct boot_file module[BOOT_MAX_MODULES];
	char module_args[BOOT_MAX_MODULES][BOOT_CMDLINE_LEN]; /* text after the path */
	char cmdline[BOOT_CMDLINE_LEN];
};

struct boot_info {
	uint64_t magic;
	uint32_t version;
	uint32_t size;	/* sizeof(struct boot_info) */
	uint32_t crc32; /* IEEE 802.3, of the whole structure with this field 0 */
	uint32_t memory_count;
	uint64_t image_base; /* where the hypervisor's first page lies; contiguous */
	uint64_t image_bytes;
	uint64_t image_virt;	     /* link address of image_base */
	struct boot_file image_file; /* the ELF file itself, kept for its symbol table */
	uint64_t boot_cr3;
	uint64_t trampoline; /* one page below 640 KiB for starting application processors */
	uint64_t rsdp;	     /* ACPI RSDP, or 0 */
	uint64_t smbios;     /* SMBIOS entry point, or 0 */
	uint64_t start_tsc;  /* TSC when the loader's first instruction ran */
	uint64_t tsc_hz;     /* from the firmware's Stall(), rough; the hypervisor calibrates */
	struct boot_framebuffer fb;
	uint32_t cpu_count;
	uint32_t vm_count;
	struct boot_cpu cpu[BOOT_MAX_CPUS];
	struct boot_options options;
	struct boot_range memory[BOOT_MAX_MEMORY];
	struct boot_vm vm[BOOT_MAX_VMS];
};

_Static_assert(sizeof(struct boot_range) == 24, "boot_range layout");
_Static_assert(sizeof(struct boot_file) == 144, "boot_file layout");
_Static_assert(sizeof(struct boot_cpu) == 8, "boot_cpu layout");
