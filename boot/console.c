/* Lines on the firmware's console. */
#include "loader.h"
#include "text.h"

#define LINE_BYTES 512

static void put_line(const char *prefix, const char *fmt, va_list ap)
{
	CHAR16 wide[2 * LINE_BYTES];
	char text[LINE_BYTES];
	size_t i, len, n = 0;
	unsigned int step;
	u32 c;

	for (i = 0; prefix[i]; i++)
		wide[n++] = (CHAR16)prefix[i];
	text_vprint(text, sizeof(text), fmt, ap);
	len = text_length(text);
	for (i = 0; i < len; i += step) {
		step = text_utf8(text + i, len - i, &c);
		wide[n++] = step && c >= ' ' && c <= 0xffff ? (CHAR16)c : '?';
		step = step ? step : 1;
	}
	wide[n++] = '\r';
	wide[n++] = '\n';
	wide[n] = 0;
	efi->ConOut->OutputString(efi->ConOut, wide);
}

void say(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	put_line("umbra-loader: ", fmt, ap);
	va_end(ap);
}

void problem(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	put_line("umbra-loader: error: ", fmt, ap);
	va_end(ap);
}

const char *status_text(EFI_STATUS status)
{
	static char other[40];

	switch (status) {
	case EFI_NOT_FOUND:
		return "not found";
	case EFI_DEVICE_ERROR:
		return "the device reports an error";
	case EFI_VOLUME_CORRUPTED:
		return "the file system is damaged or the file is truncated";
	case EFI_NO_MEDIA:
	case EFI_MEDIA_CHANGED:
		return "the medium has been removed";
	case EFI_ACCESS_DENIED:
		return "access denied";
	case EFI_OUT_OF_RESOURCES:
		return "the firmware is out of memory";
	case EFI_UNSUPPORTED:
		return "not supported by the firmware";
	default:
		text_print(other, sizeof(other), "EFI status 0x%llx", (unsigned long long)status);
		return other;
	}
}
