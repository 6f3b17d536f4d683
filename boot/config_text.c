/* The words, lists, numbers and sizes of umbra.conf. */
#include "config_parser.h"

void config_copy(char *to, const char *from, size_t len)
{
	size_t i;

	for (i = 0; i < len; i++)
		to[i] = from[i];
	to[len] = 0;
}

void config_trim(const char **s, size_t *len)
{
	while (*len && config_is_blank(**s)) {
		(*s)++;
		(*len)--;
	}
	while (*len && config_is_blank((*s)[*len - 1]))
		(*len)--;
}

bool config_number(const char *s, size_t len, u64 *out)
{
	unsigned int base = 10, digit;
	u64 value = 0;
	size_t i = 0;

	if (len > 2 && s[0] == '0' && (s[1] == 'x' || s[1] == 'X')) {
		base = 16;
		i = 2;
	}
	if (i == len)
		return false;
	for (; i < len; i++) {
		if (s[i] >= '0' && s[i] <= '9')
			digit = (unsigned int)(s[i] - '0');
		else if (base == 16 && (s[i] | 32) >= 'a' && (s[i] | 32) <= 'f')
			digit = (unsigned int)((s[i] | 32) - 'a') + 10;
		else
			return false;
		if (value > (~0ull - digit) / base)
			return false;
		value = value * base + digit;
	}
	*out = value;
	return true;
}

bool config_size(const char *s, size_t len, u64 *out)
{
	unsigned int shift = 0;
	u64 value;

	if (len && s[len - 1] == 'K')
		shift = 10;
	else if (len && s[len - 1] == 'M')
		shift = 20;
	else if (len && s[len - 1] == 'G')
		shift = 30;
	if (!config_number(s, shift ? len - 1 : len, &value) || value > ~0ull >> shift)
		return false;
	*out = value << shift;
	return true;
}

bool config_item(const char **s, char *item, size_t *len, bool literal)
{
	const char *start;
	size_t n = 0;

	if (!*s)
		return false;
	while (**s && (**s != ',' || (literal && (*s)[1] == ','))) {
		if (**s == ',')
			(*s)++;
		item[n++] = *(*s)++;
	}
	*s = **s ? *s + 1 : NULL;
	start = item;
	config_trim(&start, &n);
	config_copy(item, start, n);
	*len = n;
	return true;
}

size_t config_word(const char **s, char *word)
{
	size_t n = 0;

	while (config_is_blank(**s))
		(*s)++;
	while ((*s)[n] && !config_is_blank((*s)[n]))
		n++;
	config_copy(word, *s, n);
	*s += n;
	return n;
}

bool config_ip(const char **s, u32 *out)
{
	u32 ip = 0;

	for (unsigned int part = 0; part < 4; part++) {
		u32 value = 0, digits = 0;

		if (part && *(*s)++ != '.')
			return false;
		for (; **s >= '0' && **s <= '9' && digits < 3; digits++)
			value = value * 10 + (u32)(*(*s)++ - '0');
		if (!digits || value > 255)
			return false;
		ip = ip << 8 | value;
	}
	*out = ip;
	return true;
}
