UNIT_memmap := boot/memmap.c boot/paging.c
