/* The keyboard controller without a keyboard: see i8042.h. */
#include "dev/i8042.h"

#define STATUS_OBF     BIT(0)
#define STATUS_SYS     BIT(2)
#define STATUS_CMD     BIT(3)
#define STATUS_KEYLOCK BIT(4)
#define STATUS_TIMEOUT BIT(6)
#define CTR_INT	       BIT(0) /* command byte: IRQ 1 when the output buffer is full */
#define CTR_SYS	       BIT(2)
#define OUT_RESET      BIT(0) /* output port: active low */
#define OUT_A20	       BIT(1)
#define P92_RESET      BIT(0)
#define P92_A20	       BIT(1)
#define CF9_CPU	       BIT(2) /* 0 to 1 resets */
#define RESEND	       0xfe

void i8042_reset(struct i8042 *k)
{
	*k = (struct i8042){
		.status = STATUS_SYS | STATUS_KEYLOCK,
		.output_port = OUT_RESET | OUT_A20,
		.ram = {CTR_SYS},
	};
}

static void answer(struct i8042 *k, u8 byte)
{
	k->out = byte;
	k->status = (k->status & (u8)~STATUS_TIMEOUT) | STATUS_OBF;
}

/* What the controller does about a device that is not there. */
static void time_out(struct i8042 *k)
{
	answer(k, RESEND);
	k->status |= STATUS_TIMEOUT;
}

bool i8042_irq(const struct i8042 *k)
{
	return (k->status & STATUS_OBF) && (k->ram[0] & CTR_INT);
}

u8 i8042_read(struct i8042 *k, u16 port)
{
	switch (port) {
	case 0x60:
		k->status &= (u8) ~(STATUS_OBF | STATUS_TIMEOUT);
		return k->out;
	case 0x64:
		return k->status;
	case 0x92:
		return k->output_port & OUT_A20 ? P92_A20 : 0;
	default:
		return k->cf9;
	}
}

static bool write_command(struct i8042 *k, u8 v)
{
	k->status |= STATUS_CMD;
	k->command = 0;
	switch (v) {
	case 0x20 ... 0x3f: /* read RAM */
		answer(k, k->ram[v & 31]);
		break;
	case 0x60 ... 0x7f: /* write RAM */
	case 0xd1:	    /* write output port */
	case 0xd2:	    /* write as if from the keyboard */
	case 0xd3:	    /* write as if from the mouse */
	case 0xd4:	    /* write to the mouse */
		k->command = v;
		break;
	case 0xa9: /* test of the mouse port: no clock there */
		answer(k, 1);
		break;
	case 0xaa: /* self-test */
		answer(k, 0x55);
		break;
	case 0xab: /* test of the keyboard port: good */
		answer(k, 0);
		break;
	case 0xad:
		k->ram[0] |= BIT(4);
		break;
	case 0xae:
		k->ram[0] &= (u8)~BIT(4);
		break;
	case 0xa7:
		k->ram[0] |= BIT(5);
		break;
	case 0xa8:
		k->ram[0] &= (u8)~BIT(5);
		break;
	case 0xc0: /* input port: not locked, nothing else connected */
		answer(k, 0x80);
		break;
	case 0xd0:
		answer(k, k->output_port | (k->status & STATUS_OBF ? BIT(4) : 0));
		break;
	case 0xdd:
	case 0xdf:
		k->output_port =
			v == 0xdf ? k->output_port | OUT_A20 : k->output_port & (u8)~OUT_A20;
		break;
	case 0xf0 ... 0xff: /* pulse low the output lines whose bit is 0 */
		return !(v & OUT_RESET);
	default:
		break;
	}
	return false;
}

static bool write_data(struct i8042 *k, u8 v)
{
	u8 command = k->command;

	k->status &= (u8)~STATUS_CMD;
	k->command = 0;
	switch (command) {
	case 0x60 ... 0x7f:
		k->ram[command & 31] = v;
		break;
	case 0xd1:
		k->output_port = v & (OUT_RESET | OUT_A20);
		return !(v & OUT_RESET);
	case 0xd2:
		answer(k, v);
		break;
	case 0xd3:
		break;
	default: /* to a device */
		time_out(k);
		break;
	}
	return false;
}

bool i8042_write(struct i8042 *k, u16 port, u8 v)
{
	bool reset;

	switch (port) {
	case 0x60:
		return write_data(k, v);
	case 0x64:
		return write_command(k, v);
	case 0x92:
		k->output_port = (k->output_port & (u8)~OUT_A20) | (v & P92_A20 ? OUT_A20 : 0);
		return v & P92_RESET;
	default:
		reset = (v & CF9_CPU) && !(k->cf9 & CF9_CPU);
		k->cf9 = v & 0x0e;
		return reset;
	}
}
