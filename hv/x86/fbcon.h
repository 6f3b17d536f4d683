/*
 * The log on the firmware's linear framebuffer: white on black, 8x16 font (twice that on screens
 * wider than 1920 pixels), scrolling. The framebuffer is only ever written.
 */
#pragma once

#include <umbra/boot_info.h>

#include "lib/types.h"

/* Maps the framebuffer and becomes a sink of the log; false if there is none that it can use. */
bool fbcon_init(const struct boot_framebuffer *fb);

/* From a panic: repaints the screen in red with the tail of the log. */
void fbcon_panic(void);

/* Never touches the screen again. */
void fbcon_off(void);
