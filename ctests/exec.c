/* A connection that goes to another program: by exec, in a child or beside it. The program is this one again, in a role. */
#include "ct.h"
#include <pthread.h>
#include <spawn.h>
#include <sys/syscall.h>

extern char **environ;

/* ---- what the other program does with its descriptor 0 ---- */

static void inspect(void)
{
	struct sockaddr_storage name;
	socklen_t len = sizeof name;
	int v = 0;
	char b[8] = {0};
	SHOW(getpeername(0, (struct sockaddr *)&name, &len));
	len = sizeof name;
	SHOW(getsockname(0, (struct sockaddr *)&name, &len));
	len = sizeof v;
	SHOW(getsockopt(0, IPPROTO_TCP, TCP_NODELAY, &v, &len));
	SHOW(v);
	len = sizeof v;
	SHOW(getsockopt(0, SOL_SOCKET, SO_KEEPALIVE, &v, &len));
	SHOW(v);
	len = sizeof v;
	SHOW(getsockopt(0, SOL_SOCKET, SO_PRIORITY, &v, &len));
	SHOW(v);
	SHOW((fcntl(0, F_GETFL) & O_NONBLOCK) != 0);
	SHOW(recv(0, b, 2, 0));
	SAY("%s", b);
	ct_show_poll(0, POLLIN | POLLOUT, 0);
	SHOW(send(0, "ok", 2, 0));
	struct stat st;
	SHOW(fstat(0, &st));
	SHOW(S_ISSOCK(st.st_mode) != 0);
}

static void echo(void)
{
	char b[4096];
	long n;
	while ((n = read(0, b, sizeof b)) > 0)
		if (write(0, b, n) != n) _exit(3);
}

static void greet(void) { write(0, "hi", 2); }
static void wait_a_little(void) { ct_nap(300); }
static void wait_and_close(void) { ct_nap(100); close(0); ct_nap(300); }
static void epolls(void)
{
	struct epoll_event e = {.events = EPOLLIN};
	int ep = epoll_create1(0);
	char b[8];
	SHOW(epoll_ctl(ep, EPOLL_CTL_ADD, 0, &e));
	SHOW(epoll_wait(ep, &e, 1, 1000));
	SHOW(read(0, b, 8));
	SHOW(write(0, "e", 1));
}
static void prints(void)
{
	char line[16] = {0};
	dup2(0, 1);
	if (!fgets(line, sizeof line, stdin)) _exit(4);
	printf("got %s", line);
	fflush(stdout);
}
static void listens(void)
{
	char b = 0;
	poll(&(struct pollfd){0, POLLIN, 0}, 1, 0); /* the first look, as in ct_listen */
	write(9, "r", 1);
	int s = accept(0, NULL, NULL);
	if (read(s, &b, 1) != 1 || write(s, "l", 1) != 1) _exit(5);
}

static const struct { const char *name; void (*play)(void); } roles[] = {
	{"inspect", inspect}, {"echo", echo}, {"greet", greet}, {"wait", wait_a_little}, {"wait_and_close", wait_and_close},
	{"epoll", epolls}, {"prints", prints}, {"listens", listens},
};

__attribute__((constructor(65535))) static void play(void)
{
	const char *role = getenv("CT_ROLE");
	for (unsigned i = 0; role && i < sizeof roles / sizeof *roles; i++)
		if (!strcmp(role, roles[i].name)) {
			roles[i].play();
			fflush(NULL);
			_exit(0);
		}
}

static char *const self = "/proc/self/exe";
static char *argv[] = {"ct", NULL};

static void become(const char *role)
{
	setenv("CT_ROLE", role, 1);
	execv(self, argv);
	_exit(99);
}

/* A child with the connection on 0. */
static pid_t begin(int fd, const char *role)
{
	fflush(stdout);
	pid_t c = fork();
	if (!c) {
		dup2(fd, 0);
		close(fd);
		become(role);
	}
	return c;
}

static void end(pid_t c)
{
	int status = -1;
	waitpid(c, &status, 0);
	SHOW(status);
}

static void both_ways(int fd)
{
	char b;
	SHOW(write(fd, "o", 1));
	PEER(char b; SHOW(recv(fd, &b, 1, 0)); SHOW(send(fd, "i", 1, 0)));
	SHOW(recv(fd, &b, 1, 0));
}

/* ---- in the child, the parent, or both ---- */

CASE(child_serves, BOTH | BOTH6)
{
	pid_t c = begin(fd, "echo");
	SHOW(close(fd));
	PEER(char b[6] = {0}; SHOW(send(fd, "hello", 5, 0)); SHOW(recv(fd, b, 5, MSG_WAITALL)); SAY("%s", b);
	     SHOW(shutdown(fd, SHUT_WR)); SHOW(recv(fd, b, 1, 0)));
	end(c);
}

CASE(child_serves_much, BOTH)
{
	pid_t c = begin(fd, "echo");
	SHOW(close(fd));
	PEER(pid_t w = fork(); if (!w) { ct_send_all(fd, 3000000); shutdown(fd, SHUT_WR); _exit(0); }
	     SHOW(ct_recv_all(fd, 3000000)); char b; SHOW(recv(fd, &b, 1, 0)); waitpid(w, NULL, 0));
	end(c);
}

CASE(it_is_the_same_socket, BOTH | BOTH6)
{
	int on = 1, priority = 4;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
	setsockopt(fd, SOL_SOCKET, SO_PRIORITY, &priority, sizeof priority);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	PEER(send(fd, "abc", 3, 0));
	SETTLE();
	end(begin(fd, "inspect"));
	char b[4] = {0};
	SHOW(read(fd, b, 4));
	SAY("%s", b);
	PEER(char b[2]; SHOW(recv(fd, b, 2, MSG_WAITALL)));
	both_ways(fd);
}

CASE(both_have_it, BOTH)
{
	end(begin(fd, "greet"));
	both_ways(fd);
	PEER(char b[2]; SHOW(recv(fd, b, 2, MSG_WAITALL)); SHOW(send(fd, "x", 1, 0)));
	SHOW(close(fd));
	PEER(char b; SHOW(recv(fd, &b, 1, 0) <= 0));
}

CASE(the_fin_comes_with_the_childs_end, BOTH)
{
	pid_t c = begin(fd, "wait");
	SHOW(close(fd));
	PEER(char b; TIMED(recv(fd, &b, 1, 0), 300));
	end(c);
}

CASE(the_fin_comes_with_the_childs_close, BOTH)
{
	pid_t c = begin(fd, "wait_and_close");
	SHOW(close(fd));
	PEER(char b; TIMED(recv(fd, &b, 1, 0), 100));
	end(c);
}

CASE(the_fin_comes_with_the_parents_close, BOTH)
{
	pid_t c = begin(fd, "wait");
	end(c);
	PEER_LATER(char b; TIMED(recv(fd, &b, 1, 0), 200));
	ct_nap(240);
	close(fd);
	PEER_WAIT();
}

CASE(close_on_exec_is_closed, BOTH)
{
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	fflush(stdout);
	pid_t c = fork();
	if (!c) {
		dup2(open("/dev/null", O_RDWR), 0);
		become("wait");
	}
	SHOW(close(fd));
	PEER(char b; SHOW(recv(fd, &b, 1, 0)));
	SHOW(waitpid(c, NULL, WNOHANG)); /* it lives still */
	end(c);
}

CASE(one_number_is_closed_and_one_is_not, BOTH)
{
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	pid_t c = begin(fd, "greet");
	end(c);
	PEER(char b[2]; SHOW(recv(fd, b, 2, MSG_WAITALL)));
	both_ways(fd);
}

CASE(killed, BOTH)
{
	pid_t c = begin(fd, "echo");
	SHOW(close(fd));
	PEER(char b[2]; SHOW(send(fd, "hi", 2, 0)); SHOW(recv(fd, b, 2, MSG_WAITALL)));
	SHOW(kill(c, SIGKILL));
	PEER(char b; SHOW(recv(fd, &b, 1, 0)));
	end(c);
}

CASE(it_becomes_a_stream, BOTH)
{
	pid_t c = begin(fd, "prints");
	PEER(char b[16] = {0}; SHOW(send(fd, "line\n", 5, 0)); SHOW(recv(fd, b, 9, MSG_WAITALL)); SAY("%s", b));
	end(c);
	both_ways(fd);
}

CASE(in_an_epoll_set, BOTH)
{
	PEER_LATER(ct_nap(100); send(fd, "x", 1, 0));
	end(begin(fd, "epoll"));
	PEER_WAIT();
	PEER(char b; SHOW(recv(fd, &b, 1, 0)));
	both_ways(fd);
}

CASE(several_times, BOTH)
{
	for (int i = 0; i < 4; i++) {
		end(begin(fd, "greet"));
		PEER(char b[2]; SHOW(recv(fd, b, 2, MSG_WAITALL)));
	}
	both_ways(fd);
}

CASE(a_shell_and_its_children, BOTH)
{
	fflush(stdout);
	pid_t c = fork();
	if (!c) {
		dup2(fd, 5);
		close(fd);
		execl("/bin/sh", "sh", "-c", "read x <&5; echo \"sh $x\" >&5; (read x; echo \"sub $x\") <&5 >&5; cat <&5 >&5", NULL);
		_exit(1);
	}
	SHOW(close(fd));
	PEER(char b[32] = {0}; SHOW(send(fd, "one\ntwo\nthree\n", 14, 0)); SHOW(shutdown(fd, SHUT_WR)); SHOW(recv(fd, b, 21, MSG_WAITALL)); SAY("%s", b);
	     SHOW(recv(fd, b, 1, 0)));
	end(c);
}

/* ---- exec itself ---- */

CASE(exec_that_fails, BOTH)
{
	SHOW(execl("/nowhere", "nowhere", NULL));
	SHOW(execv("/", argv));
	SHOW(execvp("nowhere", argv));
	SHOW(syscall(SYS_execve, "/nowhere", argv, environ));
	both_ways(fd);
	end(begin(fd, "greet"));
	PEER(char b[2]; SHOW(recv(fd, b, 2, MSG_WAITALL)));
	both_ways(fd);
}

static void form(int i, int fd)
{
	char *const self_argv[] = {"ct", NULL}, *const *envp = environ;
	switch (i) {
	case 0: execl(self, "ct", NULL); break;
	case 1: execlp(self, "ct", NULL); break;
	case 2: execle(self, "ct", "1", "2", "3", "4", "5", "6", NULL, envp); break;
	case 3: execve(self, self_argv, envp); break;
	case 4: execvp(self, self_argv); break;
	case 5: execvpe(self, self_argv, envp); break;
	case 6: fexecve(open(self, O_RDONLY), self_argv, envp); break;
	case 7: execveat(AT_FDCWD, self, self_argv, envp, 0); break;
	case 8: syscall(SYS_execve, self, self_argv, envp); break;
	case 9: syscall(SYS_execveat, AT_FDCWD, self, self_argv, envp, 0); break;
	}
	_exit(fd);
}

CASE(forms, SERVER)
{
	for (int i = 0; i < 10; i++) {
		pid_t c = fork();
		if (!c) {
			setenv("CT_ROLE", "greet", 1);
			dup2(fd, 0);
			form(i, 77);
		}
		end(c);
		PEER(char b[2]; SHOW(recv(fd, b, 2, MSG_WAITALL)));
	}
	both_ways(fd);
}

CASE(arguments_of_execl, BOTH)
{
	fflush(stdout);
	pid_t c = fork();
	if (!c) {
		dup2(fd, 1);
		execl("/bin/echo", "echo", "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", NULL);
		_exit(1);
	}
	end(c);
	PEER(char b[24] = {0}; SHOW(recv(fd, b, 20, MSG_WAITALL)); SAY("%s", b));
}

static void *read_for_ever(void *arg)
{
	char b;
	while (recv(*(int *)arg, &b, 1, 0) > 0) {}
	return NULL;
}

static void *write_for_ever(void *arg)
{
	struct pollfd p = {*(int *)arg, POLLOUT, 0};
	for (;;) poll(&p, 1, 0);
	return NULL;
}

CASE(with_threads, BOTH)
{
	fflush(stdout);
	pid_t c = fork();
	if (!c) {
		pthread_t t;
		static int sock;
		sock = fd;
		for (int i = 0; i < 3; i++) pthread_create(&t, NULL, i ? write_for_ever : read_for_ever, &sock);
		ct_nap(30);
		dup2(fd, 0);
		become("greet");
	}
	end(c);
	PEER(char b[2]; SHOW(recv(fd, b, 2, MSG_WAITALL)));
	both_ways(fd);
}

CASE(a_failing_exec_leaves_threads_alone, BOTH)
{
	pthread_t t;
	static int sock;
	sock = fd;
	pthread_create(&t, NULL, read_for_ever, &sock);
	ct_nap(30);
	for (int i = 0; i < 3; i++) SHOW(execl("/nowhere", "nowhere", NULL));
	SHOW(write(fd, "x", 1));
	PEER(char b; SHOW(recv(fd, &b, 1, 0)); send(fd, "abc", 3, 0); shutdown(fd, SHUT_WR));
	SHOW(pthread_join(t, NULL));
}

CASE(a_listener, ALONE | ALONE6)
{
	int l = ct_listen(ct_here(0)), ready[2];
	if (pipe(ready) || dup2(ready[1], 9) < 0) ct_die("pipe");
	pid_t c = begin(l, "listens");
	close(l);
	SHOW(read(ready[0], &(char){0}, 1));
	PEER(char b; int s = ct_connect(ct_here(0)); SHOW(write(s, "x", 1)); SHOW(read(s, &b, 1)); SHOW(read(s, &b, 1)));
	end(c);
}

/* ---- vfork ---- */

CASE(vfork_and_exec, BOTH)
{
	fflush(stdout);
	setenv("CT_ROLE", "greet", 1);
	pid_t c = vfork();
	if (!c) {
		dup2(fd, 0);
		execv(self, argv);
		_exit(99);
	}
	unsetenv("CT_ROLE");
	end(c);
	PEER(char b[2]; SHOW(recv(fd, b, 2, MSG_WAITALL)));
	both_ways(fd);
}

CASE(vfork_waits, BOTH)
{
	long t = ct_now_ms();
	pid_t c = vfork();
	if (!c) {
		ct_nap(200);
		_exit(3);
	}
	ct_show_time(ct_now_ms() - t, 200);
	int status;
	waitpid(c, &status, 0);
	SHOW(WEXITSTATUS(status));
	t = ct_now_ms();
	c = vfork();
	if (!c) {
		execl("/bin/sleep", "sleep", "0.3", NULL);
		_exit(1);
	}
	ct_show_time(ct_now_ms() - t, 0);
	end(c);
	both_ways(fd);
}

CASE(vfork_without_a_connection, KERNEL_ONLY | ALONE)
{
	volatile int shared = 1;
	pid_t c = vfork();
	if (!c) {
		shared = 2;
		_exit(0);
	}
	end(c);
	SHOW(shared);
}

/* ---- posix_spawn, system, popen ---- */

static void spawn(const posix_spawn_file_actions_t *actions, const char *role)
{
	pid_t c;
	fflush(stdout);
	setenv("CT_ROLE", role, 1);
	SHOW(posix_spawn(&c, self, actions, NULL, argv, environ));
	unsetenv("CT_ROLE");
	end(c);
}

CASE(spawn_with_the_connection, BOTH)
{
	posix_spawn_file_actions_t a;
	posix_spawn_file_actions_init(&a);
	posix_spawn_file_actions_adddup2(&a, fd, 0);
	posix_spawn_file_actions_addclose(&a, fd);
	spawn(&a, "greet");
	PEER(char b[2]; SHOW(recv(fd, b, 2, MSG_WAITALL)));
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	posix_spawn_file_actions_destroy(&a);
	posix_spawn_file_actions_init(&a);
	posix_spawn_file_actions_adddup2(&a, fd, 7);
	posix_spawn_file_actions_adddup2(&a, 7, 0);
	spawn(&a, "greet");
	PEER(char b[2]; SHOW(recv(fd, b, 2, MSG_WAITALL)));
	posix_spawn_file_actions_destroy(&a);
	both_ways(fd);
}

CASE(spawn_with_a_connection_that_is_close_on_exec, BOTH)
{
	posix_spawn_file_actions_t a;
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	posix_spawn_file_actions_init(&a);
	posix_spawn_file_actions_adddup2(&a, fd, 0);
	spawn(&a, "greet");
	posix_spawn_file_actions_destroy(&a);
	PEER(char b[2]; SHOW(recv(fd, b, 2, MSG_WAITALL)));
	both_ways(fd);
}

CASE(spawned_child_outlives_the_parents_descriptor, BOTH)
{
	pid_t c;
	posix_spawn_file_actions_t a;
	fflush(stdout);
	posix_spawn_file_actions_init(&a);
	posix_spawn_file_actions_adddup2(&a, fd, 0);
	posix_spawn_file_actions_addclose(&a, fd);
	setenv("CT_ROLE", "echo", 1);
	SHOW(posix_spawn(&c, self, &a, NULL, argv, environ));
	unsetenv("CT_ROLE");
	SHOW(close(fd));
	PEER(char b[2]; SHOW(send(fd, "hi", 2, 0)); SHOW(recv(fd, b, 2, MSG_WAITALL)); shutdown(fd, SHUT_WR); SHOW(recv(fd, b, 1, 0)));
	end(c);
}

CASE(spawn_that_fails, BOTH)
{
	pid_t c;
	SHOW(posix_spawn(&c, "/nowhere", NULL, NULL, argv, environ));
	SHOW(posix_spawnp(&c, "nowhere", NULL, NULL, argv, environ));
	both_ways(fd);
	SHOW(close(fd));
	PEER(char b; SHOW(recv(fd, &b, 1, 0)));
}

CASE(system_has_the_connection, BOTH)
{
	char command[64];
	snprintf(command, sizeof command, "echo hello >&%d", fd);
	SHOW(system(command));
	PEER(char b[6]; SHOW(recv(fd, b, 6, MSG_WAITALL)));
	both_ways(fd);
	SHOW(close(fd));
	PEER(char b; SHOW(recv(fd, &b, 1, 0)));
}

CASE(popen_has_the_connection, BOTH)
{
	char command[64], line[16] = {0};
	snprintf(command, sizeof command, "head -c 3 <&%d", fd);
	PEER(send(fd, "abc", 3, 0));
	FILE *f = popen(command, "r");
	SHOW(fgets(line, sizeof line, f) == line);
	SAY("%s", line);
	SHOW(pclose(f));
	both_ways(fd);
}

/* What a command left in the background has, it keeps open. */
CASE(system_leaves_something_behind, BOTH)
{
	SHOW(system("sleep 0.3 &"));
	SHOW(close(fd));
	PEER(char b; TIMED(recv(fd, &b, 1, 0), 300));
}

CASE(close_on_exec_is_not_held_by_a_command, BOTH)
{
	fcntl(fd, F_SETFD, FD_CLOEXEC);
	SHOW(system("sleep 0.3 &"));
	SHOW(close(fd));
	PEER(char b; TIMED(recv(fd, &b, 1, 0), 0));
}

/* A program that has nothing of ours: without LD_PRELOAD. It keeps the connection open, as any. */
CASE(a_stranger_holds_it, BOTH)
{
	char *const strangers[] = {"PATH=/usr/bin:/bin", NULL};
	pid_t c = fork();
	if (!c) {
		execle("/bin/sleep", "sleep", "0.3", NULL, strangers);
		_exit(1);
	}
	SHOW(close(fd));
	PEER(char b; long t = ct_now_ms(); SHOW(recv(fd, &b, 1, 0)); long took = ct_now_ms() - t; SHOW(took >= 200 && took < 900));
	end(c);
}
