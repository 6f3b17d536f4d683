/*
 * The monitor's line editor. The cursor is always at the end of the line. Backspace, Ctrl-U (line),
 * Ctrl-W (word), Ctrl-C (drop), Ctrl-L (show again), Ctrl-P and Ctrl-N or the arrows (lines
 * before), Tab (complete). Bytes that are no ASCII text are ignored.
 */
#include "lib/string.h"
#include "mon/mon.h"
#include "vm/console.h"

#define HISTORY 16 /* power of two */

enum {
	KEY_TEXT,
	KEY_ESCAPE,  /* after ESC */
	KEY_CONTROL, /* after ESC [ or ESC O */
};

static struct {
	u32 len;
	u32 state;
	bool after_return; /* a newline now belongs to it */
	char text[MON_LINE];
	u32 lines;    /* that have ever been entered */
	u32 recalled; /* the one shown, = lines: none */
	char history[HISTORY][MON_LINE];
} edit;

void edit_prompt(void)
{
	mon_print("\r\x1b[Kumbra %s> %s", vm_config(command_vm())->name, edit.text);
}

static void rub_out(u32 n)
{
	for (n = MIN(n, edit.len); n; n--) {
		edit.text[--edit.len] = 0;
		mon_print("\b \b");
	}
}

static void add(char c)
{
	if (edit.len == MON_LINE - 1) {
		mon_print("\a");
		return;
	}
	edit.text[edit.len++] = c;
	edit.text[edit.len] = 0;
	mon_print("%c", c);
}

static void replace(const char *text)
{
	rub_out(edit.len);
	while (*text)
		add(*text++);
}

static void recall(u32 line)
{
	if (line > edit.lines || edit.lines - line > HISTORY) {
		mon_print("\a");
		return;
	}
	edit.recalled = line;
	replace(line == edit.lines ? "" : edit.history[line % HISTORY]);
}

static void remember(void)
{
	if (edit.len &&
	    (!edit.lines || strcmp(edit.history[(edit.lines - 1) % HISTORY], edit.text)))
		str_copy(edit.history[edit.lines++ % HISTORY], MON_LINE, edit.text);
}

static void clear(void)
{
	edit.len = 0;
	edit.text[0] = 0;
	edit.recalled = edit.lines;
}

static void rub_out_word(void)
{
	u32 at = edit.len;

	while (at && edit.text[at - 1] == ' ')
		at--;
	while (at && edit.text[at - 1] != ' ')
		at--;
	rub_out(edit.len - at);
}

/* Adds what all words that are possible here have in common; shows them if that is nothing. */
static void complete(void)
{
	const char *first = command_complete(edit.text, 0), *word;
	size_t common, start = edit.len;

	while (start && edit.text[start - 1] != ' ')
		start--;
	if (!first) {
		mon_print("\a");
		return;
	}
	common = strlen(first);
	for (u32 i = 1; (word = command_complete(edit.text, i)); i++)
		for (size_t n = 0; n < common; n++)
			if (word[n] != first[n])
				common = n;
	if (!command_complete(edit.text, 1)) {
		for (size_t i = edit.len - start; i < common; i++)
			add(first[i]);
		add(' ');
	} else if (common > edit.len - start) {
		for (size_t i = edit.len - start; i < common; i++)
			add(first[i]);
	} else {
		mon_print("\n");
		for (u32 i = 0; i < 64 && (word = command_complete(edit.text, i)); i++)
			mon_print("%s%s", i ? " " : "", word);
		mon_print("\n");
		edit_prompt();
	}
}

static bool enter(char line[MON_LINE])
{
	mon_print("\n");
	remember();
	memcpy(line, edit.text, MON_LINE);
	clear();
	return true;
}

static bool control(u8 key, char line[MON_LINE])
{
	switch (key) {
	case 0: /* the monitor has got the focus */
	case CTRL('l'):
		edit_prompt();
		break;
	case '\r':
	case '\n':
		return enter(line);
	case '\b':
	case 0x7f:
		rub_out(1);
		break;
	case '\t':
		complete();
		break;
	case 0x1b:
		edit.state = KEY_ESCAPE;
		break;
	case CTRL('c'):
		mon_print("^C\n");
		clear();
		edit_prompt();
		break;
	case CTRL('d'): /* the end of input, in an empty line */
		if (!edit.len) {
			replace("quit");
			return enter(line);
		}
		break;
	case CTRL('n'):
		recall(edit.recalled + 1);
		break;
	case CTRL('p'):
		recall(edit.recalled - 1);
		break;
	case CTRL('u'):
		rub_out(edit.len);
		break;
	case CTRL('w'):
		rub_out_word();
		break;
	}
	return false;
}

bool edit_key(u8 key, char line[MON_LINE])
{
	bool second = key == '\n' && edit.after_return;

	edit.after_return = key == '\r';
	if (second)
		return false;
	if (edit.state == KEY_ESCAPE && key >= ' ') {
		edit.state = key == '[' || key == 'O' ? KEY_CONTROL : KEY_TEXT;
		return false;
	}
	if (edit.state == KEY_CONTROL && key >= ' ') {
		/* Parameters and the like come before the final byte. */
		if (key < '@')
			return false;
		edit.state = KEY_TEXT;
		if (key == 'A')
			recall(edit.recalled - 1);
		else if (key == 'B')
			recall(edit.recalled + 1);
		return false;
	}
	edit.state = KEY_TEXT;
	if (key < ' ' || key == 0x7f)
		return control(key, line);
	if (key < 0x80)
		add((char)key);
	return false;
}
