UNIT_string := hv/lib/print.c
INCLUDED_string := hv/lib/string.c
