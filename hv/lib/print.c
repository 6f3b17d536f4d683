/* The formatter: stb_sprintf without floating point, kept in one file of its own. */
#include "lib/log.h"

#define STB_SPRINTF_NOFLOAT
#define STB_SPRINTF_NOUNALIGNED
#define STB_SPRINTF_STATIC
#define STB_SPRINTF_IMPLEMENTATION
#include <stb_sprintf.h>

int str_vprint(char *buf, size_t size, const char *fmt, va_list ap)
{
	/* stb_sprintf counts in int, and would terminate a buffer of size 0 in front of it. */
	return stbsp_vsnprintf(size ? buf : NULL, size > INT32_MAX ? INT32_MAX : (int)size, fmt,
			       ap);
}

int str_print(char *buf, size_t size, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = str_vprint(buf, size, fmt, ap);
	va_end(ap);
	return n;
}
