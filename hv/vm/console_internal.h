/* What console.c (output) and console_keys.c (focus and input) share. */
#pragma once

#include "lib/spinlock.h"
#include "vm/console.h"

#define OUT_BYTES     (64 * 1024) /* powers of two */
#define IN_BYTES      2048
#define BACKLOG_BYTES 4096
#define LINE_BYTES    256

/* Input that waits; what does not fit is lost, as on a wire, so that the keys always work. */
struct input {
	u32 head, tail; /* free-running; head: next to take */
	u8 byte[IN_BYTES];
};

/* Where a byte of terminal output stands (ECMA-48). */
enum escape {
	ESCAPE_NONE,
	ESCAPE_START,  /* after ESC */
	ESCAPE_CSI,    /* control sequence: up to its final byte */
	ESCAPE_STRING, /* operating system command and the like: up to BEL or ST */
};

/* A VM's console. */
struct channel {
	struct input in;
	u32 line_len; /* the current line, while lines are shown */
	u8 line_escape;
	bool line_cr;
	bool open;	  /* its last byte was no newline */
	u32 backlog_tail; /* free-running */
	char line[LINE_BYTES];
	u8 backlog[BACKLOG_BYTES];
};

struct console {
	struct spinlock lock;
	u16 port;
	bool command; /* Ctrl-A has been typed */
	u32 missed;   /* atomic: polls in a row that found the lock taken */
	u32 vms;      /* configured */
	u32 focus, previous;
	struct channel *channel; /* one per VM */
	struct input first;	 /* for the first VM that runs */
	struct input monitor;
	u32 out_head, out_tail; /* free-running; head: next to send */
	u8 out[OUT_BYTES];
};

extern struct console console;

/* All under the lock. */
void console_put_byte(u8 byte);
void console_put_string(const char *text);
/* Shows what is left of a VM's output, without escape sequences. */
void console_replay(struct channel *channel);
/* Forgets lines that have begun. */
void console_drop_lines(void);
void console_drop_output(void);
/* Changes the focus, and says so on the terminal. `why` may be NULL. */
void console_switch(u32 focus, const char *why);
/* The VM in focus ends: on to the next one. */
void console_leave(const struct vm *vm);
/* Reads what has been typed. True: Ctrl-A x. */
bool console_receive(void);

/* The VM's bytes go to the terminal as they are. */
static inline bool console_raw(u32 id)
{
	return console.focus == BOOT_FOCUS_VM + id ||
	       (console.focus <= BOOT_FOCUS_ALL && console.vms == 1);
}

static inline bool console_lines(void)
{
	return console.focus <= BOOT_FOCUS_ALL && console.vms > 1;
}
