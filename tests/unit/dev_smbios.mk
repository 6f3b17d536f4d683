UNIT_dev_smbios := hv/dev/smbios.c
