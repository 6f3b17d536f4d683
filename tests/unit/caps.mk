UNIT_caps := hv/vmx/caps.c hv/lib/features.c
