UNIT_remote_report := hv/remote/report.c hv/lib/print.c
