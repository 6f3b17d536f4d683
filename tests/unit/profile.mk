UNIT_profile := hv/vm/profile.c
