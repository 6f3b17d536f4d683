UNIT_report := hv/vm/report.c hv/vm/profile.c hv/lib/print.c $(CRC32_HOST)
