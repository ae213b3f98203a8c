// Keeps a dma-buf of another process in use, as a driver or program that imported it would:
//
//   hold-dmabuf PID
//
// Takes the first dma-buf among the process's files, prints one line, {"held": BYTES}, and keeps it until a
// signal comes.
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../guest-programs/wait.h"

static int dmabuf_of(const char *pid)
{
	char folder[64], path[384], target[64];

	snprintf(folder, sizeof(folder), "/proc/%s/fd", pid);
	DIR *files = opendir(folder);

	for (struct dirent *file; files && (file = readdir(files));) {
		snprintf(path, sizeof(path), "%s/%s", folder, file->d_name);
		ssize_t length = readlink(path, target, sizeof(target) - 1);

		if (length < 0)
			continue;
		target[length] = '\0';
		if (strncmp(target, "/dmabuf:", strlen("/dmabuf:")) == 0)
			return atoi(file->d_name);
	}
	fprintf(stderr, "process %s has no dma-buf\n", pid);
	exit(1);
}

int main(int argc, char **argv)
{
	if (argc != 2) {
		fprintf(stderr, "usage: hold-dmabuf PID\n");
		return 2;
	}
	hold_signals();

	int pidfd = syscall(SYS_pidfd_open, atoi(argv[1]), 0);
	int fd = pidfd < 0 ? -1 : syscall(SYS_pidfd_getfd, pidfd, dmabuf_of(argv[1]), 0);

	if (fd < 0) {
		fprintf(stderr, "taking a dma-buf of process %s: %s\n", argv[1], strerror(errno));
		return 1;
	}
	printf("{\"held\": %lld}\n", (long long)lseek(fd, 0, SEEK_END));
	fflush(stdout);
	wait_for_signal();
	return 0;
}
