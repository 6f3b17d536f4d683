/* Between medium.c and model.c: the model behind struct medium, its lock held but for
 * model_written(). */
#pragma once

#include "pmem/medium.h"

void model_seed(struct medium *m, u64 seed);
void model_written(struct medium *m, u64 offset, u64 bytes);
void model_flush(struct medium *m, u32 controllers); /* BIT(n): number n */
void model_drain(struct medium *m);
void model_cut(struct medium *m);
void model_image(struct medium *m, struct medium *to);
u64 model_pending(struct medium *m);
