UNIT_report := hv/vm/report.c hv/vm/profile.c hv/lib/print.c hv/lib/crc32.c
