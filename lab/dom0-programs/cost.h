// What a piece of work costs: wall time, and the CPU time of this process as the kernel accounts it.
#ifndef COST_H
#define COST_H

#include <stdio.h>
#include <sys/resource.h>
#include <time.h>

struct cost {
	double wall_ms;
	double user_ms;
	double system_ms;
};

static inline double cost_ms(struct timeval time)
{
	return time.tv_sec * 1000.0 + time.tv_usec / 1000.0;
}

/* What has been spent so far: work costs the difference between two of these. */
static inline struct cost cost_now(void)
{
	struct timespec wall;
	struct rusage usage;

	clock_gettime(CLOCK_MONOTONIC, &wall);
	getrusage(RUSAGE_SELF, &usage);
	return (struct cost){
		.wall_ms = wall.tv_sec * 1000.0 + wall.tv_nsec / 1e6,
		.user_ms = cost_ms(usage.ru_utime),
		.system_ms = cost_ms(usage.ru_stime),
	};
}

/* Prints the members `wallMs`, `userMs` and `systemMs` of a JSON object, for the work since `before`. */
static inline void cost_print(struct cost before)
{
	struct cost now = cost_now();

	printf("\"wallMs\": %.3f, \"userMs\": %.3f, \"systemMs\": %.3f", now.wall_ms - before.wall_ms,
	       now.user_ms - before.user_ms, now.system_ms - before.system_ms);
}

#endif
