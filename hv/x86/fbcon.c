#include "x86/fbcon.h"

#include "lib/log.h"
#include "lib/string.h"
#include "x86/paging.h"

#define MAX_COLUMNS 240
#define MAX_ROWS    136
#define FONT_WIDTH  8
/* Scrolling moves by this part of the screen at once: painting is slow, most of all in emulators.
 */
#define SCROLL_PART 4

#define RGB_BACKGROUND 0x000000u
#define RGB_TEXT       0xc8c8c8u
#define RGB_PANIC      0x700000u

extern const u8 _binary_font_psf_start[], _binary_font_psf_end[];

static volatile u32 *pixels;
static struct boot_framebuffer screen;
static const u8 *glyphs;
static u32 glyph_count, glyph_bytes, font_height;
static u32 scale, columns, rows;
static u32 foreground, background;
static u32 row; /* where the next line goes */

/* What should be on the screen, and what is. */
static u8 wanted[MAX_ROWS][MAX_COLUMNS], shown[MAX_ROWS][MAX_COLUMNS];

/* PC Screen Font, version 1 (as the Terminus font of the console-setup package is) or 2. */
static bool font_open(void)
{
	const u8 *f = _binary_font_psf_start;
	size_t bytes = label_span(_binary_font_psf_start, _binary_font_psf_end);
	u32 h[8];

	if (bytes >= 4 && f[0] == 0x36 && f[1] == 0x04) {
		glyphs = f + 4;
		glyph_count = f[2] & 1 ? 512 : 256;
		glyph_bytes = f[3];
		font_height = f[3];
	} else if (bytes >= sizeof(h)) {
		memcpy(h, f, sizeof(h));
		if (h[0] != 0x864ab572 || h[7] != FONT_WIDTH || h[2] > bytes)
			return false;
		glyphs = f + h[2];
		glyph_count = h[4];
		glyph_bytes = h[5];
		font_height = h[6];
	} else {
		return false;
	}
	return font_height && glyph_bytes >= font_height && glyph_count >= 128 &&
	       (u64)glyph_count * glyph_bytes <= label_span(glyphs, _binary_font_psf_end);
}

static u32 colour(u32 rgb)
{
	if (screen.format == BOOT_FB_BGRX) /* blue in the lowest byte */
		return rgb;
	return (rgb & 0xff) << 16 | (rgb & 0xff00) | (rgb >> 16 & 0xff);
}

static void draw(u32 r, u32 c, u8 ch)
{
	const u8 *glyph = glyphs + (ch < 128 ? ch : '?') * glyph_bytes;
	volatile u32 *line =
		pixels + (u64)r * font_height * scale * screen.stride + c * FONT_WIDTH * scale;

	for (u32 y = 0; y < font_height * scale; y++, line += screen.stride) {
		u8 bits = glyph[y / scale];

		for (u32 x = 0; x < FONT_WIDTH * scale; x++)
			line[x] = bits & 0x80 >> x / scale ? foreground : background;
	}
}

static void repaint(void)
{
	for (u32 r = 0; r < rows; r++)
		for (u32 c = 0; c < columns; c++)
			if (wanted[r][c] != shown[r][c]) {
				draw(r, c, wanted[r][c]);
				shown[r][c] = wanted[r][c];
			}
}

static void scroll(void)
{
	u32 by = MAX(rows / SCROLL_PART, 1u);

	memmove(wanted[0], wanted[by], sizeof(wanted[0]) * (rows - by));
	memset(wanted[rows - by], ' ', sizeof(wanted[0]) * by);
	row = rows - by;
}

static void put_line(const char *line, size_t len)
{
	do {
		size_t n = MIN(len, columns);

		if (row == rows)
			scroll();
		memcpy(wanted[row++], line, n);
		line += n;
		len -= n;
	} while (len);
}

static void sink(const char *line, size_t len)
{
	if (!pixels)
		return;
	put_line(line, len);
	repaint();
}

static void clear(u32 rgb)
{
	background = colour(rgb);
	foreground = colour(RGB_TEXT);
	for (u32 y = 0; y < screen.height; y++)
		for (u32 x = 0; x < screen.width; x++)
			pixels[(u64)y * screen.stride + x] = background;
	memset(wanted, ' ', sizeof(wanted));
	memset(shown, ' ', sizeof(shown));
	row = 0;
}

bool fbcon_init(const struct boot_framebuffer *fb)
{
	if (fb->format == BOOT_FB_NONE || !fb->base || fb->stride < fb->width ||
	    (u64)fb->stride * fb->height * 4 > fb->bytes || !font_open())
		return false;
	screen = *fb;
	scale = fb->width > 1920 ? 2 : 1;
	columns = MIN(fb->width / (FONT_WIDTH * scale), (u32)MAX_COLUMNS);
	rows = MIN(fb->height / (font_height * scale), (u32)MAX_ROWS);
	if (!columns || rows < 2)
		return false;
	pixels = paging_map_mmio(hpa(fb->base), fb->bytes, PAGING_WC);
	clear(RGB_BACKGROUND);
	log_add_sink(sink);
	return true;
}

void fbcon_off(void)
{
	pixels = NULL;
}

/* The last lines of the log that fit, longest possible lines counted as they wrap. */
void fbcon_panic(void)
{
	static char text[MAX_ROWS * MAX_COLUMNS];
	static const char title[] = " Umbra has stopped because of an error of its own. "
				    "The end of its log:";
	size_t len, start, line;
	u32 need = 5; /* title, empty line, and what machine_end() adds */

	if (!pixels)
		return;
	clear(RGB_PANIC);
	len = log_ring_tail(text, sizeof(text));
	while (len && text[len - 1] == '\n')
		len--;
	for (start = len; start > 0;) {
		for (line = start - 1; line > 0 && text[line - 1] != '\n'; line--)
			;
		/* text[line .. start) is one line and its newline */
		need += (u32)(start - line + columns - 1) / columns;
		if (need > rows)
			break;
		start = line;
	}
	put_line(title, sizeof(title) - 1);
	put_line("", 0);
	while (start < len) {
		for (line = start; line < len && text[line] != '\n'; line++)
			;
		put_line(text + start, line - start);
		start = line + 1;
	}
	repaint();
}
