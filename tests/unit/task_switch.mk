UNIT_task_switch := hv/vm/walk.c
INCLUDED_task_switch := hv/vm/linear.c hv/vm/task_switch.c
