UNIT_zmm :=
INCLUDED_zmm := hv/lib/zmm.c
