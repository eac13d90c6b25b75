/* Processes: whatever a program starts, its own connections stay as they are. */
#include "ct.h"
#include <spawn.h>
#include <sys/syscall.h>

extern char **environ;

/* Both ways, still. */
static void both_ways(int fd)
{
	char b;
	SHOW(write(fd, "o", 1));
	PEER(char b; SHOW(recv(fd, &b, 1, 0)); SHOW(send(fd, "i", 1, 0)));
	SHOW(recv(fd, &b, 1, 0));
}

static int run(const posix_spawn_file_actions_t *actions, const char *script)
{
	pid_t pid;
	int status = -1;
	char *argv[] = {"sh", "-c", (char *)script, NULL};
	errno = posix_spawn(&pid, "/bin/sh", actions, NULL, argv, environ);
	if (errno) return -1;
	waitpid(pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

CASE(system_and_popen, BOTH)
{
	char b[16] = {0};
	SHOW(system("exit 7") >> 8);
	FILE *f = popen("echo hello", "r");
	SHOW(fgets(b, sizeof b, f) == b);
	ct_show_bytes("child", b, 6);
	SHOW(pclose(f));
	both_ways(fd);
}

CASE(spawn_without_actions, BOTH)
{
	SHOW(run(NULL, "exit 3"));
	both_ways(fd);
}

CASE(spawn_closes_the_connection, BOTH)
{
	posix_spawn_file_actions_t a;
	posix_spawn_file_actions_init(&a);
	posix_spawn_file_actions_addclose(&a, fd);
	SHOW(run(&a, "exit 4"));
	posix_spawn_file_actions_destroy(&a);
	both_ways(fd);
}

CASE(spawn_puts_a_file_on_the_connection, BOTH)
{
	posix_spawn_file_actions_t a;
	posix_spawn_file_actions_init(&a);
	posix_spawn_file_actions_addopen(&a, fd, "/dev/null", O_RDWR, 0);
	SHOW(run(&a, "exit 5"));
	posix_spawn_file_actions_destroy(&a);
	both_ways(fd);
}

CASE(spawn_gives_the_connection_away, BOTH)
{
	posix_spawn_file_actions_t a;
	posix_spawn_file_actions_init(&a);
	posix_spawn_file_actions_adddup2(&a, fd, 0);
	posix_spawn_file_actions_adddup2(&a, fd, 3);
	posix_spawn_file_actions_addclosefrom_np(&a, 4);
	SHOW(run(&a, "exit 6"));
	posix_spawn_file_actions_destroy(&a);
	both_ways(fd);
}

/* The child of vfork has its own descriptors and its parent's memory. */
CASE(vfork_child_moves_descriptors, BOTH)
{
	pid_t c = vfork();
	if (!c) {
		int null = open("/dev/null", O_RDWR);
		close(fd);
		int d = dup(null);
		if (dup2(null, d + 1) < 0) _exit(1);
		close(d);
		dup2(null, fd);
		fcntl(null, F_DUPFD, fd);
		int s = socket(AF_INET, SOCK_STREAM, 0), u = socket(AF_INET, SOCK_DGRAM, 0);
		if (s < 0 || u < 0) _exit(2);
		close_range(fd, ~0U, 0);
		_exit(9);
	}
	int status;
	waitpid(c, &status, 0);
	SHOW(WEXITSTATUS(status));
	both_ways(fd);
	int f = open("/dev/null", O_RDWR);
	SHOW(write(f, "abc", 3));
	int l = ct_listen(ct_here(1));
	PEER(ct_peer_fd = ct_connect(ct_here(1)));
	int s = accept(l, NULL, NULL);
	both_ways(s);
}

CASE(vfork_and_exec, BOTH)
{
	pid_t c = vfork();
	if (!c) {
		close(fd);
		execl("/bin/true", "true", NULL);
		_exit(1);
	}
	int status;
	waitpid(c, &status, 0);
	SHOW(status);
	both_ways(fd);
}

CASE(exec_that_fails, BOTH)
{
	SHOW(execl("/nowhere", "nowhere", NULL));
	both_ways(fd);
}

CASE(fork_and_exec, BOTH)
{
	pid_t c = fork();
	if (!c) {
		execl("/bin/sh", "sh", "-c", "exit 2", NULL);
		_exit(1);
	}
	int status;
	waitpid(c, &status, 0);
	SHOW(WEXITSTATUS(status));
	both_ways(fd);
}

CASE(fork_shares, BOTH)
{
	pid_t c = fork();
	if (!c) {
		char b;
		if (write(fd, "c", 1) != 1) _exit(1);
		if (read(fd, &b, 1) != 1) _exit(2);
		close(fd);
		_exit(0);
	}
	PEER(char b; SHOW(recv(fd, &b, 1, 0)); SHOW(send(fd, "x", 1, 0)));
	int status;
	waitpid(c, &status, 0);
	SHOW(status);
	both_ways(fd);
}

/* Children that libc's handlers do not hear of. */
CASE(raw_forks_are_harmless, BOTH)
{
	int status;
	pid_t c = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
	if (!c) {
		close(fd);
		_exit(0);
	}
	waitpid(c, &status, 0);
	SHOW(status);
	both_ways(fd);
	c = _Fork();
	if (!c) {
		close_range(fd, ~0U, 0);
		_exit(0);
	}
	waitpid(c, &status, 0);
	SHOW(status);
	both_ways(fd);
}

CASE(daemons, BOTH)
{
	fflush(stdout);
	pid_t c = fork();
	if (!c) {
		if (daemon(0, 1)) _exit(1);
		char where[8] = {0};
		int ok = getcwd(where, sizeof where) && !strcmp(where, "/") && getsid(0) == getpid();
		write(fd, ok ? "d" : "?", 1);
		_exit(0);
	}
	int status;
	waitpid(c, &status, 0);
	SHOW(status);
	PEER(char b = 0; SHOW(recv(fd, &b, 1, 0)); SHOW(b));
	both_ways(fd);
}

/* inetd style: the streams of a daemon go to /dev/null, and the connection on their numbers ends with them. */
CASE(daemon_with_streams, BOTH)
{
	fflush(stdout);
	pid_t c = fork();
	if (!c) {
		dup2(fd, 0);
		dup2(fd, 1);
		dup2(fd, 2);
		close(fd);
		if (daemon(1, 0)) _exit(1);
		struct stat st;
		printf("nobody reads this\n");
		_exit(fflush(stdout) == 0 && fstat(1, &st) == 0 && S_ISCHR(st.st_mode) ? 0 : 2);
	}
	int status;
	waitpid(c, &status, 0);
	SHOW(status);
	close(fd);
	PEER(char b; SHOW(recv(fd, &b, 1, 0)));
}
