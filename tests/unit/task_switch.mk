UNIT_task_switch := hv/vm/walk.c
