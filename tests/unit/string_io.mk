UNIT_string_io := hv/vm/walk.c
INCLUDED_string_io := hv/vm/linear.c hv/vm/string_io.c
