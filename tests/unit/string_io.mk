UNIT_string_io := hv/vm/walk.c
