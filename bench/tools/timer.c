/* timer CMD ARGS...: runs CMD with /dev/null as standard input and output; prints "STATUS CPU WALL RSS":
 * the exit status (128 + n: signal n), user + system time of CMD and of the children that it waited for in µs,
 * wall time in µs, peak resident memory in KiB.
 *
 * A program of its own because the kernel counts the memory that a process had before execve(2) as its peak: whoever
 * starts CMD has to be smaller than CMD. After two minutes CMD is killed.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct timespec begin, end, limit = {.tv_sec = 120};
	struct rusage usage;
	sigset_t child_ends, before;
	int status, null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (argc < 2 || null < 0)
		return 2;
	sigemptyset(&child_ends);
	sigaddset(&child_ends, SIGCHLD);
	sigprocmask(SIG_BLOCK, &child_ends, &before);
	clock_gettime(CLOCK_MONOTONIC, &begin);
	pid_t pid = vfork();
	if (pid == 0) {
		sigprocmask(SIG_SETMASK, &before, NULL);
		dup2(null, 0);
		dup2(null, 1);
		execv(argv[1], argv + 1);
		_exit(127);
	}
	if (pid < 0)
		return 3;
	if (sigtimedwait(&child_ends, NULL, &limit) < 0)
		kill(pid, SIGKILL);
	if (wait4(pid, &status, 0, &usage) != pid)
		return 4;
	clock_gettime(CLOCK_MONOTONIC, &end);
	printf("%d %ld %ld %ld\n", WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status),
	       (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000L + usage.ru_utime.tv_usec + usage.ru_stime.tv_usec,
	       (end.tv_sec - begin.tv_sec) * 1000000L + (end.tv_nsec - begin.tv_nsec) / 1000, usage.ru_maxrss);
	return 0;
}
