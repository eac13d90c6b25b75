/* killed_at_birth HOST PORT CHILDREN: connects, and has children that are killed before they run a line of their own; then it
   closes, and says so. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static void die(void)
{
    kill(getpid(), SIGKILL);
}

/* Handlers in the child run in the order in which they were registered: this one is first, before any library's. */
static void first(void)
{
    pthread_atfork(NULL, NULL, die);
}

__attribute__((section(".preinit_array"), used)) static void (*const before_all)(void) = first;

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: killed_at_birth HOST PORT CHILDREN\n");
        return 2;
    }
    struct sockaddr_in there = { .sin_family = AF_INET, .sin_port = htons(atoi(argv[2])) };
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (inet_pton(AF_INET, argv[1], &there.sin_addr) != 1 || connect(fd, (struct sockaddr *)&there, sizeof there) != 0) {
        perror("connect");
        return 1;
    }
    for (int n = 0; n < atoi(argv[3]); n++) {
        int status;
        pid_t child = fork();
        if (child == 0)
            _exit(0);
        if (child < 0 || waitpid(child, &status, 0) != child || !WIFSIGNALED(status)) {
            perror("fork");
            return 1;
        }
    }
    close(fd);
    puts("closed");
    fflush(stdout);
    pause();
}
