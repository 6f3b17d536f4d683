/* The 16550A under random register accesses and received bytes. */
#include <stddef.h>
#include <stdint.h>

#include "dev/uart.h"
#include "lib/panic.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct vuart u;
	bool dropped;

	vuart_reset(&u);
	for (size_t i = 0; i + 1 < size; i += 2) {
		unsigned int reg = data[i] & 7;

		if (data[i] & 0x40)
			vuart_rx(&u, data[i + 1]);
		else if (data[i] & 0x80)
			vuart_write(&u, reg, data[i + 1]);
		else
			vuart_read(&u, reg);
		ASSERT(u.rx_count <= VUART_FIFO && u.rx_head < VUART_FIFO);
		ASSERT(vuart_rx_room(&u) + u.rx_count <= VUART_FIFO || (u.mcr & 0x10));
		ASSERT((u.ier & 0xf0) == 0 && (u.mcr & 0xe0) == 0);
		/* The line is up exactly if IIR names a source. */
		if (vuart_irq(&u, &dropped)) {
			struct vuart copy = u;

			ASSERT(!(vuart_read(&copy, 2) & 1));
		} else {
			ASSERT(vuart_read(&u, 2) & 1);
		}
	}
	/* Whatever happened: the usual way of serving ends every interrupt. */
	u.mcr &= 0x0f;
	for (int i = 0; i < 64 && vuart_irq(&u, &dropped); i++) {
		vuart_read(&u, 2);
		vuart_read(&u, 5);
		vuart_read(&u, 6);
		vuart_write(&u, 3, u.lcr & 0x7f);
		vuart_read(&u, 0);
	}
	ASSERT(!vuart_irq(&u, &dropped));
	return 0;
}
