// Programs that set something up, say so, and keep it until somebody sends SIGTERM or SIGINT.
#ifndef WAIT_H
#define WAIT_H

#include <signal.h>
#include <stddef.h>

static inline sigset_t end_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	return set;
}

/* From here on the signals wait for wait_for_signal(): one that comes earlier is not lost. */
static inline void hold_signals(void)
{
	sigset_t set = end_signals();

	sigprocmask(SIG_BLOCK, &set, NULL);
}

static inline void wait_for_signal(void)
{
	sigset_t set = end_signals();
	int number;

	sigwait(&set, &number);
}

#endif
