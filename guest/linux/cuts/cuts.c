/*
 * See cuts.h. Status 0: all is well, 1: something is wrong, 2: trouble.
 *
 * cuts WORKLOAD images COUNT WITHIN SEED FOLDER REGION DEVICE MOUNTPOINT
 *	The workload's files are in FOLDER, on NVDIMM REGION; the image in the next one, which is
 *	DEVICE, is mounted at MOUNTPOINT. Each image comes WITHIN ticks of the TSC after the last
 *	one has been looked at. Prints a line for each wrong image, and a summary.
 * cuts WORKLOAD work FOLDER WITHIN SEED
 *	Works until power fails, WITHIN ticks after some operations, and says "durable N" after
 *	each of them.
 * cuts WORKLOAD verify FOLDER
 *	Says how many operations are there.
 */
#include "cuts.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <umbra/hypercall.h>

static const struct workload *const workloads[] = {&sqlite_journal, &sqlite_wal, &objects, &files};

#define OPERATIONS (1 << 20)

/* Shared by the workload's process and ours: TSC when operation i + 1 began and was done. */
static struct {
	volatile int failed, ready;
	volatile uint64_t began[OPERATIONS], done[OPERATIONS];
} * history;

static uint64_t tsc(void)
{
	uint32_t low, high;

	asm volatile("mfence; lfence; rdtsc; lfence" : "=a"(low), "=d"(high) : : "memory");
	return low | (uint64_t)high << 32;
}

static uint32_t pmem(uint64_t what, uint64_t region, uint64_t argument)
{
	uint64_t result;

	asm volatile("inl %%dx, %%eax"
		     : "=a"(result)
		     : "a"(HC_PMEM), "b"(what), "c"(region), "d"(UMBRA_PORT), "S"(argument)
		     : "memory");
	return (uint32_t)result;
}

static uint64_t image_tsc(int after)
{
	return pmem(HC_PMEM_IMAGE_TSC, 0, after * 2) |
	       (uint64_t)pmem(HC_PMEM_IMAGE_TSC, 0, after * 2 + 1) << 32;
}

static void sleep_ms(long ms)
{
	nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

static _Noreturn void trouble(const char *what)
{
	printf("cuts: %s: %s\n", what, strerror(errno));
	exit(2);
}

static void work(const struct workload *w, const char *folder)
{
	if (!w->begin(folder))
		history->failed = 1;
	history->ready = 1;
	for (uint64_t i = 0; i < OPERATIONS && !history->failed; i++) {
		history->began[i] = tsc();
		if (!w->operation(i + 1))
			history->failed = 1;
		history->done[i] = tsc();
	}
	_exit(1);
}

/* How many operations were done, and how many had begun, at that moment. */
static uint64_t count_before(const volatile uint64_t *list, uint64_t moment)
{
	uint64_t n = 0;

	while (n < OPERATIONS && list[n] && list[n] <= moment)
		n++;
	return n;
}

/* Not flushed, and there all the same, as it may be. */
#define MORE 3

/* In a process of its own, as a broken image may do anything to us. */
static int verify(const struct workload *w, uint64_t durable, uint64_t begun, const char *folder)
{
	const char *why = "?";
	int64_t found = w->verify(folder, &why);

	if (found < 0) {
		printf("# wrong: %s; %lu durable, %lu begun\n", why, durable, begun);
		return 1;
	}
	if ((uint64_t)found < durable || (uint64_t)found > begun) {
		printf("# wrong: %ld operations are there; %lu durable, %lu begun\n", found,
		       durable, begun);
		return 1;
	}
	return (uint64_t)found > durable ? MORE : 0;
}

static int look(const struct workload *w, uint64_t durable, uint64_t begun, const char *device,
		const char *mountpoint)
{
	int status;
	pid_t child;

	if (mount(device, mountpoint, "ext4", 0, "dax=always")) {
		printf("# wrong: the image cannot be mounted: %s\n", strerror(errno));
		return 1;
	}
	fflush(stdout);
	child = fork();
	if (!child)
		alarm(60);
	if (!child)
		exit(verify(w, durable, begun, mountpoint));
	if (child < 0 || waitpid(child, &status, 0) < 0)
		trouble("fork");
	if (umount(mountpoint))
		trouble("umount");
	if (WIFEXITED(status))
		return WEXITSTATUS(status);
	printf("# wrong: reading it ended with signal %d\n", WTERMSIG(status));
	return 1;
}

static void wait_for_image(uint32_t last, pid_t worker)
{
	int status;

	for (int rounds = 0; pmem(HC_PMEM_IMAGES, 0, 0) == last; rounds++) {
		sleep_ms(1);
		if (history->failed || rounds > 60000 || waitpid(worker, &status, WNOHANG)) {
			errno = 0;
			trouble("the workload failed, or no image comes");
		}
	}
}

static int images(const struct workload *w, char **argv)
{
	long count = atol(argv[0]), within = atol(argv[1]), seed = atol(argv[2]);
	long region = atol(argv[4]), wrong = 0, more = 0;
	uint64_t operations = 0;
	pid_t worker;

	if (ioperm(UMBRA_PORT, 4, 1) || pmem(HC_PMEM_IMAGE, (uint64_t)region, (uint64_t)region + 1))
		trouble("start");
	history = mmap(NULL, sizeof(*history), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		       -1, 0);
	if (history == MAP_FAILED)
		trouble("mmap");
	worker = fork();
	if (!worker)
		work(w, argv[3]);
	while (!history->ready)
		sleep_ms(1);
	for (long i = 0; i < count; i++) {
		uint32_t last = pmem(HC_PMEM_IMAGES, 0, 0);
		uint64_t durable, begun;

		if (pmem(HC_PMEM_CUT_WITHIN, i ? 0 : (uint64_t)seed, (uint64_t)within))
			trouble("CUT_WITHIN");
		kill(worker, SIGCONT);
		wait_for_image(last, worker);
		kill(worker, SIGSTOP);
		durable = count_before(history->done, image_tsc(0));
		begun = count_before(history->began, image_tsc(1));
		operations = begun;
		switch (look(w, durable, begun, argv[5], argv[6])) {
		case 0:
			break;
		case MORE:
			more++;
			break;
		default:
			wrong++;
		}
	}
	kill(worker, SIGKILL);
	waitpid(worker, NULL, 0);
	printf("cuts: %s: %ld images, %ld wrong, %ld with more than had to be there, %lu "
	       "operations\n",
	       w->name, count, wrong, more, operations);
	return wrong != 0;
}

static int until_power_fails(const struct workload *w, char **argv)
{
	uint64_t within = (uint64_t)atol(argv[1]), seed = (uint64_t)atol(argv[2]);

	if (ioperm(UMBRA_PORT, 4, 1) || !w->begin(argv[0]))
		return 2;
	for (uint64_t i = 1; w->operation(i); i++) {
		printf("durable %lu\n", i);
		fflush(stdout);
		if (i == 3 && pmem(HC_PMEM_CUT_WITHIN, seed, within))
			trouble("CUT_WITHIN");
	}
	return 2;
}

static int tell(const struct workload *w, const char *folder)
{
	const char *why = "?";
	int64_t found = w->verify(folder, &why);

	if (found < 0)
		printf("wrong: %s\n", why);
	else
		printf("%ld operations are there\n", found);
	return found < 0;
}

int main(int argc, char **argv)
{
	const struct workload *w = NULL;

	for (size_t i = 0; argc > 1 && i < sizeof(workloads) / sizeof(workloads[0]); i++)
		if (!strcmp(workloads[i]->name, argv[1]))
			w = workloads[i];
	if (w && argc == 10 && !strcmp(argv[2], "images"))
		return images(w, argv + 3);
	if (w && argc == 6 && !strcmp(argv[2], "work"))
		return until_power_fails(w, argv + 3);
	if (w && argc == 4 && !strcmp(argv[2], "verify"))
		return tell(w, argv[3]);
	return 2;
}
