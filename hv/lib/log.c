#include "lib/log.h"

#include "lib/spinlock.h"
#include "lib/string.h"

#define LOG_LINE_MAX 512
#define LOG_SINKS    4

static struct spinlock log_lock;
static enum log_level log_limit = LOG_INFO;
static log_sink_fn log_sinks[LOG_SINKS];
static unsigned int log_sink_count;
static log_sink_fn data_sink;

/* Bytes ever written; the newest LOG_RING_BYTES of them are in the ring. */
static u64 ring_end;
static char ring[LOG_RING_BYTES];
_Static_assert((LOG_RING_BYTES & (LOG_RING_BYTES - 1)) == 0, "the ring's size is a power of two");

static void ring_put(const char *s, size_t len)
{
	for (; len; len--, s++)
		ring[ring_end++ % LOG_RING_BYTES] = *s;
}

/* Guests' bytes and firmware strings get into messages: control characters must not reach a
 * terminal, nor may they forge a second line. */
static void make_printable(char *s, size_t len)
{
	for (; len; len--, s++)
		if ((u8)*s < ' ' || *s == 0x7f)
			*s = *s == '\t' ? ' ' : '?';
}

static void emit(const char *line, size_t len)
{
	spin_lock(&log_lock);
	ring_put(line, len);
	ring_put("\n", 1);
	for (unsigned int i = 0; i < log_sink_count; i++)
		log_sinks[i](line, len);
	spin_unlock(&log_lock);
}

void log_print(enum log_level level, const char *fmt, ...)
{
	static const char *const marks[] = {"error: ", "warning: ", "", "debug: "};
	char line[LOG_LINE_MAX];
	size_t len;
	va_list ap;
	u64 us;

	if (level > __atomic_load_n(&log_limit, __ATOMIC_RELAXED))
		return;
	us = log_clock_us();
	len = (size_t)str_print(line, sizeof(line), "[%5lu.%06lu cpu%u] %s", (us / 1000000),
				(us % 1000000), log_cpu(), marks[level]);
	va_start(ap, fmt);
	str_vprint(line + len, sizeof(line) - len, fmt, ap);
	va_end(ap);
	len = strnlen(line, sizeof(line) - 1);
	make_printable(line, len);
	emit(line, len);
}

void log_plain(const char *line)
{
	emit(line, strlen(line));
}

void log_data(const char *line)
{
	spin_lock(&log_lock);
	if (data_sink)
		data_sink(line, strlen(line));
	spin_unlock(&log_lock);
}

void log_set_data_sink(log_sink_fn sink)
{
	data_sink = sink;
}

void log_set_level(enum log_level level)
{
	__atomic_store_n(&log_limit, level, __ATOMIC_RELAXED);
}

/* Gives a new sink what was logged before it came, line by line. */
static void replay(log_sink_fn sink)
{
	u64 pos = ring_end > LOG_RING_BYTES ? ring_end - LOG_RING_BYTES : 0;
	char line[LOG_LINE_MAX];
	size_t len = 0;

	for (; pos < ring_end; pos++) {
		char c = ring[pos % LOG_RING_BYTES];

		if (c == '\n') {
			sink(line, len);
			len = 0;
		} else if (len < sizeof(line)) {
			line[len++] = c;
		}
	}
}

void log_add_sink(log_sink_fn sink)
{
	spin_lock(&log_lock);
	if (log_sink_count < LOG_SINKS) {
		replay(sink);
		log_sinks[log_sink_count++] = sink;
	}
	spin_unlock(&log_lock);
}

size_t log_ring_tail(char *buf, size_t len)
{
	u64 held, pos;

	spin_lock(&log_lock);
	held = MIN(ring_end, LOG_RING_BYTES);
	len = MIN(len, held);
	pos = ring_end - len;
	for (size_t i = 0; i < len; i++)
		buf[i] = ring[(pos + i) % LOG_RING_BYTES];
	spin_unlock(&log_lock);
	return len;
}

void log_break_lock(void)
{
	/* Written in this order a holder that goes on unlocks into the void at worst. */
	__atomic_store_n(&log_lock.next, 0, __ATOMIC_RELAXED);
	__atomic_store_n(&log_lock.serving, 0, __ATOMIC_RELEASE);
}
