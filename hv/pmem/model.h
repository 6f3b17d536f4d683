/* Between medium.c and model.c: the model behind struct medium, its lock held (model_written()
 * takes none). */
#pragma once

#include "pmem/medium.h"

void model_written(struct medium *m, u64 offset, u64 bytes);
void model_flush(struct medium *m, u32 controller);
void model_drain(struct medium *m);
void model_cut(struct medium *m);
u64 model_pending(struct medium *m);
